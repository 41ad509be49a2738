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
        self, folder: str, store: SpoolStore, admit: Admit, after: Callable[[Callable[[], None]], None]
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
                _log.error("queue %s: a schedule line is skipped: %s", config.name, error)  # noqa: TRY400
                continue
            key = json.dumps([line.cron, line.tz, *_params(line)])
            lines[key], parsed[key] = line, cron
        state = {k: v for k, v in remembered["last"].items() if k in parsed}
        self._lines = lines
        self._table = CronTable(parsed, state, {key: line.catchup for key, line in lines.items()})
        self._intents = remembered["intents"]
        for key, intent in list(self._intents.items()):
            self._make_up(key, intent)

    def fire(self) -> None:
        """Make the messages that are due by now."""
        for firing in self._table.due(time()):
            line = self._lines[firing.key]
            self._table.mark(firing.key, firing.at)
            intent = {"at": firing.at, "msg_id": self._store.new_id(), "params": _params(line)}
            self._intents[firing.key] = intent
            try:
                self._write(durably=True)
                self._make(firing.key, intent)
            except (OSError, StoreError, RefusedError) as error:
                _log.error("the run of %s at %s fails: %s", line.cron, firing.at, error)  # noqa: TRY400
                self._struck(firing.key)

    def skip(self) -> None:
        """The queue is not UP: what is due now does not run, also not later."""
        if self._lines:
            self._table.skip(time())

    def next_wake(self) -> float | None:
        """When there is something to do next, as unix time; None for never."""
        return self._table.next_wake(time()) if self._lines else None

    def _make_up(self, key: str, intent: Mapping[str, Any]) -> None:
        """A crash came between the intent and its message, or between the message and its end."""
        msg_id = str(intent.get("msg_id", ""))
        if not is_msg_id(msg_id) or self._store.find(msg_id) is not None:
            self._struck(key)
            return
        _log.warning("the scheduled run %s was interrupted by a crash; it is made now", msg_id)
        self._make(key, intent)

    def _make(self, key: str, intent: Mapping[str, Any]) -> None:
        p1, p2, p3, p4 = intent["params"]
        self._admit(Message(
            msg_id=intent["msg_id"], dest=self._dest, src="cron", due=intent["at"],
            param1=p1, param2=p2, param3=p3, param4=p4,
        ))  # fmt: skip
        self._after(lambda: self._struck(key))

    def _struck(self, key: str) -> None:
        self._intents.pop(key, None)
        self._write(durably=False)

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
            _log.error("%s is damaged (%r): the schedule starts from now", self._path, error)  # noqa: TRY400
            return {"last": {}, "intents": {}}

    def _write(self, *, durably: bool) -> None:
        data = json.dumps({"last": self._table.state(), "intents": self._intents}).encode("ascii")
        if durably:
            durable.write_file(self._path, data)
        else:
            durable.replace_unsynced(self._path, data)


def _params(line: ScheduleLine) -> list[str]:
    return [line.param1, line.param2, line.param3, line.param4]
