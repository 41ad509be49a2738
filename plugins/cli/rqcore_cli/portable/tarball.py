"""Reading a tar from a stream, member by member, trusting nothing in it.

Only what ``rq export`` writes, or tar(1) makes of it, is understood: regular files, directories, and the
headers for long names and sizes.  Links, devices, sparse files and whatever else a tar can hold are
refused; nothing is read into memory but headers of a bounded length.  The standard library's reader is
not used, because it reads headers of any length, and follows what they say.  Raises `ArchiveError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from rqcore_cli.output import clean
from rqcore_cli.portable.layout import ArchiveError

_BLOCK = 512
_MAX_HEADER = 64 << 10
_PIECE = 1 << 20
_SIZE_LIMIT = 1 << 62
_MAX_DIGITS = 19
_FILE, _DIRECTORY, _PAX, _PAX_GLOBAL, _LONG_NAME = {b"0", b"\0"}, b"5", b"x", b"g", b"L"
_KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe",
    b"S": "a sparse file", b"K": "a link",
}  # fmt: skip


class Member:
    """A regular file in the tar: its ``name``, its ``size`` in bytes, and its content, once."""

    def __init__(self, name: str, size: int, stream: BinaryIO) -> None:
        self.name = name
        self.size = size
        self._stream = stream
        self._left = size

    def pieces(self) -> Iterator[bytes]:
        """The content that was not read yet."""
        while self._left:
            piece = self._stream.read(min(self._left, _PIECE))
            if not piece:
                raise ArchiveError("it ends in the midst of a file; it is cut off")
            self._left -= len(piece)
            yield piece

    def text(self, most: int) -> bytes:
        """All of it, if it is not longer than that."""
        if self.size > most:
            raise ArchiveError(f"{clean(self.name)!r} is too long: {self.size} bytes")
        return b"".join(self.pieces())

    def end(self) -> None:
        """Go on to what follows it."""
        for _ in self.pieces():
            pass
        _read(self._stream, -self.size % _BLOCK)


def members(stream: BinaryIO) -> Iterator[Member]:
    """The files in a tar; each must be read, or be left, before the next one is asked for."""
    path, size = "", -1
    while True:
        block = stream.read(_BLOCK)
        if not any(block):
            if len(block) < _BLOCK:
                raise ArchiveError("it has no end; it is cut off, or no tar")
            return
        _check(block)
        kind = block[156:157]
        if kind in _FILE:
            member = Member(path or _name(block), size if size >= 0 else _size(block), stream)
            yield member
            member.end()
            path, size = "", -1
        elif kind == _DIRECTORY:
            path, size = "", -1
        elif kind == _PAX:
            path, size = _pax(_header(stream, block), path, size)
        elif kind == _LONG_NAME:
            path = _text(_header(stream, block).rstrip(b"\0"))
        elif kind == _PAX_GLOBAL:
            _header(stream, block)
        else:
            what = _KINDS.get(kind, f"something of the kind {kind!r}")
            raise ArchiveError(f"{clean(path or _name(block))!r} is {what}; no export has that")


def _check(block: bytes) -> None:
    if len(block) < _BLOCK:
        raise ArchiveError(
            "it ends in the midst of a header; it is cut off, or no file of rq export"
        )
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    try:
        right = int(block[148:156].strip(b"\0 "), 8) == total
    except ValueError:
        right = False
    if not right:
        raise ArchiveError("it is no tar, or a damaged one: the checksum of a header is wrong")


def _octal(field: bytes) -> int:
    text = field.strip(b"\0 ")
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise ArchiveError("a number in a header is none") from None


def _size(block: bytes) -> int:
    field = block[124:136]
    size = int.from_bytes(field[1:], "big") if field[0] & 0x80 else _octal(field)
    return _bounded(size)


def _bounded(size: int) -> int:
    if not 0 <= size < _SIZE_LIMIT:
        raise ArchiveError("a file in it claims an impossible size")
    return size


def _name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _header(stream: BinaryIO, block: bytes) -> bytes:
    size = _size(block)
    if size > _MAX_HEADER:
        raise ArchiveError(f"a header of {size} bytes; no export has that")
    data = _read(stream, size)
    _read(stream, -size % _BLOCK)
    return data


def _read(stream: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise ArchiveError("it ends where more should come; it is cut off")
        data += more
    return data


def _pax(data: bytes, path: str, size: int) -> tuple[str, int]:
    """What an extended header says of the next member: its name and its size."""
    while data:
        length, _, _ = data.partition(b" ")
        sound = length.isdigit() and len(length) < _MAX_DIGITS
        if not sound or not len(length) < int(length) <= len(data):
            raise ArchiveError("an extended header makes no sense")
        record = data[len(length) + 1 : int(length) - 1]
        data = data[int(length) :]
        key, _, value = record.partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise ArchiveError("it holds a sparse file; no export has that")
        if key == b"path":
            path = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > _MAX_DIGITS:
                raise ArchiveError("an extended header makes no sense")
            size = _bounded(int(value))
    return path, size
