"""What becomes of an attempt: done, tried again when, or given up; and what that says of the target.

Pure.

    2xx                                   done
    410                                   given up; an endpoint is disabled
    ``webhook-delivery: abort-message``   given up
    anything else, or no answer           tried again

The form of RQ is tried again after count² · 60 seconds (at once, 1 min, 4 min … 196 min) and given up
with the 16th failure; the standard form by the schedule of Standard Webhooks, a tenth more at most so
that what failed together does not come back together, and given up with the 10th.  ``Retry-After``
makes it later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: In the message's ``job/``: what a run says of its target, and each attempt as a line.
RESULT_FILE = "webhook-result.json"
ATTEMPTS_FILE = "attempts.jsonl"
#: What a webhook message is made with, so that it is this module that gives up.
MAX_COUNT = 17
MAX_TRIES = 15
#: The waits of the standard form, in seconds: 75 h 35 min in all.
SCHEDULE = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
_STEP = 60
_JITTER = 0.1
_SHOWN = 500
_GONE = 410
_THROTTLES = {429, 502, 504}
_DAY = 86_400.0
_FIRST_PAUSE, _MOST_PAUSE = 10.0, 3600.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended: ``status`` is None without an answer; ``error`` is "" when all was well.

    ``refused``: it was not made, since our own rules forbid it or it cannot be meant; ``later``: but
    may be made when they have been corrected.
    """

    status: int | None
    error: str = ""
    retry_after: float | None = None
    abort: bool = False
    refused: bool = False
    later: bool = False

    @property
    def gone(self) -> bool:
        """Does the target want nothing any more?"""
        return self.status == _GONE

    @property
    def result(self) -> str:
        """One of `rqcore_webhook.health.RESULTS`."""
        if not self.error:
            return "success"
        if self.refused:
            return "refused"
        throttled = self.status in _THROTTLES or self.retry_after is not None
        return "throttled" if throttled else "failure"

    def facts(self) -> dict[str, Any]:
        """What the queue's process is told of it."""
        return {
            "result": self.result, "status": self.status, "error": self.error,
            "retry_after": self.retry_after, "gone": self.gone,
        }  # fmt: skip


def delay(
    count: int, *, standard: bool, retry_after: float | None, random: Callable[[], float]
) -> int | None:
    """Seconds until the next try after ``count`` former ones; None when this was the last.

    ``random`` gives numbers from 0 to 1.
    """
    if standard:
        if count >= len(SCHEDULE):
            return None
        wait = SCHEDULE[count] * (1 + _JITTER * random())
    else:
        if count >= MAX_TRIES:
            return None
        wait = float(count * count * _STEP)
    return math.ceil(max(wait, min(retry_after or 0.0, _DAY)))


def line(
    attempt: Attempt, count: int, name: str, *, standard: bool, random: Callable[[], float]
) -> str:
    """The line for RQ; ``name`` is ``webhook/ID`` of the message, as the command line takes it."""
    if not attempt.error:
        return f"done answered {attempt.status}"
    text = one_line(attempt.error)
    again = f"; to send it again: rq retry {name}"
    if (attempt.refused and not attempt.later) or attempt.gone or attempt.abort:
        return f"fail {text}{again}"
    wait = delay(count, standard=standard, retry_after=attempt.retry_after, random=random)
    if wait is None:
        return f"fail given up after {count + 1} tries: {text}{again}"
    return f"resend {wait}-{text}"


def throttle_seconds(times: int, retry_after: float | None) -> float:
    """How long a target is left alone that asked for it ``times`` times running."""
    own = min(_MOST_PAUSE, _FIRST_PAUSE * 2.0 ** min(times - 1, 20))
    return own if retry_after is None else min(retry_after, _DAY)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds of the header ``Retry-After`` (names in lower case); None for none, or for nonsense."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - seldom needed

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError, TypeError):
        return None


def one_line(text: object, most: int = _SHOWN) -> str:
    """Text that fits into a line of the pipe, whatever it was."""
    printable = "".join(char if char.isprintable() else " " for char in str(text))
    line = " ".join(printable.split())
    return line if len(line) <= most else line[: most - 1] + "…"
