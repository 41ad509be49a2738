"""What becomes of a transfer that did not work: when it is tried again, and when it is given up.

Pure.  Trouble on the way is raised as `TroubleError` (it may go away: the message is sent again later),
`ForgottenError` (what was prepared at the peer is gone: begun anew, later), or `GivenUpError` (trying
again helps nobody).  `verdict` makes the line of it that RQ is told.

A try comes after the square of the count times ten seconds, more or less a tenth so that what failed
together does not come back together, and not before the peer wants it (``Retry-After``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

#: A line of the pipe may be long; people read a short one.
_MOST = 500
_STEP = 10.0
_JITTER = 0.1


class TroubleError(Exception):
    """It did not work now; ``retry_after`` is how long the peer wants to be left alone, in seconds."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class CutError(TroubleError):
    """The peer did not answer: no connection, or it was lost; it may be there again in a moment."""


class ForgottenError(TroubleError):
    """The peer does not know the prepared message any more, which was never committed."""


class GivenUpError(Exception):
    """It will not work by trying again, or must not be tried."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a message is tried: its ``count`` of tries so far, and the limits."""

    count: int
    max_tries: int
    #: The message's own limit, at which RQ moves it to err.
    max_count: int
    #: Seconds since the first try, and how many are allowed; 0 for any.
    age: float
    give_up_after: float

    def end(self) -> str:
        """After how much this was the last try; empty when it was not.

        With ``max_tries`` of 15 the 16th failure is the last, as in the contract ("more than 15 times"),
        with a ``max_count`` of 15 the 15th.
        """
        tries = "1 try" if self.count == 0 else f"{self.count + 1} tries"
        if self.count >= self.max_tries:
            return f"{tries} (max_tries is {self.max_tries})"
        if self.count + 1 >= self.max_count:
            return f"{tries} (max_count of the message is {self.max_count})"
        if self.give_up_after and self.age > self.give_up_after:
            return f"{tries} in more than {self.give_up_after:g} s (give_up_after)"
        return ""


def delay(count: int, retry_after: float | None, random: Callable[[], float]) -> int:
    """Seconds until the next try, after ``count`` former ones; ``random`` gives numbers from 0 to 1."""
    back_off = count * count * _STEP * (1 + _JITTER * (2 * random() - 1))
    return math.ceil(max(back_off, retry_after or 0.0))


def verdict(
    trouble: TroubleError, patience: Patience, name: str, prepared: str,
    random: Callable[[], float],
) -> str:  # fmt: skip
    """The line for RQ; ``name`` is ``relay/ID`` of the message, as the command line takes it.

    ``prepared`` is the full id of a copy that may lie at the peer, or empty.
    """
    end = patience.end()
    if not end:
        return f"resend {delay(patience.count, trouble.retry_after, random)}-{one_line(trouble)}"
    where = f"; a prepared copy may lie at {prepared}" if prepared else ""
    remedy = f"; to take it up again: rq retry {name}"
    return f"fail given up after {end}: {one_line(trouble)}{where}{remedy}"


def one_line(text: object) -> str:
    """Text that fits into a line of the pipe, whatever it was."""
    printable = "".join(char if char.isprintable() else " " for char in str(text))
    line = " ".join(printable.split())
    return line if len(line) <= _MOST else line[: _MOST - 1] + "…"
