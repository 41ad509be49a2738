"""Cron lines, and which of their runs are due.

Pure: the clock is an argument, and nothing is written.  What the system knows of time zones is
read, by name or, for the machine's own zone, through the C library.

`CronLine` is one line: five fields as in crontab(5), or ``@hourly``, ``@daily``, ``@midnight``,
``@weekly``, ``@monthly``, ``@yearly``, ``@annually``.  What cannot be understood, and what would
never fire, is refused in words; a hostile line costs neither memory nor time.  Daylight saving is
treated as Debian's cron does: a line with a fixed hour and minute runs once on the day of a change
(at the end of the gap if its time is skipped, the first time round if it occurs twice); a line with
``*`` in one of them follows real time.

`CronTable` holds all lines of a queue and the last scheduled time that is dealt with, per line.
Its promises:

- a scheduled time fires at most once: times up to the last one never fire again, be it over a
  restart (the owner keeps `CronTable.state`) or while the clock is stepped back;
- none is lost: what was missed is caught up as ``catchup`` says, one of `CATCHUP`:
  ``last`` (of the missed ones the latest), ``all`` (each, the newest 1000), ``none`` (what is more
  than a minute late is dropped);
- as in cron(8), a clock that is more than three hours behind a line's last time has been corrected:
  that line goes on from now;
- a line seen for the first time goes on from now: it has missed nothing.

`CronTable.due` offers a firing until `CronTable.mark` says that the owner has made sure of it.  The
owner keeps the state also when nothing has fired: after the first `CronTable.next_wake` and after
`CronTable.skip` it has changed too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from rqcore.errors import RefusedError

#: What becomes of missed runs.
CATCHUP = ("last", "all", "none")
#: So many missed runs of a line are caught up, the newest.
MAX_CATCHUP = 1000
#: A clock so many seconds behind has been corrected, not stepped.
CORRECTED = 3 * 3600
#: Seconds that a run without catch-up may be late.
ON_TIME = 60

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_EXAMPLE = 'write "minute hour day month weekday", for instance "*/10 * * * *", or "@hourly"'
_MAX_LENGTH = 200
_FIELDS = 5
#: Any year does: if a line fires at all, it does so within 40 years of any moment.
_PROBE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CronLine:
    """When something is to run; ``tz`` is a zone's name, or empty for the machine's own zone.

    Raises `RefusedError` with the expression, the reason and a remedy.
    """

    expression: str
    tz: str = ""
    _fields: str = field(init=False, repr=False, compare=False)
    _zone: tzinfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_fields", _checked(self.expression))
        object.__setattr__(self, "_zone", _zone(self.expression, self.tz))

    def next_after(self, t: float) -> float:
        """The first scheduled time after ``t``; both in unix seconds."""
        return self._walk(t)[0]

    def between(self, after: float, until: float, limit: int) -> list[int]:
        """The scheduled times after ``after`` and up to ``until``, in order; the newest ``limit``.

        The cost grows with ``limit``, not with the time between.
        """
        window = float(limit * 60)
        while True:
            # What is wanted lies at the end: look there first, and further back while too few.
            start = max(after, until - window)
            newest: deque[int] = deque(maxlen=limit)
            at, times = self._walk(start)
            while at <= until:
                newest.append(at)
                at = _stamp(next(times))
            if len(newest) == limit or start == after:
                return list(newest)
            window *= 2

    def _walk(self, t: float) -> tuple[int, CronSim]:
        """The first time after ``t``, and what gives the later ones."""
        times = CronSim(self._fields, datetime.fromtimestamp(t, self._zone))
        # When an hour occurs twice, the walk may begin by its first occurrence again.
        at = _stamp(next(times))
        while at <= t:
            at = _stamp(next(times))
        return at, times


def _stamp(moment: datetime) -> int:
    return math.floor(moment.timestamp())


def _refused(expression: str, reason: str, remedy: str) -> RefusedError:
    shown = expression if len(expression) <= _MAX_LENGTH else f"{expression[:40]}..."
    return RefusedError(f"cron line {shown!r} refused: {reason}; {remedy}")


def _checked(expression: str) -> str:
    """The five fields that the expression stands for, checked to fire some day."""
    if len(expression) > _MAX_LENGTH:
        raise _refused(expression, f"longer than {_MAX_LENGTH} characters", _EXAMPLE)
    text = expression.strip()
    if text.startswith("@"):
        try:
            return _NAMED[text.lower()]
        except KeyError:
            known = ", ".join(_NAMED)
            raise _refused(expression, "unknown name", f"known are {known}") from None
    count = len(text.split())
    if count != _FIELDS:
        raise _refused(expression, f"{count} fields instead of {_FIELDS}", _EXAMPLE)
    try:
        next(CronSim(text, _PROBE))
    except (CronSimError, ValueError) as error:
        raise _refused(expression, str(error).lower(), _EXAMPLE) from None
    except StopIteration:
        raise _refused(expression, "no day ever matches", _EXAMPLE) from None
    return text


def _zone(expression: str, name: str) -> tzinfo:
    if not name:
        return _LOCAL
    if name.upper() == "UTC":  # known also where no zone data is installed
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise _refused(
            expression, f"unknown time zone {name[:60]!r}", 'write one such as "Europe/Berlin"'
        ) from None


class _LocalZone(tzinfo):
    """The machine's zone as the C library knows it: TZ, else /etc/localtime."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        if dt is None:
            return None
        local = dt.replace(tzinfo=None)
        # Not astimezone(): within a gap it gives the offset after the change, which would set a
        # moment that does not exist back instead of forward.
        return local.replace(tzinfo=UTC) - datetime.fromtimestamp(local.timestamp(), UTC)

    def dst(self, dt: datetime | None) -> timedelta | None:  # noqa: ARG002 - tzinfo asks so
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        return None if dt is None else dt.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, dt: datetime) -> datetime:
        local = datetime.fromtimestamp(dt.replace(tzinfo=UTC).timestamp())  # noqa: DTZ006 - is local
        return local.replace(tzinfo=self)


_LOCAL = _LocalZone()


@dataclass(frozen=True, slots=True)
class Firing:
    """A run of the line ``key``, scheduled for ``at`` (unix seconds)."""

    key: str
    at: int


class CronTable:
    """The lines of a queue by key, and how far each has come.

    ``state`` is that of an earlier table (see `state`); keys without a line are dropped, so that a
    changed configuration makes a new table from the old one's state.  ``catchup`` names the lines
    that do not use ``last``.
    """

    def __init__(
        self,
        lines: Mapping[str, CronLine],
        state: Mapping[str, float],
        catchup: Mapping[str, str] | None = None,
    ) -> None:
        self._lines = dict(lines)
        self._catchup = dict(catchup or {})
        unknown = sorted(set(self._catchup.values()) - set(CATCHUP))
        if unknown:
            raise RefusedError(
                f"catchup {unknown[0]!r} is unknown; write one of {', '.join(CATCHUP)}"
            )
        self._last = {
            key: last for key, last in state.items() if key in lines and 0 <= last < math.inf
        }
        #: The first time after the last one; so a line costs nothing until its time has come.
        self._next: dict[str, float] = {}

    def due(self, now: float) -> list[Firing]:
        """What is to run now, earliest first; the same again until it is marked."""
        firings: list[Firing] = []
        for key, line in self._lines.items():
            if self._following(key, now) > now:
                continue
            catchup = self._catchup.get(key, "last")
            limit = MAX_CATCHUP if catchup == "all" else 1
            after = self._last[key]
            if catchup == "none":
                after = max(after, now - ON_TIME)
            firings += [Firing(key, at) for at in line.between(after, now, limit)]
        return sorted(firings, key=lambda firing: firing.at)

    def mark(self, key: str, at: float) -> None:
        """The run of ``key`` at that time is made, and with it the earlier ones are dealt with."""
        if at > self._last.get(key, -math.inf):
            self._set(key, at)

    def skip(self, now: float) -> None:
        """Let go of what is due: the queue is not UP."""
        for key in self._lines:
            self._following(key, now)
            self.mark(key, now)

    def next_wake(self, now: float) -> float | None:
        """When `due` has something to say, ``now`` if it has already; None without lines."""
        return min((self._wake(key, now) for key in self._lines), default=None)

    def state(self) -> dict[str, float]:
        """The last time that is dealt with, per line, for a later table."""
        return dict(self._last)

    def _wake(self, key: str, now: float) -> float:
        following = self._following(key, now)
        if following <= now and self._catchup.get(key) == "none":
            following = self._lines[key].next_after(max(self._last[key], now - ON_TIME))
        return max(following, now)

    def _following(self, key: str, now: float) -> float:
        """The first time that is not dealt with; settles where a new or corrected clock begins."""
        last = self._last.get(key)
        if last is None or last > now + CORRECTED:
            self._set(key, now)
        if key not in self._next:
            self._next[key] = self._lines[key].next_after(self._last[key])
        return self._next[key]

    def _set(self, key: str, last: float) -> None:
        self._last[key] = last
        self._next.pop(key, None)
