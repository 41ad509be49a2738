"""What happens in the instance, as one stream: the hub that everybody on the site listens to.

The hub follows the manager and every queue (`rqcore.followers`), numbers what it hears, and remembers
the latest few thousand events, so that a browser that lost its connection for a moment misses nothing:
it says the last id it saw (``Last-Event-ID``) and gets what came since, or is told ``reset`` when that
is not remembered any more, and looks at everything anew.

    state    queue, msg_id, old, new, step, status     a message changed its state, durably
    status   queue, msg_id, status                     a running message said how far it is
    queue    queue, status, admin, oper, problem       a queue is another
    counts   queue, counts                             how many messages lie where; only while heard
    child    name, kind, pid, state, problem, restarts a process of the instance started or ended
    reset                                              look at everything anew

A listener that does not keep up is given ``reset`` in place of what it missed.  Nothing is asked and
nothing wakes up while nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from rqcore.errors import RqError, UnreachableError
from rqcore_web.spool import Spool

_log = logging.getLogger(__name__)
_REMEMBERED = 5000
_BACKLOG = 2000
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


class _Listener:
    """Somebody who listens: what waits for him, at most so much."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.waiting: deque[Event] = deque()
        self.missed = False
        self.something = asyncio.Event()

    def put(self, event: Event) -> None:
        if not self.wanted(event):
            return
        if len(self.waiting) >= _BACKLOG:
            self.waiting.clear()
            self.missed = True
        self.waiting.append(event)
        self.something.set()


class Hub:
    """See the head of this module; `run` is a task for as long as the site is served."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._epoch = f"{int(time() * 1000):x}"
        self._number = 0
        self._past: deque[Event] = deque(maxlen=_REMEMBERED)
        self._listeners: set[_Listener] = set()
        self._taps: list[Callable[[Event], None]] = []
        self._queues: dict[str, asyncio.Task[None]] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._counting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # Listening

    def tap(self, hear: Callable[[Event], None]) -> None:
        """Have every event told to a function, at once; for the site's own rooms (the history)."""
        self._taps.append(hear)

    @property
    def last_id(self) -> str:
        """The id of the latest event: what a page that is made now has seen."""
        return f"{self._epoch}-{self._number}"

    async def listen(
        self, wanted: Wanted = lambda _: True, since: str = ""
    ) -> AsyncIterator[Event]:
        """The events that are wanted, from now on or after the one with the id ``since``."""
        listener = _Listener(wanted)
        if since and not self._replay(listener, since):
            listener.missed = True
            listener.something.set()
        self._listeners.add(listener)
        try:
            while not self._closed:
                await listener.something.wait()
                listener.something.clear()
                if listener.missed:
                    listener.missed = False
                    yield self._event("reset", "", {})
                while listener.waiting:
                    yield listener.waiting.popleft()
        finally:
            self._listeners.discard(listener)

    def _replay(self, listener: _Listener, since: str) -> bool:
        epoch, _, number = since.rpartition("-")
        if epoch != self._epoch or not number.isdecimal() or int(number) > self._number:
            return False
        if self._past and int(number) < self._past[0].number - 1:
            return False
        for event in self._past:
            if event.number > int(number):
                listener.put(event)
        return True

    def close(self) -> None:
        """End every `listen`."""
        self._closed = True
        for listener in self._listeners:
            listener.something.set()

    # Telling

    def _event(self, kind: str, queue: str, data: Mapping[str, Any]) -> Event:
        return Event(self._epoch, self._number, kind, queue, data)

    def tell(self, kind: str, queue: str, data: Mapping[str, Any]) -> None:
        """Something happened."""
        self._number += 1
        event = self._event(kind, queue, data)
        self._past.append(event)
        for tap in self._taps:
            try:
                tap(event)
            except Exception:  # noqa: BLE001 - the listeners have still to be told
                _log.exception("a room of the site failed on an event")
        for listener in self._listeners:
            listener.put(event)
        if kind in ("state", "queue") and self._listeners:
            self._count_soon(queue)

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

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Following

    async def run(self) -> None:
        """Follow the manager and its queues until cancelled."""
        try:
            pause = _FIRST_PAUSE
            while True:
                with contextlib.suppress(UnreachableError):
                    await self._follow_manager()
                    pause = _FIRST_PAUSE
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, pause * 2)
        finally:
            for task in (*self._queues.values(), *self._tasks):
                task.cancel()

    async def _follow_manager(self) -> None:
        async with self._spool.manager.subscribe({}) as events:
            for name in self._spool.names():
                self._ensure(name)
            async for event in events:
                kind = event.pop("event")
                if kind != "child":
                    continue
                if event["kind"] == "queue":
                    self._child_changed(event)
                self.tell("child", event["name"] if event["kind"] == "queue" else "", event)

    def _child_changed(self, child: Mapping[str, Any]) -> None:
        name = str(child["name"])
        if child["state"] == "running":
            self._ensure(name)
            self._wake[name].set()
        elif not self._spool.exists(name) and name in self._queues:
            self._queues.pop(name).cancel()

    def _ensure(self, name: str) -> None:
        if name not in self._queues:
            self._wake[name] = asyncio.Event()
            self._queues[name] = asyncio.get_running_loop().create_task(self._follow(name))

    async def _follow(self, name: str) -> None:
        """One queue, over and over: its process may be restarted."""
        while self._spool.exists(name):
            self._wake[name].clear()
            with contextlib.suppress(RqError):
                async with self._spool.queue(name).subscribe({}) as events:
                    self.tell("queue", name, _condition(await self._spool.describe(name)))
                    async for event in events:
                        self.tell(event.pop("event"), name, event)
            if not self._spool.exists(name):
                break
            # The manager tells when it runs again; what was told before we listened is caught here.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake[name].wait(), _MAX_PAUSE)
        self._queues.pop(name, None)


def _condition(queue: Mapping[str, Any]) -> dict[str, Any]:
    return {key: queue[key] for key in ("status", "admin", "oper", "problem")}
