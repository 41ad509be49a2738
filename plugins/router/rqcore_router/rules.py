"""Rules: what is looked at, in order, to know where a message goes.

Pure.  Both readers (`rqcore_router.tomlfile`, `rqcore_router.rubyfile`) make `Draft`s of what they
read, and `build` makes `Rules` of them, or names what is wrong: so both formats mean the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from rqcore_router.hosts import host_problem
from rqcore_router.problems import Findings

Action = Literal["relay", "balance", "done", "err"]
ACTIONS: tuple[str, ...] = get_args(Action)
#: What a rule can say beside its name.
KEYS = ("src", "dest", "action", "route", "delay", "log")
#: The rule of this name takes what no other rule matches.
DEFAULT = "default"
_LONGEST_DELAY = 10 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Host:
    """Where a copy can go (`rqcore_router.hosts`), and how often it is taken, beside others."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression: as it was written, and what is searched with."""

    text: str
    compiled: re.Pattern[str]
    flags: str = ""

    def __str__(self) -> str:
        return f"/{self.text}/{self.flags}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    ``src`` and ``dest`` are searched for in the message's; both must be found, None is found always.
    ``route`` has a group for each copy, and the copy goes to one host of it; balance has one group.
    ``delay`` is seconds between due and acting.  ``line`` is where the rule begins; 0 for the one
    that stands in no file.
    """

    name: str
    line: int
    action: Action
    src: Pattern | None = None
    dest: Pattern | None = None
    route: tuple[tuple[Host, ...], ...] = ()
    delay: float = 0.0
    log: bool = False

    def matches(self, src: str, dest: str) -> bool:
        """Does it take a message with these?"""
        return (self.src is None or self.src.compiled.search(src) is not None) and (
            self.dest is None or self.dest.compiled.search(dest) is not None
        )


#: What becomes of a message that no rule matches when none is named ``default``.
NO_RULE = Rule(DEFAULT, 0, "err")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a file, in their order, and what happens when none matches."""

    rules: tuple[Rule, ...]
    default: Rule = NO_RULE

    @property
    def delay_any(self) -> bool:
        """Does any of them have a delay?"""
        return any(rule.delay for rule in (*self.rules, self.default))

    def match(self, src: str, dest: str) -> Rule:
        """The rule that takes a message."""
        return next((rule for rule in self.rules if rule.matches(src, dest)), self.default)


@dataclass(slots=True)
class Draft:
    """A rule as it was read: what was right in it; ``lines`` says where each key stands.

    Values: ``src`` and ``dest`` a `Pattern`, ``action`` text, ``route`` a list of `Host`s and of
    lists of them, ``delay`` a number, ``log`` a truth value.  A key that was read, but was wrong, is
    in ``lines`` only.
    """

    name: str
    line: int
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def has(self, key: str) -> bool:
        """Is it said, rightly or wrongly?"""
        return key in self.lines

    def put(self, key: str, line: int, value: Any) -> None:
        """Note what was read."""
        self.lines[key] = line
        if value is not None:
            self.values[key] = value


def build(drafts: Sequence[Draft], findings: Findings) -> Rules:
    """The rules.  Raises `RulesError` with what was found before, and what is found here."""
    rules = [_rule(draft, findings) for draft in drafts]
    for draft in drafts[:-1]:
        if draft.name == DEFAULT:
            findings.add(draft.line, "the rule default must be the last: no rule after it is asked")
    if not drafts and not findings.found:
        findings.add(1, "there is no rule; write one, or remove the file to route nothing")
    findings.finish()
    if rules[-1].name == DEFAULT:
        return Rules(tuple(rules[:-1]), rules[-1])
    return Rules(tuple(rules))


def _rule(draft: Draft, findings: Findings) -> Rule:
    patterns = [key for key in ("src", "dest") if draft.has(key)]
    if draft.name == DEFAULT:
        for key in patterns:
            text = (
                f"the rule default takes all that is left; remove its {key}, or name it otherwise"
            )
            findings.add(draft.lines[key], text)
    elif not patterns:
        findings.add(
            draft.line,
            f"the rule {draft.name!r} has neither src nor dest; give one, or call it default",
        )
    action = _action(draft, findings)
    return Rule(
        name=draft.name,
        line=draft.line,
        action=action,
        src=draft.values.get("src"),
        dest=draft.values.get("dest"),
        route=_route(draft, action, findings),
        delay=_delay(draft, findings),
        log=draft.values.get("log", False),
    )


def _action(draft: Draft, findings: Findings) -> Action:
    given = draft.values.get("action")
    if given in ACTIONS:
        return cast("Action", given)
    if given is not None:
        findings.add(
            draft.lines["action"], f"{given!r} is no action; there are {', '.join(ACTIONS)}"
        )
    elif not draft.has("action"):
        findings.add(draft.line, f"the rule {draft.name!r} has no action; add one")
    return "err"


def _route(draft: Draft, action: Action, findings: Findings) -> tuple[tuple[Host, ...], ...]:
    given = draft.values.get("route")
    line = draft.lines.get("route", draft.line)
    if given is None:
        if action in ("relay", "balance") and not draft.has("route"):
            findings.add(line, f"{action} needs a route; name the hosts")
        return ()
    groups = [tuple(item) if isinstance(item, list) else (item,) for item in given]
    if not groups or not all(groups):
        findings.add(line, "a list of the route is empty; name a host, or remove it")
    for host in (host for group in groups for host in group):
        problem = host_problem(host.text)
        if problem:
            findings.add(line, problem)
        if not 0 < host.weight < math.inf:
            findings.add(
                line, f"the weight of {host.text!r} must be above 0; leave an idle host out"
            )
    if action == "balance":
        if any(isinstance(item, list) for item in given) and len(groups) > 1:
            findings.add(line, "balance takes one host of one list; write the hosts as one list")
        return (tuple(host for group in groups for host in group),)
    return tuple(groups)


def _delay(draft: Draft, findings: Findings) -> float:
    delay = draft.values.get("delay", 0)
    if not 0 <= delay <= _LONGEST_DELAY:  # nan is not, either
        findings.add(draft.lines["delay"], "delay must be seconds, from 0 to ten years")
        return 0.0
    return float(delay)
