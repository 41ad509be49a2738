r"""The filter language, by which people and programs say which messages they mean.

    state:err param1:foo* age:>1h -src:cron status:"no space left" ENOENT

Terms are separated by spaces, and a message has to fit all of them.  ``-`` before a term turns it round.

    ENOENT  "two words"   some field, or the status, holds this text
    text:ENOENT           the same
    param1:foo            this field holds the text; ``param`` is any of the four parameters
    param1:foo*           the whole field is like this; ``*`` stands for any text
    param1:=foo           the whole field is exactly this
    state:que,err         in one of these states
    count:>3              with ``>``, ``>=``, ``<``, ``<=`` or nothing for equal
    age:>1h  age:<2d      older, younger, by the time in the id; units are s, m, h, d and w: 1h30m

Upper and lower case are the same.  In quotes everything stands for itself, but for ``\"`` and ``\\``.
`parse` raises nothing but `RefusedError`, which names the position and what may stand there; the text
of a `Filter` is a filter that means the same: ``parse(str(f)) == f``.  `page` is in `finding`.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import gmtime, strftime, time
from typing import Any

from rqcore.errors import RefusedError
from rqcore.message import PARAM_NAMES
from rqcore_web.finding import page
from rqcore_web.spool import STATES

__all__ = ["FIELDS", "Filter", "Number", "Text", "id_time", "page", "parse", "status_text"]

_TEXTS = (
    "text", "status", "src", "dest", "param", *PARAM_NAMES, "msg_id", "orig_msg_id", "cloned_from",
)  # fmt: skip
_NUMBERS = ("count", "max_count")
#: Everything that may stand before a colon.
FIELDS = ("state", *_TEXTS, *_NUMBERS, "age")
_MOST = 4000
_EMPTY = '""'

_ID = re.compile(r"(\d{4})(\d\d)(\d\d)\.(\d\d)(\d\d)\.(\d\d)\.(\d{3})", re.ASCII)
_FIELD = re.compile(r"([A-Za-z_]\w*):", re.ASCII)
_WORD = re.compile(r"[^\s\"]*")
_COMPARED = re.compile(r"(>=|<=|>|<|=)?(.*)", re.DOTALL)
_SPAN = re.compile(r"(?:\d{1,9}[smhdw])+", re.ASCII)
_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
#: Text that means itself where it stands without quotes.
_PLAIN = re.compile(r"[^\s\"*:=<>,\\-][^\s\"*:]*")


@dataclass(frozen=True, slots=True)
class Text:
    """A field (``text`` for any) is like this: what stands between the stars, one part for no star."""

    field: str
    parts: tuple[str, ...]
    exact: bool = False
    negated: bool = False

    def __str__(self) -> str:
        """As it is written in a filter."""
        pattern = "*".join(part and _quoted(part) for part in self.parts)
        field = "" if self.field == "text" else f"{self.field}:"
        return f"{'-' * self.negated}{field}{'=' * self.exact}{pattern or _EMPTY}"

    def fits(self, item: Mapping[str, Any], _: float) -> bool:
        return self.negated is not any(map(self._like, self._values(item)))

    def _values(self, item: Mapping[str, Any]) -> Iterator[str]:
        if self.field == "text":
            # The same texts that a queue looks at when it is asked for some (`list_messages`).
            yield from (str(value).lower() for value in item.values())
        elif self.field == "param":
            yield from (str(item.get(name, "")).lower() for name in PARAM_NAMES)
        elif self.field == "status":
            yield status_text(item).lower()
        else:
            yield str(item.get(self.field, "")).lower()

    def _like(self, value: str) -> bool:
        parts = [part.lower() for part in self.parts]
        if self.exact:
            return value == parts[0]
        if len(parts) == 1:
            return parts[0] in value
        if self.field == "text":  # some part of a field is like this
            parts = ["", *parts, ""]
        return _glob(parts, value)


@dataclass(frozen=True, slots=True)
class Number:
    """A number, or the age in seconds, compares so."""

    field: str
    sign: str
    value: int
    negated: bool = False

    def __str__(self) -> str:
        """As it is written in a filter."""
        value = _span(self.value) if self.field == "age" else str(self.value)
        sign = "" if self.sign == "=" else self.sign
        return f"{'-' * self.negated}{self.field}:{sign}{value}"

    def fits(self, item: Mapping[str, Any], now: float) -> bool:
        if self.field == "age":
            made = id_time(str(item.get("msg_id", "")))
            return made is not None and self.negated is not self._compare(now - made)
        value = item.get(self.field)
        return isinstance(value, int | float) and self.negated is not self._compare(value)

    def _compare(self, value: float) -> bool:
        if self.sign == "=":
            return value == self.value
        if value == self.value:
            return "=" in self.sign
        return (value > self.value) == (">" in self.sign)


Term = Text | Number


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages are meant; ``states`` is None where nothing is said of them."""

    states: tuple[str, ...] | None = None
    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        """The filter in one way of writing it."""
        states = [] if self.states is None else [f"state:{','.join(self.states)}"]
        return " ".join([*states, *map(str, self.terms)])

    def matches(self, item: Mapping[str, Any], now: float | None = None) -> bool:
        """Is this item of `list_messages` meant?"""
        at = time() if now is None else now
        if self.states is not None and item.get("state") not in self.states:
            return False
        return all(term.fits(item, at) for term in self.terms)

    @property
    def literal(self) -> str:
        """A text that every message has somewhere that fits; "" when there is none to be said."""
        parts = [
            part
            for term in self.terms
            if isinstance(term, Text) and not term.negated
            for part in term.parts
        ]
        return max(parts, key=len, default="")

    def window(self, now: float) -> tuple[str, str]:
        """Ids between which all lie that fit: before the first, from the second on; "" for no bound."""
        older: list[int] = []
        younger: list[int] = []
        for term in self.terms:
            if isinstance(term, Number) and term.field == "age":
                # The ends belong to it, whatever the sign: this only saves looking.
                (older if (">" in term.sign) is not term.negated else younger).append(term.value)
        before = _stamp(now - max(older) + 1) if older else ""
        return before, _stamp(now - min(younger) - 1) if younger else ""


def parse(text: str) -> Filter:
    """The filter that is written there.  Raises `RefusedError`."""
    if len(text) > _MOST:
        raise RefusedError(f"a filter is at most {_MOST} characters long, this one {len(text)}")
    return _Reader(text).read()


class _Reader:
    """Reads a filter from its beginning to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._wanted: set[str] | None = None
        self._unwanted: set[str] = set()

    def read(self) -> Filter:
        terms: list[Term] = []
        while self._skip_space():
            terms += self._term()
        if self._wanted is None and not self._unwanted:
            return Filter(None, tuple(terms))
        left = (self._wanted if self._wanted is not None else set(STATES)) - self._unwanted
        if not left:
            raise RefusedError("filter: no state is left: what state: allows, -state: takes away")
        return Filter(tuple(state for state in STATES if state in left), tuple(terms))

    def _refuse(self, at: int, what: str) -> RefusedError:
        return RefusedError(f"filter, position {at + 1}: {what}")

    def _skip_space(self) -> bool:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._at < len(self._text)

    def _term(self) -> list[Term]:
        start = self._at
        negated = self._text[self._at] == "-"
        self._at += negated
        found = _FIELD.match(self._text, self._at)
        if found is None:
            return [Text("text", self._pattern(start), negated=negated)]
        field = found[1].lower()
        if field not in FIELDS:
            word = _WORD.match(self._text, self._at)
            raise self._refuse(
                self._at,
                f'"{found[1]}" is no field; known are {", ".join(FIELDS)}. To look for the text '
                f'itself put it in quotes: "{word[0] if word else found[0]}"',
            )
        self._at = found.end()
        if field == "state":
            self._states(negated=negated)
            return []
        if field in _TEXTS:
            return [self._of_text(field, negated=negated)]
        return [self._of_number(field, negated=negated)]

    def _of_text(self, field: str, *, negated: bool) -> Text:
        start = self._at
        exact = field != "text" and self._text.startswith("=", self._at)
        self._at += exact
        empty = exact and self._text.startswith(_EMPTY, self._at)
        parts = self._pattern(start, empty=empty)
        return Text(field, parts, exact and len(parts) == 1, negated)

    def _pattern(self, start: int, *, empty: bool = False) -> tuple[str, ...]:
        """A value: text, quoted text and stars, up to the next space."""
        parts = [""]
        while self._at < len(self._text) and not (char := self._text[self._at]).isspace():
            if char == '"':
                parts[-1] += self._quoted()
            elif char == "*":
                self._at += 1
                parts.append("")
            else:
                self._at += 1
                parts[-1] += char
        if not any(parts) and not (empty and len(parts) == 1):
            raise self._refuse(start, 'here must stand some text; of an empty field say FIELD:=""')
        # Two stars say no more than one.
        return (parts[0], *(part for part in parts[1:-1] if part), *parts[1:][-1:])

    def _quoted(self) -> str:
        start, found = self._at, ""
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == '"':
                return found
            if char == "\\":
                char = self._text[self._at : self._at + 1]
                if char not in ('"', "\\"):
                    raise self._refuse(
                        self._at - 1, 'in quotes a backslash stands before " or another backslash'
                    )
                self._at += 1
            found += char
        raise self._refuse(start, 'these quotes are not closed; close them with "')

    def _word(self) -> tuple[int, str]:
        start = self._at
        found = _WORD.match(self._text, start)
        self._at = found.end() if found else start
        if self._text.startswith('"', self._at):
            raise self._refuse(self._at, "no quotes may stand here")
        return start, self._text[start : self._at]

    def _states(self, *, negated: bool) -> None:
        start, word = self._word()
        for state in word.lower().split(","):
            if state not in STATES:
                raise self._refuse(start, f'"{state}" is no state; known are {", ".join(STATES)}')
            if negated:
                self._unwanted.add(state)
            else:
                self._wanted = (self._wanted or set()) | {state}
            start += len(state) + 1

    def _of_number(self, field: str, *, negated: bool) -> Number:
        start, word = self._word()
        compared = _COMPARED.fullmatch(word)
        sign, value = (compared[1] or "", compared[2]) if compared else ("", "")
        if field == "age":
            if sign in ("", "=") or _SPAN.fullmatch(value.lower()) is None:
                raise self._refuse(
                    start, f'"{word}" is no age; say age:>1h for older, age:<2d for younger, with '
                    "the units s, m, h, d and w"
                )  # fmt: skip
            return Number(field, sign, _seconds(value.lower()), negated)
        if not (value.isascii() and value.isdecimal() and len(value) <= 9):  # noqa: PLR2004 - enough
            raise self._refuse(
                start, f'"{word}" is no number; say {field}:3, {field}:>3 or {field}:<=3'
            )
        return Number(field, sign or "=", int(value), negated)


def id_time(msg_id: str) -> float | None:
    """The unix time in a message's id, None when there is none in it."""
    found = _ID.match(msg_id)
    if found is None:
        return None
    year, month, day, hour, minute, second, ms = map(int, found.groups())
    try:
        return timegm((year, month, day, hour, minute, second)) + ms / 1000
    except ValueError:  # month 13
        return None


def status_text(item: Mapping[str, Any]) -> str:
    """What a message's status says beside its state."""
    return str(item.get("status", "")).removeprefix(str(item.get("state", ""))).removeprefix(" - ")


def _glob(parts: list[str], value: str) -> bool:
    """Do these parts follow each other in the value, from its beginning to its end?"""
    first, *middle, last = parts
    if len(value) < len(first) + len(last) or not value.startswith(first):
        return False
    if not value.endswith(last):
        return False
    at, end = len(first), len(value) - len(last)
    for part in middle:
        at = value.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _seconds(span: str) -> int:
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhdw])", span, re.ASCII))


def _span(seconds: int) -> str:
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}" if seconds else "0s"


def _stamp(when: float) -> str:
    """What ids of this second begin with; "" for a time before all ids."""
    return strftime("%Y%m%d.%H%M.%S", gmtime(when)) if when > 0 else ""
