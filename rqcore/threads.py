"""Reading and removing gigabytes without holding up the loop.

The one use of threads in the kernel: a function that works on files and touches no state runs in one,
and its result comes back to the loop.  A few run at a time, the others wait their turn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from rqcore.loop import Loop

_T = TypeVar("_T")
_AT_ONCE = 4


class Threads:
    """See the head of this module."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._running = 0
        self._waiting: deque[Callable[[], None]] = deque()

    def run(self, function: Callable[[], _T], done: Callable[[_T | Exception], None]) -> None:
        """Call ``function`` in a thread, then ``done`` in the loop with its result or exception."""

        def work() -> None:
            result: _T | Exception
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                result = error
            self._loop.from_thread(lambda: finished(result))

        def finished(result: _T | Exception) -> None:
            self._running -= 1
            if self._waiting:
                self._waiting.popleft()()
            done(result)

        def begin() -> None:
            self._running += 1
            threading.Thread(target=work, daemon=True, name="rq-read").start()

        if self._running < _AT_ONCE:
            begin()
        else:
            self._waiting.append(begin)
