"""Counts what happens to the messages of one queue, in its process (`rqcore_metrics.plugin` calls).

What is counted when: a message's way in and its begin after the step, its end before and after it.

    finishing    the message's id and outcome are noted in a slot of the book, in one write
    ended        counted, and the slot freed
    settled      the turn is over: what was counted in it is written, once

A process that is killed in between leaves the slot: the next one looks where the message lies, counts
it if it has ended, and forgets it if it has not, for then it runs again.  So the ends are exact,
whatever is killed when.  (A queue in which more than 128 messages end in one turn, as copies of one that
were coalesced can, counts those beyond as it counts begins.)

Ids of a queue grow, so the newest one that was counted on its way in is a mark: what the next process
finds in ``que`` beyond it came in and was not counted yet.  Begins, removals, and commits of what was
prepared before the newest one came can lack those of the one turn of the loop in which the process was
killed.

Waiting is counted from when a message could have begun: its ``due``, or when it was made or came into
``que`` if that was later.  Of one that came there by a commit, a retry, a recovery or by hand, the
latter is remembered in memory; after a restart it is counted from its ``due``.

Nothing here raises because of the disk (`rqcore_metrics.book`).
"""

from __future__ import annotations

import os
import resource
from calendar import timegm
from functools import lru_cache
from time import monotonic, time
from typing import TYPE_CHECKING

from rqcore import durable
from rqcore.lifecycle import State, Step
from rqcore_metrics import book

if TYPE_CHECKING:
    from rqcore.hookspecs import Outcome, QueueInfo
    from rqcore.message import Message

_MOST = 10_000
#: What nobody asked to be late is due at the full second in which it was made: its id knows better.
_COARSE = 2.0
#: As an id has.
_DOTS = 4
_VIA = {Step.CREATE: "create", Step.COMMIT: "commit", Step.ADOPT: "adopt"}
_CAUSE = {
    Step.RESEND: "resend", Step.RETRY: "retry", Step.RECOVER: "recover", Step.UNSTART: "unstart",
}  # fmt: skip
#: Who sends with this as ``src``, or by the queue's schedule with this as ``param1``, sends a heartbeat.
HEARTBEAT = "heartbeat"


class Clerk:
    """See the head of this module."""

    def __init__(self, directory: str, queue: QueueInfo) -> None:
        self._book = book.Book(os.path.join(book.folder(directory), queue.name))
        self._queue = queue
        #: By message: when its script was about to be started, on the monotonic clock, and how long
        #: the message had waited.
        self._starting: dict[str, tuple[float, float]] = {}
        #: By message: when its run began.
        self._began: dict[str, float] = {}
        #: By message: the slot that it has, and its outcome.
        self._ending: dict[str, tuple[int | None, str]] = {}
        #: By message: when it came into ``que``, where neither its id nor its due says so.
        self._came: dict[str, float] = {}
        self._cpu = _cpu()
        #: Has the turn changed anything; has a run ended since the scripts' time was looked at?
        self._changed = self._ran = False
        self._suffix = _suffix(queue.path)
        self._mark = self._book.mark
        self._settle_what_is_left()
        self._count_what_came()

    def _settle_what_is_left(self) -> None:
        left = self._book.left
        for msg_id, outcome, slot in left:
            if self._has_ended(msg_id, outcome):
                self._count_end(outcome)
            self._book.settle(slot)
        self._book.left = []
        if left:
            self._book.save()

    def _count_what_came(self) -> None:
        """Count what came in just before the process before this one was killed."""
        lying = [name for name in durable.children(f"{self._queue.path}/que") if self._is_own(name)]
        if not self._mark:  # a new file: what lies there came before anybody counted
            self._note_mark(max(lying, default="0"))
            self._book.save()
            return
        missed = [name for name in lying if name > self._mark]
        for msg_id in missed:
            self._book.count("enqueued", "create")
            self._note_mark(msg_id)
        if missed:
            self._book.save()

    def _is_own(self, msg_id: str) -> bool:
        """Was this id made by this queue?  Others, which were moved in by hand, sort anywhere."""
        return msg_id.endswith(self._suffix) and msg_id.count(".") == _DOTS

    def _note_mark(self, msg_id: str) -> None:
        if msg_id > self._mark:
            self._mark = self._book.mark = msg_id

    def _has_ended(self, msg_id: str, outcome: str) -> bool:
        """Does the message lie where such an outcome leads?"""
        states = {"duplicate": ("done", "relayed"), "timeout": ("err",)}.get(outcome, (outcome,))
        return any(
            os.path.isdir(f"{self._queue.path}/{place}")
            for state in states
            for place in (f"{state}/{msg_id}", f"{state}/{_hashed(msg_id)}/{msg_id}")
        )

    # What happens

    def moved(self, message: Message, old: State | None, new: State | None, step: Step) -> None:
        """A message changed its state."""
        msg_id = message.msg_id
        if new is State.QUE:
            self._queued(message, old, step)
        elif new is State.RUN:
            self._book.count("started")
            self._book.observe("wait", self._starting.get(msg_id, (0.0, 0.0))[1])
        elif new is None:
            if step is not Step.DELETE or old is None or old is State.RUN:
                return
            self._came.pop(msg_id, None)
            self._book.count("removed", old.value)
        elif step in (Step.FINISH, Step.DUPLICATE):
            self._ended(message, new, step)
        else:
            return
        self._changed = True

    def settled(self) -> None:
        """All of a turn was told."""
        if not self._changed:
            return
        self._changed = False
        if self._ran:
            self._ran = False
            cpu = _cpu()
            self._book.add("cpu", cpu - self._cpu)
            self._cpu = cpu
        self._book.save()

    def _queued(self, message: Message, old: State | None, step: Step) -> None:
        if step in _VIA and old in (None, State.PREP):
            cron = step is Step.CREATE and message.src == "cron"
            self._book.count("enqueued", "cron" if cron else _VIA[step])
            if self._is_own(message.msg_id):
                self._note_mark(message.msg_id)
        elif step in _CAUSE:
            self._book.count("requeued", _CAUSE[step])
            self._starting.pop(message.msg_id, None)
            self._forget_end(message.msg_id)
        if step not in (Step.CREATE, Step.RESEND) and len(self._came) < _MOST:
            self._came[message.msg_id] = time()

    def starting(self, message: Message) -> None:
        """Its script is about to be started."""
        waited = time() - max(message.due, self._came.pop(message.msg_id, 0.0))
        if waited < _COARSE:
            waited = min(waited, time() - _made(message.msg_id))
        self._starting[message.msg_id] = monotonic(), waited

    def started(self, message: Message) -> None:
        """Its script runs."""
        began = self._starting.pop(message.msg_id, None)
        if began is not None:
            self._began[message.msg_id] = began[0]

    def finishing(self, message: Message, outcome: Outcome) -> None:
        """Its script has ended, and where it goes is known; told again where it could not go there."""
        self._starting.pop(message.msg_id, None)
        began = self._began.pop(message.msg_id, None)
        if began is not None:
            self._book.observe("run", monotonic() - began)
            self._changed = self._ran = True
        if outcome.state is State.QUE:
            return
        self._forget_end(message.msg_id)
        name = outcome.state.value
        if began is None and outcome.state in (State.DONE, State.RELAYED):
            name = "duplicate"  # it was coalesced, and had no run of its own
        elif outcome.state is State.ERR and getattr(outcome, "timed_out", False):
            name = "timeout"
        self._ending[message.msg_id] = self._book.intend(message.msg_id, name), name

    def _ended(self, message: Message, new: State, step: Step) -> None:
        slot, outcome = self._ending.pop(message.msg_id, (None, new.value))
        if step is Step.DUPLICATE:
            outcome = "duplicate"
        if slot is not None:
            self._book.settle(slot)
        self._count_end(outcome)
        self._came.pop(message.msg_id, None)
        good = outcome in ("done", "relayed", "duplicate")
        if good and is_heartbeat(message):
            self._book.note("heartbeat", time())

    def _count_end(self, outcome: str) -> None:
        self._book.count("finished", outcome)
        self._book.note("last", time(), outcome)

    def _forget_end(self, msg_id: str) -> None:
        slot, _ = self._ending.pop(msg_id, (None, ""))
        if slot is not None:
            self._book.settle(slot)

    def synced(self, seconds: float) -> None:
        """A turn's changes were brought to the disk."""
        self._book.observe("sync", seconds)
        self._changed = True

    def close(self) -> None:
        """Let go of the file."""
        self._book.close()


def is_heartbeat(message: Message) -> bool:
    """Was this sent to see that it gets through?"""
    by_hand = message.src == HEARTBEAT
    return by_hand or (message.src == "cron" and message.param1 == HEARTBEAT)


def _suffix(path: str) -> str:
    """How the ids end that a queue makes: the number of its directory."""
    try:
        return str(os.stat(path).st_ino)
    except FileNotFoundError:
        return "none"


def _made(msg_id: str) -> float:
    """When a message was made, by its id, to the millisecond; 0 when that is no id."""
    try:
        day, minute, second, ms = msg_id.split(".")[:4]
        return _minute(day, minute) + int(second) + int(ms) / 1000
    except ValueError:
        return 0.0


@lru_cache(maxsize=4)
def _minute(day: str, minute: str) -> int:
    parts = int(day[:4]), int(day[4:6]), int(day[6:]), int(minute[:2]), int(minute[2:]), 0
    return timegm(parts)


def _hashed(msg_id: str) -> str:
    """``YYYYMMDD/HH/MM``, where a message with this id lies in ``done`` and ``relayed``."""
    day, _, rest = msg_id.partition(".")
    return f"{day}/{rest[:2]}/{rest[2:4]}"


def _cpu() -> float:
    """Processor seconds of all scripts that this process has collected."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
