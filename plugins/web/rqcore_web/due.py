"""When a message is due, as people write it into the form for a new one.

Pure.  It takes what ``rq send --due`` takes, and nothing for now.
"""

from __future__ import annotations

from rqcore import words


def parse_due(text: str, now: float) -> float:
    """Unix time of ``10m`` (from now), ``2026-03-01T08:00``, or ``1767225600``; ``""`` is now.

    A date without a time zone is meant in the machine's own.  Raises `ValueError` with a sentence.
    """
    text = text.strip()
    return words.parse_due(text, now) if text else now
