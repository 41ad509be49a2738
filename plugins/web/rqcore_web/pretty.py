"""JSON made readable without being changed: every token is shown as it was written.

A number of forty digits, ``1.0`` and ``1e400`` stay what they are, keys keep their order, also those
that stand twice.  Only the white space between tokens is ours.  Text that is no JSON object or list is
None: it is shown as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from rqcore_web.words import shown

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d[\d.eE+-]*)"""
    r"""|(?P<word>true|false|null)|(?P<mark>[][{},:])""",
    re.DOTALL,
)
_LONGEST = 512 * 1024
_INDENT = "  "


def pretty(text: str) -> Markup | None:
    """The JSON object or list in ``text``, indented, its kinds of tokens in spans; None for no JSON."""
    stripped = text.strip()
    if stripped[:1] not in ("{", "[") or len(text) > _LONGEST:
        return None
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    return Markup("").join(_lines(_tokens(stripped)))


def _tokens(text: str) -> list[tuple[str, str]]:
    found = ((str(piece.lastgroup), piece[0]) for piece in _TOKEN.finditer(text))
    return [(kind, piece) for kind, piece in found if kind != "space"]


def _lines(tokens: list[tuple[str, str]]) -> Iterator[Markup]:
    depth = 0
    for at, (kind, piece) in enumerate(tokens):
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind != "mark":
            kind_shown = "key" if kind == "string" and following == ":" else kind
            yield Markup('<span class="json-{}">{}</span>').format(kind_shown, shown(piece))
        elif piece in "{[":
            depth += 1
            empty = following in ("}", "]")
            yield escape(piece if empty else piece + _line(depth))
        elif piece in "}]":
            depth -= 1
            empty = at > 0 and tokens[at - 1][1] in ("{", "[")
            yield escape(piece if empty else _line(depth) + piece)
        elif piece == ",":
            yield escape("," + _line(depth))
        else:
            yield escape(": ")


def _line(depth: int) -> str:
    return "\n" + _INDENT * depth
