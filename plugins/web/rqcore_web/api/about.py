"""About the instance: who is there, what is planned, how plugins fare."""

from __future__ import annotations

import asyncio
from time import time
from typing import TYPE_CHECKING, Any

from rqcore.errors import RqError
from rqcore_web import access
from rqcore_web.api import operations
from rqcore_web.api.operations import Operation, one

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore_web.api.call import Call


async def show(call: Call) -> Response:
    """The instance and its processes."""
    found = await call.site.spool.manager.ask("describe")
    who = access.who(call.request)
    return call.answer({
        **{key: found[key] for key in ("version", "env", "base_url", "uptime")},
        "time": time(), "who": who.name, "scope": who.scope,
        "processes": [
            child for child in found["children"] if child["kind"] != "queue" or call.sees(child["name"])
        ],
    })  # fmt: skip


async def plugins(call: Call) -> Response:
    """How the plugins fare in each process."""
    spool = call.site.spool
    names = [name for name in spool.names() if call.sees(name)]
    reports = await asyncio.gather(*(_report(call, name) for name in names))
    return call.answer({
        "manager": await spool.manager.ask("plugins"),
        "web": call.site.hooks.report(),
        "queues": {name: found for name, found in zip(names, reports, strict=True) if found is not None},
    })  # fmt: skip


async def _report(call: Call, name: str) -> Any:
    try:
        return await call.site.spool.ask(name, "plugins")
    except RqError:  # it does not answer: then nothing is known of it
        return None


OPERATIONS = (
    Operation(
        "showInstance", "GET", operations.ROOT, "instance",
        "Show the instance and its processes", "read",
        {200: one("Instance", "the instance, and who you are")}, show, problems=(503,),
    ),
    Operation(
        "showPlugins", "GET", f"{operations.ROOT}/plugins", "instance", "Show how plugins fare", "read",
        {200: one("Plugins", "calls, errors and time of each hook, by process")}, plugins,
        problems=(503,),
    ),
)  # fmt: skip
