"""A log of JSON lines that others may rotate: the audit log and the access log are such.

Each line is one ``write`` to a file opened for append, so that lines of several processes do not mix.
When somebody has moved the file away, or removed it (logrotate, without ``copytruncate``), the next
line begins a new one; nobody has to be told.  Only the owner may read it (0600).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rqcore import durable


class LineLog:
    """See the head of this module."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._fd = -1
        self._opened: tuple[int, int] | None = None

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line.  Raises `OSError`; what was written of the line then is ended."""
        fd = self._descriptor()
        data = json.dumps(line).encode("ascii") + b"\n"
        written = os.write(fd, data)
        if written < len(data):
            os.write(fd, b"\n")
            raise OSError(28, "No space left on device", str(self.file))

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._opened = None

    def _descriptor(self) -> int:
        try:
            found = os.stat(self.file)
            there = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            there = None
        if there is None or there != self._opened:
            self.close()
            self._fd = durable.append_log(self.file, mode=0o600)
            found = os.fstat(self._fd)
            self._opened = (found.st_dev, found.st_ino)
        return self._fd


def timestamp() -> str:
    """Now, in UTC, with milliseconds: ``2026-03-01T08:00:00.123Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
