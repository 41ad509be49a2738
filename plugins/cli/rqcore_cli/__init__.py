"""The `rq` command: rqcore's command line, a plugin like any other.

`main` is the way in, `plugin` what the kernel loads.  Everything here speaks to a running instance
through `rqcore.client` and may be imported by plugins that bring commands of their own: `app` (the
instance and its queues), `refs` (messages by name), `output` (tables and JSON), `exits`.
"""

from __future__ import annotations

__version__ = "0.1.0"
