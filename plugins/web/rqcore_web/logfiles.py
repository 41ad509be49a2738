"""The files of a message that people read: what its script left in ``job/``, and what is in ``attach/``.

A file is named by its message's directory (which the queue tells), the part, and a name that may come
from anywhere.  Nothing but a regular file that lies there itself is ever opened: a name is one
component and begins with no dot, no link is followed on the way, and a pipe or a device that a script
put in its place keeps nobody waiting.  Everything else is as if it were not there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LONGEST_NAME = 255
#: A script may leave a million files: so many of them are listed, the first by name.
MOST_LISTED = 1000


class Part(StrEnum):
    """The two directories of a message that hold such files; the value is the directory's name."""

    JOB = "job"
    ATTACH = "attach"


@dataclass(frozen=True, slots=True)
class Sight:
    """A file as it was when it was looked at.

    ``size`` in bytes, ``modified`` unix time; ``identity`` is another one for another file, whatever
    its name: what was read of the one says nothing of the other.
    """

    name: str
    size: int
    modified: float
    identity: str


def is_name(name: str) -> bool:
    """May a file of this name be asked for?"""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        return False
    try:
        return len(os.fsencode(name)) <= _LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair: no file can be named so
        return False


@contextlib.contextmanager
def opened(folder: str, part: Part, name: str) -> Iterator[int]:
    """A descriptor to read the file by, for as long as the block runs.

    Raises `FileNotFoundError` when there is no such file, or it is none to be read, and `OSError`.
    """
    with _directory(folder, part) as directory:
        fd = _open_in(directory, name)
    try:
        yield fd
    finally:
        os.close(fd)


def look(folder: str, part: Part, name: str) -> Sight | None:
    """The file as it is now; None when there is none, or it is none to be read."""
    try:
        with _directory(folder, part) as directory:
            return _sight(directory, name)
    except OSError:
        return None


def listing(folder: str, part: Part) -> list[Sight]:
    """The files that can be read, by name, `MOST_LISTED` at most."""
    try:
        with _directory(folder, part) as directory:
            names = sorted(filter(is_name, os.listdir(directory)))
            sights = (_sight(directory, name) for name in names)
            return [
                sight for sight, _ in zip(filter(None, sights), range(MOST_LISTED), strict=False)
            ]
    except OSError:
        return []


@contextlib.contextmanager
def _directory(folder: str, part: Part) -> Iterator[int]:
    outer = os.open(folder, _DIRECTORY)
    try:
        inner = os.open(part, _DIRECTORY, dir_fd=outer)
    finally:
        os.close(outer)
    try:
        yield inner
    finally:
        os.close(inner)


def _sight(directory: int, name: str) -> Sight | None:
    if not is_name(name):
        return None
    try:
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    return Sight(name, info.st_size, info.st_mtime, f"{info.st_dev:x}-{info.st_ino:x}")


def _open_in(directory: int, name: str) -> int:
    # Looked at first: to open a device can be an act of its own.
    if _sight(directory, name) is None:
        raise FileNotFoundError(name)
    fd = os.open(name, _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # another came in between
        os.close(fd)
        raise FileNotFoundError(name)
    return fd
