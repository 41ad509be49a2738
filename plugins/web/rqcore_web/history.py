"""What each queue did, minute by minute: the site's own memory, for weeks, within a fixed size.

The hub's events are counted as they are told.  For each queue one file, ``var/web/history/NAME``
(`rqcore_web.ringfile`), remembers minutes for two days, ten minutes for ``history_days``, and hours for
a year, each with

    created   came in: created, committed, or moved in by hand
    started   runs that began
    done, err, relayed    where messages ended
    resent    went back to wait, by a resend or a retry
    wait      from when a message could have begun until it did (`rqcore_web.spread`)
    run       from a run's begin to its end

What was counted is written some seconds after the first event, and when the site stops; nothing wakes
up while nothing happens.  A site that is killed loses those seconds.  A disk that is full is told once,
and written to again as soon as it can be; so much is kept meanwhile, and no more.

``var/web/watched`` remembers when the site was there to count (`rqcore_web.watched`).  A time that
nobody watched is a gap, not a zero; so is the time before a queue's file was begun, and what a site that
was killed had watched without anything happening.

The file of a queue that is deleted is removed after a week.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from rqcore import durable
from rqcore.errors import RqError
from rqcore_web.events import Event, Hub
from rqcore_web.ringfile import Form, Ring, RingFile
from rqcore_web.spool import Spool
from rqcore_web.spread import Spread
from rqcore_web.tally import Counter, Tally
from rqcore_web.watched import Watched

_log = logging.getLogger(__name__)
_WRITE_EVERY = 5.0
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
#: How long a point of a series may be: what people can read from an axis.
_STEPS = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
#: While the disk takes nothing, so many buckets of a queue are kept.
_MAX_UNWRITTEN = 600
_FORGET_AFTER = 7 * _DAY
#: What no queue can be named.
_TIMES = "when the site was there"


@dataclass(slots=True)
class Point:
    """What happened in the ``seconds`` from ``start`` (unix time) on.

    ``covered`` is how much of it, as far as it is past, the site has watched: 0 to 1.
    """

    start: float
    seconds: int
    covered: float = 0.0
    tally: Tally = field(default_factory=Tally)

    @property
    def gap(self) -> bool:
        """Does nobody know what happened then?"""
        return self.covered == 0 and not self.tally.created + self.tally.started + self.ended

    @property
    def ended(self) -> int:
        """How many messages came to their end."""
        return self.done + self.err + self.relayed

    @property
    def created(self) -> int:
        """How many messages came in."""
        return self.tally.created

    @property
    def started(self) -> int:
        """How many runs began."""
        return self.tally.started

    @property
    def done(self) -> int:
        """How many messages ended well here."""
        return self.tally.done

    @property
    def err(self) -> int:
        """How many failed."""
        return self.tally.err

    @property
    def relayed(self) -> int:
        """How many went elsewhere."""
        return self.tally.relayed

    @property
    def resent(self) -> int:
        """How many went back to wait."""
        return self.tally.resent

    @property
    def wait(self) -> Spread:
        """How long messages waited that began then."""
        return self.tally.wait

    @property
    def run(self) -> Spread:
        """How long runs took that ended then."""
        return self.tally.run


class _Queue:
    """One queue: what is counted, what is to be written, and its file."""

    def __init__(self, file: RingFile) -> None:
        self.file = file
        self.counter = Counter()
        #: By ring and number: what happened and is not in the file yet.
        self.unwritten: dict[tuple[int, int], Tally] = {}

    def settle(self, rings: Sequence[Ring]) -> None:
        """What was counted is to be written, into each ring."""
        for minute, tally in self.counter.take().items():
            for place, ring in enumerate(rings):
                key = place, minute * _MINUTE // ring.width
                self.unwritten.setdefault(key, Tally()).merge(tally)

    def write(self) -> None:
        """Add it to what lies there.  Raises `OSError`; the rest is then still to be written."""
        if not self.unwritten:
            self.file.write(())  # so that it is begun
        for key, tally in list(self.unwritten.items()):
            place, number = key
            known = self.file.read(place, number, number).get(number)
            whole = Tally() if known is None else Tally.unpack(known)
            whole.merge(tally)
            self.file.write([(place, number, whole.pack())])
            del self.unwritten[key]

    def forget_the_oldest(self) -> None:
        """So much is kept while it cannot be written, and no more."""
        for key in list(self.unwritten)[:-_MAX_UNWRITTEN]:
            del self.unwritten[key]


class History:
    """See the head of this module; to be used in the site's event loop.  Reading takes milliseconds."""

    def __init__(self, spool: Spool, hub: Hub, folder: Path, days: int) -> None:
        self._spool = spool
        self._folder = folder / "history"
        self._rings = (
            Ring(_MINUTE, 2 * _DAY // _MINUTE),
            Ring(10 * _MINUTE, days * _DAY // (10 * _MINUTE)),
            Ring(_HOUR, max(366, days) * _DAY // _HOUR),
        )
        self._form = Form(b"queue", self._rings, Tally.SIZE)
        self._watched = Watched(folder / "watched", self._rings)
        self._queues: dict[str, _Queue] = {}
        self._touched: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()
        self._swept = 0.0
        hub.tap(self._hear)

    # Counting

    def _hear(self, event: Event) -> None:
        if not event.queue or event.type not in ("state", "reset"):
            return
        queue = self._of(event.queue)
        if event.type == "state":
            queue.counter.hear(event.data)
        else:
            queue.counter.lost()
            task = asyncio.get_running_loop().create_task(self._ask_what_runs(event.queue, queue))
            self._asking.add(task)
            task.add_done_callback(self._asked)
        self._touched.add(event.queue)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_EVERY, self.write)

    def _of(self, name: str) -> _Queue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(RingFile(self._folder / name, self._form))
        return queue

    async def _ask_what_runs(self, name: str, queue: _Queue) -> None:
        with contextlib.suppress(RqError):  # it went away again: the next reset asks once more
            queue.counter.runs((await self._spool.ask(name, "describe"))["running"])

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the history cannot learn what runs", exc_info=error)

    # Writing

    def write(self) -> None:
        """Write what was counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        touched, self._touched = self._touched, set()
        try:
            if not self._folder.exists():
                durable.make_dir(self._folder, 0o700)
            self._watched.write()
            self._told.discard(_TIMES)
            self._sweep()
        except OSError as error:
            self._tell(_TIMES, error)
        for name in touched:
            queue = self._queues[name]
            queue.settle(self._rings)
            try:
                queue.write()
                self._told.discard(name)
            except OSError as error:
                queue.forget_the_oldest()
                self._touched.add(name)  # with the next event of any queue, or at the end
                self._tell(name, error)

    def close(self) -> None:
        """Write everything; the site stops."""
        for task in self._asking:
            task.cancel()
        self.write()

    def _tell(self, name: str, error: OSError) -> None:
        """Once, until it works again."""
        if name not in self._told:
            self._told.add(name)
            _log.warning("the history of %s cannot be kept for now: %s", name, error)

    def _sweep(self) -> None:
        """Remove what was kept of queues that are gone for long; once a day is enough."""
        now = time()
        if now - self._swept < _DAY:
            return
        self._swept = now
        for path in self._folder.iterdir():
            if not self._spool.exists(path.name) and now - path.stat().st_mtime > _FORGET_AFTER:
                _log.info("%s is removed: there is no such queue any more", path)
                durable.remove_tree(path)
                self._queues.pop(path.name, None)

    # Reading

    def begins(self, queue: str) -> float | None:
        """Since when the queue has been counted; None when nothing is known of it."""
        if not self._spool.exists(queue):
            return None
        try:
            return self._of(queue).file.since()
        except OSError as error:
            self._tell(queue, error)
            return None

    def recent(self, queue: str, minutes: int) -> list[Point]:
        """The latest minutes, one point each, oldest first; the last one is not over yet."""
        return self._points(queue, _MINUTE, min(minutes, self._rings[0].length))

    def series(self, queue: str, span: float, points: int = 100) -> list[Point]:
        """The latest ``span`` seconds in at most so many points, oldest first; the last is not over yet.

        All points have the same length, one of round numbers of minutes, hours or days.
        """
        longest = math.ceil(span / points / _DAY) * _DAY
        step = next((step for step in _STEPS if self._suits(step, span, points)), longest)
        return self._points(queue, step, _count(span, step))

    def _suits(self, step: int, span: float, points: int) -> bool:
        count = _count(span, step)
        return count <= points and bool(self._rings_for(step, count))

    def _points(self, name: str, step: int, count: int) -> list[Point]:
        now = time()
        last = math.floor(now / step)
        points = {
            number: Point(number * step, step) for number in range(last - count + 1, last + 1)
        }
        place = [len(self._rings) - 1, *self._rings_for(step, count)][-1]
        width = self._rings[place].width
        first, final = min(points) * step // width, math.floor(now / width)
        if not self._spool.exists(name):
            return list(points.values())
        try:
            since = self._of(name).file.since()
            self._fill(points, name, place, first, final)
            watched = self._watched.seconds(place, first, final)
        except OSError as error:
            self._tell(name, error)
            return list(points.values())
        for point in points.values():
            numbers = range(int(point.start) // width, (int(point.start) + step) // width)
            past = min(step, now - point.start)
            if since is None or point.start + step > since:
                seconds = sum(watched.get(number, 0.0) for number in numbers)
                point.covered = min(1.0, seconds / past) if past > 0 else 1.0
        return list(points.values())

    def _rings_for(self, step: int, count: int) -> list[int]:
        """The rings that reach so far back and whose buckets make up such steps, the coarsest last."""
        return [
            place for place, ring in enumerate(self._rings)
            if step % ring.width == 0 and ring.width * ring.length >= step * count
        ]  # fmt: skip

    def _fill(self, points: dict[int, Point], name: str, place: int, first: int, last: int) -> None:
        """Add up what lies in the file, and what does not yet."""
        queue = self._of(name)
        queue.settle(self._rings)
        width = self._rings[place].width
        step = next(iter(points.values())).seconds
        for number, record in queue.file.read(place, first, last).items():
            points[number * width // step].tally.merge(Tally.unpack(record))
        for (at, number), tally in queue.unwritten.items():
            if at == place and first <= number <= last:
                points[number * width // step].tally.merge(tally)


def _count(span: float, step: int) -> int:
    return max(1, math.ceil(span / step))


def total(points: Iterable[Point]) -> Tally:
    """What happened in all of these together."""
    whole = Tally()
    for point in points:
        whole.merge(point.tally)
    return whole


def as_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Points for programs: times in unix seconds and seconds; None where nothing is known."""
    return [
        {
            "start": point.start, "seconds": point.seconds, "covered": round(point.covered, 3),
            **{name: None if point.gap else getattr(point, name) for name in Tally.COUNTS},
            "wait": _spread_json(point.wait), "run": _spread_json(point.run),
        }
        for point in points
    ]  # fmt: skip


def _spread_json(spread: Spread) -> dict[str, Any] | None:
    if not spread.count:
        return None
    return {
        "count": spread.count,
        "mean": _rounded(spread.mean),
        "median": _rounded(spread.quantile(0.5)),
        "p95": _rounded(spread.quantile(0.95)),
        "longest": _rounded(spread.longest),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
