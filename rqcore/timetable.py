"""A queue's ``schedule``: messages made by the clock.

When is decided by `rqcore.cron.CronTable`; this room keeps its memory, ``cron.json`` in the queue's
directory, so that no run is doubled or lost over a restart.  A run is made in three steps:

1. write into ``cron.json``, durably, that this line fires for this minute as the message with this id;
2. make that message;
3. strike the intent out.

After a crash between 1 and 3 the id tells: is there no message of it, it is made now.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from time import time
from typing import Any

from rqcore import durable
from rqcore.config import QueueConfig, ScheduleLine
from rqcore.cron import CronLine, CronTable
from rqcore.errors import RefusedError, StoreError
from rqcore.message import Message, is_msg_id
from rqcore.store import SpoolStore

_log = logging.getLogger(__name__)
Admit = Callable[[Message], object]


class Timetable:
    """See the head of this module; ``admit`` makes a message of a draft with an id."""

    def __init__(
        self,
        folder: str,
        store: SpoolStore,
        admit: Admit,
        after: Callable[[Callable[[], None]], None],
    ) -> None:
        self._path = f"{folder}/cron.json"
        self._store = store
        self._admit = admit
        self._after = after
        self._lines: dict[str, ScheduleLine] = {}
        self._table = CronTable({}, {}, {})
        self._intents: dict[str, dict[str, Any]] = {}
        self._dest = ""

    def load(self, config: QueueConfig, dest: str) -> None:
        """Take the schedule of this configuration, with what is remembered of its lines."""
        remembered = self._read()
        self._dest = dest
        lines, parsed = {}, {}
        for line in config.schedule:
            try:
                cron = CronLine(line.cron, line.tz)
            except RefusedError as error:
                _log.error("queue %s: a schedule line is skipped: %s", config.name, error)
                continue
            key = json.dumps([line.cron, line.tz, *_params(line)])
            while key in lines:  # the same line twice means two messages
                key += "+"
            lines[key], parsed[key] = line, cron
        self._lines = lines
        self._table = CronTable(
            parsed, remembered["last"], {key: line.catchup for key, line in lines.items()}
        )
        self._intents = remembered["intents"]
        for msg_id, intent in list(self._intents.items()):
            self._make_up(msg_id, intent)
        if lines:
            self.next_wake()  # a line seen for the first time begins now, and that is remembered
            self._try_write()

    def fire(self) -> None:
        """Make the messages that are due by now."""
        for firing in self._table.due(time()):
            line = self._lines[firing.key]
            self._table.mark(firing.key, firing.at)
            msg_id = self._store.new_id()
            self._intents[msg_id] = {"at": firing.at, "params": _params(line)}
            try:
                self._write(durably=True)
                self._make(msg_id, self._intents[msg_id])
            except (OSError, StoreError, RefusedError) as error:
                _log.error("the run of %s at %s fails: %s", line.cron, firing.at, error)
                self._struck(msg_id)

    def skip(self) -> None:
        """The queue was not UP: what came due meanwhile does not run, also not later."""
        if not self._lines:
            return
        self._table.skip(time())
        self._try_write()

    def next_wake(self) -> float | None:
        """When there is something to do next, as unix time; None for never."""
        return self._table.next_wake(time()) if self._lines else None

    def _make_up(self, msg_id: str, intent: Mapping[str, Any]) -> None:
        """A crash came between the intent and its message, or between the message and its end."""
        if not is_msg_id(msg_id) or self._store.find(msg_id) is not None:
            self._struck(msg_id)
            return
        _log.warning("the scheduled run %s was interrupted by a crash; it is made now", msg_id)
        try:
            self._make(msg_id, intent)
        except (OSError, StoreError, RefusedError, LookupError, TypeError, ValueError) as error:
            _log.error("the scheduled run %s fails: %r", msg_id, error)
            self._struck(msg_id)

    def _make(self, msg_id: str, intent: Mapping[str, Any]) -> None:
        p1, p2, p3, p4 = intent["params"]
        self._admit(Message(
            msg_id=msg_id, dest=self._dest, src="cron", due=intent["at"],
            param1=p1, param2=p2, param3=p3, param4=p4,
        ))  # fmt: skip
        self._after(lambda: self._struck(msg_id))

    def _struck(self, msg_id: str) -> None:
        self._intents.pop(msg_id, None)
        self._try_write()  # an intent too many does no harm: its message is there

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._path, "rb") as file:
                found = json.loads(file.read())
            return {
                "last": {str(k): float(v) for k, v in found["last"].items()},
                "intents": {str(k): dict(v) for k, v in found["intents"].items()},
            }
        except FileNotFoundError:
            return {"last": {}, "intents": {}}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            _log.error("%s is damaged (%r): the schedule starts from now", self._path, error)
            return {"last": {}, "intents": {}}

    def _try_write(self) -> None:
        try:
            self._write(durably=False)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    def _write(self, *, durably: bool) -> None:
        data = json.dumps({"last": self._table.state(), "intents": self._intents}).encode("ascii")
        if durably:
            durable.write_file(self._path, data)
        else:
            durable.replace_unsynced(self._path, data)


def _params(line: ScheduleLine) -> list[str]:
    return [line.param1, line.param2, line.param3, line.param4]
