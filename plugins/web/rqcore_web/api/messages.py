"""Messages: looked at, listed, waited for, and moved along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from rqcore.errors import RefusedError
from rqcore_web import filters, runs
from rqcore_web.api import creating, operations, schemas, views, waiting
from rqcore_web.api.call import encode
from rqcore_web.api.operations import (
    CURSOR,
    IDEMPOTENCY_KEY,
    IF_NONE_MATCH,
    JSON,
    JSONL,
    LIMIT,
    Answer,
    Operation,
    one,
    query,
)
from rqcore_web.problems import invalid
from rqcore_web.spool import STATES

if TYPE_CHECKING:
    from rqcore_web.api.call import Call
    from rqcore_web.api.operations import Handler
    from rqcore_web.events import Event

_FINAL = ("done", "err", "relayed")
_PAGE = 200


async def list_messages(call: Call) -> Response:
    """The messages of a queue, newest first, a page at a time or all."""
    try:
        wanted = filters.parse(call.query["filter"])
    except RefusedError as error:
        raise invalid([("filter", str(error))]) from None
    state, cursor = call.query.get("state", ""), call.query.get("cursor", "")
    call.site.spool.queue(call.queue)
    if JSONL in call.request.headers.get("accept", "") and call.request.method == "GET":
        every = _lines(call, state, wanted, cursor)
        # Whatever goes wrong at the beginning is still told as a problem.
        first = await anext(every, b"")
        return StreamingResponse(_joined(first, every), media_type=JSONL)
    limit = call.query["limit"]
    found, following = await filters.page(call.site.spool, call.queue, state, wanted, limit, cursor)
    headers = {}
    if following is not None:
        given = dict(call.request.query_params) | {"cursor": following}
        url = f"{views.queue_url(call.site, call.queue)}/messages?{urlencode(given)}"
        headers["Link"] = f'<{url}>; rel="next"'
    items = [views.item(call.site, call.queue, item) for item in found]
    return call.answer({"items": items, "next": following}, headers=headers)


async def _lines(
    call: Call, state: str, wanted: filters.Filter, cursor: str
) -> AsyncIterator[bytes]:
    """All that fit, a page's lines at a time."""
    before: str | None = cursor
    while before is not None:
        found, before = await filters.page(
            call.site.spool, call.queue, state, wanted, _PAGE, before
        )
        yield b"".join(encode(views.item(call.site, call.queue, item)) for item in found)


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for data in rest:
        yield data


async def show(call: Call) -> Response:
    """A message, at once or when it has come to an end."""
    until = tuple(call.query.get("until") or _FINAL)

    def concerns(event: Event) -> bool:
        if event.type == "state":
            return event.queue == call.queue and event.data["msg_id"] == call.msg_id
        return event.type in ("reset", "queue") and event.queue in ("", call.queue)

    return await waiting.answer(
        call, lambda: _shown(call), concerns, lambda found: found["state"] in until
    )


async def _shown(call: Call) -> dict[str, Any]:
    args = {"msg_id": call.msg_id, "even_down": True}
    found = await call.site.spool.ask(call.queue, "get_message", args)
    past = await asyncio.to_thread(runs.read_runs, found["path"])
    return views.message(call.site, call.queue, found, past)


async def delete(call: Call) -> Response:
    """Remove a message."""
    args = {"msg_id": call.msg_id, "even_down": True}
    await call.site.spool.ask(call.queue, "delete_message", args)
    call.note("delete", call.queue, call.msg_id)
    return Response(status_code=204)


async def commit(call: Call) -> Response:
    """Bring a prepared message on its way; with a key, once."""
    args = {"msg_id": call.msg_id, "even_down": True}
    if call.once is not None and await call.once.resumed():
        state = await creating.state_of(call.site.spool, call.queue, args)
        if state != "prep":
            return _acted(call, f"msg is in {state}: it was committed before")
    detail = await call.site.spool.ask(call.queue, "commit_message", args)
    call.note("commit", call.queue, call.msg_id)
    return _acted(call, str(detail))


def _acted(call: Call, detail: str, status: int = 200) -> Response:
    acted = {"queue": call.queue, "msg_id": call.msg_id, "detail": detail}
    return call.answer(acted, status)


def _acting(action: str, command: str, status: int = 200) -> Handler:
    """A handler that asks the queue for one thing about a message."""

    async def act(call: Call) -> Response:
        args = {"msg_id": call.msg_id, "even_down": True}
        detail = await call.site.spool.ask(call.queue, command, args)
        call.note(action, call.queue, call.msg_id)
        return _acted(call, str(detail), status)

    return act


def _action(
    name: str, command: str, summary: str, description: str, status: int = 200,
    done: str = "it was done",
) -> Operation:  # fmt: skip
    return Operation(
        f"{name}Message", "POST", f"{operations.MESSAGE}/{name}", "messages", summary, "operate",
        {status: one("Acted", done)}, _acting(name, command, status), description,
        problems=(409,), refused="conflict",
    )  # fmt: skip


_STATE = query("state", schemas.one_of(STATES, "only those in this state; all, or those that the filter "
                                       "names, unless told"))  # fmt: skip
_FILTER = query("filter", {**schemas.SCHEMAS["BulkRequest"]["properties"]["filter"], "default": ""})
_UNTIL = query(
    "until",
    schemas.items(schemas.one_of(STATES), "with `Prefer: wait=N`: the states that are waited for, "
                  "`done,err,relayed` unless told", maxItems=6, minItems=1),
)  # fmt: skip
_PREFER = waiting.prefer("the message has come to an end (or is in a state of `until`)")

OPERATIONS = (
    Operation(
        "listMessages", "GET", f"{operations.QUEUE}/messages", "messages",
        "List the messages of a queue, newest first", "read",
        {200: Answer(
            "a page, or all of them, one JSON object in a line (`Accept: application/jsonl`)",
            {JSON: schemas.ref("MessageList"), JSONL: None},
            {"Link": 'where to go on: `<URL>; rel="next"`; none at the end'},
        )},
        list_messages,
        "A page may hold fewer than `limit`, even none, and not be the last: no request looks at too "
        "many messages. `next` says whether there may be more.",
        (_STATE, _FILTER, LIMIT, CURSOR),
    ),
    Operation(
        "showMessage", "GET", operations.MESSAGE, "messages",
        "Show a message, or wait for its end", "read",
        {200: one("Message", "the message", ETag="what If-None-Match takes",
                  Preference_Applied="how long was waited at most"),
         304: Answer("it is as you know it")},
        show, parameters=(_UNTIL, _PREFER, IF_NONE_MATCH),
    ),
    Operation(
        "deleteMessage", "DELETE", operations.MESSAGE, "messages",
        "Delete a message", "operate", {204: Answer("it is gone")}, delete,
        "One that runs must be killed first. A queue that is DOWN does not mind.",
        problems=(409,), refused="conflict",
    ),
    Operation(
        "commitMessage", "POST", f"{operations.MESSAGE}/commit", "messages",
        "Commit a prepared message", "enqueue", {200: one("Acted", "it was done")}, commit,
        "From `prep` to `que`. Uploads that are not complete are forgotten. Sent again with the same "
        "key, it is answered alike, also when the service died in between.",
        (IDEMPOTENCY_KEY,), problems=(409,), refused="conflict", key="planned",
    ),
    _action("run", "run_message", "Run a waiting message now",
            "It goes to the front: it starts as soon as a worker is free, whatever its `due`."),
    _action("retry", "retry_message", "Send a failed message to run again",
            "The same message, from `err` to `que`; `count` begins anew."),
    _action("kill", "destroy_message", "Kill a running message",
            "All its processes are told to end (SIGTERM), and killed when they do not; it then goes to "
            "`err`.", 202, "its processes were told to end"),
)  # fmt: skip
