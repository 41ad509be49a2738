"""One check from the question to the line and the exit status; ``rq check`` and ``check_rq`` call it.

It never raises for what the instance, the network or the caller do: that is said in the line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rqcore.errors import RqError
from rqcore_cli.checking.ranges import Thresholds
from rqcore_cli.checking.sources import Facts
from rqcore_cli.checking.verdict import Finding, Verdict, judge, unknown
from rqcore_cli.follow import deadline

#: How much longer than all its parts the whole may take, seconds: a name server is in none of them.
_MARGIN = 1.0


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
        with deadline(question.patience + _MARGIN):
            facts = look(question.patience)
            found = list(more())
    except TimeoutError:
        return unknown(f"no answer within {question.patience:g} s"), None
    except RqError as error:
        return unknown(str(error)), None
    return judge(facts, question.thresholds, question.queues, question.exclude, found), facts


def answer(question: Question, verdict: Verdict, facts: Facts | None, *, as_json: bool) -> str:
    """What is printed."""
    if as_json:
        return json.dumps(verdict.report(facts, strict=question.strict), indent=2)
    return verdict.line(perfdata=question.perfdata, strict=question.strict)
