"""How far a running message is, as its status text says it: ``5 of 15``, ``5/15``, ``37%``.

Pure.  ``static/live.js`` reads a text by the same rules, so that a bar moves without asking the server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COUNTED = re.compile(r"(\d+(?:[.,]\d+)*)\s*(?:of|/|out of)\s*(\d+(?:[.,]\d+)*)\b", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_WHOLE = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """How far; ``value`` of ``total``, both as numbers."""

    value: float
    total: float

    @property
    def percent(self) -> int:
        """From 0 to 100."""
        return int(_WHOLE * self.value / self.total)


def parse(text: str) -> Progress | None:
    """What the text says, or None when it says nothing that makes sense."""
    for value, total in _COUNTED.findall(text):
        done, all_of_it = _number(value), _number(total)
        if all_of_it > 0 and done <= all_of_it:
            return Progress(done, all_of_it)
    found = _PERCENT.search(text)
    if found is not None and float(found[1]) <= _WHOLE:
        return Progress(float(found[1]), _WHOLE)
    return None


def _number(text: str) -> float:
    """``1,500`` and ``1.500`` are thousands; anything else with a point is a fraction."""
    plain = re.sub(r"[.,](?=\d{3}(?:\D|$))", "", text)
    return float(plain.replace(",", ".")) if plain.count(".") + plain.count(",") < 2 else 0.0  # noqa: PLR2004
