"""What the lab needs of the machine."""

from __future__ import annotations

import os
import shutil

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nsenter") is None or not os.path.exists("/dev/net/tun"),
    reason="network namespaces need root, /dev/net/tun and nsenter (Debian: util-linux)",
)
