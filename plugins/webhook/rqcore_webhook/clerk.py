"""A queue's process: what happens there is entered in the outbox, for those who want to be told.

`Clerk` is made when the spool is ready (`rqcore_webhook.plugin`), in the process of every queue but
webhook itself, whose messages make no webhooks.  `rqcore_webhook.outbox` has the rules by which the
end of a message is told for certain.  Whatever is no end (queued, started, progress, how the queue is)
is told at most once: a process that is killed at that moment does not tell.

Nothing here may raise, or the queue would go on without it.  An outbox that cannot be written (a full
disk) is told in the log once; an end that could not be entered before the move is entered after it, or
with whatever happens next, by as long as this process lives.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic, time
from typing import Any

from rqcore import durable
from rqcore.hookspecs import Outcome, QueueInfo
from rqcore.lifecycle import FINAL, State
from rqcore.message import Message
from rqcore_webhook import events
from rqcore_webhook.care import Care
from rqcore_webhook.options import Endpoint, Options
from rqcore_webhook.outbox import Entry, Outbox, Webhook, entry_of

_log = logging.getLogger(__name__)
_FAILED = "plugins/webhook/failed"
#: The event that an admin or oper state is; any other is SCRIPTERROR.
_STATES = {"DOWN": "queue.down", "PAUSE": "queue.paused", "UP": "queue.up"}


class Clerk:
    """See the head of this module; ``options`` gives those that count now."""

    def __init__(self, queue: QueueInfo, base_url: str, options: Callable[[], Options]) -> None:
        self._queue = queue
        self._base_url = base_url
        self._options = options
        directory = os.path.dirname(os.path.dirname(queue.path))
        self._outbox = Outbox(directory)
        self._failing = f"{directory}/var/webhook/failed/{queue.name}"
        #: Ends that are entered and have not come true yet: their keys, by message.
        self._held: dict[str, str] = {}
        #: Ends that could not be entered.
        self._unwritten: dict[str, Entry] = {}
        #: Messages that may have an entry of a former end, which did not come true.
        self._stale: set[str] = set()
        #: When an endpoint was last told of a running message's progress, monotonic.
        self._progress: dict[str, dict[str, float]] = {}
        self._care = Care(_log, "webhooks wait: the outbox cannot be written")
        self._wanted_of: Options | None = None
        self._wanted: frozenset[str] = frozenset()

    def leftovers(self) -> None:
        """The queue's process starts: what came true before the last one could say so."""
        with self._care():
            for entry in self._outbox.left(self._queue.name):
                path, msg_id = self._queue.path, entry.msg_id
                if durable.exists(f"{path}/run/{msg_id}") or durable.exists(f"{path}/que/{msg_id}"):
                    self._stale.add(msg_id)
                    continue
                self._outbox.release(entry.queue, msg_id, entry.key)

    def deleted(self) -> None:
        """The queue is gone: what came true is told, and no other end will come."""
        self.leftovers()
        with self._care():
            for entry in self._outbox.left(self._queue.name):
                self._outbox.forget(entry.queue, entry.msg_id)

    # The end of a message

    def finishing(self, message: Message, outcome: Outcome) -> None:
        """The end is known; the message has not moved yet."""
        if outcome.state not in FINAL:
            return
        entry = self._end(message, outcome)
        if entry is None:
            return
        with self._care():
            self._unwritten[message.msg_id] = entry
            self._outbox.hold(entry)
            del self._unwritten[message.msg_id]
            self._stale.discard(message.msg_id)
            self._held[message.msg_id] = entry.key

    def moved(self, message: Message, old: State | None, new: State | None) -> None:
        """A step is durable."""
        msg_id = message.msg_id
        if new in FINAL and old in (State.RUN, State.QUE):
            self._progress.pop(msg_id, None)
            self._came_true(msg_id)
            if self._wants("message.recovered"):
                self._remember(failed=new is State.ERR)
        elif new is State.QUE and msg_id in self._unwritten:
            del self._unwritten[msg_id]  # it ends another time
        elif new is None and old in (State.QUE, State.PREP):
            with self._care():
                self._held.pop(msg_id, None)
                self._outbox.forget(self._queue.name, msg_id)

    def _came_true(self, msg_id: str) -> None:
        if msg_id not in self._held and not self._unwritten and msg_id not in self._stale:
            return  # as of nearly all messages
        with self._care():
            key = self._held.pop(msg_id, None)
            if key is not None:
                self._outbox.release(self._queue.name, msg_id, key)
            elif (
                msg_id in self._stale
            ):  # it ended otherwise, and is told of otherwise or not at all
                self._outbox.forget(self._queue.name, msg_id)
                self._stale.discard(msg_id)
            for late in list(self._unwritten):
                if late == msg_id or not durable.exists(f"{self._queue.path}/run/{late}"):
                    self._outbox.put(self._unwritten[late], lasting=True)
                    del self._unwritten[late]

    def _end(self, message: Message, outcome: Outcome) -> Entry | None:
        options, state = self._options(), outcome.state
        if not message.post_run_webhook and not options.endpoints:
            return None
        recovered = self._wants("message.recovered") and self._has_recovered(message, state)
        names = events.end_names(
            str(state), timed_out=bool(getattr(outcome, "timed_out", False)), recovered=recovered
        )
        targets = events.targets(options, names, self._queue.name, message.post_run_webhook)
        if not targets:
            return None
        final = replace(
            message, count=getattr(outcome, "count", message.count),
            dups=message.dups if state is not State.ERR else (),
        )  # fmt: skip
        return self._entry(targets, final, str(state), outcome.status)

    def _has_recovered(self, message: Message, state: State) -> bool:
        """Did it, or the last message of this queue, fail before?  A failure is noted."""
        mark = self._mark(message.msg_id)
        if state is not State.ERR:
            return durable.exists(mark) or durable.exists(self._failing)
        with self._care():
            folder = mark.removesuffix("/webhook/failed")
            durable.make_private_dir(folder)
            durable.make_private_dir(f"{folder}/webhook")
            durable.replace_unsynced(mark, b"")
        return False

    def _mark(self, msg_id: str) -> str:
        run = f"{self._queue.path}/run/{msg_id}"
        return f"{run if durable.exists(run) else f'{self._queue.path}/que/{msg_id}'}/{_FAILED}"

    def _remember(self, *, failed: bool) -> None:
        """Note, for `message.recovered`, how the queue's last message ended."""
        with self._care():
            if failed:
                durable.make_private_dir(os.path.dirname(self._failing))
                durable.replace_unsynced(self._failing, b"")
            else:
                durable.remove_quietly(self._failing)

    # Whatever else happens

    def queued(self, message: Message, cause: str) -> None:
        """A message waits."""
        if self._wants("message.queued"):
            self._tell(("message.queued",), message, "que", f"cause {cause}")

    def started(self, message: Message) -> None:
        """Its script runs."""
        if self._wants("message.started"):
            self._tell(("message.started",), message, "run", "")

    def progress(self, message: Message, text: str) -> None:
        """Its script said how far it is; nobody is told of that too often."""
        if not self._wants("message.progress"):
            return
        last, now = self._progress.setdefault(message.msg_id, {}), monotonic()
        endpoints = self._options().endpoints
        targets = [
            target
            for target in events.targets(self._options(), ("message.progress",), self._queue.name)
            if now - last.get(target.endpoint, -1e9) >= endpoints[target.endpoint].progress_every
        ]
        last.update(dict.fromkeys((target.endpoint for target in targets), now))
        if targets:
            self._put(self._entry(targets, message, "run", text))

    def condition(self, new: str, old: str, why: str = "") -> None:
        """The queue itself is another: ``new`` and ``old`` are admin or oper states."""
        name = _STATES.get(new, "queue.scripterror")
        if self._wants(name):
            self._tell_queue(name, {"status": new, "before": old, "reason": why})

    def crashed(self, status: int, restarts: int) -> None:
        """The queue's process ended (the manager says so)."""
        if self._wants("queue.crashed"):
            self._tell_queue("queue.crashed", {"exit_status": status, "restarts": restarts})

    def _tell(self, names: Sequence[str], message: Message, state: str, status: str) -> None:
        targets = events.targets(self._options(), names, self._queue.name)
        if targets:
            self._put(self._entry(targets, message, state, status))

    def _tell_queue(self, name: str, facts: Mapping[str, Any]) -> None:
        data = {"queue": self._queue.name, "url": f"{self._base_url}q/{self._queue.name}", **facts}
        tell(self._outbox, self._options(), name, self._queue.name, data, self._care)

    def _put(self, entry: Entry) -> None:
        with self._care():
            self._outbox.put(entry)

    def _entry(
        self, targets: Sequence[events.Target], message: Message, state: str, status: str
    ) -> Entry:
        at, options = time(), self._options()
        data = events.message_data(message, self._base_url, self._queue.name, state, status)
        return entry_of(
            at=at, queue=self._queue.name, msg_id=message.msg_id, message=message,
            webhooks=_webhooks(options.endpoints, targets, at, data),
        )  # fmt: skip

    def _wants(self, event: str) -> bool:
        """Does any endpoint ask for this event of this queue?  Asked for each step of each message."""
        options = self._options()
        if options is not self._wanted_of:
            self._wanted_of = options
            self._wanted = frozenset(
                name
                for name in events.EVENTS
                for endpoint in options.endpoints.values()
                if events.wants(endpoint, name, self._queue.name)
            )
        return event in self._wanted


def tell(
    outbox: Outbox, options: Options, event: str, queue: str, data: Mapping[str, Any],
    care: Callable[[], contextlib.AbstractContextManager[Any]], *, but: str = "",
) -> None:  # fmt: skip
    """Tell of something that is about no message; ``but`` names an endpoint that is not told."""
    at = time()
    targets = [t for t in events.targets(options, (event,), queue) if t.endpoint != but]
    if targets:
        webhooks = _webhooks(options.endpoints, targets, at, data)
        with care():
            outbox.put(entry_of(at=at, queue=queue, msg_id="", webhooks=webhooks))


def _webhooks(
    endpoints: Mapping[str, Endpoint], targets: Sequence[events.Target],
    at: float, data: Mapping[str, Any],
) -> tuple[Webhook, ...]:  # fmt: skip
    made, bodies = [], {}
    for target in targets:
        endpoint = endpoints.get(target.endpoint)
        kind = target.event, endpoint is not None and endpoint.format == "standard"
        if kind not in bodies:
            bodies[kind] = events.body(endpoint, target.event, at, data)
        made.append(Webhook(target.endpoint, target.url, target.event, bodies[kind]))
    return tuple(made)
