"""Reading a hand-written JSON object field by field, and explaining all that is wrong with it.

Pure.  `config` says which keys there are; this room knows how a value of each kind is spelled, and
how a mistake is told to a person.

Nothing here raises at the first mistake: a `Section` gives a harmless value in place of a wrong one
and notes a `Problem` in its `Report`.  `Report.finish` then raises one `ConfigError` that names
them all, so that a file is corrected in one go.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard, cast

from rqcore.errors import RqError
from rqcore.message import truth

#: A longer config file is refused; it is a data file at the wrong place.
MAX_BYTES = 1 << 20
_MAX_DEPTH = 32
_SHOWN = 60
_MAX_BITS = 64
_FALSE = (False, 0, "false", "no", "0", "")
_NUMERAL = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a config file.

    ``file`` is its path; ``key`` where in the file (``schedule[2].cron``), empty for the whole of
    it; ``value`` what stands there, None where it would not help or must not be shown.
    """

    file: str
    key: str
    value: object = field(hash=False)
    reason: str
    remedy: str

    def __str__(self) -> str:
        """One line for people: the place, the reason, the remedy."""
        key = f'"{_printable(self.key)}" ' if self.key else ""
        found = "" if self.value is None else f", found {_shown(self.value)}"
        return f"{_printable(self.file)}: {key}{self.reason}{found}; {self.remedy}"


class ConfigError(RqError):
    """A config that cannot be used.

    ``problems`` is every reason for that, ``warnings`` what else was noticed: a misspelt key is
    often the cause of a missing one.
    """

    def __init__(self, problems: Iterable[Problem], warnings: Iterable[Problem] = ()) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        lines = [str(problem) for problem in self.problems]
        lines += [f"also: {warning}" for warning in self.warnings]
        super().__init__("\n".join(lines))


class Report:
    """What is wrong with one file: ``problems`` forbid its use, ``warnings`` do not."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def refuse(self, key: str, value: object, reason: str, remedy: str) -> None:
        """Note what forbids the use of the file."""
        self.problems.append(Problem(self.file, key, value, reason, remedy))

    def warn(self, key: str, value: object, reason: str, remedy: str) -> None:
        """Note what somebody should look at."""
        self.warnings.append(Problem(self.file, key, value, reason, remedy))

    def finish(self) -> list[Problem]:
        """The warnings.  Raises `ConfigError` when there are problems."""
        if self.problems:
            raise ConfigError(self.problems, self.warnings)
        return self.warnings

    def whole_object(self, raw: object) -> Mapping[str, object]:
        """The file's content if it is a sane JSON object.  Raises `ConfigError`."""
        if not isinstance(raw, Mapping):
            self.refuse(
                "", None, f"must hold one JSON object, not {kind(raw)}", 'write it as {"key": …}'
            )
        else:
            self._refuse_unusable(raw)
        self.finish()
        return cast("Mapping[str, object]", raw)

    def _refuse_unusable(self, raw: Mapping[object, object]) -> None:
        """Find what JSON cannot carry or nobody can mean, without recursion."""
        places: list[tuple[str, int, object]] = [("", 0, raw)]
        while places:
            place, depth, value = places.pop()
            if isinstance(value, float) and not math.isfinite(value):
                self.refuse(place, None, f"is {value}, which JSON does not know", "give a number")
            elif depth > _MAX_DEPTH:
                where = place.partition(".")[0].partition("[")[0]
                self.refuse(where, None, f"nests deeper than {_MAX_DEPTH} levels", "flatten it")
                return
            elif isinstance(value, Mapping):
                for key, item in value.items():
                    if not isinstance(key, str):
                        self.refuse(place, None, f"has a key that is {kind(key)}", "use text")
                    places.append((f"{place}.{key}" if place else str(key), depth + 1, item))
            elif isinstance(value, list | tuple):
                places += [(f"{place}[{i}]", depth + 1, item) for i, item in enumerate(value)]


class Section:
    """One JSON object of a file.  Each method reads a key; null counts as not given.

    A value of the wrong kind is noted in the report, and the default is returned in its place.
    """

    def __init__(
        self, report: Report, raw: Mapping[str, object], known: Sequence[str], place: str = ""
    ) -> None:
        self.report = report
        self._raw = raw
        self._place = place
        for key in raw:
            if key not in known:
                remedy = did_you_mean(key, known) or "correct or remove it"
                report.warn(self.at(key), None, "is not a key that rqcore knows", remedy)

    def at(self, key: str) -> str:
        """Where the key stands in the file."""
        return f"{self._place}.{key}" if self._place else key

    def get(self, key: str) -> object:
        """The value as it stands, None when there is none."""
        return self._raw.get(key)

    def refuse(self, key: str, reason: str, remedy: str, *, show: bool = True) -> None:
        """Note what is wrong with this key's value."""
        self.report.refuse(self.at(key), self.get(key) if show else None, reason, remedy)

    def text(self, key: str, default: str, *, empty: bool = False, longest: int = 1024) -> str:
        """Text of 1 to ``longest`` characters (of 0, where ``empty`` may be)."""
        value = self.get(key)
        if value is None:
            return default
        problem = text_problem(value, longest)
        if problem is None and value == "" and not empty:
            problem = "is empty"
        if problem is not None:
            self.refuse(key, problem, "give it as text in quotes, or remove the key")
            return default
        return str(value)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, or its digits as text."""
        value = self.get(key)
        if value is None:
            return default
        number = whole_number(value)
        if number is None or not low <= number <= high:
            self.refuse(
                key, f"must be a whole number from {low} to {high}", f"for instance {default}"
            )
            return default
        return number

    def seconds(self, key: str, default: float, *, most: int = 86400) -> float:
        """A time in seconds, of a day at most unless told otherwise, or its digits as text."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, str) and _SECONDS.fullmatch(value.strip()):
            value = float(value)
        if not _is_number(value) or not 0 <= value <= most:
            self.refuse(
                key, f"must be a time of 0 to {most} seconds", f"give a number such as {default:g}"
            )
            return default
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A truth value in the contract's spelling."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, dict | list | tuple):
            self.refuse(key, f"must be true or false, not {kind(value)}", "write true or false")
        elif not truth(value) and value not in _FALSE:
            self.report.warn(
                self.at(key), value, "is no truth value and counts as false", "write true or false"
            )
        return truth(value)

    def items(self, key: str) -> Sequence[object]:
        """A list; the empty text of a web form counts as none."""
        value = self.get(key)
        if value is None or value == "":
            return ()
        if not isinstance(value, list | tuple):
            self.refuse(key, f"must be a list, not {kind(value)}", "put it in [ ]", show=False)
            return ()
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, none of them empty."""
        found: list[str] = []
        for i, item in enumerate(self.items(key)):
            problem = "is empty" if item == "" else text_problem(item, 1024)
            if problem is None:
                found.append(str(item))
            else:
                place = f"{self.at(key)}[{i}]"
                self.report.refuse(place, item, problem, "give it as text in quotes, or remove it")
        return tuple(found)

    def mapping(self, key: str) -> Mapping[str, object]:
        """An object; the empty text of a web form counts as none."""
        value = self.get(key)
        if value is None or value == "":
            return {}
        if not isinstance(value, Mapping):
            self.refuse(key, f"must be an object, not {kind(value)}", "write { }", show=False)
            return {}
        return value

    def section(self, key: str, known: Sequence[str]) -> Section:
        """The object under this key, to be read in the same manner."""
        return Section(self.report, self.mapping(key), known, self.at(key))


def decode_json(data: bytes, file: str) -> tuple[object, list[Problem]]:
    """What a config file's bytes hold, and what is odd about them.

    Bytes that are not UTF-8 come through as lone surrogates.  Raises `ConfigError`, with the line
    and column where the text stops being JSON.
    """
    report = Report(file)
    fault = _bytes_fault(data)
    if fault is not None:
        report.refuse("", None, *fault)
        report.finish()
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        report.warn("", None, "begins with a byte order mark", "save it as UTF-8 without one")
    repeated: dict[str, None] = {}

    def no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result: dict[str, object] = {}
        for key, value in pairs:
            if key in result:
                repeated[key] = None
            result[key] = value
        return result

    raw: object = None
    text = data.decode("utf-8", "surrogateescape")
    try:
        raw = json.loads(text, object_pairs_hook=no_repeats)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        message = error.msg.removesuffix(" at")
        report.refuse("", None, f"is not JSON: {message} at {where}", _hint(text, error.pos))
    except RecursionError:
        report.refuse("", None, f"nests deeper than {_MAX_DEPTH} levels", "flatten it")
    except ValueError:
        report.refuse("", None, "holds a number of thousands of digits", "correct that value")
    for key in repeated:
        report.warn(key, None, "stands twice in one object; the last one counts", "remove one")
    return raw, report.finish()


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The question whether the nearest known word was meant; empty when none is near."""
    import difflib  # noqa: PLC0415 - every command reads a config, few misspell it

    close = difflib.get_close_matches(word[:_SHOWN], known, 1, 0.7)
    return f'did you mean "{close[0]}"?' if close else ""


def text_problem(value: object, longest: int) -> str | None:
    """Why this is not text that the operating system could be given, or None when it is."""
    if not isinstance(value, str):
        return f"must be text, not {kind(value)}"
    if "\0" in value:
        return "holds a NUL character"
    if len(value) > longest:
        return f"is {len(value)} characters long, at most {longest} may be"
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no character"
    return None


def plain(value: object) -> object:
    """A scalar as the text that a script sees; anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() <= _MAX_BITS:
        return str(value)
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else str(value)  # noqa: PLR2004
    return value


def whole_number(value: object) -> int | None:
    """The whole number that this is or, as text, shows; None when it is none."""
    if isinstance(value, str) and _NUMERAL.fullmatch(value.strip()):
        return int(value)
    if _is_number(value) and (isinstance(value, int) or value.is_integer()):
        return int(value)
    return None


def kind(value: object) -> str:
    """What sort of value this is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Mapping):
        return "an object"
    names = {int: "a number", float: "a number", str: "text", list: "a list", tuple: "a list"}
    return names.get(type(value), f"a {type(value).__name__}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bytes_fault(data: bytes) -> tuple[str, str] | None:
    if len(data) > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes", "this is not a config file; keep data elsewhere"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is UTF-16", "save it as UTF-8"
    if b"\0" in data:
        return f"holds a NUL byte at offset {data.index(0)}", "restore it, it is not a text file"
    if not data.strip(b" \t\r\n\xef\xbb\xbf"):
        return "is empty", 'write a JSON object, {"key": …}, or restore the file'
    return None


def _hint(text: str, position: int) -> str:
    rest = text[position:].lstrip()
    before = text[:position].rstrip()
    if rest.startswith(("//", "#", "/*")):
        return "JSON has no comments, remove them"
    if rest.startswith(("}", "]")) and before.endswith(","):
        return "remove the comma before it"
    if rest.startswith(",") and rest[1:].lstrip().startswith(("}", "]", ",")):
        return "remove the comma there"
    if rest.startswith("'"):
        return 'use double quotes, "'
    return "correct it there"


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return "a huge number"
    if isinstance(value, str | int | float):
        text = json.dumps(value[:_SHOWN] if isinstance(value, str) else value)
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return kind(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
