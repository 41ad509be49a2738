"""What operators do to a queue's directories by hand, noticed at once.

A complete message directory that is moved into ``prep`` or ``que`` is taken in; one that is taken
out of ``prep``, ``que`` or ``err`` is forgotten.  The kernel's notifications tell of both; where some
were lost, everything is looked at.

A directory that is being copied in (``cp -r``, or ``mv`` from another file system) is not complete
until nobody knows when: it is left alone, with a word in the log, until it is moved or the queue
starts the next time.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from rqcore.lifecycle import State
from rqcore.message import is_msg_id
from rqcore.watch import Change, Watcher

if TYPE_CHECKING:
    from rqcore.queue import QueueProcess

_log = logging.getLogger(__name__)
_WATCHED = (State.PREP, State.QUE, State.ERR)
_TAKEN_IN = (State.PREP, State.QUE)


class Hands:
    """See the head of this module."""

    def __init__(self, queue: QueueProcess) -> None:
        self._queue = queue

    def watch(self, watcher: Watcher) -> None:
        """From now on notice what hands do."""
        for state in _WATCHED:
            path = f"{self._queue.info.path}/{state}"
            if os.path.isdir(path):  # a store elsewhere has nothing that hands could change
                watcher.members(path, lambda change, at=state: self._on_change(change, at))  # type: ignore[misc]

    def look_at_everything(self) -> None:
        """Notifications were lost: see what hands may have done."""
        store = self._queue.store
        for state in _WATCHED:
            path = f"{self._queue.info.path}/{state}"
            names = set(os.listdir(path)) if os.path.isdir(path) else set()
            for name in names.union(store.newest(state, store.counts()[state])):
                self._on_change(Change(name, arrived=True, is_dir=True), state)

    def _on_change(self, change: Change, state: State) -> None:
        """Something came into or left a directory: by a hand, or by this process itself."""
        queue = self._queue
        if change.name.startswith("."):
            return
        if queue.store.vanished(change.name, state):
            _log.info("%s was taken out of %s by hand", change.name, state)
            queue.changed()
            if state is State.QUE:
                queue.schedule.discard(change.name)
        elif change.arrived and state in _TAKEN_IN:
            queue.adopt(change.name, state)
        elif change.is_dir and state in _TAKEN_IN and not is_msg_id(change.name):
            _log.info(
                "%s is being copied into %s; move it in (mv) when it is complete, "
                "else it is taken up at the next start", change.name, state,
            )  # fmt: skip
