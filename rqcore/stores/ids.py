"""Ids in order: what a store needs to list newest first without reading everything.

`SortedIds` keeps the ids of one flat state in memory.  `HashedIds` finds its way
through the directories ``YYYYMMDD/HH/MM`` of the finished states, which are never held in memory.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from time import time_ns

from rqcore.durable import children
from rqcore.message import is_msg_id

#: A minute's directory with fewer entries is read as quickly as it is found.
_MANY = 500
#: Nanoseconds after which a directory's time certainly tells of the next change.
_SURE_AFTER = 2_000_000_000


class SortedIds:
    """The sorted ids of one flat state."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = sorted(ids)

    def __contains__(self, msg_id: str) -> bool:
        at = bisect_left(self._ids, msg_id)
        return at < len(self._ids) and self._ids[at] == msg_id

    def add(self, msg_id: str) -> bool:
        """One more; False when it is there already."""
        ids = self._ids
        if not ids or ids[-1] < msg_id:
            ids.append(msg_id)
            return True
        at = bisect_left(ids, msg_id)
        if ids[at] == msg_id:
            return False
        ids.insert(at, msg_id)
        return True

    def discard(self, msg_id: str) -> bool:
        """One less; False when it is not there."""
        ids = self._ids
        at = bisect_left(ids, msg_id)
        if at < len(ids) and ids[at] == msg_id:
            del ids[at]
            return True
        return False

    def count(self) -> int:
        """How many there are."""
        return len(self._ids)

    def newest(self, limit: int, before: str) -> list[str]:
        """At most ``limit`` ids before ``before`` ("" for no bound), newest first."""
        end = bisect_left(self._ids, before) if before else len(self._ids)
        return self._ids[max(0, end - limit) : end][::-1]


def hashed_path(root: str, msg_id: str) -> str:
    """Where a finished message lies under ``root``: by its own timestamp."""
    return f"{root}/{msg_id[:8]}/{msg_id[9:11]}/{msg_id[11:13]}/{msg_id}"


class HashedIds:
    """The ids under ``root/YYYYMMDD/HH/MM``.

    A minute may hold tens of thousands.  The names in the last such minute that was read are kept, so
    that whoever pages through it does not have it read for each page; they count as long as nothing
    came into or left the directory since.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        #: A minute's directory, when it was changed last (in ns), and what is in it, oldest first.
        self._kept: tuple[str, int, list[str]] = ("", 0, [])

    def newest(self, limit: int, before: str) -> list[str]:
        """At most ``limit`` ids before ``before`` ("" for no bound), newest first."""
        found: list[str] = []
        for bucket in self._buckets(before[:8], before[9:11], before[11:13]):
            names = self._names(bucket)
            end = bisect_left(names, before) if before else len(names)
            for at in range(end - 1, -1, -1):
                if is_msg_id(names[at]):
                    found.append(names[at])
                    if len(found) == limit:
                        return found
        return found

    def _names(self, bucket: str) -> list[str]:
        """Everything in a minute's directory, ids or not, oldest first."""
        changed = _changed(bucket)
        if (bucket, changed) == self._kept[:2]:
            return self._kept[2]
        names = sorted(children(bucket))
        # One that was changed just now may change again without its time telling it.
        if len(names) >= _MANY and time_ns() - changed > _SURE_AFTER:
            self._kept = (bucket, changed, names)
        return names

    def all(self) -> Iterator[str]:
        """All of them, newest minute first."""
        for bucket in self._buckets("", "", ""):
            yield from filter(is_msg_id, children(bucket))

    def count(self, *, trust_links: bool) -> int:
        """How many there are.

        Where a directory's link count tells the number of its subdirectories, one look at each
        minute is enough; elsewhere the entries are counted.
        """
        total = 0
        for bucket in self._buckets("", "", ""):
            links = _links(bucket) if trust_links else 1
            # 1 means that the file system gave up counting (ext4 does so past 65000).
            total += links - 2 if links > 1 else sum(map(is_msg_id, children(bucket)))
        return total

    def _buckets(self, day: str, hour: str, minute: str) -> Iterator[str]:
        """The minutes' directories up to the given one, newest first."""
        for d in _descending(self._root, 8):
            if day and d > day:
                continue
            for h in _descending(f"{self._root}/{d}", 2):
                if day and d == day and h > hour:
                    continue
                for m in _descending(f"{self._root}/{d}/{h}", 2):
                    if not (day and d == day and h == hour and m > minute):
                        yield f"{self._root}/{d}/{h}/{m}"


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _links(path: str) -> int:
    try:
        return os.stat(path).st_nlink
    except FileNotFoundError:  # a cleaner took it away meanwhile
        return 0


def _descending(path: str, length: int) -> list[str]:
    return sorted((n for n in children(path) if len(n) == length and n.isdigit()), reverse=True)


def links_count_subdirectories(path: str) -> bool:
    """Does this file system count a directory's subdirectories in its link count?"""
    with os.scandir(path) as entries:
        subdirectories = sum(entry.is_dir(follow_symlinks=False) for entry in entries)
    return os.stat(path).st_nlink == subdirectories + 2
