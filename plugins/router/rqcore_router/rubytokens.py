"""The words of a Ruby rules file: `tokens` gives them line by line, and nothing is ever executed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from rqcore_router.problems import Findings
from rqcore_router.rubyregex import UnlikeError, translated
from rqcore_router.rules import Pattern

Kind = Literal["word", "string", "regex", "symbol", "number", "comma", "open", "close", "wrong"]

_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+|\#.*)"""
    r"""|(?P<word>[A-Za-z_]\w*[?!]?)"""
    r"""|"(?P<double>(?:\\.|[^"\\])*)\"|'(?P<single>(?:\\.|[^'\\])*)'"""
    r"""|/(?P<regex>(?:\\.|[^/\\])*)/(?P<flags>[A-Za-z]*)"""
    r"""|:(?P<symbol>[A-Za-z_]\w*[?!]?)"""
    r"""|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])"""
    r"""|(?P<comma>,)|(?P<open>\[)|(?P<close>\])""",
    re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)")
_DOUBLE = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "#": "#", "'": "'", "/": "/"}
_LONGEST_NUMBER = 20


class Token(NamedTuple):
    """A word of the file; ``value`` is what a string, a regex (a `Pattern`), a number stands for."""

    kind: Kind
    line: int
    value: Any
    #: As it stands there, for people.
    text: str


class Line(NamedTuple):
    """A line of the file: its tokens; ``blank`` when there is nothing in it, not even a comment."""

    number: int
    tokens: list[Token]
    blank: bool


def lines(text: str, findings: Findings) -> Iterator[Line]:
    """The lines; where one is not understood, which is noted, its tokens end with a ``wrong`` one.

    Lines end as they do for everybody who counts them: with a newline, or carriage return and newline.
    """
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.removesuffix("\r")
        yield Line(number, _tokens(bare, number, findings), not bare.strip(" \t"))


def _tokens(line: str, number: int, findings: Findings) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(line):
        match = _TOKEN.match(line, at)
        if match is None:
            findings.add(number, f"{line[at:][:40]!r} is not understood; see docs/router.md")
            return [*found, Token("wrong", number, None, line[at:])]
        at = match.end()
        if match["blank"] is None:
            try:
                found.append(_token(match, number))
            except UnlikeError as error:
                findings.add(number, f"{match[0][:40]}: {error}")
                return [*found, Token("wrong", number, None, match[0])]
    return found


def _token(match: re.Match[str], line: int) -> Token:
    text = match[0]
    if match["double"] is not None:
        return Token("string", line, _double(match["double"]), text)
    if match["single"] is not None:
        value = _ESCAPE.sub(lambda m: m[1] if m[1] in "\\'" else m[0], match["single"])
        return Token("string", line, value, text)
    if match["regex"] is not None:
        source, flags = match["regex"], match["flags"]
        return Token("regex", line, Pattern(source, translated(source, flags), flags), text)
    if match["symbol"] is not None:
        return Token("symbol", line, match["symbol"], text)
    if match["number"] is not None:
        if len(text) > _LONGEST_NUMBER:
            raise UnlikeError("is no number that anybody means")
        return Token("number", line, float(text) if "." in text else int(text), text)
    for kind in ("word", "comma", "open", "close"):
        if match[kind] is not None:
            return Token(kind, line, text, text)
    raise AssertionError(text)


def _double(text: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*#[{$@]", text):
        raise UnlikeError("#{} would be executed; write it out")

    def plain(match: re.Match[str]) -> str:
        if match[1] not in _DOUBLE:
            raise UnlikeError(f"\\{match[1]} is not known here; write it otherwise")
        return _DOUBLE[match[1]]

    return _ESCAPE.sub(plain, text)
