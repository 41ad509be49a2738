"""A message that is being read is not cleaned away meanwhile.

Whoever reads a message for long holds a shared lock (`flock`) on its file ``msg``; the cleaner, and any
other tool that removes old messages by itself, takes the exclusive one without waiting, and leaves the
message for the next time when it cannot have it.  A person who deletes a message is not kept from it.

The lock helps readers, and nobody depends on it: where it cannot be had, because the message is being
removed just now or its files belong to another user, it is read without.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def hold(folder: str) -> int:
    """Hold the message in this directory, until the descriptor is closed; -1 when that cannot be."""
    try:
        fd = os.open(f"{folder}/msg", _FLAGS)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def let_go(fd: int) -> None:
    """The end of `hold`."""
    if fd >= 0:
        os.close(fd)


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
    """Hold the message for as long as the block runs."""
    fd = hold(folder)
    try:
        yield
    finally:
        let_go(fd)
