"""Being told when a file of a message grows, or comes, or is replaced by another.

The kernel's own watcher (`rqcore.watch`) does it, on the site's asyncio loop: one for all readers,
made for the first of them, and asleep while nothing is watched.  A script that prints without pause
wakes it up `_PAUSE` apart at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import cast

from rqcore.loop import Loop
from rqcore.watch import Change, Watcher, watcher
from rqcore_web.logfiles import Part

_PAUSE = 0.05


class _AsyncLoop:
    """As much of the kernel's loop as a watcher uses, on asyncio's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def reader(self, fd: int, callback: Callable[[], None]) -> None:
        def ready() -> None:
            # Not read again at once: what follows is then one event, not thousands.
            self._loop.remove_reader(fd)
            self._loop.call_later(_PAUSE, self._loop.add_reader, fd, ready)
            callback()

        self._loop.add_reader(fd, ready)

    def after(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, callback)


class Growth:
    """See the head of this module; one for the site."""

    def __init__(self) -> None:
        self._watcher: Watcher | None = None
        self._changed: set[Callable[[], None]] = set()

    @contextlib.contextmanager
    def watching(
        self, folder: str, part: Part, name: str, changed: Callable[[], None]
    ) -> Iterator[None]:
        """Call ``changed`` when the file that now has this name grows, and when another takes it.

        What is not there, or cannot be watched, is not watched: the message's events have to do.
        """
        if self._watcher is None:
            self._watcher = watcher(cast("Loop", _AsyncLoop()), self._lost)

        def entry(change: Change) -> None:
            if change.name in ("", name):
                changed()

        handles = []
        self._changed.add(changed)
        try:
            for watch, path in (
                (self._watcher.members, f"{folder}/{part}"),
                (self._watcher.growth, f"{folder}/{part}/{name}"),
            ):
                with contextlib.suppress(OSError):
                    handles.append(watch(path, entry))
            yield
        finally:
            self._changed.discard(changed)
            for handle in handles:
                self._watcher.forget(handle)

    def _lost(self) -> None:
        for changed in self._changed:
            changed()
