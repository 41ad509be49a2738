r"""What a terminal would show of a script's output, as plain text: for readers without JavaScript.

Line by line: a carriage return, a backspace and the cursor movements within a line go back, and what
follows overwrites; erasing erases; colours, titles, hyperlinks and every other escape sequence leave
nothing; other control characters become their pictures (``␀``), for a log that is no text.  Bytes that
are not UTF-8 become ``�``.

`static/log-ansi.js` shows the same text, in colour; a test holds the two to each other.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

#: So many bytes are shown of a log's end.
TAIL_BYTES = 64 << 10
#: No movement leads further to the right than this, or than the line's own end.
_FURTHEST = 512
_TAB = 8

#: A string is given up at whatever begins something else; at the line's end it was none.
_GIVE_UP = r"(?=[\x18\x1a\x1b\x80-\x9f])"
_TOKEN = re.compile(
    "|".join((
        r"(?P<text>[^\x00-\x1f\x7f-\x9f]+)",
        r"(?:\x1b\[|\x9b)(?P<params>[0-?]*)(?P<between>[ -/]*)(?P<final>[@-~])",
        rf"(?:\x1b\]|\x9d)[^\x07\x18\x1a\x1b\x80-\x9f]*+(?:\x07|\x9c|\x1b\\|{_GIVE_UP})",
        rf"(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x18\x1a\x1b\x80-\x9f]*+(?:\x9c|\x1b\\|{_GIVE_UP})",
        r"(?:\x1b\[|\x9b)[0-?]*[ -/]*",  # broken off
        r"\x1b[ -/]*[0-~]?",
        r"(?P<control>[\x00-\x1f\x7f-\x9f])",
    ))
)  # fmt: skip
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tail(fd: int, most: int = TAIL_BYTES) -> tuple[str, int]:
    """The last lines of a file, and the offset where they begin.  Raises `OSError`."""
    size = os.fstat(fd).st_size
    start = max(0, size - most)
    data = os.pread(fd, size - start, start)
    newline = data.find(b"\n")
    if start and 0 <= newline < len(data) - 1:  # the first line is not whole
        start, data = start + newline + 1, data[newline + 1 :]
    return visible(data), start


def visible(data: bytes) -> str:
    r"""The text that is seen of these bytes, lines ended by ``\n``."""
    return "\n".join(_line(line.decode("utf-8", "replace")) for line in data.split(b"\n"))


def _line(text: str) -> str:
    plain = _COLOURS.sub("", text)
    if _CONTROLS.search(plain) is None:
        return plain
    line = _Line()
    for token in _TOKEN.finditer(text):
        if token["text"] is not None:
            line.write(token["text"])
        elif token["final"] is not None and not token["between"]:
            line.control(token["params"], token["final"])
        elif token["control"] is not None:
            line.character(token["control"])
    return "".join(line.cells)


@dataclass(slots=True)
class _Line:
    """One line of a terminal without a right margin: its cells, and where the cursor stands."""

    cells: list[str]
    at: int

    def __init__(self) -> None:
        self.cells = []
        self.at = 0

    def write(self, text: str) -> None:
        self._reach(self.at)
        self.cells[self.at : self.at + len(text)] = text
        self.at += len(text)

    def character(self, char: str) -> None:
        if char == "\r":
            self.at = 0
        elif char == "\b":
            self.at = max(0, self.at - 1)
        elif char == "\t":
            self.at += _TAB - self.at % _TAB
        elif char < " " and char not in "\x07\x0e\x0f\x1b":
            self.write(chr(0x2400 + ord(char)))
        elif char == "\x7f":
            self.write("\u2421")

    def control(self, params: str, final: str) -> None:
        number = int(params[:6]) if params.isdecimal() else 0
        if params and not params.isdecimal():  # a private or a longer one: it moves nothing
            return
        limit = max(len(self.cells), _FURTHEST)
        if final == "K":
            self._erase(number)
        elif final == "G":
            self.at = min(max(number, 1) - 1, limit)
        elif final == "C":
            self.at = max(self.at, min(self.at + max(number, 1), limit))
        elif final == "D":
            self.at = max(0, self.at - max(number, 1))

    def _erase(self, how: int) -> None:
        if how in (0, 2):
            del self.cells[self.at :]
        if how in (1, 2):
            self._reach(self.at + 1 if how == 1 else self.at)
            upto = self.at + 1 if how == 1 else self.at
            self.cells[:upto] = " " * upto

    def _reach(self, length: int) -> None:
        if len(self.cells) < length:
            self.cells += " " * (length - len(self.cells))
