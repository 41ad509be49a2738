"""Those who follow what happens in a queue: state changes, status texts, growing logs.

A follower is a connection that asked ``subscribe``, for one message (``msg_id``) or for all of the
queue, with the log's growth (``log``) or without.  It is sent one JSON object per event:

    {"event": "state",  "msg_id", "old", "new", "step", "status"}   once the disk has it, or refused it
    {"event": "status", "msg_id", "status"}                         ten a second at most
    {"event": "log",    "msg_id", "size"}                           bytes in job/stdio.log now

A log is watched only while somebody follows it.  A follower that does not keep up is cut off rather
than allowed to fill the memory: it can come back and look.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from rqcore.lifecycle import State, Step
from rqcore.loop import Loop, Timer
from rqcore.message import Message
from rqcore.server import Connection
from rqcore.store import SpoolStore
from rqcore.watch import Watcher

_LOG_EVERY = 0.05


class _Log:
    """A log that somebody follows: told of at once, then at most so often."""

    def __init__(
        self, loop: Loop, watcher: Watcher, path: str, tell: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._watcher = watcher
        self._path = path
        self._tell = tell
        self._timer: Timer | None = None
        self._handle = watcher.growth(path, lambda _: self._grew())

    def _grew(self) -> None:
        if self._timer is None:
            self._timer = self._loop.after(_LOG_EVERY, self._look)

    def _look(self) -> None:
        self._timer = None
        with contextlib.suppress(FileNotFoundError):
            self._tell(os.stat(self._path).st_size)

    def close(self) -> None:
        self._watcher.forget(self._handle)
        if self._timer is not None:
            self._timer.cancel()


class Followers:
    """See the head of this module."""

    def __init__(self, loop: Loop, watcher: Watcher, store: SpoolStore) -> None:
        self._loop = loop
        self._watcher = watcher
        self._store = store
        self._followers: dict[Connection, tuple[str, bool]] = {}
        self._logs: dict[str, _Log] = {}

    def add(self, connection: Connection, msg_id: str, *, log: bool) -> None:
        """From now on this connection is told; ``msg_id`` "" stands for the whole queue."""
        self._followers[connection] = (msg_id, log)
        if log and msg_id and self._store.find(msg_id) is State.RUN:
            self._watch_log(msg_id)

    def any(self) -> bool:
        """Does anybody follow anything?"""
        return bool(self._followers)

    def on_started(self, message: Message) -> None:
        """The message's script runs: its log can be watched now."""
        if self._wants_log(message.msg_id):
            self._watch_log(message.msg_id)

    def on_status(self, message: Message, text: str) -> None:
        """A running message has a new status text."""
        self._send(message.msg_id, {"event": "status", "msg_id": message.msg_id, "status": text})

    def on_moved(self, message: Message, old: State | None, new: State | None, step: Step) -> None:
        """A message changed its state."""
        log = self._logs.pop(message.msg_id, None) if new is not State.RUN else None
        if log is not None:
            log.close()
        if not self._followers:
            return
        self._send(
            message.msg_id,
            {"event": "state", "msg_id": message.msg_id, "old": old, "new": new, "step": step,
             "status": self._status(message.msg_id, new)},
        )  # fmt: skip

    def _status(self, msg_id: str, state: State | None) -> str:
        return "" if state is None else self._store.status(msg_id, state)

    def _wants_log(self, msg_id: str) -> bool:
        return any(log and wanted in ("", msg_id) for wanted, log in self._followers.values())

    def _watch_log(self, msg_id: str) -> None:
        if msg_id in self._logs:
            return
        path = f"{self._store.directory(msg_id, State.RUN)}/job/stdio.log"

        def tell(size: int) -> None:
            self._send(msg_id, {"event": "log", "msg_id": msg_id, "size": size}, log=True)

        with contextlib.suppress(OSError):  # gone already, or there is no watch left
            self._logs[msg_id] = _Log(self._loop, self._watcher, path, tell)
            tell(os.stat(path).st_size)

    def _send(self, msg_id: str, event: Mapping[str, Any], *, log: bool = False) -> None:
        for connection, (wanted, with_log) in list(self._followers.items()):
            if connection.closed or connection.lagging:
                connection.close()
                del self._followers[connection]
            elif wanted in ("", msg_id) and (with_log or not log):
                connection.send(event)
        for followed in [] if self._followers else list(self._logs):
            self._logs.pop(followed).close()
