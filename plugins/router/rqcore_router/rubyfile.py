"""The rules file of the first RQ, a piece of Ruby: read, and not executed.

A list of blocks, each opened by a line ``rule "name"`` and closed by an empty line or the file's end:

    rule "images"
      src   /camera/          # a comment
      dest  /images$/
      action :relay
      route "mq1", ["mq2", "mq3"]
      delay 10
      log true

`read_ruby` gives rules, or raises `RulesError`, for any text; what is not as above is refused, with
its line.  A line goes on after a comma, and within brackets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rqcore_router.problems import Findings
from rqcore_router.rubytokens import Token, lines
from rqcore_router.rules import KEYS, Draft, Host, Rules, build

_TRUTH = {"true": True, "false": False}


def read_ruby(text: str) -> Rules:
    """The rules in this text.  Raises `RulesError`."""
    findings = Findings()
    drafts: list[Draft] = []
    current: Draft | None = None
    for statement in _statements(text, findings):
        if statement is None:
            current = None
        elif statement[0].value == "rule" and statement[0].kind == "word":
            if current is not None:
                findings.add(statement[0].line, "an empty line must stand before a rule; add one")
            current = _opened(statement, len(drafts), findings)
            drafts.append(current)
        else:
            _said(statement, current, findings)
    return build(drafts, findings)


def _statements(text: str, findings: Findings) -> Iterator[list[Token] | None]:
    """Statement by statement; None for an empty line."""
    waiting: list[Token] = []
    for line in lines(text, findings):
        if line.blank:
            if waiting:
                findings.add(
                    waiting[-1].line, "the line ends too early: an empty line closes a rule"
                )
                waiting = []
            yield None
            continue
        waiting += line.tokens
        if waiting and (_is_wrong(waiting) or not _goes_on(waiting)):
            yield waiting
            waiting = []
    if waiting:
        findings.add(waiting[-1].line, "the file ends too early: something has to follow here")


def _is_wrong(tokens: list[Token]) -> bool:
    """Was a part of it not understood, which has been told?"""
    return tokens[-1].kind == "wrong"


def _goes_on(tokens: list[Token]) -> bool:
    depth = sum((token.kind == "open") - (token.kind == "close") for token in tokens)
    return depth > 0 or tokens[-1].kind == "comma"


def _opened(statement: list[Token], number: int, findings: Findings) -> Draft:
    begin = statement[0].line
    match statement[1:]:
        case [Token(kind="string", value=str(name))] if name and name.isprintable():
            return Draft(name, begin)
        case rest:
            if not rest or not _is_wrong(rest):
                findings.add(begin, 'a rule is opened by its name alone, such as: rule "images"')
            return Draft(f"rule {number + 1}", begin)


def _said(statement: list[Token], current: Draft | None, findings: Findings) -> None:
    word, *rest = statement
    if word.kind == "wrong":
        return
    if word.kind != "word" or word.value not in KEYS:
        known = ", ".join(("rule", *KEYS))
        findings.add(word.line, f"{word.text[:40]} is not known; a line begins with one of {known}")
        return
    if current is None:
        findings.add(
            word.line, f'{word.value} belongs to no rule; write a line rule "NAME" before it'
        )
        return
    if current.has(word.value):
        findings.add(word.line, f"{word.value} is said twice; keep one of the lines")
        return
    wrong = _is_wrong(statement)
    current.put(word.value, word.line, None if wrong else _value(word, rest, findings))


def _value(word: Token, rest: list[Token], findings: Findings) -> Any:
    """What a draft takes; None when it is wrong, which is noted."""
    match word.value, rest:
        case (("src" | "dest"), [Token(kind="regex", value=pattern)]):
            return pattern
        case "action", [Token(kind="symbol", value=action)]:
            return action
        case "delay", [Token(kind="number", value=seconds)]:
            return seconds
        case "log", [Token(kind="word", value=("true" | "false") as truth)]:
            return _TRUTH[truth]
        case "route", _:
            route = _Route(rest).whole()
            if route is not None:
                return route
        case _:
            pass
    wanted = {
        "src": "a regular expression, such as /camera/", "dest": "a regular expression: /images$/",
        "action": ":relay, :balance, :done or :err", "delay": "a number of seconds",
        "log": "true or false", "route": 'hosts and lists of hosts: "a", ["b", "c"]',
    }  # fmt: skip
    findings.add(
        word.line, f"{word.value} must be followed by {wanted[word.value]}, and nothing else"
    )
    return None


class _Route:
    """``"a", ["b", "c"]``: hosts and lists of hosts."""

    def __init__(self, tokens: list[Token]) -> None:
        self._waiting = list(reversed(tokens))

    def whole(self) -> list[Host | list[Host]] | None:
        """What is listed; None when it is something else."""
        route: list[Host | list[Host]] = []
        while True:
            item = self._group() if self._next_is("open") else self._host()
            if item is None:
                return None
            route.append(item)
            if not self._waiting:
                return route
            if not self._take("comma"):
                return None

    def _group(self) -> list[Host] | None:
        self._take("open")
        group: list[Host] = []
        while not self._take("close"):
            host = self._host()
            if host is None:
                return None
            group.append(host)
            if not self._take("comma") and not self._next_is("close"):
                return None
        return group

    def _host(self) -> Host | None:
        if not self._next_is("string"):
            return None
        return Host(self._waiting.pop().value)

    def _next_is(self, kind: str) -> bool:
        return bool(self._waiting) and self._waiting[-1].kind == kind

    def _take(self, kind: str) -> bool:
        if not self._next_is(kind):
            return False
        self._waiting.pop()
        return True
