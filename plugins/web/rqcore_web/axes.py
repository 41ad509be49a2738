"""The ticks of charts: round numbers, and no more of them than can be read.

A tick is a place (0 to 1 along its axis) and its label.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import NamedTuple

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
#: What people call times that differ tenfold, about.
_TIMES = {
    0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1.0: "1 s", 10.0: "10 s", 60.0: "1 min",
    600.0: "10 min", 3600.0: "1 h", 36_000.0: "10 h", 345_600.0: "4 d", 3_456_000.0: "40 d",
    34_560_000.0: "400 d",
}  # fmt: skip
_STEPS = (
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 3, 7, 14, 28, 56, 112)),
)


class Tick(NamedTuple):
    """A place along an axis, from 0 to 1, and what is written there."""

    place: float
    label: str


class Axis(NamedTuple):
    """An axis of values: its ticks, and where it begins and ends."""

    ticks: tuple[Tick, ...]
    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value of a linear axis lies, from 0 to 1."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def log_place(self, value: float) -> float:
        """Where a value of a logarithmic axis lies, from 0 to 1."""
        if value <= self.low:
            return 0.0
        return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))


def counts(most: int) -> Axis:
    """An axis from zero on that reaches ``most``, by whole numbers, with two to four steps."""
    step = _round_step(max(1, most) / 4)
    steps = max(1, math.ceil(most / step))
    ticks = tuple(Tick(n / steps, f"{n * step:,}") for n in range(steps + 1))
    return Axis(ticks, 0, steps * step)


def _round_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not less."""
    power = int(10 ** max(0, math.floor(math.log10(least))))
    return next(n for n in (power, 2 * power, 5 * power, 10 * power) if n >= least)


def times(shortest: float, longest: float) -> Axis:
    """A logarithmic axis of seconds that holds both times, from a millisecond on."""
    marks = sorted(_TIMES)
    low = max((mark for mark in marks[:-1] if mark <= shortest), default=marks[0])
    high = min((mark for mark in marks if mark >= longest and mark > low), default=marks[-1])
    axis = Axis((), low, high)
    inside = [mark for mark in marks if axis.low <= mark <= axis.high]
    return axis._replace(ticks=tuple(Tick(axis.log_place(mark), _TIMES[mark]) for mark in inside))


def moments(start: float, end: float, most: int = 6) -> tuple[Tick, ...]:
    """Round times of the machine's own clock from ``start`` to ``end`` (unix), at most so many."""
    step = next((step for step in _STEPS if (end - start) / step <= most), _STEPS[-1])
    ticks = []
    at = _midnight(start)
    while at.timestamp() <= end:
        place = (at.timestamp() - start) / (end - start)
        if place >= 0:
            ticks.append(Tick(place, _label(at, step)))
        at = _later(at, step)
    return tuple(ticks[:most])


def _midnight(moment: float) -> datetime:
    return (
        datetime.fromtimestamp(moment)
        .astimezone()
        .replace(hour=0, minute=0, second=0, microsecond=0)
    )


def _later(at: datetime, step: int) -> datetime:
    """The same wall clock some days later, or so many seconds later within a day."""
    if step >= _DAY:
        naive = at.replace(tzinfo=None) + timedelta(days=step // _DAY)
        return naive.astimezone()
    following = datetime.fromtimestamp(at.timestamp() + step).astimezone()
    if following.date() != at.date():  # a day has another length when the clocks change
        return following.replace(hour=0, minute=0, second=0, tzinfo=None).astimezone()
    return following


def _label(at: datetime, step: int) -> str:
    day = f"{at.day} {at:%b}"
    return day if step >= _DAY or (at.hour, at.minute) == (0, 0) else f"{at:%H:%M}"
