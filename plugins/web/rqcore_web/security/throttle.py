"""Slows down who guesses: the more attempts of an address failed, the longer it waits for the next.

The first few cost nothing: people mistype.  After that each failure doubles the pause, up to a minute.
An attempt counts when it begins and is taken back when it succeeds, so that a hundred at once are no
way around.  What is known is forgotten after a quarter of an hour without a failure, and of the
addresses that are known the ones longest silent are forgotten first when there are too many.

An IPv6 network of 64 bits counts as one address, because everybody has one.  Times are those of a
monotonic clock, in seconds, given by the caller.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

FREE = 5
LONGEST = 60.0
_FORGOTTEN_AFTER = 900.0
_MOST = 10_000


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Throttle:
    """See the head of this module."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: OrderedDict[str, _Failures] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """How long this address has to wait before its next attempt is looked at; 0: not at all."""
        known = self._known.get(_group(address))
        return max(0.0, known.until - now) if known else 0.0

    def attempt(self, address: str, now: float) -> int:
        """An attempt begins; it has failed unless `succeeded` is called.  Returns how many did."""
        group = _group(address)
        known = self._known.setdefault(group, _Failures())
        self._known.move_to_end(group)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        if now - known.last > _FORGOTTEN_AFTER:
            known.count = 0
        known.count += 1
        known.last = now
        if known.count > FREE:
            known.until = now + min(LONGEST, 2.0 ** min(known.count - FREE - 1, 10))
        return known.count

    def succeeded(self, address: str) -> None:
        """The attempt was none at guessing.  What failed before is not forgiven by it."""
        group = _group(address)
        known = self._known.get(group)
        if known is None:
            return
        known.count -= 1
        known.until = 0.0
        if known.count <= 0:
            del self._known[group]


def _group(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address
