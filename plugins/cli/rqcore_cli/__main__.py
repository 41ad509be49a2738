"""``python -m rqcore_cli``: the same as ``rq``, where another program has that name."""

from __future__ import annotations

import sys

from rqcore_cli.main import main

sys.exit(main())
