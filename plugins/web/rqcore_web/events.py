"""What happens in the instance, as one stream: the hub that everybody on the site listens to.

The hub follows the manager and every queue (`rqcore.followers`), numbers what it hears, and remembers
the latest few thousand events, so that a browser that lost its connection for a moment misses nothing:
it says the last id it saw (``Last-Event-ID``) and gets what came since, or is told ``reset`` when that
is not remembered any more, and looks at everything anew.

    state    queue, msg_id, old, new, step, status, due, at   a message changed its state, durably
    status   queue, msg_id, status                     a running message said how far it is
    queue    queue, status, admin, oper, problem       a queue is another
    counts   queue, counts                             how many messages lie where; only while heard
    child    name, kind, pid, state, problem, restarts a process of the instance started or ended
    job      what the API shows of a job               one goes on, or is over (`rqcore_web.bulk`)
    upload   what the API shows of an upload, over     an attachment comes (`rqcore_web.resumable`)
    reset    queue                                     look at everything of this queue anew, or,
                                                       where there is no queue, at everything

A ``reset`` is told where something may have been missed: of a queue whenever the hub begins to follow
its process (it was restarted, or is new), of everything when the manager was lost and found again, and
to a listener that does not keep up in place of what it missed.

An ``upload`` is not remembered: it is told again soon, and a page that comes back looks anyway.

While nothing happens, nothing is asked and nothing wakes up: the manager tells when a process that was
lost runs again.  Only one that runs and does not answer is asked again, less and less often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from time import time_ns
from typing import Any
from weakref import WeakSet

from rqcore.errors import RqError
from rqcore_web.spool import Spool

_log = logging.getLogger(__name__)
#: So many events are remembered, and may wait for a listener; but no more characters of status text.
_REMEMBERED = 5000
_MAX_TEXT = 8 << 20
_COUNTS_EVERY = 0.3
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its place in the stream (``EPOCH-NUMBER``), its type, its queue, its data."""

    epoch: str
    number: int
    type: str
    queue: str
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """What ``Last-Event-ID`` names it by."""
        return f"{self.epoch}-{self.number}"


Wanted = Callable[[Event], bool]


def wanting(queue: str = "", types: Collection[str] = ()) -> Wanted:
    """Wanted are the events of one queue ("" for all) and of these types (none for all).

    A ``reset`` that concerns the queue is wanted whatever the types are.
    """

    def wanted(event: Event) -> bool:
        return (not queue or event.queue in ("", queue)) and (
            not types or event.type in types or event.type == "reset"
        )

    return wanted


class Listening:
    """The events for somebody who listens, to be iterated over; what waits for him is bounded.

    A wait for the next event may be given up (`asyncio.timeout`) and taken up again.  He listens until
    `aclose`, or until nobody has this object any more.
    """

    def __init__(
        self, wanted: Wanted, reset: Callable[[], Event], on_close: Callable[[Listening], None]
    ) -> None:
        self._wanted = wanted
        self._reset = reset
        self._on_close = on_close
        self._waiting: deque[Event] = deque()
        self._missed = False
        self._something = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> Listening:
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            if self._missed:
                self._missed = False
                return self._reset()
            if self._waiting:
                return self._waiting.popleft()
            self._something.clear()
            await self._something.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Listen no more."""
        self.end()
        self._on_close(self)

    def end(self) -> None:
        """There is no more to hear."""
        self._closed = True
        self._waiting.clear()
        self._something.set()

    def put(self, event: Event) -> None:
        """Something happened."""
        try:
            if not self._wanted(event):
                return
        except Exception:  # noqa: BLE001 - the others have still to be told
            _log.exception("a listener cannot say whether it wants %s", event)
            return
        if len(self._waiting) >= _REMEMBERED:
            self.miss()
        self._waiting.append(event)
        self._something.set()

    def miss(self) -> None:
        """He is told ``reset`` in place of what waits."""
        self._waiting.clear()
        self._missed = True
        self._something.set()


@dataclass(slots=True)
class _Followed:
    """A queue: how following it is ended, how its process is, is it heard, and its sign of life."""

    end: Callable[[], object]
    runs: bool = False
    heard: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Hub:
    """See the head of this module; `run` is a task for as long as the site is served."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._epoch = _epoch()
        self._number = 0
        self._past: deque[Event] = deque()
        self._past_text = 0
        self._listeners: WeakSet[Listening] = WeakSet()
        self._taps: list[Callable[[Event], None]] = []
        self._queues: dict[str, _Followed] = {}
        self._counting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._followed_before = False
        self._closed = False

    # Listening

    def tap(self, hear: Callable[[Event], None]) -> None:
        """Have every event told to a function, at once; for the site's own rooms (the history)."""
        self._taps.append(hear)

    @property
    def last_id(self) -> str:
        """The id of the latest event: what a page that is made now has seen."""
        return f"{self._epoch}-{self._number}"

    def listen(self, wanted: Wanted = lambda _: True, since: str = "") -> Listening:
        """The events that are wanted, from now on, or after the one with the id ``since``.

        So whoever first listens and then looks misses nothing.  A ``wanted`` of one's own has to want
        ``reset`` too; see `wanting`.
        """
        listener = Listening(wanted, lambda: self._event("reset", "", {}), self._listeners.discard)
        if self._closed:
            listener.end()
            return listener
        if since:
            self._replay(listener, since)
        self._listeners.add(listener)
        return listener

    def _replay(self, listener: Listening, since: str) -> None:
        epoch, _, digits = since.rpartition("-")
        known = epoch == self._epoch and digits.isdecimal() and len(digits) < 20  # noqa: PLR2004
        number = int(digits) if known else -1
        oldest = self._past[0].number if self._past else self._number + 1
        if not oldest - 1 <= number <= self._number:
            listener.miss()
            return
        for event in self._past:
            if event.number > number:
                listener.put(event)

    def close(self) -> None:
        """End every `listen`."""
        self._closed = True
        for listener in self._listeners:
            listener.end()
        self._listeners.clear()

    # Telling

    def _event(self, kind: str, queue: str, data: Mapping[str, Any]) -> Event:
        return Event(self._epoch, self._number, kind, queue, data)

    def tell(self, kind: str, queue: str, data: Mapping[str, Any]) -> None:
        """Something happened."""
        self._number += 1
        event = self._event(kind, queue, data)
        self._remember(event)
        for tap in self._taps:
            try:
                tap(event)
            except Exception:  # noqa: BLE001 - the listeners have still to be told
                _log.exception("a room of the site failed on %s", event)
        for listener in self._listeners:
            listener.put(event)
        if kind in ("state", "queue") and self._listeners:
            self._count_soon(queue)

    def mention(self, kind: str, queue: str, data: Mapping[str, Any]) -> None:
        """The same, of what is told again soon: who does not hear it now need not."""
        event = self._event(kind, queue, data)
        for listener in self._listeners:
            listener.put(event)

    def _remember(self, event: Event) -> None:
        self._past.append(event)
        self._past_text += _text(event)
        while len(self._past) > _REMEMBERED or self._past_text > _MAX_TEXT:
            self._past_text -= _text(self._past.popleft())

    def _begin_anew(self) -> None:
        """Nobody knows what was missed: all ids so far are forgotten."""
        self._epoch = _epoch()
        self._past.clear()
        self._past_text = 0
        for listener in self._listeners:
            listener.miss()

    def _count_soon(self, queue: str) -> None:
        if queue not in self._counting:
            self._counting.add(queue)
            self._spawn(self._count(queue))

    async def _count(self, queue: str) -> None:
        await asyncio.sleep(_COUNTS_EVERY)
        self._counting.discard(queue)
        with contextlib.suppress(RqError):  # it went away: that is told as another event
            counts = await self._spool.ask(queue, "num_messages")
            self.tell("counts", queue, {"counts": counts})

    async def _tell_condition(self, name: str) -> None:
        with contextlib.suppress(RqError):  # the manager is lost as well: told when it is found
            self.tell("queue", name, _condition(await self._spool.describe(name)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Have it done meanwhile; returns what ends it early."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task.cancel

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the hub failed", exc_info=error)

    # Following

    async def run(self) -> None:
        """Follow the manager and its queues until cancelled."""
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    await self._follow_manager()
                    pause = _FIRST_PAUSE
                except RqError as error:
                    _log.warning("the manager is not followed: %s", error)
                except Exception:  # noqa: BLE001 - a defect must not end the site's only ear
                    _log.exception("following the manager failed")
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, pause * 2)
        finally:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_manager(self) -> None:
        async with self._spool.manager.subscribe({}) as events:
            if self._followed_before:
                self._begin_anew()
            self._followed_before = True
            children = (await self._spool.manager.ask("describe"))["children"]
            running = {
                child["name"]
                for child in children
                if (child["kind"], child["state"]) == ("queue", "running")
            }
            for name in self._spool.names():
                self._found(name, runs=name in running)
                if self._queues[name].heard:  # what was told of it may have been missed just now
                    self._spawn(self._tell_condition(name))
            async for event in events:
                if event.pop("event") == "child":
                    self._child_changed(event)

    def _child_changed(self, child: Mapping[str, Any]) -> None:
        name = str(child["name"])
        if child["kind"] != "queue":
            self.tell("child", "", child)
            return
        if self._spool.exists(name):
            self._found(name, runs=child["state"] == "running")
        elif name in self._queues:
            self._queues.pop(name).end()
        self.tell("child", name, child)
        if child["state"] != "running" and self._spool.exists(name):
            self._spawn(self._tell_condition(name))

    def _found(self, name: str, *, runs: bool) -> None:
        """The manager says how a queue's process is: it is followed once it runs."""
        followed = self._queues.get(name)
        if followed is None:
            followed = _Followed(self._spawn(self._follow(name)))
            self._queues[name] = followed
        followed.runs = runs
        if runs:
            followed.wake.set()

    async def _follow(self, name: str) -> None:
        """One queue, over and over: its process may be restarted."""
        me = self._queues[name]
        pause = _FIRST_PAUSE
        while self._spool.exists(name):
            me.wake.clear()
            try:
                async with self._spool.queue(name).subscribe({}) as events:
                    pause, me.heard = _FIRST_PAUSE, True
                    self.tell("reset", name, {"queue": name})
                    await self._tell_condition(name)
                    async for event in events:
                        self.tell(event.pop("event"), name, event)
            except RqError as error:
                _log.debug("queue %s is not followed: %s", name, error)
            except Exception:  # noqa: BLE001 - a defect must not silence the queue for good
                _log.exception("following queue %s failed", name)
            me.heard = False
            # The manager says when it runs again.  One that runs has cut us off, or does not answer.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(me.wake.wait(), pause if me.runs else None)
            pause = min(_MAX_PAUSE, pause * 2)
        if self._queues.get(name) is me:
            del self._queues[name]


def _epoch() -> str:
    return f"{time_ns() // 1000:x}"


def _text(event: Event) -> int:
    return len(str(event.data.get("status", "")))


def _condition(queue: Mapping[str, Any]) -> dict[str, Any]:
    return {key: queue[key] for key in ("status", "admin", "oper", "problem")}
