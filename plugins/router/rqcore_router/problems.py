"""What is wrong with a rules file: every problem at once, each with its line.

Both readers collect into a `Findings`; whoever reads a file gets rules, or one `RulesError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rqcore.errors import RqError


class Problem(NamedTuple):
    """``text`` says what is wrong and what to do, ``line`` where; lines are counted from 1."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


class RulesError(RqError):
    """These are no rules; ``problems`` are sorted by line, and there is one at least."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("; ".join(map(str, self.problems)))


class Findings:
    """The problems found so far."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, line: int, text: str) -> None:
        """One more."""
        self.found.append(Problem(line, text))

    def finish(self) -> None:
        """That was all.  Raises `RulesError` if there was any."""
        if self.found:
            raise RulesError(self.found)


def decoded(data: bytes) -> str:
    """The text of a rules file.  Raises `RulesError` where it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RulesError([Problem(line, "is not UTF-8; save the file as UTF-8")]) from None
