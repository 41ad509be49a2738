"""When something is to end, as people say it: ``30d``, ``12h``, ``2w``, or a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_end(text: str, now: datetime) -> datetime:
    """The time, in UTC.  Raises `ValueError`, in words, for what is none, or has passed."""
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            end = now + timedelta(**{_UNITS[span[2]]: int(span[1])})
        else:
            end = datetime.fromisoformat(text)
            end = (end if end.tzinfo else end.astimezone()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text} is no time: write 30d, 12h, 2w, or a date such as 2026-03-01"
        ) from None
    if end <= now:
        raise ValueError(f"{text} has passed")
    return end
