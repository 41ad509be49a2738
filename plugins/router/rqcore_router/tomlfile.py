"""Rules in TOML: one table ``[[rule]]`` for each, in their order.

    [[rule]]
    name = "images"
    dest = 'images$'
    action = "balance"
    route = ["mq1", { host = "mq2", weight = 3 }]

`read_toml` gives rules, or raises `RulesError`, for any text.  Patterns are Python's regular
expressions.
"""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from rqcore_router.problems import Findings, Problem, RulesError
from rqcore_router.rules import KEYS, Draft, Host, Pattern, Rules, build

# What a TOML text consists of, where only its lines matter: strings, which may hold anything,
# comments, brackets, ends of lines, and the rest.
_PART = re.compile(
    r'(?P<string>"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|"
    r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*')"
    r"|(?P<comment>\#[^\n]*)|(?P<end>\n)|(?P<open>[\[{])|(?P<close>[\]}])|(?P<rest>[^\"'#\n\[\]{}]+|.)",
    re.DOTALL,
)
_HEADER = re.compile(r"""\[\[\s*(?:rule|"rule"|'rule')\s*\]\]""")
_AT_LINE = re.compile(r"\(at line (\d+)")


def read_toml(text: str) -> Rules:
    """The rules in this text.  Raises `RulesError`."""
    try:
        whole = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = _AT_LINE.search(str(error))
        line = int(found[1]) if found else max(1, len(text.splitlines()))
        raise RulesError([Problem(line, f"is not TOML: {_reason(error)}")]) from None
    findings = Findings()
    lines = _lines(text)
    for key in whole:
        if key != "rule":
            findings.add(_line(lines, -1, key), f"{key!r} is not known; rules are tables [[rule]]")
    given = whole.get("rule", [])
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        findings.add(_line(lines, -1, "rule"), "rule must be tables; write [[rule]] before each")
        given = []
    drafts = [_draft(item, index, lines, findings) for index, item in enumerate(given)]
    return build(drafts, findings)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error).partition(" (at ")[0] or "cannot be read"


def _draft(
    given: Mapping[str, Any], index: int, lines: Mapping[tuple[int, str], int], findings: Findings
) -> Draft:
    begin = _line(lines, index, "")
    name = given.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        findings.add(_line(lines, index, "name"), "a rule needs a name: text in one line")
        name = f"rule {index + 1}"
    draft = Draft(name, begin)
    for key, value in given.items():
        line = _line(lines, index, key)
        if key in KEYS:
            draft.put(key, line, _value(key, value, line, findings))
        elif key != "name":
            known = ", ".join(("name", *KEYS))
            findings.add(line, f"{key!r} is nothing that a rule says; there are {known}")
    return draft


def _value(key: str, value: Any, line: int, findings: Findings) -> Any:
    """The value as a draft has it; None when it is wrong, which is noted."""
    match key, value:
        case (("src" | "dest"), str()):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    return Pattern(value, re.compile(value))
            except (re.error, RecursionError, OverflowError, Warning) as error:
                findings.add(line, f"{key} is no regular expression: {error}")
                return None
        case "action", str():
            return value
        case "route", list():
            return _hosts(value, line, findings)
        case "delay", int() | float() if not isinstance(value, bool):
            return value
        case "log", bool():
            return value
        case _:
            pass
    wanted = {
        "action": 'text, such as "relay"', "route": "a list of hosts", "delay": "a number of seconds",
        "log": "true or false",
    }  # fmt: skip
    findings.add(line, f"{key} must be {wanted.get(key, 'text: a regular expression')}")
    return None


def _hosts(given: list[Any], line: int, findings: Findings) -> list[Any] | None:
    route: list[Any] = []
    for item in given:
        host: Any
        if isinstance(item, list):
            host = [_host(inner) for inner in item]
            wrong = None in host
        else:
            host = _host(item)
            wrong = host is None
        if wrong:
            unknown = _unknown(item)
            findings.add(
                line,
                f"{unknown!r} is nothing that a host of the route says; there are host, weight"
                if unknown is not None
                else 'route must list hosts ("mq1" or { host = "mq1", weight = 2 }), or lists of them',
            )
            return None
        route.append(host)
    return route


def _host(given: Any) -> Host | None:
    match given:
        case str():
            return Host(given)
        case {"host": str(text), "weight": int() | float() as weight, **rest} if not rest:
            # A number too long for a float is none that anybody means.
            return None if isinstance(weight, bool) else Host(text, _float(weight))
        case {"host": str(text), **rest} if not rest:
            return Host(text)
        case _:
            return None


def _unknown(given: Any) -> str | None:
    """The first key in this item of a route that means nothing there."""
    items = given if isinstance(given, list) else [given]
    tables = [item for item in items if isinstance(item, dict)]
    return next((key for table in tables for key in table if key not in ("host", "weight")), None)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf")


def _line(lines: Mapping[tuple[int, str], int], rule: int, key: str) -> int:
    """The line of a rule's key, else of the rule, else of what holds all rules."""
    for place in ((rule, key), (rule, ""), (-1, "rule")):
        if place in lines:
            return lines[place]
    return 1


def _lines(text: str) -> dict[tuple[int, str], int]:
    """Where each rule begins (rule, ""), and each of its keys; what stands before them is rule -1."""
    found: dict[tuple[int, str], int] = {}
    rule = -1
    for number, line in _logical_lines(text):
        if _HEADER.match(line):
            rule += 1
            found[rule, ""] = number
        else:
            key = line.partition("=")[0].strip(" \t[]").strip("\"'")
            found.setdefault((-1 if line.startswith("[") else rule, key), number)
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines, those together that brackets and strings hold together; with the first one's number."""
    number = begin = 1
    depth = 0
    parts: list[str] = []
    for part in _PART.finditer(text):
        kind, word = part.lastgroup, part[0]
        if kind == "end" and depth <= 0:
            yield begin, "".join(parts).strip()
            parts.clear()
            begin = number + 1
        elif kind != "comment":
            parts.append(word)
        depth += (kind == "open") - (kind == "close")
        number += word.count("\n")
    yield begin, "".join(parts).strip()
