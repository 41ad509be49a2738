"""How peers are, as people read it, on the page and at the command line.

Pure.
"""

from __future__ import annotations

from typing import Any

from rqcore.words import size, span_in_words


def rate(value: float | None) -> str:
    """Bytes per second; a dash where none is known."""
    return "-" if value is None else f"{size(value)}/s"


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
    parts = [f"asked again in {span_in_words(probe - now)}"] if probe else []
    if row["next_try"] and row["waiting"]:
        parts.append(f"a message tries in {span_in_words(row['next_try'] - now)}")
    elif row["running"]:
        parts.append("a message tries now")
    return ", ".join(parts)
