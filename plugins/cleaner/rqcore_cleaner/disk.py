"""How full the disk is that a spool lies on, and what follows from it: nothing, a warning, a refusal.

`judge` is the decision alone.  Bytes and inodes count each, the worse one decides; where the file system
counts no inodes, only bytes do.  A level that was reached holds until there is clearly more room again,
so that it does not come and go with every message.

What was judged last is kept in files of no content, ``var/cleaner/disk.DEVICE.warning`` and
``….refuse``, for all processes: whoever makes or removes one tells of it in the log, so it is told once.
Where they cannot be written, because the disk is full, each process remembers by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from enum import IntEnum
from time import monotonic
from typing import NamedTuple

from rqcore.words import size
from rqcore_cleaner import totals
from rqcore_cleaner.options import DiskOptions

_log = logging.getLogger(__name__)
#: So much of the way from one level to the next must be free again.
_BACK = 0.25
#: A disk with so much free beyond the warning is looked at once in `_CALM_SECONDS` only: nobody can
#: use that up meanwhile.
_CALM = {"bytes": 1_000_000_000, "inodes": 20_000}
_CALM_SECONDS = 0.1
#: Seconds after which a message that may not start asks again, and between two that do.
_HOLD, _SLOT = 2.0, 0.005


class Level(IntEnum):
    """What follows from how full the disk is."""

    OK = 0
    WARNING = 1
    REFUSE = 2


class Part(NamedTuple):
    """Bytes or inodes: how many are free, of how many, and the two levels."""

    name: str
    free: int
    whole: int
    warning: int
    refuse: int

    @property
    def back(self) -> int:
        """From so much free on messages are taken again."""
        return self.refuse + int(max(0, self.warning - self.refuse) * _BACK)

    def figure(self, count: int) -> str:
        """So much of it, where it is known of what."""
        return size(count) if self.name == "bytes" else f"{count:,}"

    def words(self, count: int) -> str:
        """So much of it, in words."""
        return self.figure(count) if self.name == "bytes" else f"{count:,} inodes"

    def level(self, former: Level) -> Level:
        """What follows from this part alone."""
        if self.free < self.refuse or (former is Level.REFUSE and self.free < self.back):
            return Level.REFUSE
        over = self.warning + int(self.warning * _BACK / 2)
        if self.free < self.warning or (former is not Level.OK and self.free < over):
            return Level.WARNING
        return Level.OK


def parts(path: str, options: DiskOptions) -> list[Part]:
    """The file system that ``path`` lies on.  Raises `OSError`."""
    found = os.statvfs(path)
    unit, whole = found.f_frsize, found.f_blocks * found.f_frsize
    made = [
        Part(
            "bytes", found.f_bavail * unit, whole,
            options.warning.of(whole), options.refuse.of(whole),
        )
    ]  # fmt: skip
    if found.f_files:
        levels = options.warning_inodes.of(found.f_files), options.refuse_inodes.of(found.f_files)
        made.append(Part("inodes", found.f_favail, found.f_files, *levels))
    return made


def judge(found: list[Part], former: Level) -> tuple[Level, Part]:
    """The worse one decides; also which it is."""
    worst = max(found, key=lambda part: (part.level(former), -part.free / max(1, part.whole)))
    return worst.level(former), worst


def state(directory: str, options: DiskOptions) -> tuple[Level, Part, list[Part]]:
    """How it is now, for whoever shows it; nothing is noted.  Raises `OSError`."""
    path = f"{directory}/queue"
    found = parts(path, options)
    level, worst = judge(found, Marks(directory, path).read())
    return level, worst, found


class Marks:
    """The files that say what was judged last of the file system of ``path``."""

    def __init__(self, directory: str, path: str) -> None:
        self._directory = directory
        self._base = f"{totals.folder(directory)}/disk.{os.stat(path).st_dev:x}"
        #: Where the files could not be written.
        self._own = Level.OK

    def read(self) -> Level:
        """What was judged last."""
        for level in (Level.REFUSE, Level.WARNING):
            if self._own >= level or os.path.lexists(self._path(level)):
                return level
        return Level.OK

    def note(self, level: Level) -> Iterator[tuple[Level, bool]]:
        """Judged anew: gives the levels that are reached (True) or left by this, to be told."""
        for each in (Level.WARNING, Level.REFUSE):
            if level >= each and self._set(each):
                yield each, True
        for each in (Level.REFUSE, Level.WARNING):
            if level < each and self._clear(each):
                yield each, False

    def _path(self, level: Level) -> str:
        return f"{self._base}.{level.name.lower()}"

    def _set(self, level: Level) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            totals.make_folder(self._directory)
            os.close(os.open(self._path(level), flags, 0o644))
        except FileExistsError:
            return False
        except OSError:
            known, self._own = self._own >= level, max(self._own, level)
            return not known
        return True

    def _clear(self, level: Level) -> bool:
        own = self._own >= level
        if own:
            self._own = Level(level - 1)
        with contextlib.suppress(OSError):
            os.unlink(self._path(level))
            return True
        return own


class Guard:
    """In a queue's process: says whether the disk has room for one more message, or run; cheap."""

    def __init__(self, directory: str, path: str) -> None:
        self._path = path
        self._marks = Marks(directory, path)
        self._calm_until = 0.0
        self._last_slot = 0.0

    def problem(self, options: DiskOptions, *, reserved: bool) -> str | None:
        """Why a new message must be refused, None when it need not.

        One that is ``reserved`` may still have half of what is kept free.
        """
        found = self._look(options)
        if found is None:
            return None
        level, worst = found
        if level is not Level.REFUSE or (reserved and worst.free >= worst.refuse // 2):
            return None
        return (
            f"the disk is too full for new messages: {worst.words(worst.free)} free; they are taken "
            f"again from {worst.words(worst.back)} on. Remove old messages (rq clean), or make room"
        )

    def hold(self, options: DiskOptions) -> tuple[str, float] | None:
        """Why no run may begin just now, and the seconds to wait; None when it may.

        The last half of what is kept free is for those that run, to end, and for the cleaner.  However
        many wait, they ask one after the other, not all at once.
        """
        found = self._look(options)
        if found is None or found[1].free >= found[1].refuse // 2:
            return None
        now = monotonic()
        self._last_slot = max(now + _HOLD, self._last_slot + _SLOT)
        worst = found[1]
        return f"the disk is full, {worst.words(worst.free)} free", self._last_slot - now

    def _look(self, options: DiskOptions) -> tuple[Level, Part] | None:
        """How it is; None when there is room, or nobody can tell."""
        if monotonic() < self._calm_until:
            return None
        try:
            found = parts(self._path, options)
        except OSError as error:  # then it can hold no message either, and says so itself
            _log.debug("%s cannot be asked how full it is: %s", self._path, error)
            return None
        former = self._marks.read()
        level, worst = judge(found, former)
        if level is not former:
            self._tell(level, worst)
        if level is Level.OK and all(part.free - part.warning > _CALM[part.name] for part in found):
            self._calm_until = monotonic() + _CALM_SECONDS
        return level, worst

    def _tell(self, level: Level, worst: Part) -> None:
        free, of = worst.words(worst.free), worst.words(worst.whole)
        for reached, now in self._marks.note(level):
            if reached is Level.REFUSE and now:
                _log.error(
                    "the disk is full but for the reserve, new messages are refused: %s of %s free; "
                    "remove old messages (rq clean), or make room", free, of,
                )  # fmt: skip
            elif reached is Level.REFUSE:
                _log.warning("the disk has room again, new messages are taken: %s free", free)
            elif now and level is Level.WARNING:
                _log.warning(
                    "the disk fills: %s of %s free, new messages are refused below %s",
                    free, of, worst.words(worst.refuse),
                )  # fmt: skip
            elif not now:
                _log.warning("the disk has enough room: %s of %s free", free, of)
