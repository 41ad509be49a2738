"""Finding the messages of a queue that a filter means, a page at a time, without looking at all.

The queue is asked for its messages state by state, newest first (``list_messages``); what the filter
says of texts and ages keeps it from looking at what cannot fit.  Pages are told apart by message ids
alone, so that a page stays where it is while messages come and go.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any

from rqcore_web.spool import STATES, Spool

if TYPE_CHECKING:
    from rqcore_web.filters import Filter

#: One call of `page` looks at so many messages, found or not: about half a second.
_LOOKED_AT = 5000
#: No id sorts after it.
_TOP = "~"


@dataclass(slots=True)
class _Stream:
    """The messages of one state that fit, newest first, as far as they were asked for."""

    state: str
    before: str
    found: list[dict[str, Any]]
    ended: bool = False

    @property
    def head(self) -> str:
        """No message of it that is still to come has a greater id."""
        return self.found[0]["msg_id"] if self.found else "" if self.ended else self.before or _TOP


class _Search:
    """One search in a queue: the states are looked through side by side."""

    def __init__(self, spool: Spool, queue: str, wanted: Filter) -> None:
        self._spool = spool
        self._queue = queue
        self._wanted = wanted
        self._now = time()
        self.looked_at = 0

    def streams(self, states: tuple[str, ...], before: str) -> list[_Stream]:
        newest, self._oldest = self._wanted.window(self._now)
        begin = min(filter(None, (before, newest)), default="")
        return [_Stream(state, begin, []) for state in states]

    async def refill(self, stream: _Stream, limit: int) -> None:
        text = self._wanted.literal
        limit = 500 if self._wanted.terms else min(limit, 500)
        asked = {"state": stream.state, "limit": limit, "before": stream.before, "text": text}
        answer = await self._spool.ask(self._queue, "list_messages", asked)
        items, following = answer["items"], answer["next"]
        self.looked_at += limit if text else len(items)
        stream.ended = not following or following < self._oldest or (
            not text and len(items) < limit
        )  # fmt: skip
        stream.before = following or stream.before
        stream.found = [item for item in items if self._wanted.matches(item, self._now)]


async def page(
    spool: Spool, queue: str, state: str, wanted: Filter, limit: int, before: str = ""
) -> tuple[list[dict[str, Any]], str | None]:
    """Messages of a queue that fit, newest first, and where to go on (``before``); None at the end.

    ``state`` is one state, or "" for those that the filter names, or all.  At most ``limit`` are
    given, and fewer, even none, when many had to be looked at in vain: no call takes long.  Raises
    what `Spool.ask` does.
    """
    states = (state,) if state else wanted.states or STATES
    if wanted.states is not None:
        states = tuple(one for one in states if one in wanted.states)
    search = _Search(spool, queue, wanted)
    streams = search.streams(states, before)
    found: list[dict[str, Any]] = []
    while streams:
        stream = max(streams, key=lambda one: one.head)
        if not stream.head:
            return found, None
        if not stream.found:
            if search.looked_at >= _LOOKED_AT:
                return found, stream.head
            # One more than is wanted: whether there are more is known then.
            await search.refill(stream, limit - len(found) + 1)
        elif len(found) == limit:
            return found, found[-1]["msg_id"]
        elif found and found[-1]["msg_id"] == stream.head:
            stream.found.pop(0)  # it changed its state while we looked
        else:
            found.append(stream.found.pop(0))
    return found, None
