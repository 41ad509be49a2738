"""Sizes, spans and points of time as people write and read them.

Pure.  What people typed (`parse_due`, `parse_span`, `parse_size`) is refused with a `ValueError` that
says what can be written.  For plugins and their commands: a size looks the same everywhere.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from time import gmtime, strftime

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_UNIX = re.compile(r"\d{9,11}(?:\.\d+)?", re.ASCII)
_SIZE = re.compile(
    r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[KMGTP]?)(?P<binary>i?)B?", re.ASCII | re.IGNORECASE
)
#: Everything later than the year 5138 is a slip of the hand; the kernel refuses it too.
_END = 1e11
_SIZES = ("B", "kB", "MB", "GB", "TB")
_TEN = 9.95
_STEPS = ((100, 1), (100 * 60, 60), (72 * 3600, 3600), (float("inf"), 86400))


def parse_span(text: str) -> float:
    """Seconds of a span such as ``90s``, ``10m``, ``1h30m``, ``2d``."""
    if _SPAN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no span of time; write it as 90s, 10m, 1h30m or 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def parse_due(text: str, now: float) -> float:
    """Unix time of ``10m`` (from now), ``2026-03-01T08:00``, or ``1767225600``.

    A date without a time zone is meant in the machine's own.
    """
    if text == "now":
        return now
    due = _due(text, now)
    if not 0 <= due < _END:
        raise ValueError(f"{text!r} is too far away")
    return due


def _due(text: str, now: float) -> float:
    span = text.removeprefix("+")
    if _SPAN.fullmatch(span) is not None:
        return now + parse_span(span)
    if _UNIX.fullmatch(text) is not None:
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text!r} is no time; write 10m or 1h30m (from now), 2026-03-01T08:00, "
            "or unix time in seconds"
        ) from None


def parse_size(text: str) -> int:
    """Bytes of ``500``, ``20MB``, ``1.5 G``, ``4GiB``: a kB is 1000 bytes, a KiB 1024."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found["binary"] and not found["unit"]):
        raise ValueError(f"{text!r} is no size; write it as 500, 20MB, 1.5G or 4GiB")
    power = " KMGTP".index(found["unit"].upper() or " ")
    step = 1024 if found["binary"] else 1000
    return int(float(found["number"]) * step**power)


def span(seconds: float) -> str:
    """A span in two or three characters, for tables: ``0s``, ``59s``, ``3m``, ``26h``, ``12d``."""
    number, unit = _coarse(seconds)
    return f"{number}{'smhd'[unit]}"


def span_in_words(seconds: float) -> str:
    """A span for sentences: ``59 s``, ``3 min``, ``26 h``, ``12 d``."""
    number, unit = _coarse(seconds)
    return f"{number} {('s', 'min', 'h', 'd')[unit]}"


def _coarse(seconds: float) -> tuple[int, int]:
    """The span in the unit that leaves it two digits, and that unit's place in ``_STEPS``."""
    seconds = max(0.0, seconds)
    for unit, (limit, length) in enumerate(_STEPS):
        if seconds < limit:
            return int(seconds // length), unit
    raise ValueError(f"{seconds!r} is no span of time")


def size(count: float) -> str:
    """Bytes for people: ``17 B``, ``3.2 MB``; a kB is 1000 bytes."""
    value = float(count)
    for unit in _SIZES:
        if value < 999.5 or unit == _SIZES[-1]:  # noqa: PLR2004 - what rounds to 1000 is the next unit
            return f"{value:.1f} {unit}" if unit != "B" and value < _TEN else f"{value:.0f} {unit}"
        value /= 1000
    raise AssertionError


def moment(seconds: float) -> str:
    """A point in time with the machine's zone, to the second."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ", "seconds")


def id_time(msg_id: str) -> float:
    """When a message was made, by its id."""
    day, minute, second, ms = msg_id.split(".")[:4]
    stamp = datetime.strptime(f"{day}{minute}{second}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return stamp.timestamp() + int(ms) / 1000


def id_stamp(seconds: float) -> str:
    """What sorts before all ids that are made at this time or later, and after all earlier ones."""
    seconds = min(max(seconds, 0.0), _END)
    ms = int(seconds * 1000)
    return f"{strftime('%Y%m%d.%H%M.%S', gmtime(ms // 1000))}.{ms % 1000:03d}"
