"""Which URL is answered where.

Paths of the contract that people open are as they always were; what is new for people is below ``-/``,
where no queue can stand.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rqcore_web import assets, panels
from rqcore_web.pages.configure import config, save
from rqcore_web.pages.create import help_page, new_queue
from rqcore_web.pages.errors import errors, retry_group
from rqcore_web.pages.many import bulk_action, cancel, job
from rqcore_web.pages.message import message, retry
from rqcore_web.pages.overview import overview
from rqcore_web.pages.plugins import plugins
from rqcore_web.pages.queue import queue
from rqcore_web.pages.search import old_search, search
from rqcore_web.pages.send import due, new_message, run_schedule
from rqcore_web.site import Site

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(site: Site) -> list[BaseRoute]:
    """The routes, relative to the site's root."""
    return [
        *assets.routes(),
        _get("/", overview),
        _get("/errors", errors),
        _get("/plugins", plugins),
        _get("/new_queue", new_queue),
        _get("/search", old_search),
        _get("/-/search", search),
        _get("/-/help", help_page),
        _get("/-/jobs/{job}", job),
        _post("/-/jobs/{job}/cancel", cancel),
        _post("/-/errors/{name}/{key}", retry_group),
        _post("/-/q/{name}/bulk", bulk_action),
        _post("/-/q/{name}/config", save),
        _get("/-/q/{name}/due", due),
        _post("/-/q/{name}/schedule/{number:int}", run_schedule),
        _post("/-/q/{name}/{msg_id}/retry", retry),
        _get("/q/{name}", queue),
        _get("/q/{name}/config", config),
        _get("/q/{name}/new_message", new_message),
        *panels.routes(site),
        _get("/q/{name}/{msg_id:message}", message),
    ]


def _get(path: str, endpoint: Endpoint) -> Route:
    return Route(path, _live(endpoint), methods=["GET"])


def _post(path: str, endpoint: Endpoint) -> Route:
    return Route(path, endpoint, methods=["POST"])


def _live(endpoint: Endpoint) -> Endpoint:
    """Note which events the page has seen, before it is made: later ones make it stale."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        site: Site = request.app.state.site
        request.state.last_event = site.hub.last_id
        return await endpoint(request)

    return answer
