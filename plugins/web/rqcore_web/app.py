"""The application: which room answers which URL, and what every request passes on its way.

`rqcore_web.security`   who is it, is it safe
`rqcore_web.paths`      the site's root, doubled slashes
`rqcore_web.api`        /api/v1
`rqcore_web.logs`       the text of logs and attachments, live
`rqcore_web.contract`   RQ's own URLs
`rqcore_web.pages`      what people see
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from rqcore.errors import RqError
from rqcore_web import logs, panels, problems
from rqcore_web.api import routes as api
from rqcore_web.contract import routes as contract
from rqcore_web.pages import failures
from rqcore_web.pages import routes as pages
from rqcore_web.paths import Rooted
from rqcore_web.security.guard import Guard
from rqcore_web.site import Site


class _Guarded(Starlette):
    """An application with the guard around everything, its own errors too."""

    def build_middleware_stack(self) -> ASGIApp:
        return Guard(super().build_middleware_stack(), self.state.site)


def make_app(site: Site) -> Starlette:
    """The application of this site."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(site.hub.run())
        try:
            yield
        finally:
            site.hub.close()
            await site.jobs.close()
            await site.shelf.close()
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            site.history.close()

    own = [*logs.routes(site), *api.routes(site), *contract.routes(site), *pages.routes(site)]
    app = _Guarded(
        lifespan=lifespan,
        routes=[*own, *panels.root_routes(site, own)],
        exception_handlers={HTTPException: failed, RqError: failed, Exception: failed},
        middleware=[Middleware(Rooted, root=site.root)],
    )
    app.state.site = site
    return app


async def failed(request: Request, error: Exception) -> Response:
    """What the asker is told when no room answered: a problem for programs, a line for others."""
    if problems.concerns(request):
        return await problems.answer(request, error)
    problem = problems.of(error) or problems.plain(500, "this failed; the log has the reason")
    status = int(problem.body("")["status"])
    if failures.wants_html(request):
        return failures.failure(request, status, problem.detail, problem.headers)
    return PlainTextResponse(f"{problem.detail}\n", status, problem.headers)
