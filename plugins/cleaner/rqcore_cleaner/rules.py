"""What of a queue is kept, and which rule says so.

Pure.  A `Rule` bounds the messages of one queue in one state: by age, number and bytes; what any of
the three has no room for goes, the oldest first.  `rule_for` finds the rule: the more particular one
wins, see its docstring.  Messages in ``que`` and ``run`` have no rule: they are work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rqcore import words
from rqcore.lifecycle import State

#: States that may have a rule; others are never cleaned.
CLEANED = (State.DONE, State.RELAYED, State.PREP, State.ERR)
#: States that have a rule where nobody says anything: the contract's.
BY_DEFAULT = (State.DONE, State.RELAYED, State.PREP)
DAY = 86_400.0
#: Days after which messages go where nobody says anything: the contract's.
DAYS = 2.0
#: The contract's bound for ``relayed`` of the queue relay.
RELAYED = 60_000
#: The name in the options that stands for every queue.
EVERY = "*"

Rules = Mapping[str, Mapping[State, "Rule"]]


@dataclass(frozen=True, slots=True)
class Rule:
    """No message older than ``age`` seconds, no more than ``number``, no more than ``size`` bytes.

    ``percent`` keeps so many of a hundred, the newest.  None is no bound.
    """

    age: float | None = None
    number: int | None = None
    size: int | None = None
    percent: float | None = None

    @property
    def keeps_all(self) -> bool:
        """Does no message ever go by this rule?"""
        return self == Rule()

    def __str__(self) -> str:
        """The rule in words: ``2 d, at most 60,000``."""
        parts = [
            "" if self.age is None else words.span_in_words(self.age),
            "" if self.number is None else f"at most {self.number:,}",
            "" if self.size is None else f"at most {words.size(self.size)}",
            "" if self.percent is None else f"{self.percent:g} %",
        ]
        return ", ".join(filter(None, parts)) or "all"


def rule_for(
    rules: Rules, queue: str, state: State, days: float | None = None, *, named: bool = False
) -> Rule:
    """The rule for a state of a queue.

    ``days`` is what a message of the queue cleaner asks for, ``named`` whether it names this queue.
    From the most particular to the least: days for this very queue, the options' rule for it, days for
    all queues, the options' rule for all, the default.  Of a rule that days replace, the bounds by
    number and bytes stay.
    """
    own, every = rules.get(queue, {}).get(state), rules.get(EVERY, {}).get(state)
    standard = Rule(age=DAYS * DAY) if state in BY_DEFAULT else Rule()
    found = own if own is not None else every if every is not None else standard
    replaced = days is not None and state in BY_DEFAULT and (named or own is None)
    if replaced and days is not None:
        found = replace(found, age=days * DAY)
    if queue == "relay" and state is State.RELAYED and found.number is None and own is None:
        found = replace(found, number=RELAYED)
    return found
