"""Ruby's POSIX brackets, ``[[:alpha:]]`` and their like, which mean all of Unicode there.

Pure.  Python has no names for these sets, so their members are written out, as far as the basic
multilingual plane goes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from unicodedata import category

_PLANE = 0x10000
_SEPARATORS = set("\x1c\x1d\x1e\x1f")


def _is_space(char: str) -> bool:
    return char.isspace() and char not in _SEPARATORS


def _is_graphic(char: str) -> bool:
    return category(char) not in ("Cc", "Cn", "Cs") and not _is_space(char)


POSIX: dict[str, Callable[[str], bool]] = {
    "alpha": str.isalpha,
    "digit": lambda char: category(char) == "Nd",
    "alnum": lambda char: char.isalpha() or category(char) == "Nd",
    "word": lambda char: category(char)[0] in "LM" or category(char) in ("Nd", "Pc"),
    "upper": str.isupper,
    "lower": str.islower,
    "xdigit": lambda char: char in "0123456789abcdefABCDEF",
    "space": _is_space,
    "blank": lambda char: char == "\t" or category(char) == "Zs",
    "punct": lambda char: category(char)[0] == "P" or char in "$+<=>^`|~",
    "cntrl": lambda char: category(char) == "Cc",
    "graph": _is_graphic,
    "print": lambda char: _is_graphic(char) or category(char) == "Zs",
}


@functools.cache
def members(name: str) -> str:
    """The set of this name, as what stands within the brackets of a pattern."""
    holds = POSIX[name]
    parts = []
    begin = -1
    for code in range(_PLANE + 1):
        inside = code < _PLANE and holds(chr(code))
        if inside and begin < 0:
            begin = code
        elif not inside and begin >= 0:
            parts.append(f"\\u{begin:04x}-\\u{code - 1:04x}")
            begin = -1
    return "".join(parts)
