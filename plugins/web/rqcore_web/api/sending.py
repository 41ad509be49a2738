"""Messages come in: one, many at once, and copies of former ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rqcore.errors import NotFoundError, RefusedError
from rqcore.message import parse_dest
from rqcore.trace import carried
from rqcore_web import names, problems
from rqcore_web.api import operations, schemas, views
from rqcore_web.api.checking import check
from rqcore_web.api.creating import Draft, Outcome, create
from rqcore_web.api.operations import IDEMPOTENCY_KEY, Body, Operation, one
from rqcore_web.problems import ProblemError

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore_web.api.call import Call

_RELAY = "relay"
_URL = ("http://", "https://")


async def to_queue(call: Call) -> Response:
    """Create a message in the queue that the path names."""
    fields, queue = {"dest": call.queue, **call.body}, call.queue
    if call.body.get("routed"):
        queue = names.taking(call.site, queue)
        call.need("enqueue", queue)
    return await _made(call, _draft(call, queue, fields))


async def to_destination(call: Call) -> Response:
    """Create a message where its destination says."""
    queue = await _target(call, call.body)
    call.need("enqueue", queue)
    return await _made(call, _draft(call, queue, call.body))


async def batch(call: Call) -> Response:
    """Create many; each is told by itself."""
    drafts = await asyncio.gather(*(_drafted(call, item) for item in call.body["messages"]))
    sound = [draft for draft in drafts if isinstance(draft, Draft)]
    outcomes = iter(await create(call.site.spool, sound, call.once))
    results: list[dict[str, Any]] = []
    for index, draft in enumerate(drafts):
        if isinstance(draft, Draft):
            outcome: Outcome | Exception = next(outcomes)
            _note(call, draft, outcome)
        else:
            outcome = draft
        results.append(_result(call, index, draft, outcome))
    made = sum(result["status"] < 300 for result in results)  # noqa: PLR2004 - the good ones
    return call.answer({"created": made, "failed": len(results) - made, "results": results})


async def clone(call: Call) -> Response:
    """Make a copy."""
    full_id = await call.site.spool.ask(call.queue, "clone_message", {"msg_id": call.msg_id})
    call.note("clone", call.queue, call.msg_id, f"ok: {full_id}")
    made = views.created(call.site, call.queue, str(full_id), "commit")
    return call.answer(made, 201, {"Location": made["url"]})


def _draft(call: Call, queue: str, fields: Mapping[str, Any]) -> Draft:
    kept = _kept(fields)
    if not kept.get("traceparent"):
        kept |= carried(call.request.headers)
    return Draft(queue, kept, fields.get("mode", "commit"))


def _kept(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What of it is the message's own."""
    return {
        name: value for name, value in fields.items() if name not in ("mode", "queue", "routed")
    }


async def _made(call: Call, draft: Draft) -> Response:
    once = call.once
    if once is not None and draft.mode == "single_que":
        await once.begun()
        once = None
    (outcome,) = await create(call.site.spool, [draft], once)
    _note(call, draft, outcome)
    if isinstance(outcome, Exception):
        raise outcome
    made = views.created(call.site, draft.queue, outcome, draft.mode)
    # The message that waits may be an older one: then nothing was created.
    status = 200 if draft.mode == "single_que" else 201
    return call.answer(made, status, {"Location": made["url"]})


def _note(call: Call, draft: Draft, outcome: Outcome | Exception) -> None:
    subject = "" if isinstance(outcome, Exception) else outcome.rpartition("/")[2]
    call.note(
        "prep" if draft.mode == "prep" else "create", draft.queue, subject,
        str(outcome) if isinstance(outcome, Exception) else "ok",
    )  # fmt: skip


async def _drafted(call: Call, item: Mapping[str, Any]) -> Draft | Exception:
    """One message of a batch, if it is sound and may be sent."""
    mistakes = check(schemas.ref("BatchMessage"), item)
    if not mistakes and not {"queue", "dest"} & set(item):
        mistakes = [("dest", "is missing: give it, or the queue")]
    if mistakes:
        return problems.invalid(mistakes)
    try:
        queue = item["queue"] if "queue" in item else await _target(call, item)
        call.need("enqueue", queue)
        call.site.spool.queue(queue)
    except RefusedError as error:
        return error
    return _draft(call, queue, {"dest": queue, **item})


def _result(
    call: Call, index: int, draft: Draft | Exception, outcome: Outcome | Exception
) -> dict[str, Any]:
    if isinstance(outcome, str) and isinstance(draft, Draft):
        return {
            "index": index, "status": 201,
            **views.created(call.site, draft.queue, outcome, draft.mode),
        }  # fmt: skip
    error = outcome if isinstance(outcome, Exception) else RefusedError(outcome)
    call.unsure = call.unsure or (not isinstance(error, ProblemError) and problems.unsure(error))
    problem = problems.of(error) or problems.plain(500, "the web service failed at this")
    body = problem.body(problems.asked(call.request))
    return {"index": index, "status": body["status"], "problem": body}


async def _target(call: Call, fields: Mapping[str, Any]) -> str:
    """The queue that takes a message for this destination, as ``rq sendmesg`` finds it.

    Raises `NotFoundError`, `ProblemError`.
    """
    spool, dest = call.site.spool, str(fields["dest"])
    named = await spool.manager.ask("resolve_destination", _kept(fields))
    address = parse_dest(dest)
    if named is None and address is None:
        why = f"{dest!r} is no destination; write NAME, /q/NAME or http://HOST:PORT/q/NAME"
        raise problems.invalid([("dest", why)])
    queue = str(named) if named is not None else _RELAY
    if named is None and address is not None and not address.base:
        queue = address.queue
    if not spool.exists(queue):
        if queue == _RELAY and dest.startswith(_URL):
            raise NotFoundError(
                f"nothing here carries messages to {dest}: there is no queue relay; install rqcore-relay"
            )
        raise NotFoundError(f"no such queue: {queue}")
    return queue


_CREATED = one("Created", "it was created, and is on the disk", Location=operations.LOCATION)
_WAITS = one(
    "Created", "single_que: this one waits, made now or before", Location=operations.LOCATION
)

OPERATIONS = (
    Operation(
        "createMessage", "POST", f"{operations.QUEUE}/messages", "messages",
        "Create a message in a queue", "enqueue", {201: _CREATED, 200: _WAITS}, to_queue,
        "`dest` is this queue unless told. It goes straight there, whatever routers there are, unless "
        "it is to be `routed`.",
        (IDEMPOTENCY_KEY,),
        Body(schemas.ref("NewMessage")), key="planned",
    ),
    Operation(
        "sendMessage", "POST", f"{operations.ROOT}/messages", "messages",
        "Create a message where its destination says", "enqueue",
        {201: _CREATED, 200: _WAITS}, to_destination,
        "Plugins are asked first (a router may take it); else a queue of this instance takes what it is "
        "the `dest` of, and the queue `relay` what goes to another host.",
        (IDEMPOTENCY_KEY,), Body(schemas.ref("SentMessage")), (404, 503), key="planned",
    ),
    Operation(
        "createMessages", "POST", f"{operations.ROOT}/messages:batch", "messages",
        "Create up to 1000 messages", "enqueue",
        {200: one("BatchAnswer", "what came of each, in the order in which they were sent")}, batch,
        "Each is created, or not, by itself. It goes to its `queue`, or else where `dest` says.",
        (IDEMPOTENCY_KEY,), Body(schemas.ref("Batch")), (503,), key="planned",
    ),
    Operation(
        "cloneMessage", "POST", f"{operations.MESSAGE}/clone", "messages",
        "Make a copy of a message that is done, relayed or failed", "enqueue",
        {201: one("Created", "the copy waits for its run", Location=operations.LOCATION)}, clone,
        "Attachments come along; `count` begins anew.", (IDEMPOTENCY_KEY,),
        problems=(409,), refused="conflict", key="noted",
    ),
)  # fmt: skip
