"""What happened in a time, in numbers, and how it is counted from a queue's events."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from rqcore_web.spread import Spread

_COUNTS = struct.Struct("<6I")
_MOST = (1 << 32) - 1
_MINUTE = 60
#: By the step of an event: the message came in from outside.
_CAME = ("create", "commit", "adopt")
#: So many messages that are to run again are remembered, each until it does.
_MAX_AGAIN = 10_000


@dataclass(slots=True)
class Tally:
    """How often each thing happened, and how times spread; `rqcore_web.history` says what they mean."""

    created: int = 0
    started: int = 0
    done: int = 0
    err: int = 0
    relayed: int = 0
    resent: int = 0
    wait: Spread = field(default_factory=Spread)
    run: Spread = field(default_factory=Spread)

    #: The names of what is counted.
    COUNTS: ClassVar = ("created", "started", "done", "err", "relayed", "resent")
    #: How many bytes `pack` gives.
    SIZE: ClassVar[int] = _COUNTS.size + 2 * Spread.SIZE

    def merge(self, other: Tally) -> None:
        """All of another one too."""
        for name in self.COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wait.merge(other.wait)
        self.run.merge(other.run)

    def pack(self) -> bytes:
        """It as bytes, always as many."""
        counts = (min(getattr(self, name), _MOST) for name in self.COUNTS)
        return _COUNTS.pack(*counts) + self.wait.pack() + self.run.pack()

    @classmethod
    def unpack(cls, data: bytes) -> Tally:
        """What `pack` made."""
        at = _COUNTS.size
        tally = cls(*_COUNTS.unpack_from(data))
        tally.wait = Spread.unpack(data[at : at + Spread.SIZE])
        tally.run = Spread.unpack(data[at + Spread.SIZE :])
        return tally


class Counter:
    """Counts what is told of one queue, minute by minute."""

    def __init__(self) -> None:
        #: By the minute's number since 1970: what is counted and was not taken yet.
        self.minutes: dict[int, Tally] = {}
        self._began: dict[str, float] = {}
        self._again: dict[str, float] = {}

    def take(self) -> dict[int, Tally]:
        """What was counted since the last time."""
        taken, self.minutes = self.minutes, {}
        return taken

    def runs(self, running: Iterable[Mapping[str, Any]]) -> None:
        """These run, since when they say: the queue was not followed when they began."""
        for run in running:
            self._began.setdefault(str(run["msg_id"]), float(run["started_at"]))

    def lost(self) -> None:
        """Events were missed: nobody knows what still runs."""
        self._began.clear()

    def hear(self, event: Mapping[str, Any]) -> None:
        """An event ``state`` of this queue."""
        msg_id, step, new, at = str(event["msg_id"]), event["step"], event["new"], event["at"]
        minute = int(at // _MINUTE)
        tally = self.minutes.get(minute)
        if tally is None:
            tally = self.minutes[minute] = Tally()
        if step in _CAME:
            tally.created += new == "que"
        elif step == "start":
            tally.started += 1
            tally.wait.add(at - self._ready(msg_id, float(event["due"])))
            self._began[msg_id] = at
        elif step in ("finish", "duplicate"):
            setattr(tally, new, getattr(tally, new) + 1)
            self._ended(tally, msg_id, at)
        elif step == "resend":
            tally.resent += 1
            self._ended(tally, msg_id, at)
        elif step == "retry":
            tally.resent += 1
            if len(self._again) < _MAX_AGAIN:
                self._again[msg_id] = at
        else:  # it went back, or was taken away
            self._began.pop(msg_id, None)

    def _ended(self, tally: Tally, msg_id: str, at: float) -> None:
        began = self._began.pop(msg_id, None)
        if began is not None:
            tally.run.add(at - began)

    def _ready(self, msg_id: str, due: float) -> float:
        """Since when the message could have begun: it was there, and its time had come."""
        return max(due, self._again.pop(msg_id, 0.0) or made(msg_id))


def made(msg_id: str) -> float:
    """When a message's id was made, as unix time; 0 when the id does not say."""
    try:
        day, minute, second, milli = msg_id.split(".")[:4]
        moment = datetime(
            int(day[:4]), int(day[4:6]), int(day[6:]), int(minute[:2]), int(minute[2:]),
            int(second), int(milli) * 1000, UTC,
        )  # fmt: skip
    except ValueError:
        return 0.0
    return moment.timestamp()
