"""Being told when files change.

`Watcher` calls back when entries of a directory come, go or change, or when a file grows.  On Linux
the kernel tells (inotify), at once and for nothing while nothing happens.  Elsewhere, and where it
has no more instances to give, the watched paths are looked at once a second as long as anything is
watched: late by a second at most.

A path that cannot be watched raises `OSError`; a watched path that disappears falls silent.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

from rqcore import unix
from rqcore.loop import Loop, Timer

_log = logging.getLogger(__name__)
_LOOK_EVERY = 1.0


class Change(NamedTuple):
    """``name`` came, went or changed; ``arrived`` when it was moved there whole."""

    name: str
    arrived: bool
    is_dir: bool


Callback = Callable[[Change], None]


class Watcher:
    """See the head of this module; `watcher` makes the one that suits the system."""

    def entries(self, path: str, callback: Callback) -> int:
        """Watch what comes into, leaves, or changes in a directory; returns a handle."""
        raise NotImplementedError

    def members(self, path: str, callback: Callback) -> int:
        """Watch only what comes into and leaves a directory; returns a handle."""
        raise NotImplementedError

    def growth(self, path: str, callback: Callback) -> int:
        """Watch a file being written to; returns a handle."""
        raise NotImplementedError

    def forget(self, handle: int) -> None:
        """Watch it no more."""
        raise NotImplementedError


def watcher(loop: Loop, on_lost: Callable[[], None]) -> Watcher:
    """A watcher on this loop; ``on_lost`` is called when events were lost and all must be looked at.

    A user has so many inotify instances (128), one for each process; what is beyond looks by itself.
    """
    if unix.HAVE_INOTIFY:
        try:
            return InotifyWatcher(loop, on_lost)
        except OSError as error:
            _log.warning(
                "changes are looked for once a second, since nobody tells of them: %s; "
                "raise the sysctl fs.inotify.max_user_instances", error,
            )  # fmt: skip
    return PollingWatcher(loop)


class InotifyWatcher(Watcher):
    """Linux: one inotify descriptor for the whole process."""

    _ENTRIES = (
        unix.Inotify.CREATE | unix.Inotify.MOVED_TO | unix.Inotify.DELETE
        | unix.Inotify.MOVED_FROM | unix.Inotify.ATTRIB | unix.Inotify.CLOSE_WRITE
    )  # fmt: skip
    _MEMBERS = (
        unix.Inotify.CREATE | unix.Inotify.MOVED_TO | unix.Inotify.DELETE | unix.Inotify.MOVED_FROM
    )
    _GROWTH = unix.Inotify.MODIFY

    def __init__(self, loop: Loop, on_lost: Callable[[], None]) -> None:
        self._inotify = unix.Inotify()
        self._on_lost = on_lost
        self._next = 0
        self._handles: dict[int, int] = {}
        self._callbacks: dict[int, dict[int, Callback]] = {}
        loop.reader(self._inotify.fd, self._on_readable)

    def entries(self, path: str, callback: Callback) -> int:
        return self._add(path, self._ENTRIES, callback)

    def members(self, path: str, callback: Callback) -> int:
        return self._add(path, self._MEMBERS, callback)

    def growth(self, path: str, callback: Callback) -> int:
        return self._add(path, self._GROWTH, callback)

    def forget(self, handle: int) -> None:
        watch = self._handles.pop(handle)
        callbacks = self._callbacks[watch]
        del callbacks[handle]
        if not callbacks:
            del self._callbacks[watch]
            self._inotify.remove(watch)

    def _add(self, path: str, mask: int, callback: Callback) -> int:
        # One inode has one watch however often it is asked for: the masks add up (IN_MASK_ADD).
        watch = self._inotify.add(path, mask | 0x20000000)
        self._next += 1
        self._handles[self._next] = watch
        self._callbacks.setdefault(watch, {})[self._next] = callback
        return self._next

    def _on_readable(self) -> None:
        for event in self._inotify.read():
            if event.watch < 0:
                _log.warning("file notifications were lost; looking at everything")
                self._on_lost()
                continue
            change = Change(event.name, event.moved_in, event.is_dir)
            for callback in list(self._callbacks.get(event.watch, {}).values()):
                callback(change)


class PollingWatcher(Watcher):
    """Any Unix: looks at the watched paths once a second while there are any."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._next = 0
        self._timer: Timer | None = None
        self._watched: dict[int, tuple[str, Callback, dict[str, tuple[int, int, int]]]] = {}

    def entries(self, path: str, callback: Callback) -> int:
        os.listdir(path)
        return self._add(path, callback)

    members = entries

    def growth(self, path: str, callback: Callback) -> int:
        os.stat(path)
        return self._add(path, callback)

    def forget(self, handle: int) -> None:
        del self._watched[handle]

    def _add(self, path: str, callback: Callback) -> int:
        self._next += 1
        self._watched[self._next] = (path, callback, _look(path))
        if self._timer is None:
            self._timer = self._loop.after(_LOOK_EVERY, self._poll)
        return self._next

    def _poll(self) -> None:
        for handle, (path, callback, before) in list(self._watched.items()):
            now = _look(path)
            if now == before:
                continue
            self._watched[handle] = (path, callback, now)
            for name in before.keys() | now.keys():
                if before.get(name) != now.get(name):
                    callback(Change(name, name not in before, bool(now.get(name, (0, 0, 0))[2])))
        self._timer = self._loop.after(_LOOK_EVERY, self._poll) if self._watched else None


def _look(path: str) -> dict[str, tuple[int, int, int]]:
    found: dict[str, tuple[int, int, int]] = {}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    info = entry.stat(follow_symlinks=False)
                    found[entry.name] = (info.st_mtime_ns, info.st_size, int(entry.is_dir()))
    except NotADirectoryError:
        info = os.stat(path)
        found[""] = (info.st_mtime_ns, info.st_size, 0)
    except FileNotFoundError:
        pass
    return found
