"""Which hosts get a copy: one of each group of the route.

Pure but for the dice, which are given.  Hosts that are known to be unreachable are left out while the
group has another; of the rest each is taken as often as its weight says.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from rqcore.errors import RefusedError
from rqcore_router.hosts import base_of, destination
from rqcore_router.rules import Host, Rule


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a copy may go; ``local`` when it is a queue of this instance."""

    dest: str
    weight: float
    local: bool
    reachable: bool


def candidates(rule: Rule, dest: str, down: Collection[str]) -> list[list[Candidate]]:
    """For each copy, where it may go.  Raises `RefusedError` for a ``dest`` that no host fits."""
    return [[_candidate(host, dest, down) for host in group] for group in rule.route]


def _candidate(host: Host, dest: str, down: Collection[str]) -> Candidate:
    there = destination(host.text, dest)
    base = base_of(there) if "://" in there else None
    return Candidate(there, host.weight, local=base is None, reachable=base not in down)


def chosen(rule: Rule, dest: str, down: Collection[str], dice: Random) -> list[str]:
    """The destinations of the copies, in the order of the route, each once."""
    picked = [_pick(group, dice) for group in candidates(rule, dest, down)]
    return list(dict.fromkeys(picked))


def _pick(group: list[Candidate], dice: Random) -> str:
    able = [one for one in group if one.reachable] or group
    if not able:
        raise RefusedError("the route names no host")
    weights = [one.weight for one in able]
    return dice.choices(able, weights)[0].dest
