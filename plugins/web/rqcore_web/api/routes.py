"""Which URL of the API is answered where: every row of the table, and a problem for all the rest.

What all operations have in common is done here: the asker may (`rqcore_web.access`), the request is as
the row says (`rqcore_web.api.call`), it is done once (`rqcore_web.api.once`), and whatever goes wrong is
told as a problem (`rqcore_web.problems`).  A path that the table knows answers another method with
405 and an ``Allow``; HEAD like GET, unless it has a row of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rqcore_web import problems
from rqcore_web.access import need
from rqcore_web.api import call, once
from rqcore_web.api.keys import Keys
from rqcore_web.api.operations import Operation
from rqcore_web.api.table import OPERATIONS
from rqcore_web.site import Site

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from rqcore_web.api.call import Call


class Endpoint:
    """The operations of one path."""

    def __init__(self, site: Site, keys: Keys, operations: Mapping[str, Operation]) -> None:
        self._site = site
        self._keys = keys
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive, send)
        operation = self._operations.get(request.method)
        if operation is None and request.method == "HEAD":
            operation = self._operations.get("GET")
        try:
            # What other rooms answer is routed before: here comes only what they do not.
            if operation is None or operation.handler is None:
                raise self._not_allowed(request)
            response = await self._answer(request, operation)
        except Exception as error:  # noqa: BLE001 - a defect too is told as a problem, and logged there
            refused = operation.refused if operation is not None else "refused"
            response = await problems.answer(request, error, refused)
        await response(scope, receive, send)

    def _not_allowed(self, request: Request) -> problems.ProblemError:
        methods = {*self._operations, *({"HEAD"} if "GET" in self._operations else ())}
        allowed = ", ".join(sorted(methods))
        detail = f"{request.method} cannot be done here; what can: {allowed}"
        return problems.plain(405, detail, {"Allow": allowed})

    async def _answer(self, request: Request, operation: Operation) -> Response:
        assert operation.handler is not None
        if operation.scope:
            need(request, operation.scope, request.path_params.get("queue", ""))
        asked = await call.read(request, self._site, operation)
        if not operation.key:
            return await operation.handler(asked)
        begun = once.begin(self._keys, request, await request.body())
        if isinstance(begun, Response):
            return begun
        if begun is None:
            return await operation.handler(asked)
        asked.once = begun
        return await self._once(asked, begun)

    async def _once(self, asked: Call, begun: once.Once) -> Response:
        assert asked.operation.handler is not None
        try:
            if asked.operation.key == "noted":
                await begun.begun()
            response = await asked.operation.handler(asked)
        except BaseException as error:
            if isinstance(error, Exception) and not problems.unsure(error):
                await begun.refused()
            else:
                begun.unknown()
            raise
        if asked.unsure:
            begun.unknown()
        else:
            await begun.done(response)
        return response


class Nothing:
    """What is at every other path below ``/api``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive, send)
        what = request.app.state.site.url("api/v1/openapi.json")
        detail = f"there is nothing at {problems.asked(request)}; what there is: {what}"
        response = problems.respond(request, problems.plain(404, detail))
        await response(scope, receive, send)


def routes(site: Site) -> list[BaseRoute]:
    """The routes, relative to the site's root."""
    keys = Keys(site.var / "idempotency.jsonl")
    paths: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = operation
    found: list[BaseRoute] = [
        Route(path, Endpoint(site, keys, operations)) for path, operations in paths.items()
    ]
    return [*found, Route("/api", Nothing()), Route("/api/{rest:path}", Nothing())]
