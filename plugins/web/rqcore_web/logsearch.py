r"""Finding text in a log of gigabytes, a bounded piece of work at a time.

Plain text is looked for, as it is seen: colours (``ESC [ ... m``) may stand between any two of its
characters, and their own digits are never found.  Without regard to case, a character stands for both
of its cases as far as they are one character each (``É`` finds ``é``, ``ß`` only itself).  No pattern
comes from outside, so nothing can take longer than to look at each byte once; one `search` looks at
`MOST_BYTES` or for `MOST_SECONDS`, whichever ends first, and says where to go on.

The file is read, never mapped: a script may cut its log short at any time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from rqcore.errors import RefusedError

MOST_BYTES = 64 << 20
MOST_SECONDS = 0.25
LONGEST_QUERY = 1000
MOST_MATCHES = 1000
#: How far before a match the start of its line is looked for.
LINE_LOOK_BACK = 1 << 20
#: Read at a time.  The interpreter runs nothing else while it looks through one of these.
_CHUNK = 256 << 10
#: Colours within a text may take so many bytes; for those that go on in the next chunk.
_MARGIN = 1024

_SGR = rb"\x1b\[[0-9;:]*m"
_COLOUR = re.compile(_SGR)
#: A text that begins with one of these may seem to begin within a colour.
_IN_COLOUR = frozenset("[0123456789;:m")


@dataclass(frozen=True, slots=True)
class Match:
    """Where the text begins, and where its line does (itself, in a line that is too long to tell)."""

    offset: int
    line_offset: int


@dataclass(frozen=True, slots=True)
class Found:
    """The matches in the order of the search; ``next`` is where to go on, None at the file's end."""

    matches: list[Match]
    next: int | None


class Query:
    """A text to look for.  Raises `RefusedError` for one that cannot be looked for."""

    def __init__(self, text: str, *, ignore_case: bool) -> None:
        if not text or len(text) > LONGEST_QUERY or "\n" in text:
            raise RefusedError(
                f"the text to look for must be 1 to {LONGEST_QUERY} characters of one line"
            )
        self._ignore_case = ignore_case
        self._ascii = text.isascii()
        self._plain = _folded(text) if ignore_case else _encoded(text)
        first, *others = (_variants(char) if ignore_case else [_encoded(char)] for char in text)
        rest = b"".join(rb"(?:%s)*+" % _SGR + _any_of(variants) for variants in others)
        # One literal at the beginning is what the interpreter finds quickly, so each has a branch.
        self._pattern = re.compile(b"|".join(re.escape(start) + rest for start in first))
        self._may_be_colour = text[0].lower() in _IN_COLOUR
        #: At least so many bytes after a place tell whether the text begins there.
        self.reach = len(self._plain) * 4 + _MARGIN

    def starts(self, data: bytes) -> Iterator[int]:
        """Every place in the data where the text begins, also those that overlap."""
        coloured = b"\x1b" in data
        if self._ignore_case:
            data = data.lower()  # only ASCII, so every place stays where it is
        if coloured or (self._ignore_case and not self._ascii):
            yield from self._starts_between_colours(data)
            return
        position = data.find(self._plain)
        while position >= 0:
            yield position
            position = data.find(self._plain, position + 1)

    def _starts_between_colours(self, data: bytes) -> Iterator[int]:
        position = 0
        while (found := self._pattern.search(data, position)) is not None:
            start = found.start()
            position = start + 1
            if self._may_be_colour:
                colour = _COLOUR.match(data, max(0, data.rfind(b"\x1b", 0, start)))
                if colour is not None and colour.end() > start:
                    position = colour.end()
                    continue
            yield start


def search(fd: int, query: Query, start: int, *, forward: bool, limit: int = 1) -> Found:
    """The next matches from ``start``: those that begin at or after it, or else before it.

    Raises `OSError`.
    """
    size = os.fstat(fd).st_size
    start = max(0, min(start, size))
    deadline = monotonic() + MOST_SECONDS
    last = min(size, start + MOST_BYTES) if forward else max(0, start - MOST_BYTES)
    matches: list[Match] = []
    while start != last:
        low = start if forward else max(last, start - _CHUNK)
        high = min(last, start + _CHUNK) if forward else start
        for offset in _in_chunk(fd, query, low, high, forward=forward, matches=matches):
            if len(matches) == limit:
                return Found(matches, offset + 1 if forward else offset)
        start = high if forward else low
        if monotonic() > deadline:
            break
    done = start == (size if forward else 0)
    return Found(matches, None if done else start)


def _in_chunk(
    fd: int, query: Query, low: int, high: int, *, forward: bool, matches: list[Match]
) -> Iterator[int]:
    """Add the matches that begin in this chunk, one by one, and tell of each."""
    # What comes before tells colours from text, what follows whether the text is whole.
    base = max(0, low - _MARGIN)
    data = os.pread(fd, high + query.reach - base, base)
    found = [at for at in query.starts(data) if low <= base + at < high]
    for at in found if forward else reversed(found):
        newline = data.rfind(b"\n", 0, at)
        line = base + newline + 1 if newline >= 0 else line_start(fd, base, base + at)
        matches.append(Match(base + at, line))
        yield base + at


def line_start(fd: int, before: int, default: int) -> int:
    """Where the line begins that the byte at ``before`` belongs to; ``default`` if that is too far."""
    stop = max(0, before - LINE_LOOK_BACK)
    end = before
    while end > stop:
        begin = max(stop, end - _CHUNK)
        newline = os.pread(fd, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return default if stop else 0


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _folded(text: str) -> bytes:
    return _encoded(text).lower()


def _variants(char: str) -> list[bytes]:
    """Both cases of a character, as they are in data whose ASCII letters were made small."""
    found = {char, char.lower(), char.upper(), char.title()}
    return sorted({_folded(variant) for variant in found if len(variant) == 1})


def _any_of(variants: list[bytes]) -> bytes:
    return b"(?:%s)" % b"|".join(map(re.escape, variants))
