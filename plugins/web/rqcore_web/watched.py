"""When the site was there to count: how many seconds of each minute, ten minutes and hour.

It is written whenever the history is, and when the site stops, for all the time since it was written
last; nobody has to wake up for it.  The time between is measured by a clock that is never set, so a
clock that is set, or a machine that slept, makes no time look watched that nobody watched.
"""

from __future__ import annotations

import struct
from math import floor
from pathlib import Path
from time import monotonic, time

from rqcore_web.ringfile import Form, Ring, RingFile

_SECONDS = struct.Struct("<f")


class Watched:
    """See the head of this module; watching begins when it is made."""

    def __init__(self, path: Path, rings: tuple[Ring, ...]) -> None:
        self._rings = rings
        self._file = RingFile(path, Form(b"watched", rings, _SECONDS.size))
        self._since = monotonic()

    def write(self) -> None:
        """Remember that it was watched until now.  Raises `OSError`; the next time does it all."""
        now, records = monotonic(), []
        for place, ring in enumerate(self._rings):
            shares = self._unwritten(ring, now)
            known = self._written(place, min(shares), max(shares))
            for number, seconds in shares.items():
                whole = min(ring.width, known.get(number, 0.0) + seconds)
                records.append((place, number, _SECONDS.pack(whole)))
        self._file.write(records)
        self._since = now

    def seconds(self, place: int, first: int, last: int) -> dict[int, float]:
        """How much of each bucket of a ring was watched, by number; raises `OSError`."""
        ring = self._rings[place]
        found = self._written(place, first, last)
        for number, seconds in self._unwritten(ring, monotonic()).items():
            if first <= number <= last:
                found[number] = min(ring.width, found.get(number, 0.0) + seconds)
        return found

    def _written(self, place: int, first: int, last: int) -> dict[int, float]:
        records = self._file.read(place, first, last)
        return {number: _SECONDS.unpack(record)[0] for number, record in records.items()}

    def _unwritten(self, ring: Ring, now: float) -> dict[int, float]:
        """The seconds since it was written last, by bucket; the latest bucket is always there."""
        until = time()
        began = until - max(0.0, now - self._since)
        last = floor(until / ring.width)
        first = max(floor(began / ring.width), last - ring.length + 1)
        return {
            number: min((number + 1) * ring.width, until) - max(number * ring.width, began)
            for number in range(first, last + 1)
        }
