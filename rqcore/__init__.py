"""rqcore: RQ, the queueing and messaging service, as a minimal kernel with plugins.

Plugin authors need `rqcore.hookspecs` (`hookimpl`, the result types); ARCHITECTURE.md says in which
module everything else is.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
