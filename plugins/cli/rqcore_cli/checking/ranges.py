"""What is measured, and from where on it is too much: Nagios ranges, ``[@]start:end``.

Pure.  A range alerts on what lies outside of it, with ``@`` on what lies inside.  ``10`` is 0 to 10,
``10:`` at least 10, ``~:10`` at most 10.  A bound may be a span of time (``10m``), and ``off`` is a
range that never alerts.  What cannot be read is a `ValueError` with a sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rqcore.words import parse_span

_BOUND = r"-?\d+(?:\.\d+)?|(?:\d+(?:\.\d+)?[smhdw])+"
_RANGE = re.compile(rf"(@?)(?:(~|{_BOUND})?(:))?({_BOUND})?", re.ASCII)
_HOW = "write it as 10, 10:, ~:10, 10:20 or @10:20, a bound also as 10m or 2h, or off"


@dataclass(frozen=True, slots=True)
class Range:
    """Alerts on a value outside of ``start`` to ``end``, both included; inside of it if ``inside``."""

    start: float = 0.0
    end: float = math.inf
    inside: bool = False

    def alerts(self, value: float) -> bool:
        """Is this too much, or too little?"""
        return (self.start <= value <= self.end) is self.inside

    def __str__(self) -> str:
        """As Nagios writes it, numbers alone."""
        at = "@" if self.inside else ""
        if self.start == 0 and self.end != math.inf:
            return f"{at}{number(self.end)}"
        start = "~" if self.start == -math.inf else number(self.start)
        return f"{at}{start}:{'' if self.end == math.inf else number(self.end)}"


#: Never alerts.
OFF = Range(-math.inf)


def parse_range(text: str) -> Range:
    """The range that this text means.  Raises `ValueError`."""
    if text == "off":
        return OFF
    found = _RANGE.fullmatch(text)
    if found is None or not found[0].strip("@"):
        raise ValueError(f"{text!r} is no range; {_HOW}")
    at, first, _, last = found.groups()
    start = -math.inf if first == "~" else _bound(first) if first else 0.0
    end = _bound(last) if last else math.inf
    if start > end:
        raise ValueError(f"{text!r} is no range: it begins after its end; {_HOW}")
    return Range(start, end, bool(at))


def _bound(text: str) -> float:
    return parse_span(text) if text[-1].isalpha() else float(text)


def number(value: float) -> str:
    """A number for perfdata: whole ones without a point."""
    return str(int(value)) if value == int(value) else f"{value:.3f}"


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing that is measured of each queue; ``warn`` and ``crit`` are what applies unless told."""

    meaning: str
    unit: str = ""
    warn: Range = OFF
    crit: Range = OFF


#: In the order in which perfdata has them.  Reaching a threshold of the contract is exceeding the number
#: below it.
METRICS: Mapping[str, Metric] = {
    "waiting": Metric("messages in prep, que and run together", "", Range(0, 9), Range(0, 19)),
    "prep": Metric("messages in prep"),
    "que": Metric("messages in que"),
    "run": Metric("messages in run"),
    "err": Metric("messages in err", "", OFF, Range(0, 0)),
    "done": Metric("messages in done", "", Range(0, 2999), Range(0, 3499)),
    "relayed": Metric("messages in relayed", "", Range(0, 2999), Range(0, 3499)),
    "corrupt": Metric("unreadable messages that were set aside", "", Range(0, 0)),
    "overdue": Metric("seconds that the first message to start has been due", "s"),
    "cron_late": Metric("seconds that a scheduled run is late", "s", Range(0, 300), Range(0, 3600)),
    "cron_age": Metric("seconds since a schedule line fired last", "s"),
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Ranges by ``METRIC`` or ``QUEUE/METRIC``; what is not named is as `METRICS` has it."""

    warn: Mapping[str, Range] = field(default_factory=dict)
    crit: Mapping[str, Range] = field(default_factory=dict)

    def of(self, queue: str, metric: str) -> tuple[Range, Range]:
        """What applies to this metric of this queue: for a warning, and for critical."""
        usual = METRICS[metric]
        return (
            self.warn.get(f"{queue}/{metric}", self.warn.get(metric, usual.warn)),
            self.crit.get(f"{queue}/{metric}", self.crit.get(metric, usual.crit)),
        )

    def named(self, queue: str, metric: str) -> bool:
        """Did somebody ask for this metric?"""
        return any(key in given for given in (self.warn, self.crit)
                   for key in (metric, f"{queue}/{metric}"))  # fmt: skip

    def singled_out(self, metric: str = "") -> set[str]:
        """The queues that have bounds of their own, for this metric or any; ``off`` is none."""
        return {
            name.rpartition("/")[0]
            for given in (self.warn, self.crit)
            for name, limit in given.items()
            if "/" in name and limit != OFF and metric in ("", name.rpartition("/")[2])
        }


def parse_thresholds(warn: Iterable[str], crit: Iterable[str]) -> Thresholds:
    """What ``-w`` and ``-c`` say: ``METRIC=RANGE`` or ``QUEUE/METRIC=RANGE``.  Raises `ValueError`."""
    return Thresholds(dict(map(_assigned, warn)), dict(map(_assigned, crit)))


def _assigned(text: str) -> tuple[str, Range]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no threshold; write METRIC=RANGE, for instance err=0")
    if name.rpartition("/")[2] not in METRICS:
        raise ValueError(f"there is no metric {name!r}; there are: {', '.join(METRICS)}")
    return name, parse_range(value)


def contract_thresholds(text: str) -> Thresholds:
    """What ``-t W:C:WMAX:CMAX:RW:RC`` says; a number left out is the usual one.

    W and C are for prep, que and run together, RW and RC for done and for relayed; WMAX and CMAX are
    read and mean nothing, as they always did.  Raises `ValueError`.
    """
    parts = text.split(":")
    places = ("W", "C", "WMAX", "CMAX", "RW", "RC")
    wrong = [part for part in parts if part and not (part.isascii() and part.isdecimal())]
    if wrong or len(parts) > len(places):
        raise ValueError(
            f"-t {text} is not W:C:WMAX:CMAX:RW:RC, six whole numbers, such as 10:20:3000:3500:3000:3500"
        )
    reach = {
        place: Range(-math.inf, int(part) - 1) if int(part) == 0 else Range(0, int(part) - 1)
        for place, part in zip(places, parts, strict=False)
        if part
    }
    warn = {name: reach[p] for name, p in _PLACES_WARN.items() if p in reach}
    crit = {name: reach[p] for name, p in _PLACES_CRIT.items() if p in reach}
    return Thresholds(warn, crit)


_PLACES_WARN = {"waiting": "W", "done": "RW", "relayed": "RW"}
_PLACES_CRIT = {"waiting": "C", "done": "RC", "relayed": "RC"}
