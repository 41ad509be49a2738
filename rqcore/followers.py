"""Those who follow what happens in a queue: state changes, status texts, growing logs.

A follower is a connection that asked ``subscribe``, for one message (``msg_id``) or for all of the
queue, with the log's growth (``log``) or without.  It is sent one JSON object per event:

    {"event": "state",  "msg_id", "old", "new", "step", "status",   once the disk has it, or refused
                        "due", "at"}                                it; ``at`` this time
    {"event": "status", "msg_id", "status"}                         ten a second at most
    {"event": "log",    "msg_id", "size"}                           bytes in job/stdio.log now
    {"event": "queue",  "status", "admin", "oper", "problem"}       the queue itself is another, or
                                                                    a hand changed what lies in it

A log is watched only while somebody follows it.  A follower that does not keep up is cut off rather
than allowed to fill the memory: it can come back and look.  `Audience` is that rule alone; the manager
tells its own followers by it, of its queues and services:

    {"event": "child", "name", "kind", "pid", "state", "problem", "restarts"}
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from time import time
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


class Audience:
    """Connections that are told of events, each with what it wants to hear; see above."""

    def __init__(self) -> None:
        self._wants: dict[Connection, tuple[str, bool]] = {}
        self._told: set[Connection] = set()

    def add(self, connection: Connection, wanted: str = "", *, log: bool = False) -> None:
        """From now on this connection is told; ``wanted`` is one message's id, or "" for all."""
        for gone in [other for other in self._wants if other.closed]:
            del self._wants[gone]  # where nothing happens, nobody else would notice
        self._wants[connection] = (wanted, log)

    def __bool__(self) -> bool:
        return bool(self._wants)

    def wants_log(self, msg_id: str) -> bool:
        """Does anybody want to hear of this log's growth?"""
        return any(log and wanted in ("", msg_id) for wanted, log in self._wants.values())

    def tell(self, event: Mapping[str, Any], msg_id: str = "", *, log: bool = False) -> None:
        """Tell everybody who wants to hear it, by the next `flush`; ``msg_id`` "" concerns all."""
        payload = b""
        for connection, (wanted, with_log) in list(self._wants.items()):
            if connection.closed or connection.lagging:
                connection.close()
                del self._wants[connection]
            elif (not msg_id or wanted in ("", msg_id)) and (with_log or not log):
                payload = payload or json.dumps(event).encode("ascii")
                connection.hold(payload)
                self._told.add(connection)

    def flush(self) -> None:
        """Send what was told: all of a turn together, so that nobody wakes up for each."""
        while self._told:
            self._told.pop().flush()


class Followers:
    """See the head of this module."""

    def __init__(self, loop: Loop, watcher: Watcher, store: SpoolStore) -> None:
        self._loop = loop
        self._watcher = watcher
        self._store = store
        self._audience = Audience()
        self._logs: dict[str, _Log] = {}

    def add(self, connection: Connection, msg_id: str, *, log: bool) -> None:
        """From now on this connection is told; ``msg_id`` "" stands for the whole queue."""
        self._audience.add(connection, msg_id, log=log)
        if log and msg_id and self._store.find(msg_id) is State.RUN:
            self._watch_log(msg_id)

    def flush(self) -> None:
        """The turn ends: send what was told in it."""
        self._audience.flush()

    def on_queue(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        """The queue's condition changed, or a hand changed what lies in it."""
        if self._audience:
            self._audience.tell({"event": "queue", **describe()})

    def on_started(self, message: Message) -> None:
        """The message's script runs: its log can be watched now."""
        if self._audience.wants_log(message.msg_id):
            self._watch_log(message.msg_id)

    def on_status(self, message: Message, text: str) -> None:
        """A running message has a new status text."""
        self._send(message.msg_id, {"event": "status", "msg_id": message.msg_id, "status": text})

    def on_moved(
        self, message: Message, old: State | None, new: State | None, step: Step,
        status: str | None = None,
    ) -> None:  # fmt: skip
        """A message changed its state; ``status`` None: its text is what it was."""
        log = self._logs.pop(message.msg_id, None) if new is not State.RUN else None
        if log is not None:
            log.close()
        if not self._audience:
            return
        if status is None:
            status = "" if new is None else self._store.status(message.msg_id, new)
        self._send(
            message.msg_id,
            {"event": "state", "msg_id": message.msg_id, "old": old, "new": new, "step": step,
             "status": status, "due": message.due, "at": time()},
        )  # fmt: skip

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
        self._audience.tell(event, msg_id, log=log)
        if log and not self._audience.wants_log(msg_id) and msg_id in self._logs:
            self._logs.pop(msg_id).close()
