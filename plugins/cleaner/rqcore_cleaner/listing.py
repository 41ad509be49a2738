"""What lies in a queue's directory, as the directories tell it: ids in order, ages, sizes.

For `done` and `relayed` the directories ``YYYYMMDD/HH/MM`` are gone through, a minute at a time, so that
a million messages take no more memory than the fullest minute; no message is read for it.  Everything
here only looks, except `remove_empty`, which removes directories that hold nothing.

Whatever disappears meanwhile is as if it had not been there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from time import gmtime, strftime

from rqcore import words
from rqcore.durable import children
from rqcore.lifecycle import State
from rqcore.message import is_msg_id

_HASHED = (State.DONE, State.RELAYED)
#: Directories of minutes that are younger are left alone: a message may come into them.
_FRESH = 7200.0
_BLOCK = 512


class Listing:
    """The messages of the queue whose directory is ``path``, in one state."""

    def __init__(self, path: str, state: State) -> None:
        self.root = f"{path}/{state}"
        self.state = state

    def minutes(self, *, newest_first: bool = False) -> Iterator[tuple[str, list[str]]]:
        """Directories and the ids in each, in order; a flat state is one directory."""
        if self.state not in _HASHED:
            yield self.root, _ids(self.root, newest_first=newest_first)
            return
        for day in _numbers(self.root, 8, newest_first=newest_first):
            for hour in _numbers(day, 2, newest_first=newest_first):
                for minute in _numbers(hour, 2, newest_first=newest_first):
                    yield minute, _ids(minute, newest_first=newest_first)

    def ids(self, *, newest_first: bool = False) -> Iterator[tuple[str, str]]:
        """Ids in order, each with the path of its message."""
        for folder, names in self.minutes(newest_first=newest_first):
            for name in names:
                yield name, f"{folder}/{name}"

    def count(self) -> int:
        """How many there are."""
        return sum(len(names) for _, names in self.minutes())

    def remove_empty(self, now: float) -> int:
        """Remove directories of former minutes, hours and days that hold nothing; returns how many."""
        if self.state not in _HASHED:
            return 0
        removed = 0
        bound = strftime("%Y%m%d%H%M", gmtime(now - _FRESH))
        for day in _numbers(self.root, 8):
            if os.path.basename(day) > bound[:8]:
                break
            for hour in _numbers(day, 2):
                for minute in _numbers(hour, 2):
                    stamp = "".join(minute.rsplit("/", 3)[1:])
                    removed += stamp < bound and _removed(minute)
                removed += _removed(hour)
            removed += _removed(day)
        return removed


def ended(path: str, state: State) -> float:
    """When a message came to rest, as unix time: nothing was done with it since.

    Of a finished one that is when its last status was written; of one in ``prep`` when anything about
    it changed, an attachment for instance.  0 when it is gone.
    """
    names = ("", "attach", "msg") if state is State.PREP else ("status",)
    times = [_changed(f"{path}/{name}") for name in names]
    return max(times) or _changed(path)


def size(path: str) -> int:
    """The bytes on the disk that go with a message.

    A file that has more names than one, an attachment that a clone shares for instance, counts by its
    share: all who have it together count it once.  What is mounted in it does not go with it.
    """
    total, device = _taken(path)
    folders = [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        info = entry.stat(follow_symlinks=False)
                        is_dir = entry.is_dir(follow_symlinks=False)
                        total += info.st_blocks * _BLOCK // (1 if is_dir else max(1, info.st_nlink))
                        if is_dir and info.st_dev == device:
                            folders.append(entry.path)
        except OSError:
            continue
    return total


def made(msg_id: str) -> float:
    """When a message was made, by its id; 0 for an id of no time."""
    try:
        return words.id_time(msg_id)
    except ValueError:
        return 0.0


def _taken(path: str) -> tuple[int, int]:
    """The bytes of the directory itself, and its device."""
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:
        return 0, -1
    return info.st_blocks * _BLOCK, info.st_dev


def _changed(path: str) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:  # something is in it, or somebody was quicker
        return False
    return True


def _ids(folder: str, *, newest_first: bool) -> list[str]:
    return sorted(filter(is_msg_id, children(folder)), reverse=newest_first)


def _numbers(folder: str, length: int, *, newest_first: bool = False) -> list[str]:
    names = (name for name in children(folder) if len(name) == length and name.isdigit())
    return [f"{folder}/{name}" for name in sorted(names, reverse=newest_first)]
