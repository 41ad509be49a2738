"""The guard at the door: says who asks; `rqcore_web.access` says what he may do."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from rqcore_web.access import Who
from rqcore_web.site import Site


class Guard:
    """Every request passes here first."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["who"] = Who("anonymous")
        await self._app(scope, receive, send)
