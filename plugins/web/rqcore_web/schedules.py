"""A queue's schedule as people read it: in words, in whose time, and when it comes next.

The words are those of cron-descriptor, always in English; where it knows none, the line itself stands.
The times are the kernel's own (`rqcore.cron`), so that what is shown is what happens.  Whatever a
config holds, only so many lines are described, and only so many times are looked for.

Entries that the kernel skips are in no list of lines; `problems` says what is wrong with them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from time import time

from rqcore.config import QueueConfig, ScheduleLine, parse_queue
from rqcore.cron import CronLine
from rqcore.errors import RqError

#: Of longer schedules only the first so many lines are described.
MAX_LINES = 200
_RUNS = 5
_MAX_RUNS = 100
_NAMED = {
    "@hourly": "Every hour, on the hour",
    "@daily": "Every day at 00:00",
    "@midnight": "Every day at 00:00",
    "@weekly": "Every Sunday at 00:00",
    "@monthly": "On the first of every month, at 00:00",
    "@yearly": "On the first of January, at 00:00",
    "@annually": "On the first of January, at 00:00",
}
_DAILY = re.compile(r"0*(\d{1,2}) +0*(\d{1,2}) +\* +\* +\*")
_CATCHUP = {
    "last": "of missed runs, the last is made up for",
    "all": "each missed run is made up for",
    "none": "missed runs are not made up for",
}


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A line of a schedule.

    ``words`` is a sentence without its full stop; ``tz`` is as written, "" for the machine's own zone,
    whose name then stands in ``zone``; ``next_runs`` are unix times, soonest first; ``params`` are all
    four; ``catchup`` is as written and ``missed`` its meaning in words.
    """

    words: str
    cron: str
    tz: str
    zone: str
    next_runs: tuple[float, ...]
    params: tuple[str, str, str, str]
    catchup: str
    missed: str


def describe(
    config: QueueConfig, runs: int = _RUNS, now: float | None = None
) -> list[ScheduleView]:
    """The lines of a queue's schedule, in the order of ``config.schedule``; the first `MAX_LINES`."""
    moment = time() if now is None else now
    return [_view(line, min(runs, _MAX_RUNS), moment) for line in config.schedule[:MAX_LINES]]


def problems(config: QueueConfig) -> list[str]:
    """What is wrong with the entries that are skipped, each in a sentence with its remedy."""
    try:
        _, warnings = parse_queue(config.raw, "its config", config.name)
    except (
        RqError
    ):  # it was read before; a config that was not read from a file has no entries to skip
        return []
    return [str(found) for found in warnings if found.key.startswith("schedule")][:MAX_LINES]


def words(cron: str) -> str:
    """What a cron line says, as a sentence without its full stop."""
    text = " ".join(cron.split())
    named = _NAMED.get(text.lower())
    daily = _DAILY.fullmatch(text)
    if named is not None:
        return named
    if daily is not None:
        return f"Every day at {int(daily[2]):02}:{int(daily[1]):02}"
    return _described(text)


@lru_cache(maxsize=1000)
def _described(cron: str) -> str:
    from cron_descriptor import (  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to import
        Options,
        get_description,
    )

    options = Options()
    options.use_24hour_time_format = True
    options.locale_code = "en_US"
    try:
        return str(get_description(cron, options))
    except Exception:  # noqa: BLE001 - it may fail as it likes on what the kernel understands
        return f"By the cron line {cron}"


def _view(line: ScheduleLine, runs: int, now: float) -> ScheduleView:
    return ScheduleView(
        words=words(line.cron),
        cron=line.cron,
        tz=line.tz,
        zone=line.tz or _machine_zone(now),
        next_runs=_next_runs(line.cron, line.tz, math.floor(now / 60), runs),
        params=(line.param1, line.param2, line.param3, line.param4),
        catchup=line.catchup,
        missed=_CATCHUP.get(line.catchup, line.catchup),
    )


def _machine_zone(now: float) -> str:
    return datetime.fromtimestamp(now).astimezone().tzname() or "local time"


@lru_cache(maxsize=2000)
def _next_runs(cron: str, tz: str, minute: int, count: int) -> tuple[float, ...]:
    """The next times after a minute's beginning; none fires within a minute, so they suit all of it."""
    line = CronLine(cron, tz)
    found: list[float] = []
    at = float(minute * 60)
    while len(found) < count:
        at = line.next_after(at)
        found.append(at)
    return tuple(found)
