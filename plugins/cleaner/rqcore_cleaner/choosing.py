"""Which messages a rule lets go.

`plan` turns the rule of a state into a `Cut`, by looking at names alone (at sizes too, for a bound in
bytes); `going` then gives the messages to be removed, the oldest first, one by one.

A message goes by age when the age is over since it came to rest (`rqcore_cleaner.listing.ended`), not
since it was made: one that waited in the queue for a week and ended just now stays.  Bounds by number,
bytes and percent keep the newest, by id.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from rqcore import words
from rqcore.lifecycle import State
from rqcore_cleaner import listing
from rqcore_cleaner.listing import Listing
from rqcore_cleaner.rules import Rule

#: Sorts after every id.
_AFTER_ALL = "~"


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a state is cut: what sorts before ``at`` goes; before ``aged`` if it rested since ``rest``.

    ``total`` is how many messages there were, ``most`` how many may go.
    """

    queue: str
    path: str
    state: State
    rule: Rule
    total: int = 0
    most: int = 0
    at: str = ""
    aged: str = ""
    rest: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that goes: its id, and where it lies."""

    msg_id: str
    path: str


def plan(queue: str, path: str, state: State, rule: Rule, now: float) -> Cut:
    """What this rule means for the queue with the directory ``path``, now."""
    if rule.keeps_all:
        return Cut(queue, path, state, rule)
    place = Listing(path, state)
    total = place.count()
    bound = _number_kept(rule, total)
    at = "" if bound is None or bound >= total else _after(place, bound)
    if rule.size is not None:
        at = max(at, _beyond(place, rule.size))
    rest = 0.0 if rule.age is None else now - rule.age
    aged = "" if rule.age is None else words.id_stamp(rest)
    if rule.age is not None and rule.age <= 0:
        aged, rest = _AFTER_ALL, math.inf
    most = _before(place, max(at, aged))
    return Cut(queue, path, state, rule, total, most, at, aged, rest)


def going(cut: Cut) -> Iterator[Candidate]:
    """The messages that go, the oldest first."""
    end = max(cut.at, cut.aged)
    if not end:
        return
    for msg_id, path in Listing(cut.path, cut.state).ids():
        if msg_id >= end:
            return
        if msg_id < cut.at or _rested(path, cut):
            yield Candidate(msg_id, path)


def _rested(path: str, cut: Cut) -> bool:
    return listing.ended(path, cut.state) < cut.rest


def _number_kept(rule: Rule, total: int) -> int | None:
    bounds = [] if rule.number is None else [rule.number]
    if rule.percent is not None:
        bounds.append(-int(-total * rule.percent // 100))
    return min(bounds, default=None)


def _after(place: Listing, keep: int) -> str:
    """What the newest ``keep`` ids, and no others, do not sort before."""
    for _, names in place.minutes(newest_first=True):
        if keep < len(names):
            return f"{names[keep]} "  # a space sorts before everything that an id has
        keep -= len(names)
    return ""


def _beyond(place: Listing, most: int) -> str:
    """What all ids sort before that the newest ``most`` bytes have no room for."""
    taken = 0
    for msg_id, path in place.ids(newest_first=True):
        taken += listing.size(path)
        if taken > most:
            return f"{msg_id} "
    return ""


def _before(place: Listing, end: str) -> int:
    """How many ids sort before that."""
    count = 0
    for _, names in place.minutes():
        if names and names[-1] >= end:
            return count + bisect_left(names, end)
        count += len(names)
    return count
