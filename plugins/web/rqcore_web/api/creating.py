"""Making messages, one or a thousand: at once, or in the two steps that an Idempotency-Key takes.

See `rqcore_web.api.once` for why there are two.  Each message is asked for by itself, side by side with
the others: what a queue gets together it brings to the disk together.

A message that stays in ``prep`` has its id before it is made: the id is reserved, written down, and then
the message is prepared under it.  So whatever dies in between, the request, sent again, finds the one
message or makes it.  (One that is committed at once is prepared before its id is written down: else
nobody could tell whether one that is not there was never made, or is through with everything.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rqcore.errors import NotFoundError, RqError
from rqcore_web.problems import ProblemError, unsure
from rqcore_web.spool import CREATING, Spool

if TYPE_CHECKING:
    from rqcore_web.api.once import Once


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to be made: its queue, its fields, and how (``commit``, ``prep``, ``single_que``)."""

    queue: str
    fields: dict[str, Any]
    mode: str = "commit"


#: What came of a draft: a full id, or what was refused.
Outcome = str | RqError | ProblemError


async def create(spool: Spool, drafts: Sequence[Draft], once: Once | None = None) -> list[Outcome]:
    """Make them; what came of each, in order.  Raises `ProblemError` when the plan cannot be kept."""
    if once is None:
        return list(await asyncio.gather(*(_told(_ask(spool, draft)) for draft in drafts)))
    former = once.planned
    reserved = await _reserve(spool, drafts, once)
    outcomes: list[Outcome] = list(
        await asyncio.gather(*(
            _told(_prepare(spool, draft, reserved.get(str(part)) or former.get(str(part))))
            for part, draft in enumerate(drafts)
        ))
    )  # fmt: skip
    prepared = {
        str(part): outcome
        for part, outcome in enumerate(outcomes)
        if isinstance(outcome, str) and str(part) not in former and str(part) not in reserved
    }
    try:
        if prepared:
            await once.plan(prepared)
    except ProblemError:
        await asyncio.gather(*(
            _remove(spool, drafts[int(part)].queue, full_id) for part, full_id in prepared.items()
        ))  # fmt: skip
        raise
    return list(
        await asyncio.gather(*(
            _told(_commit(spool, draft, outcome, resumed=str(part) in former))
            for part, (draft, outcome) in enumerate(zip(drafts, outcomes, strict=True))
        ))
    )  # fmt: skip


async def _told(work: Any) -> Outcome:
    try:
        return str(await work)
    except (RqError, ProblemError) as error:
        return error


async def _ask(spool: Spool, draft: Draft) -> Any:
    return await spool.ask(draft.queue, CREATING[draft.mode], draft.fields)


async def _reserve(spool: Spool, drafts: Sequence[Draft], once: Once) -> dict[str, str]:
    """The ids of those that stay in ``prep``, written down.  One that is refused is refused again."""
    parts = [str(part) for part, draft in enumerate(drafts) if draft.mode == "prep"]
    known = {part: once.planned[part] for part in parts if part in once.planned}
    asked = [part for part in parts if part not in known]
    given = await asyncio.gather(*(
        _told(spool.ask(drafts[int(part)].queue, "reserve_id")) for part in asked
    ))  # fmt: skip
    fresh = {
        part: full_id
        for part, full_id in zip(asked, given, strict=True)
        if isinstance(full_id, str)
    }
    if fresh:
        await once.plan(fresh)
    return known | fresh


async def _prepare(spool: Spool, draft: Draft, known: str | None) -> Any:
    if draft.mode == "prep" and known is not None:
        args = {"reserved_id": known, "fields": draft.fields}
        return await spool.ask(draft.queue, "prep_reserved", args)
    return known or await spool.ask(draft.queue, CREATING["prep"], draft.fields)


async def _commit(spool: Spool, draft: Draft, outcome: Outcome, *, resumed: bool) -> str:
    """Bring a prepared message on its way, if it is not."""
    if isinstance(outcome, Exception):
        raise outcome
    if draft.mode == "prep":
        return outcome
    args = {"msg_id": outcome, "even_down": True}
    if resumed:
        state = await state_of(spool, draft.queue, args)
        if state != "prep":
            return outcome
    try:
        await spool.ask(draft.queue, "commit_message", args)
    except RqError as error:
        if not unsure(error):
            await _remove(spool, draft.queue, outcome)
        raise
    return outcome


async def state_of(spool: Spool, queue: str, args: dict[str, Any]) -> str:
    """The state of a message that a former try knew of.  Raises `ProblemError` when it is gone."""
    try:
        return str(await spool.ask(queue, "get_message_state", args))
    except NotFoundError as error:
        raise ProblemError(
            "key-outcome-unknown",
            f"message {args['msg_id']}, which the first request with this key was about, is not there "
            "any more: it was deleted, or it ran and was cleaned away; send it with a new key if it is "
            "wanted again",
        ) from error


async def _remove(spool: Spool, queue: str, full_id: str) -> None:
    """Leave nothing in ``prep`` of what came to nothing; what stays there runs never."""
    await _told(spool.ask(queue, "delete_message", {"msg_id": full_id, "even_down": True}))
