"""What happens, as it happens: one stream of server-sent events (`rqcore_web.events`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqcore_web import access, sse
from rqcore_web.api import operations, schemas
from rqcore_web.api.operations import EVENTS, Answer, Operation, header, query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.responses import Response

    from rqcore_web.api.call import Call
    from rqcore_web.events import Event

#: What may be asked for; ``reset`` comes in any case.
TYPES = ("state", "status", "queue", "counts", "child", "job", "upload")


async def follow(call: Call) -> Response:
    """The events that are asked for, from now on or since the last one that was seen."""
    queues, types = frozenset(call.query.get("queue", ())), frozenset(call.query.get("types", ()))
    for queue in queues:
        call.need("read", queue)
        call.site.spool.queue(queue)
    who = access.who(call.request)

    def wanted(event: Event) -> bool:
        if event.queue and not (event.queue in queues if queues else who.sees(event.queue)):
            return False
        return event.type == "reset" or not types or event.type in types

    hub = call.site.hub
    since = call.request.headers.get("last-event-id", "")
    # Whoever loses the connection before anything happened shall know where to go on too.
    seen = hub.last_id
    events = hub.listen(wanted, since or seen)

    async def said() -> AsyncIterator[sse.Said]:
        try:
            if not since:
                yield seen, "", ""
            async for event in events:
                yield event.id, event.type, {"queue": event.queue, **event.data}
        finally:
            await events.aclose()

    return sse.response(call.request, said())


OPERATIONS = (
    Operation(
        "followEvents", "GET", f"{operations.ROOT}/events", "events", "Follow what happens", "read",
        {200: Answer(
            "server-sent events, without end; a comment every 15 seconds when nothing happens",
            {EVENTS: None},
        )},
        follow,
        "`state` (a message changed its state: msg_id, old, new, step, status) · `status` (a running "
        "one says how far it is) · `queue` (status, admin, oper, problem) · `counts` · `child` (a "
        "process of RQ started or ended) · `job` (a bulk job goes on) · `upload` (an attachment comes: "
        "id, msg_id, name, offset, length, complete, over) · `reset` (something may have "
        "been missed: look at everything anew; of one queue where it names one). With the id of the "
        "last event that was seen in `Last-Event-ID`, as browsers send it by themselves, nothing is "
        "missed, or `reset` says so.",
        (
            query("queue", schemas.items(schemas.text(), "only of these queues (`a,b`)", minItems=0,
                                         maxItems=100)),
            query("types", schemas.items(schemas.one_of(TYPES), "only of these types (`state,status`)",
                                         minItems=0, maxItems=len(TYPES))),
            header("Last-Event-ID", "the id of the last event that was seen"),
        ),
        problems=(404,),
    ),
)  # fmt: skip
