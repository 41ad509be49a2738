"""The form for a new queue; and help: what keys and filters there are."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from rqcore_web.access import need
from rqcore_web.filters import FIELDS
from rqcore_web.render import page
from rqcore_web.site import Site


async def new_queue(request: Request) -> Response:
    """``GET /new_queue``: 403 unless it is allowed, with how it would be."""
    site: Site = request.app.state.site
    need(request, "read")
    if not site.settings.allow_new_queue:
        return page(request, "new_queue.html", 403, allowed=False)
    need(request, "admin")
    return page(request, "new_queue.html", allowed=True)


async def help_page(request: Request) -> Response:
    """``GET /-/help``."""
    need(request, "read")
    return page(request, "help.html", filter_fields=FIELDS)
