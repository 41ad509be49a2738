"""How a transfer goes on, in words: ``45% of 1.2 GB, 88 MB/s, 8 s left``.

`Progress` counts what is sent, by several threads, and tells at most twice a second.  The rate is
that of the last seconds, so that a slow beginning is soon forgotten.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from rqcore.words import size

_EVERY = 0.5
_WINDOW = 5.0
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


class StoppedError(Exception):
    """Another attachment failed: this one is not sent on."""


class Progress:
    """``total`` bytes are to be there in the end; ``tell`` gets the words, ``clock`` gives seconds."""

    def __init__(self, total: int, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        #: What this run has sent, and how much of that had been sent before.
        self.sent = 0
        self.resent = 0
        self._total = total
        self._stopped = False
        self._there = 0
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._told = clock()
        self._marks = deque([(self._told, 0)])

    def found(self, size: int) -> None:
        """So many bytes are there already (fewer than was thought, if it is negative)."""
        with self._lock:
            self._there += size

    def stop(self) -> None:
        """Whoever adds from now on is stopped by `StoppedError`."""
        self._stopped = True

    def halted(self, why: str) -> None:
        """Tell why it does not go on just now."""
        with self._lock:
            self._tell(f"{share(self._there, self._total)}, {why}")

    def add(self, size: int, again: int = 0) -> None:
        """So many bytes were sent, ``again`` of them once more.  Raises `StoppedError`."""
        with self._lock:
            if self._stopped:
                raise StoppedError
            self.sent += size
            self.resent += again
            self._there += size
            now = self._clock()
            if now - self._told < _EVERY:
                return
            self._told = now
            self._marks.append((now, self.sent))
            while now - self._marks[0][0] > _WINDOW and len(self._marks) > 1:
                self._marks.popleft()
            then, before = self._marks[0]
            rate = (self.sent - before) / (now - then) if now > then else 0.0
            self._tell(words(self._there, self._total, rate))


def share(there: int, total: int) -> str:
    """How much is there: ``45% of 1.2 GB``."""
    return f"{100 * min(there, total) // total if total else 100}% of {size(total)}"


def words(there: int, total: int, rate: float) -> str:
    """The status: how much is there, how fast it goes (bytes per second), how long it will take."""
    done = share(there, total)
    if rate < 1:
        return f"{done}, waiting"
    return f"{done}, {size(rate)}/s, {duration((total - min(there, total)) / rate)} left"


def duration(seconds: float) -> str:
    """A time as people read it: ``8 s``, ``3 min``, ``2 h 5 min``, ``4 d 1 h``."""
    whole = int(seconds + 0.5)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{(whole + 30) // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
