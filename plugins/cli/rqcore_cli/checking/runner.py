"""One check from the question to the line and the exit status; ``rq check`` and ``check_rq`` call it.

It never raises: what the instance, the network or the caller do wrong is said in the line, and so is a
defect of its own, whose traceback goes to stderr.
"""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from rqcore.errors import RqError
from rqcore_cli.checking.ranges import Thresholds
from rqcore_cli.checking.sources import Facts
from rqcore_cli.checking.verdict import Finding, Verdict, judge, unknown

#: How much longer than all its parts the whole may take, seconds: a name server is in none of them.
_MARGIN = 1.0
#: Who takes the alarm for his own failure, as a plugin does, leaves the next one to another: seconds.
_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how the answer is to look; ``patience`` is seconds for the whole."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    queues: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    patience: float = 10.0
    strict: bool = False
    perfdata: bool = True


def check(
    question: Question,
    look: Callable[[float], Facts],
    more: Callable[[], Iterable[Finding]] = tuple,
) -> tuple[Verdict, Facts | None]:
    """Look, and judge; ``more`` gives what else was found.  The facts are None when nobody answers."""
    try:
        with alarm(question.patience + _MARGIN, _AGAIN):
            facts = look(question.patience)
            found = list(more())
        verdict = judge(facts, question.thresholds, question.queues, question.exclude, found)
    except TimeoutError:
        return unknown(f"no answer within {question.patience:g} s"), None
    except RqError as error:
        return unknown(str(error)), None
    except Exception as error:  # noqa: BLE001 - a defect ends with 1, which would be a warning
        traceback.print_exc()
        return unknown(f"the check itself failed: {type(error).__name__}: {error}"), None
    return verdict, facts


@contextmanager
def alarm(seconds: float, again: float) -> Iterator[None]:
    """Raise `TimeoutError` in whatever is waited for when the time is up, and then every ``again`` s."""

    def give_up(_: int, __: FrameType | None) -> None:
        raise TimeoutError("it took too long")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def answer(question: Question, verdict: Verdict, facts: Facts | None, *, as_json: bool) -> str:
    """What is printed."""
    if as_json:
        return json.dumps(verdict.report(facts, strict=question.strict), indent=2)
    return verdict.line(perfdata=question.perfdata, strict=question.strict)
