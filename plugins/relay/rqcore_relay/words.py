"""Numbers, times and states as people read them, on the page and at the command line.

Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_SIZES = ("B", "KB", "MB", "GB", "TB")
_TEN = 9.95
_SPANS = ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h"))


def span(seconds: float) -> str:
    """A span of time: ``59 s``, ``3 min``, ``26 h``, ``12 d``."""
    seconds = max(0.0, seconds)
    for limit, unit, name in _SPANS:
        if seconds < limit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds // 86400)} d"


def size(count: float) -> str:
    """Bytes: ``17 B``, ``3.2 MB``; a KB is 1000 bytes."""
    value = float(count)
    for unit in _SIZES:
        if value < 999.5 or unit == _SIZES[-1]:  # noqa: PLR2004 - what rounds to 1000 is the next unit
            return f"{value:.1f} {unit}" if unit != "B" and value < _TEN else f"{value:.0f} {unit}"
        value /= 1000
    raise AssertionError


def rate(value: float | None) -> str:
    """Bytes per second; a dash where none is known."""
    return "-" if value is None else f"{size(value)}/s"


def stamp(moment: float) -> str:
    """A point in time in the machine's zone, to the second."""
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(" ", "seconds")


def status(row: dict[str, Any]) -> str:
    """How a peer is, in a word or two."""
    if row["reachable"] is None:
        if row["failures"]:
            return "answers again"
        return "is tried" if row["running"] else "not tried yet"
    return "reachable" if row["reachable"] else "unreachable"


def is_over(row: dict[str, Any]) -> bool:
    """Did a message get through after the last error?"""
    return not row["failures"] and (row["last_success"] or 0) > row["last_error"]["at"]


def coming(row: dict[str, Any], now: float) -> str:
    """What happens next with a peer that is down; empty for one that is not."""
    if not row["failures"]:
        return ""
    probe = (row["probe"] or {}).get("next")
    parts = [f"asked again in {span(probe - now)}"] if probe else []
    if row["next_try"] and row["waiting"]:
        parts.append(f"a message tries in {span(row['next_try'] - now)}")
    elif row["running"]:
        parts.append("a message tries now")
    return ", ".join(parts)
