"""Queues: listed, shown, made, removed, and the states that operators put them into."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from rqcore.errors import RefusedError
from rqcore_web.api import operations, schemas, views
from rqcore_web.api.operations import IDEMPOTENCY_KEY, Answer, Body, Operation, one
from rqcore_web.api.queueconfig import checked
from rqcore_web.problems import ProblemError

if TYPE_CHECKING:
    from rqcore_web.api.call import Call
    from rqcore_web.api.operations import Handler


async def list_queues(call: Call) -> Response:
    """All queues that the asker may know of."""
    spool = call.site.spool
    names = [name for name in spool.names() if call.sees(name)]
    described = await asyncio.gather(*map(spool.describe, names))
    return call.answer({"items": [views.queue(call.site, one) for one in described]})


async def show(call: Call) -> Response:
    """A queue."""
    return call.answer(views.queue(call.site, await call.site.spool.describe(call.queue)))


async def create(call: Call) -> Response:
    """Make a queue."""
    _allowed(call)
    name = str(call.body["name"])
    call.need("admin", name)
    checked(call.body, name)
    try:
        await call.site.spool.manager.ask("create_queue", call.body)
    except RefusedError as error:
        call.note("create queue", name, outcome=str(error))
        if str(error) == "already created":
            raise ProblemError("conflict", f"there is a queue {name} already") from error
        raise
    call.note("create queue", name)
    described = views.queue(call.site, await call.site.spool.describe(name))
    return call.answer(described, 201, {"Location": described["url"]})


async def delete(call: Call) -> Response:
    """Remove a queue."""
    _allowed(call)
    call.site.spool.queue(call.queue)
    await call.site.spool.manager.ask("delete_queue", call.queue)
    call.note("delete queue", call.queue)
    return Response(status_code=204)


def _allowed(call: Call) -> None:
    if not call.site.settings.allow_new_queue:
        raise ProblemError(
            "creation-off",
            f'set "allow_new_queue": true in {call.site.instance.config_file} and restart RQ, or use '
            "the command line: rq queue create, rq queue delete",
        )


def _ordering(action: str) -> Handler:
    """A handler that has the manager change the state of a queue."""

    async def order(call: Call) -> Response:
        call.site.spool.queue(call.queue)
        await call.site.spool.manager.ask(f"{action}_queue", call.queue)
        call.note(action, call.queue)
        # The files are the truth; the queue's own process sees them in a moment.
        admin = call.site.instance.admin_state(call.queue)
        return call.answer({"name": call.queue, "admin": admin})

    return order


def _order(action: str, summary: str, description: str = "") -> Operation:
    return Operation(
        f"{action}Queue", "POST", f"{operations.QUEUE}/{action}", "queues", summary, "operate",
        {200: one("AdminState", "what its operator wants of it now")}, _ordering(action), description,
        problems=(409,), refused="conflict",
    )  # fmt: skip


OPERATIONS = (
    Operation(
        "listQueues", "GET", f"{operations.ROOT}/queues", "queues", "List the queues", "read",
        {200: one("QueueList", "all that you may know of")}, list_queues,
    ),
    Operation(
        "createQueue", "POST", f"{operations.ROOT}/queues", "queues", "Make a queue", "admin",
        {201: one("Queue", "it was made, and runs", Location=operations.LOCATION)}, create,
        "Only where the main config has `allow_new_queue`.", (IDEMPOTENCY_KEY,),
        Body(schemas.ref("QueueConfig")), (409, 503), key="noted",
    ),
    Operation(
        "showQueue", "GET", operations.QUEUE, "queues", "Show a queue", "read",
        {200: one("Queue", "the queue; one that does not answer is shown as far as it is known")}, show,
    ),
    Operation(
        "deleteQueue", "DELETE", operations.QUEUE, "queues", "Remove a queue", "admin",
        {204: Answer("it is gone")}, delete,
        "What runs is ended. Its directory stays, as `NAME.deleted.INODE`. Only where the main config "
        "has `allow_new_queue`.",
        problems=(409,), refused="conflict",
    ),
    _order("up", "Take a queue up", "Undoes `down`."),
    _order("down", "Take a queue down", "It refuses messages and starts none."),
    _order("pause", "Pause a queue", "It takes messages and starts none."),
    _order("resume", "Let a paused queue go on", "Undoes `pause`."),
    _order("restart", "Restart a queue's process", "Answered when it runs again; what runs is "
           "waited for as at a stop, and then ended and run again."),
)  # fmt: skip
