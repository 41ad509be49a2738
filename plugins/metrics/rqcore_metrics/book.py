"""One queue's counts in a file of fixed size, which survives whatever ends the queue's process.

    var/metrics/counts/QUEUE    counts, then the ids of what is about to end

`Book` is the writer, in the queue's process, which is the only one: the file lies in its memory, and
each `Book.save` writes all counts with one call.  They lie within one page, with as many ids as it
holds, so that a process that is killed has written all of a change or nothing of it, and what a write
that failed left out the next one brings along.  `read` gives anybody what lies there.

The file is not mapped into memory: where the disk is full, or somebody has cut the file, a write into
such a mapping would kill the queue, whereas here it is an `OSError`, told once, and counting goes on
in memory.  Nothing is synced, so a power cut may cost what was counted in the last half minute.

A file that is none of ours, or damaged, is set aside as ``QUEUE.damaged-TIME``, and a new one begun.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from time import time

from rqcore import durable

_log = logging.getLogger(__name__)

#: How many messages the file can hold that are about to end: as many as a queue has workers at most.
SLOTS = 128
ID_SIZE = 64

#: Upper bounds in seconds: what people ask of work that takes from milliseconds to days.
TIMES = (
    0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 10_800, 43_200, 86_400, inf,
)  # fmt: skip
#: Upper bounds in seconds of what a disk takes.
SYNCS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, inf)

#: How a message ends; the place of each (from 1) stands in a slot.
OUTCOMES = ("done", "err", "relayed", "duplicate", "timeout")
VIAS = ("create", "commit", "cron", "adopt")
CAUSES = ("resend", "retry", "recover", "unstart")
REMOVED = ("prep", "que", "done", "relayed", "err")

#: Whole numbers, each with its name: a count, with the value of its label.
COUNTS = (
    *(("enqueued", via) for via in VIAS),
    ("started", ""),
    *(("finished", outcome) for outcome in OUTCOMES),
    *(("requeued", cause) for cause in CAUSES),
    *(("removed", state) for state in REMOVED),
)
#: Numbers with a fraction: seconds, or unix times.
NUMBERS = (("cpu", ""), *(("last", outcome) for outcome in OUTCOMES), ("heartbeat", ""))
HISTOGRAMS = {"wait": TIMES, "run": TIMES, "sync": SYNCS}

_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAGIC = b"rqcore-metrics 1"
_PAGE = 4096
#: A file that could not be made is tried again with every so many changes.
_TRY_AGAIN = 256
#: What was complained of, and how much of that is remembered.
_told: set[str] = set()
_MANY = 1000
#: No count is more, and no sum, and no time.
_MOST = 2**53
_FIRST = len(_MAGIC) // 8 + 1  # behind the magic, when the file was begun
_COUNT_AT = {key: _FIRST + place for place, key in enumerate(COUNTS)}
_BUCKETS_AT = {}
_next = _FIRST + len(COUNTS)
for _name, _bounds in HISTOGRAMS.items():
    _BUCKETS_AT[_name] = _next
    _next += len(_bounds)
_FIRST_NUMBER = _next
_NUMBER_AT = {key: _next + place for place, key in enumerate(NUMBERS)}
_next += len(NUMBERS)
_SUM_AT = {name: _next + place for place, name in enumerate(HISTOGRAMS)}
_next += len(HISTOGRAMS)
#: Behind the numbers, one byte for each slot: 0 when it is free, else the outcome.
_SLOTS_AT = _next * 8
#: Behind those, the newest id that was counted on its way in.
_MARK_AT = _SLOTS_AT + SLOTS
_USED = _MARK_AT + ID_SIZE
#: Behind that, the id of each slot; none lies in two pages.
_IDS_AT = -(-_USED // ID_SIZE) * ID_SIZE
SIZE = _IDS_AT + SLOTS * ID_SIZE
if _IDS_AT + ID_SIZE > _PAGE:
    raise AssertionError("the counts must lie within one page, and some ids")


@dataclass(frozen=True, slots=True)
class Counts:
    """What lies in a file.  ``histograms``: how many values in each bucket, and the sum of all."""

    since: float
    counts: Mapping[tuple[str, str], int]
    numbers: Mapping[tuple[str, str], float]
    histograms: Mapping[str, tuple[tuple[int, ...], float]]


class Book:
    """See the head of this module.  Making one never fails; without a disk it counts in memory."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._ailing = False
        self._vain = 0
        self._closed = False
        #: All of the file, and so much of its first page as was used so far.
        self._image = bytearray(SIZE)
        self._used = memoryview(self._image)[:_USED]
        self._whole = memoryview(self._image).cast("Q")
        self._broken = memoryview(self._image).cast("d")
        self._free = list(range(SLOTS - 1, -1, -1))
        #: What was about to end when the process before this one was killed: id, outcome, slot.
        self.left: list[tuple[str, str, int]] = []
        try:
            self._open()
        except OSError as error:
            self._tell(error)
            self._let_go()
            if not self._image.startswith(_MAGIC):
                self._image[:] = _empty()

    def close(self) -> None:
        """Let go of the file, for good."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        strange = False
        try:
            self._fd = os.open(self._path, _OPEN)
        except FileNotFoundError:
            pass
        except OSError as error:
            strange = error.errno in (errno.EISDIR, errno.ELOOP)  # a directory, a symbolic link
            if not strange:
                raise
        if self._fd >= 0:
            regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            data = os.pread(self._fd, SIZE + 1, 0) if regular else b""
            if _is_ours(data):
                self._image[:] = data
                self._find_left()
                return
            self._let_go()
            strange = True
        if strange:
            aside = f"{self._path}.damaged-{int(time())}"
            _log.warning("%s holds no counts; it is set aside as %s", self._path, aside)
            durable.rename_unsynced(self._path, aside)
        self._image[:] = _empty()
        self._make()

    def _make(self) -> None:
        """Make the file, with what was counted so far.  Raises `OSError`."""
        make_folder(os.path.dirname(self._path))
        durable.replace_unsynced(self._path, bytes(self._image))
        self._fd = os.open(self._path, _OPEN)

    def _find_left(self) -> None:
        for slot in range(SLOTS):
            outcome = self._image[_SLOTS_AT + slot]
            if 0 < outcome <= len(OUTCOMES):
                self.left.append((self._id_at(_place(slot)), OUTCOMES[outcome - 1], slot))
                self._free.remove(slot)
            else:
                self._image[_SLOTS_AT + slot] = 0

    def _id_at(self, place: int) -> str:
        return self._image[place : place + ID_SIZE].rstrip(b"\0").decode("ascii", "replace")

    def _put_id(self, place: int, msg_id: str) -> None:
        self._image[place : place + ID_SIZE] = struct.pack(f"{ID_SIZE}s", msg_id.encode())

    # Counting; `save` brings it to the file

    def count(self, name: str, label: str = "") -> None:
        """One more."""
        self._whole[_COUNT_AT[name, label]] += 1

    def add(self, name: str, value: float) -> None:
        """So much more."""
        self._broken[_NUMBER_AT[name, ""]] += value

    def note(self, name: str, value: float, label: str = "") -> None:
        """The value now."""
        self._broken[_NUMBER_AT[name, label]] = value

    def observe(self, name: str, seconds: float) -> None:
        """One more value of a histogram."""
        seconds = max(0.0, seconds)
        self._whole[_BUCKETS_AT[name] + bisect_left(HISTOGRAMS[name], seconds)] += 1
        self._broken[_SUM_AT[name]] += seconds

    @property
    def mark(self) -> str:
        """The newest id that was counted on its way in; empty in a file that was just begun."""
        return self._id_at(_MARK_AT)

    @mark.setter
    def mark(self, msg_id: str) -> None:
        self._put_id(_MARK_AT, msg_id)

    def intend(self, msg_id: str, outcome: str) -> int | None:
        """Note that this message is about to end so; the slot, None when all are taken."""
        if not self._free:
            return None
        slot = self._free.pop()
        place = _place(slot)
        end = place + ID_SIZE
        if end > _PAGE and not self._note_apart(place, msg_id):
            self._free.append(slot)
            return None
        self._put_id(place, msg_id)
        if len(self._used) < end <= _PAGE:
            self._used = memoryview(self._image)[:end]
        self._image[_SLOTS_AT + slot] = OUTCOMES.index(outcome) + 1
        self.save()
        return slot

    def _note_apart(self, place: int, msg_id: str) -> bool:
        """Write an id that lies behind the page: before its slot is taken, after it was left."""
        self.save()
        if self._fd >= 0:
            try:
                os.pwrite(self._fd, struct.pack(f"{ID_SIZE}s", msg_id.encode()), place)
            except OSError as error:
                self._tell(error)
                return False
        return True

    def settle(self, slot: int) -> None:
        """The message of this slot has ended, or has not: the slot is free from the next save on."""
        self._image[_SLOTS_AT + slot] = 0
        self._free.append(slot)

    def save(self) -> None:
        """Write all counts, in one step."""
        if self._fd < 0 and not self._may_make():
            return
        try:
            if self._fd < 0:
                self._make()
            os.pwrite(self._fd, self._used, 0)
        except OSError as error:
            self._tell(error)
        else:
            self._ailing = False

    def _may_make(self) -> bool:
        """Is it worth trying again to make the file?  One that is there and was not opened stays."""
        self._vain += 1
        if self._closed or self._vain % _TRY_AGAIN:
            return False
        return not durable.exists(self._path)

    def _tell(self, error: OSError) -> None:
        """Once, until it works again."""
        if not self._ailing:
            self._ailing = True
            _log.warning("%s: what is counted cannot be kept for now: %s", self._path, error)


def read(path: str) -> Counts:
    """What is counted there.  Raises `OSError`, also for a file that holds no counts."""
    data = durable.read_file(path, SIZE)
    if not _is_ours(data):
        raise OSError(f"{path} holds no counts; the queue sets it aside at its next start")
    page = data[:_PAGE]
    whole, broken = memoryview(page).cast("Q"), memoryview(page).cast("d")
    return Counts(
        since=broken[_FIRST - 1],
        counts={key: whole[place] for key, place in _COUNT_AT.items()},
        numbers={key: broken[place] for key, place in _NUMBER_AT.items()},
        histograms={
            name: (tuple(whole[place : place + len(HISTOGRAMS[name])]), broken[_SUM_AT[name]])
            for name, place in _BUCKETS_AT.items()
        },
    )


def folder(directory: str) -> str:
    """Where the counts of an instance lie."""
    return os.path.join(directory, "var", "metrics", "counts")


def read_all(directory: str) -> Iterator[tuple[str, Counts]]:
    """The counts of every queue that has some; what cannot be read is left out and logged."""
    here = folder(directory)
    for name in sorted(durable.children(here)):
        if "." in name:  # no name of a queue: set aside, or about to be written
            continue
        try:
            yield name, read(os.path.join(here, name))
        except OSError as error:
            complain(os.path.join(here, name), error)


def complain(path: str, error: Exception) -> None:
    """Say it once in this process, for whoever exports comes back every few seconds."""
    told = f"{path}: {error}"
    if told not in _told and len(_told) < _MANY:
        _told.add(told)
        _log.warning("%s", told)


def forget(directory: str, queue: str) -> None:
    """Remove the counts of a queue that is gone."""
    durable.remove_quietly(os.path.join(folder(directory), queue))


def make_folder(path: str) -> None:
    """Make a directory below the instance's ``var``, and those in between."""
    if not durable.exists(path):
        if os.path.basename(path) != "var":
            make_folder(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):  # another queue's process was faster
            durable.make_dir(path, 0o700)


def _empty() -> bytes:
    return struct.pack(f"{len(_MAGIC)}sd", _MAGIC, time()).ljust(SIZE, b"\0")


def _place(slot: int) -> int:
    return _IDS_AT + slot * ID_SIZE


def _is_ours(data: bytes) -> bool:
    """Is it a file of ours, and whole?  Numbers that cannot be were written by somebody else."""
    if len(data) != SIZE or not data.startswith(_MAGIC):
        return False
    page = memoryview(data)[:_PAGE]
    counts = page.cast("Q")[_FIRST:_FIRST_NUMBER]
    numbers = page.cast("d")[_FIRST_NUMBER : _SLOTS_AT // 8]
    return all(count < _MOST for count in counts) and all(0 <= one < _MOST for one in numbers)
