"""When a message is due, as people write it into the form for a new one.

Pure.  It takes what ``rq send --due`` takes.
"""

from __future__ import annotations

import re
from datetime import datetime

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"\+?((?:\d+(?:\.\d+)?[smhdw])+)", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_UNIX = re.compile(r"\d{9,11}(?:\.\d+)?", re.ASCII)
#: Everything later than the year 5138 is a slip of the hand; the kernel refuses it too.
_END = 1e11


def parse_due(text: str, now: float) -> float:
    """Unix time of ``10m`` (from now), ``2026-03-01T08:00``, or ``1767225600``; ``""`` is now.

    A date without a time zone is meant in the machine's own.  Raises `ValueError` with a sentence.
    """
    text = text.strip()
    if text in ("", "now"):
        return now
    due = _due(text, now)
    if not 0 <= due < _END:
        raise ValueError(f"{text!r} is too far away")
    return due


def _due(text: str, now: float) -> float:
    span = _SPAN.fullmatch(text)
    if span is not None:
        parts = _PART.findall(span[1])
        return now + sum(float(number) * _UNITS[unit] for number, unit in parts)
    if _UNIX.fullmatch(text) is not None:
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"{text!r} is no time; write 10m or 2h (from now), 2026-03-01T08:00, unix time in "
            "seconds, or nothing for now"
        ) from None
