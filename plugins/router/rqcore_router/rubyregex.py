r"""Ruby's regular expressions, as far as both languages mean the same: `translated`.

Pure.  What a rules file of the first RQ can hold between its slashes becomes a pattern of Python's
`re` that finds the same: ``^`` and ``$`` are those of lines, ``\z`` and ``\Z`` ends of the text, ``\h``
a hexadecimal digit; ``\d``, ``\w`` and ``\s`` are ASCII, ``[[:alpha:]]`` and ``\b`` are not.  What
Python has no like of is refused, as is ``#{}``: nothing in a rules file is ever executed.
"""

from __future__ import annotations

import re
import warnings

from rqcore_router.posix import POSIX, members

_FLAGS = {"i": re.IGNORECASE, "m": re.DOTALL, "x": re.VERBOSE, "o": re.RegexFlag(0)}
#: Escapes outside of brackets that are written otherwise.
_ESCAPES = {
    "z": r"\Z", "Z": r"(?=\n?\Z)", "e": r"\x1b", "/": "/", "B": r"(?!\b)",
}  # fmt: skip
#: Escapes that mean the same, outside and inside of brackets; ``\b`` is another thing in each.
_SAME = set("Abnrtfva")
_SAME_INSIDE = set("bnrtfva")
#: Kinds of characters, as what stands within brackets: these are ASCII in Ruby, and all else is not.
_SETS = {
    "d": "0-9", "D": r"\x00-\x2f\x3a-\U0010ffff",
    "w": "0-9A-Z_a-z", "W": r"\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\U0010ffff",
    "s": r"\x09-\x0d\x20", "S": r"\x00-\x08\x0e-\x1f\x21-\U0010ffff",
    "h": "0-9A-Fa-f", "H": r"\x00-\x2f\x3a-\x40\x47-\x60\x67-\U0010ffff",
}  # fmt: skip
_BEGIN_OF_LINE = r"(?:\A|(?<=\n)(?!\Z))"
_GROUP = re.compile(
    r"\?(?:(?P<same>:|=|!|<=|<!|>)|<(?P<name>[A-Za-z_]\w*)>|(?P<flags>[imx]*(?:-[imx]+)?):)",
    re.ASCII,
)
_HEX = re.compile(r"x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})")
_BACKWARD = re.compile(r"k<([A-Za-z_]\w*)>|([1-9]\d?)(?!\d)", re.ASCII)
_BOUNDS = re.compile(r"\{(?:\d+(?:,\d*)?|,\d+)\}", re.ASCII)


class UnlikeError(ValueError):
    """This is no regular expression that Python knows; the text says what is unlike."""


def translated(source: str, flags: str) -> re.Pattern[str]:
    """The pattern of ``/source/flags``.  Raises `UnlikeError`."""
    given = re.RegexFlag(re.MULTILINE)
    for flag in flags:
        if flag not in _FLAGS:
            raise UnlikeError(f"the flag {flag!r} is not known; there are {', '.join(_FLAGS)}")
        given |= _FLAGS[flag]
    if "i" in flags and not source.isascii():
        raise UnlikeError("with the flag i only ASCII letters can be told")
    if "i" in flags and ("[:upper:]" in source or "[:lower:]" in source):
        raise UnlikeError("with the flag i upper and lower are the same; write [:alpha:]")
    text = _Translation(source).whole()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(text, given)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise UnlikeError(f"is no regular expression: {error}") from None


class _Translation:
    """One pass over the source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._out: list[str] = []

    def whole(self) -> str:
        while self._at < len(self._source):
            self._out.append(self._next())
        return "".join(self._out)

    def _next(self) -> str:
        char = self._take()
        match char:
            case "\\":
                return self._escape()
            case "[":
                return self._brackets()
            case "(":
                return self._group()
            case "#" if self._source[self._at : self._at + 1] in ("{", "$", "@"):
                raise UnlikeError(f"#{self._source[self._at]} would be executed; write it out")
            case "{":
                return self._bounds()
            case "^":
                return _BEGIN_OF_LINE
            case _:
                return char

    def _take(self) -> str:
        if self._at == len(self._source):
            raise UnlikeError("ends too early")
        self._at += 1
        return self._source[self._at - 1]

    def _matched(self, pattern: re.Pattern[str], start: int) -> re.Match[str] | None:
        found = pattern.match(self._source, start)
        if found is not None:
            self._at = found.end()
        return found

    def _escape(self) -> str:
        start = self._at
        char = self._take()
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char in _SETS:
            return f"[{_SETS[char]}]"
        if char in _SAME:
            return f"\\{char}"
        found = self._matched(_BACKWARD, start)
        if found is not None:
            # In parentheses of their own: a digit may follow.
            return f"(?P={found[1]})" if found[1] else rf"(?:\{found[2]})"
        return self._literal(start)

    def _literal(self, start: int) -> str:
        """An escape that stands for one character."""
        found = self._matched(_HEX, start)
        if found is not None:
            return re.escape(chr(int(found[1] or found[2], 16)))
        char = self._source[start]
        if char.isascii() and char.isalnum():
            raise UnlikeError(f"\\{char} is not known here; write it otherwise")
        return re.escape(char)

    def _bounds(self) -> str:
        found = self._matched(_BOUNDS, self._at - 1)
        if found is None:
            return r"\{"  # nothing to count: both take it as it is
        if self._source[self._at : self._at + 1] == "+":
            raise UnlikeError("a + after {} means another thing in each language; use (?>...)")
        return found[0]

    def _group(self) -> str:
        if self._source[self._at : self._at + 1] != "?":
            return "("
        found = self._matched(_GROUP, self._at)
        if found is None:
            raise UnlikeError(f"(?{self._source[self._at + 1 :][:1]} is not known here")
        if found["same"]:
            return f"(?{found['same']}"
        if found["name"]:
            return f"(?P<{found['name']}>"
        return f"(?{found['flags'].replace('m', 's')}:"

    def _brackets(self) -> str:
        parts = ["["]
        if self._source[self._at : self._at + 1] == "^":
            parts.append(self._take())
        if self._source[self._at : self._at + 1] == "]":
            raise UnlikeError("the brackets [] are empty; write \\] for a bracket")
        while (char := self._take()) != "]":
            parts.append(self._inside(char))
        return "".join([*parts, "]"])

    def _inside(self, char: str) -> str:
        rest = self._source[self._at :]
        if char == "[":
            name = rest[1:].partition(":]")[0]
            if rest.startswith(f":{name}:]") and name in POSIX:
                self._at += len(name) + 3
                return members(name)
            raise UnlikeError("brackets within brackets are not known; write \\[ for a bracket")
        if char == "&" and rest.startswith("&"):
            raise UnlikeError("&& within brackets is not known")
        if char == "#" and rest[:1] in ("{", "$", "@"):
            raise UnlikeError(f"#{rest[0]} would be executed; write it out")
        if char == "\\":
            start = self._at
            kind = self._take()
            if kind in _SETS:
                return _SETS[kind]
            return f"\\{kind}" if kind in _SAME_INSIDE else self._literal(start)
        return char if char in "-^" else re.escape(char)
