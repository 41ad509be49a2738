"""What deleted queues leave: ``queue/NAME.deleted.INODE``, with every message that they had.

They are told of, and removed only where the options say after how long (``deleted_queues``).  The time
counts from the deletion.  A link of such a name is left alone.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from rqcore import durable
from rqcore.instance import Instance
from rqcore_cleaner import listing

_NAME = re.compile(r"(?P<queue>.+)\.deleted\.\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one queue became, and when, as unix time."""

    queue: str
    path: str
    since: float


def leftovers(instance: Instance) -> Iterator[Leftover]:
    """All there are."""
    folder = str(instance.queues_dir)
    for name in sorted(durable.children(folder)):
        found = _NAME.fullmatch(name)
        if found is None:
            continue
        try:
            info = os.stat(f"{folder}/{name}", follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(info.st_mode):
            # Its content keeps its time; the rename is what changed the directory itself last.
            yield Leftover(found["queue"], f"{folder}/{name}", info.st_ctime)


def remove_old(instance: Instance, age: float, now: float) -> tuple[int, int, list[str]]:
    """Remove those that are older than ``age`` seconds: how many, their bytes, troubles in words."""
    count = taken = 0
    troubles = []
    for item in leftovers(instance):
        if now - item.since < age:
            continue
        bytes_taken = listing.size(item.path)
        try:
            durable.remove_tree(item.path)
        except OSError as error:
            troubles.append(f"{item.path} stays: {error.strerror}; remove it by hand")
        else:
            count, taken = count + 1, taken + bytes_taken
    return count, taken, troubles
