"""How times spread: their number, sum, longest, and a small histogram, in a fixed number of bytes.

Bin 0 counts times below a millisecond, bin K those from 2 to the power of K-1 up to 2 to the power of K
milliseconds; the last bin, from 18 hours up, counts all that are longer.  A quantile is therefore an
estimate, within its bin; it never exceeds the longest time that was seen.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar

BINS = 28
_FORM = struct.Struct(f"<dd{BINS}I")
_MOST = (1 << 32) - 1
#: A time that a broken clock made is not longer than this, in seconds.
_LONGEST = 1e9


@dataclass(slots=True)
class Spread:
    """Times in seconds; see the head of this module."""

    total: float = 0.0
    longest: float = 0.0
    bins: list[int] = field(default_factory=lambda: [0] * BINS)

    #: How many bytes `pack` gives.
    SIZE: ClassVar[int] = _FORM.size

    def add(self, seconds: float) -> None:
        """One more time; a negative one, which only a clock set back makes, is none at all."""
        seconds = min(max(seconds, 0.0), _LONGEST)
        self.total += seconds
        self.longest = max(self.longest, seconds)
        self.bins[min(int(seconds * 1000).bit_length(), BINS - 1)] += 1

    def merge(self, other: Spread) -> None:
        """All times of another one too."""
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        self.bins = [mine + theirs for mine, theirs in zip(self.bins, other.bins, strict=True)]

    @property
    def count(self) -> int:
        """How many times there are."""
        return sum(self.bins)

    @property
    def mean(self) -> float | None:
        """Their mean in seconds; None for none."""
        count = self.count
        return self.total / count if count else None

    def quantile(self, share: float) -> float | None:
        """The time that this share (0 to 1) of all does not exceed, about; None when there are none."""
        count = self.count
        if not count:
            return None
        rank = share * count
        before = 0
        for number, inside in enumerate(self.bins):
            if inside and before + inside >= rank:
                low = 0.0 if number == 0 else 2.0 ** (number - 1) / 1000
                high = max(low, self.longest if number == BINS - 1 else 2.0**number / 1000)
                return min(self.longest, low + (high - low) * max(0.0, rank - before) / inside)
            before += inside
        return self.longest

    def pack(self) -> bytes:
        """It as bytes, always as many."""
        bins = (min(number, _MOST) for number in self.bins)
        return _FORM.pack(self.total, self.longest, *bins)

    @classmethod
    def unpack(cls, data: bytes) -> Spread:
        """What `pack` made."""
        total, longest, *bins = _FORM.unpack(data)
        return cls(total, longest, bins)
