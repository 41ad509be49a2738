r"""Files of a fixed size that remember the latest numbered records: the site's history is kept in them.

A file has some rings.  A ring of length L and width W holds the latest L buckets of W seconds; the
bucket with the number N (the W seconds that begin at unix time N * W) lies at place N modulo L, and an
older one that lies there is thereby forgotten.  Each bucket has its number, a checksum and a record, a
fixed number of bytes that is the caller's.  So the file never grows, a record is one ``pwrite`` at one
place, and a process that is killed at any point leaves each record as it was or as it is to be; a
record that a power cut tore is told by its checksum, and counts as never written.

    header   "rqring1\n", kind (8 bytes), since (double), record size, number of rings,
             width and length of each (at most 4), checksum                     128 bytes
    bucket   number (4 bytes, 0 for none), checksum (4 bytes), record           of each ring in turn

A file that is no such file, is cut short or damaged in its header is set aside (``NAME.damaged-TIME``)
with a word in the log, and a new one begun.  One with rings of other lengths, because an option was
changed, is brought into the new form with all that it remembers of the same widths.

Nothing is kept open.  Nothing is brought to the disk: a power cut may cost the last minutes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time

from rqcore import durable, unix

_log = logging.getLogger(__name__)
_MAGIC = b"rqring1\n"
_HEAD = struct.Struct("<8s8sdII8I")
_HEADER = 128
_BUCKET = struct.Struct("<II")
_MAX_RINGS = 4
_NUMBERS = 1 << 32
#: What the system says of a link, a directory, or a socket in a file's place.
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}


@dataclass(frozen=True, slots=True)
class Ring:
    """The latest ``length`` buckets of ``width`` seconds."""

    width: int
    length: int


@dataclass(frozen=True, slots=True)
class Form:
    """What is in a file: its kind (at most 8 bytes), its rings, and the size of a record."""

    kind: bytes
    rings: tuple[Ring, ...]
    record: int

    @property
    def bucket(self) -> int:
        """The size of a bucket in bytes."""
        return _BUCKET.size + self.record

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return _HEADER + self.bucket * sum(ring.length for ring in self.rings)

    def place(self, ring: int, number: int) -> int:
        """Where in the file the bucket with this number lies."""
        before = sum(other.length for other in self.rings[:ring])
        return _HEADER + self.bucket * (before + number % self.rings[ring].length)

    def header(self, since: float) -> bytes:
        """The head of a file that was begun at this time."""
        numbers = [part for ring in self.rings for part in (ring.width, ring.length)]
        numbers += [0] * (2 * _MAX_RINGS - len(numbers))
        head = _HEAD.pack(_MAGIC, self.kind, since, self.record, len(self.rings), *numbers)
        return (head + struct.pack("<I", zlib.crc32(head))).ljust(_HEADER, b"\0")


@dataclass(frozen=True, slots=True)
class _Found:
    """What a file's header says."""

    form: Form
    since: float


class RingFile:
    """One such file; it need not be there before the first `write`.  Methods raise `OSError`.

    A new file counts as begun when this object was made, or when another file was set aside for it.
    """

    def __init__(self, path: Path, form: Form) -> None:
        self.path = path
        self.form = form
        self._begun = time()

    def since(self) -> float | None:
        """When the file was begun, as unix time; None when there is none."""
        with self._opened(make=False) as found:
            return None if found is None else found[1]

    def read(self, ring: int, first: int, last: int) -> dict[int, bytes]:
        """The records from number ``first`` to ``last``, by number, as far as they are known."""
        with self._opened(make=False) as found:
            return {} if found is None else _read(found[0], self.form, ring, first, last)

    def write(self, records: Iterable[tuple[int, int, bytes]]) -> None:
        """Put records, each with its ring and its number, in place of what lies there."""
        with self._opened(make=True) as found:
            assert found is not None
            _write(found[0], self.form, records)

    @contextlib.contextmanager
    def _opened(self, *, make: bool) -> Iterator[tuple[int, float] | None]:
        """A descriptor of the file in its right form, and when it was begun."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            fd = -1
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            self._set_aside(error.strerror or str(error))
            fd = -1
        try:
            found = None if fd < 0 else self._look(fd)
            if fd >= 0 and (found is None or found.form != self.form):
                os.close(fd)
                fd = -1
                if found is not None:
                    fd = self._converted(found)
            if fd < 0 and make:
                found = _Found(self.form, self._begun)
                fd = self._made(found.since)
            yield None if found is None or fd < 0 else (fd, found.since)
        finally:
            if fd >= 0:
                os.close(fd)

    def _look(self, fd: int) -> _Found | None:
        """What the file's header says; None when it is none, and is now set aside."""
        info = os.fstat(fd)
        header = os.pread(fd, _HEADER, 0) if unix.is_regular(info.st_mode) else b""
        found = _parsed(header)
        if found is None:
            self._set_aside("it is no history")
        elif info.st_size != found.form.size:
            self._set_aside("it is not as long as it says")
            found = None
        elif (found.form.kind, found.form.record) != (self.form.kind, self.form.record):
            self._set_aside("it is one of another kind")
            found = None
        return found

    def _set_aside(self, why: str) -> None:
        self._begun = time()
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(time())}")
        _log.warning(
            "%s: %s; it is set aside as %s, a new one is begun", self.path, why, aside.name
        )
        durable.rename_unsynced(self.path, aside)

    def _made(self, since: float, records: Sequence[tuple[int, int, bytes]] = ()) -> int:
        """Make the file, whole before it has its name; returns its descriptor."""
        unready = self.path.with_name(f".{self.path.name}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(unready, flags, 0o600)
        try:
            _put(fd, self.form.header(since), 0)
            os.ftruncate(fd, self.form.size)
            _write(fd, self.form, records)
            durable.rename_unsynced(unready, self.path)
        except BaseException:
            os.close(fd)
            durable.remove_quietly(unready)
            raise
        return fd

    def _converted(self, found: _Found) -> int:
        """The file in its right form, with what the one in the old form remembers."""
        _log.info("%s is brought into the form that the options ask for", self.path)
        with open(self.path, "rb") as file:
            records = [
                (new, number, record)
                for old, ring in enumerate(found.form.rings)
                for new, other in enumerate(self.form.rings)
                if ring.width == other.width
                for number, record in _latest(file.fileno(), found.form, old, other.length)
            ]
        return self._made(found.since, records)


def _parsed(header: bytes) -> _Found | None:
    if len(header) != _HEADER or not header.startswith(_MAGIC):
        return None
    (checksum,) = struct.unpack_from("<I", header, _HEAD.size)
    if zlib.crc32(header[: _HEAD.size]) != checksum:
        return None
    _, kind, since, record, count, *numbers = _HEAD.unpack_from(header)
    rings = zip(numbers[::2], numbers[1::2], strict=True)
    form = Form(kind.rstrip(b"\0"), tuple(Ring(*ring) for ring in rings)[:count], record)
    return _Found(form, since)


def _latest(fd: int, form: Form, ring: int, most: int) -> list[tuple[int, bytes]]:
    """The records of a ring with the highest numbers."""
    length = form.rings[ring].length
    data = os.pread(fd, length * form.bucket, form.place(ring, 0))
    found = [
        bucket
        for at in range(0, len(data), form.bucket)
        if (bucket := _unpacked(data[at : at + form.bucket])) is not None
    ]
    return sorted(found)[-most:]


def _read(fd: int, form: Form, ring: int, first: int, last: int) -> dict[int, bytes]:
    length = form.rings[ring].length
    first = max(first, last - length + 1, 1)
    found = {}
    while first <= last:
        # As far as the ring's end; then from its beginning.
        count = min(last - first + 1, length - first % length)
        data = os.pread(fd, count * form.bucket, form.place(ring, first))
        for number in range(first, first + count):
            at = (number - first) * form.bucket
            bucket = data[at : at + form.bucket]
            # Most of an idle queue's were never written: no need to look closer.
            if int.from_bytes(bucket[:4], "little") == number:
                whole = _unpacked(bucket)
                if whole is not None:
                    found[number] = whole[1]
        first += count
    return found


def _unpacked(bucket: bytes) -> tuple[int, bytes] | None:
    """A bucket's number and record; None for one that was never written, or is torn."""
    if len(bucket) < _BUCKET.size:
        return None
    number, checksum = _BUCKET.unpack_from(bucket)
    record = bucket[_BUCKET.size :]
    return (number, record) if number and checksum == _checksum(number, record) else None


def _write(fd: int, form: Form, records: Iterable[tuple[int, int, bytes]]) -> None:
    for ring, number, record in records:
        if not 0 < number < _NUMBERS:
            continue  # a clock before 1970, or very far from now
        bucket = _BUCKET.pack(number, _checksum(number, record)) + record
        _put(fd, bucket, form.place(ring, number))


def _checksum(number: int, record: bytes) -> int:
    return zlib.crc32(record, number)


def _put(fd: int, data: bytes, place: int) -> None:
    """Raises `OSError` also where only a part of it fits on the disk."""
    done = os.pwrite(fd, data, place)
    while done < len(data):
        done += os.pwrite(fd, data[done:], place + done)
