"""Paths as RQ's clients write them: below a root, with slashes doubled, and with it or without.

The site lives under ``relative_root``.  Slashes that follow each other count as one (Nagios checks ask
for ``//q/NAME.txt``).  What is outside of the root is nobody's: 404.
"""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile(r"/{2,}")


class Rooted:
    """Gives the application its requests with paths below the root."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            path = _SLASHES.sub("/", scope["path"])
            if f"{path}/" == self._root and path:
                await RedirectResponse(self._root, status_code=308)(scope, receive, send)
                return
            if not path.startswith(self._root):
                answer = PlainTextResponse(f"not found: RQ is at {self._root}\n", 404)
                await answer(scope, receive, send)
                return
            scope = {**scope, "path": "/" + path[len(self._root) :], "root_path": ""}
        await self._app(scope, receive, send)
