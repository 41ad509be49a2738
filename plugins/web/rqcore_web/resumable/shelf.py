"""The uploads of an instance that are on their way, each for one attachment of one prepared message.

    shelf.load()                                   # once, before anything is served
    partial = await shelf.create(queue, msg_id, name, length, sha256, who)
    partial = shelf.get(uid)

An upload is forgotten, with all that has come of it, when

* its client cancels it, or another one for the same name of the same message begins;
* its message leaves ``prep``: it was committed or deleted, so nothing can be attached any more;
* it was not touched for a day (`MAX_AGE`);
* its room is needed by another one (`make_room`): the one that was not touched for longest goes first,
  and none that a client is at work with.

One that is complete stays known for as long, so that who did not hear so finds out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from time import time
from typing import TYPE_CHECKING, Any

from rqcore.errors import NotFoundError, RqError
from rqcore_web.flow import in_thread
from rqcore_web.problems import ProblemError
from rqcore_web.resumable.partial import Partial
from rqcore_web.resumable.record import Record, Records, boot_id
from rqcore_web.space import Space

if TYPE_CHECKING:
    from rqcore_web.events import Event
    from rqcore_web.site import Site

_log = logging.getLogger(__name__)
MAX_AGE = 24 * 3600
#: So many uploads are known at a time.
MOST = 10_000
_SWEEP = 3600.0


class Shelf:
    """See the head of this module."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._records = Records(site)
        self._known: dict[str, Partial] = {}
        self._by_message: dict[tuple[str, str], list[Partial]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        site.hub.tap(self._hear)

    def load(self) -> None:
        """Know again what a former service knew; none may be running."""
        for record, size, touched in self._records.load():
            partial = Partial(self._site, self._records, record, size)
            partial.touched = touched
            self._add(partial)

    async def close(self) -> None:
        """The service ends."""
        if self._timer is not None:
            self._timer.cancel()
        for partial in self._known.values():
            partial.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def get(self, uid: str) -> Partial:
        """The upload of this id.  Raises `NotFoundError`."""
        found = self._known.get(uid)
        if found is None:
            raise NotFoundError(
                f"no such upload: {uid}; it was cancelled or replaced, its message was committed or "
                "deleted, or it lay untouched for too long: begin anew"
            )
        return found

    def all(self) -> list[Partial]:
        """Every upload that is known, the oldest first."""
        return sorted(self._known.values(), key=lambda partial: partial.record.created)

    async def create(
        self, queue: str, msg_id: str, name: str, length: int | None, sha256: str, who: str
    ) -> Partial:
        """A new upload, in place of one for the same name.  Raises `BodyError`, `ProblemError`."""
        await self.replace(queue, msg_id, name)
        self._refuse_too_many()
        record = Record(
            secrets.token_hex(16), queue, msg_id, name, length, sha256, who, time(), boot_id()
        )
        partial = Partial(self._site, self._records, record, 0)
        if length is not None:
            await self.make_room(length)
            partial.promise(length)
        try:
            await in_thread(Space(self._site).explaining, partial.make)
        except BaseException:
            await partial.end(NotFoundError("it was never made"))
            raise
        await self.replace(queue, msg_id, name)  # one that was begun meanwhile
        self._add(partial)
        self._sweep_later()
        partial.tell()
        return partial

    async def replace(self, queue: str, msg_id: str, name: str) -> None:
        """Something else takes the place of an upload for this attachment, if there is one."""
        while former := [one for one in self.of(queue, msg_id) if one.record.name == name]:
            await self.drop(former[0], "another upload of the same attachment took its place")

    def _refuse_too_many(self) -> None:
        if len(self._known) >= MOST:
            raise ProblemError(
                "too-many-uploads",
                f"{MOST} uploads are under way already; come back when some are over, or cancel those "
                "that nobody goes on with",
                headers={"Retry-After": "60"},
            )

    async def drop(self, partial: Partial, why: str) -> None:
        """Forget an upload, with all that has come of it."""
        self._remove(partial)
        await partial.end(NotFoundError(f"this upload is over: {why}"))

    def drop_soon(self, partial: Partial, why: str) -> None:
        """The same, once whoever works on it now is done."""
        self._remove(partial)
        self._spawn(self.drop(partial, why))

    def of(self, queue: str, msg_id: str) -> list[Partial]:
        """The uploads of a message, the oldest first."""
        return list(self._by_message.get((queue, msg_id), ()))

    def _add(self, partial: Partial) -> None:
        record = partial.record
        self._known[record.uid] = partial
        self._by_message.setdefault((record.queue, record.msg_id), []).append(partial)

    def _remove(self, partial: Partial) -> None:
        record = partial.record
        if self._known.pop(record.uid, None) is not None:
            rest = self._by_message[record.queue, record.msg_id]
            rest.remove(partial)
            if not rest:
                del self._by_message[record.queue, record.msg_id]

    # Room

    async def make_room(self, size: int) -> None:
        """Give up what nobody works on, if an upload of this size can be had for it."""
        missing = Space(self._site).missing(size)
        if missing <= 0:
            return
        idle = [one for one in self.all() if one.offset and not (one.busy or one.complete)]
        if sum(one.offset for one in idle) < missing:
            return
        for partial in sorted(idle, key=lambda one: one.touched):
            if missing > 0:
                missing -= partial.offset
                await self.drop(partial, "its room was needed, and nobody had gone on with it")

    # Sweeping

    def _hear(self, event: Event) -> None:
        """A message that left ``prep`` takes nothing any more."""
        if not self._known:
            return
        self._sweep_later()
        if event.type == "state" and event.data["new"] != "prep":
            for partial in self.of(event.queue, event.data["msg_id"]):
                self._spawn(self.drop(partial, _left(event.data["new"])))
        elif event.type == "reset":
            self._spawn(self.sweep(event.queue))

    async def sweep(self, queue: str = "") -> None:
        """Forget what is too old, or has lost its message; of one queue, or of all."""
        for partial in self.all():
            record = partial.record
            if queue not in ("", record.queue) or partial.record.uid not in self._known:
                continue
            if not partial.busy and partial.touched < time() - MAX_AGE:
                await self.drop(partial, "it lay untouched for a day")
                continue
            state = await self._state(record.queue, record.msg_id)
            if state not in ("prep", "unknown"):
                await self.drop(partial, _left(state))

    async def _state(self, queue: str, msg_id: str) -> str:
        args = {"msg_id": msg_id, "even_down": True}
        try:
            return str(await self._site.spool.ask(queue, "get_message_state", args))
        except NotFoundError:
            return ""
        except RqError:  # nobody knows
            return "unknown"

    def _sweep_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP, self._sweep_now)

    def _sweep_now(self) -> None:
        self._timer = None
        if self._known:
            self._spawn(self.sweep())
            self._sweep_later()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("an upload could not be forgotten", exc_info=task.exception())


def _left(state: str) -> str:
    if state:
        return f"its message is in {state}; only one in prep takes attachments"
    return "its message is not there any more"
