"""Paths as RQ's clients write them: below a root, with slashes doubled, and with it or without.

The site lives under ``relative_root``.  Slashes that follow each other count as one (Nagios checks ask
for ``//q/NAME.txt``).  What is outside of the root is nobody's: 404.
"""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile(r"/{2,}")


def below(root: str, path: str) -> str | None:
    """The path as routes know it, below the root; None for what is outside of it."""
    path = _SLASHES.sub("/", path)
    return "/" + path[len(root) :] if path.startswith(root) else None


class Rooted:
    """Gives the application its requests with paths below the root."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            path = below(self._root, scope["path"])
            if path is None and below(self._root, scope["path"] + "/") == "/":
                await RedirectResponse(self._root, status_code=308)(scope, receive, send)
                return
            if path is None:
                answer = PlainTextResponse(f"not found: RQ is at {self._root}\n", 404)
                await answer(scope, receive, send)
                return
            scope = {**scope, "path": path, "root_path": ""}
        await self._app(scope, receive, send)
