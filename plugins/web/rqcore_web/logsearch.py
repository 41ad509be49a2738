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
_IN_SGR = frozenset("0123456789;:m[")


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
        self._plain = text.encode("utf-8", "surrogatepass")
        self._ascii = text.isascii()
        variants = [_variants(char) if ignore_case else [char] for char in text]
        rest = b"".join(rb"(?:%s)*+" % _SGR + _any_of(chars) for chars in variants[1:])
        starts = [_literal(char) + rest for char in variants[0]]
        if text[0] in _IN_SGR:  # step over colours, so that none of their digits is a beginning
            starts.insert(0, _SGR)
        self._pattern = re.compile(b"|".join(starts))
        #: At least so many bytes after a place tell whether the text begins there.
        self.reach = len(self._plain) * 4 + _MARGIN

    def starts(self, data: bytes) -> Iterator[int]:
        """Every place in the data where the text begins, also those that overlap."""
        if b"\x1b" not in data and (self._ascii or not self._ignore_case):
            yield from self._plain_starts(data)
            return
        position = 0
        while (found := self._pattern.search(data, position)) is not None:
            if data[found.start()] == 0x1B:  # noqa: PLR2004 - ESC
                position = found.end()
            else:
                yield found.start()
                position = found.start() + 1

    def _plain_starts(self, data: bytes) -> Iterator[int]:
        needle = self._plain
        if self._ignore_case:
            data, needle = data.lower(), needle.lower()
        position = data.find(needle)
        while position >= 0:
            yield position
            position = data.find(needle, position + 1)


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


def _variants(char: str) -> list[str]:
    found = {char, char.lower(), char.upper(), char.title()}
    return sorted(variant for variant in found if len(variant) == 1)


def _literal(char: str) -> bytes:
    return re.escape(char.encode("utf-8", "surrogatepass"))


def _any_of(chars: list[str]) -> bytes:
    return b"(?:%s)" % b"|".join(map(_literal, chars))
