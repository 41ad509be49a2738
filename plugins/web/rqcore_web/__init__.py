"""The web interface of rqcore: RQ's own URLs, ``/api/v1``, and pages, as a service of the manager.

`plugin` is what the kernel loads, and light: every process of an instance loads it.  All else is
imported by the service's own process (`serve`).  Other plugins add to the site through the hooks in
`rqcore_web.hookspecs`.
"""

from __future__ import annotations

__version__ = "0.1.0"
