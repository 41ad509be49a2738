"""Removing messages of one queue: by its socket, in batches, at a pace.

Only the queue's own process removes a message (``delete_message``), so every plugin is asked before
(`rq_check_removal`) and the counts are right.  A message that somebody reads, who then holds a shared
lock on its file ``msg``, is left for the next time; its exclusive lock is held until the queue has
answered, so that no reader comes in between.  A process that is killed here leaves each message whole
or gone.

`Remover.remove` raises `UnreachableError` when the queue's process goes away; what was removed until
then is in `Remover.tally`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic, sleep
from typing import Any, Self

from rqcore import unix, wire
from rqcore.client import QueueClient
from rqcore.lifecycle import State
from rqcore_cleaner.choosing import Candidate
from rqcore_cleaner.listing import size
from rqcore_cleaner.pace import Pace, busy_machine

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
#: Answers for what is gone already, or is work again.
_GONE = ("msg not found",)
#: So many reasons of those who keep messages are told apart.
_REASONS = 20
_LOOK_EVERY = 1.0
_PATIENCE = 120.0


@dataclass
class Tally:
    """What became of the messages that were to go."""

    removed: int = 0
    bytes: int = 0
    #: Somebody reads them.
    read: int = 0
    #: By the reason that was given.
    kept: Counter[str] = field(default_factory=Counter)

    def keep(self, reason: str) -> None:
        """One more was kept."""
        known = reason in self.kept or len(self.kept) < _REASONS
        self.kept[reason if known else "other reasons"] += 1

    def add(self, other: Tally) -> None:
        """Count what another has counted."""
        self.removed += other.removed
        self.bytes += other.bytes
        self.read += other.read
        for reason, count in other.kept.items():
            known = reason in self.kept or len(self.kept) < _REASONS
            self.kept[reason if known else "other reasons"] += count

    @property
    def left(self) -> int:
        """How many were left."""
        return self.read + self.kept.total()


class _Line(QueueClient):
    """One of the connections to the queue: what is asked is answered later."""

    def put(self, command: str, **args: Any) -> None:
        """Ask."""
        self._send(wire.encode(f"{command} {json.dumps(args)}".encode()))

    def take(self) -> Any:
        """The answer."""
        return json.loads(self._receive(_PATIENCE))


class Remover:
    """Removes messages of one queue; ``progress`` is called after each batch.

    While ``hurried`` says yes, it is more important to get on than to leave the disk to others.

    A queue answers the requests of one connection in turn, and brings to the disk together what came
    by several: so each message of a batch has a connection of its own.
    """

    def __init__(
        self, directory: str, queue: str, progress: Callable[[Tally], None],
        hurried: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.tally = Tally()
        #: Where the messages lie that are removed: one that moved on is work again, and stays.
        self.state = State.DONE
        self._where = directory, queue
        self._lines: list[_Line] = []
        self._progress = progress
        self._pace = Pace()
        self._hurried = hurried
        self._looked, self._pressed, self._hurry = 0.0, False, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            line.close()

    def remove(self, candidates: Iterable[Candidate]) -> None:
        """Remove them; see the head of this module."""
        coming = iter(candidates)
        while batch := list(islice(coming, self._pace.size)):
            began = monotonic()
            working = self._remove(batch)
            seconds = monotonic() - began
            self._look()
            busy = (working or self._pressed) and not self._hurry
            pause = self._pace.after(seconds, len(batch), busy=busy)
            self._progress(self.tally)
            sleep(pause)

    def _remove(self, batch: list[Candidate]) -> bool:
        """One batch; does a message of the queue run?"""
        while len(self._lines) < max(1, len(batch)):
            self._lines.append(_Line(*self._where, _PATIENCE))
        with contextlib.ExitStack() as locks:
            going = [item for item in batch if self._is_free(item, locks)]
            sizes = [size(item.path) for item in going]
            asked = list(zip(self._lines, sizes, going, strict=False))
            for line, _, item in asked:
                line.put("delete_message", msg_id=item.msg_id, state=self.state, even_down=True)
            for line, taken, _ in asked:
                self._note(line.take(), taken)
        counts = self._lines[0].call("num_messages")
        return isinstance(counts, dict) and bool(counts.get("run"))

    def _note(self, answer: Any, taken: int) -> None:
        match answer:
            case ["ok", *_]:
                self.tally.removed += 1
                self.tally.bytes += taken
            case ["fail", reason, *_]:
                if reason not in _GONE:
                    self.tally.keep(str(reason))
            case _:
                self.tally.keep(f"the queue answered {answer!r}")

    def _is_free(self, item: Candidate, locks: contextlib.ExitStack) -> bool:
        """Does nobody read it?  Then nobody begins to until it is gone."""
        try:
            fd = os.open(f"{item.path}/msg", _READ)
        except OSError:  # gone, or without a msg: the queue says what it thinks of it
            return True
        locks.callback(os.close, fd)
        if unix.try_lock(fd):
            return True
        self.tally.read += 1
        return False

    def _look(self) -> None:
        now = monotonic()
        if now - self._looked > _LOOK_EVERY:
            self._looked = now
            self._pressed, self._hurry = busy_machine(), self._hurried()


def is_read(path: str) -> bool:
    """Does somebody read this message just now?"""
    try:
        fd = os.open(f"{path}/msg", _READ)
    except OSError:
        return False
    try:
        return not unix.try_lock(fd)
    finally:
        os.close(fd)
