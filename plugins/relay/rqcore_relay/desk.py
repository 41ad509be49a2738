"""The queue relay's process: what happens there is entered in the book, and what that says is done.

`Desk` is made when the spool is ready (`rqcore_relay.plugin`), in the process of the queue ``relay``
alone.  It keeps ``peers.json`` (`rqcore_relay.state`), takes note of probes that had an answer, and
calls held messages by the queue's socket (`rqcore_relay.bell`).

Nothing here may raise, or the queue would go on without it: a file that cannot be written is told in
the log once, and all else goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import time
from typing import Any

from rqcore import durable
from rqcore.bell import Bell
from rqcore.hookspecs import Delay, Outcome, QueueInfo
from rqcore.lifecycle import State
from rqcore.message import Message
from rqcore_relay import state
from rqcore_relay.book import Book, Peer, Report
from rqcore_relay.options import Options
from rqcore_relay.peers import peer_name, peer_of
from rqcore_relay.writer import Writer

_log = logging.getLogger(__name__)
_RESULT = "job/relay-result.json"
_MOST = 1 << 20


class Desk:
    """See the head of this module.

    ``names`` are the base URLs of this instance, its own first; ``options`` gives those that count now.
    """

    def __init__(
        self, queue: QueueInfo, names: Sequence[str], options: Callable[[], Options]
    ) -> None:
        self._queue = queue
        self._names = {peer_name(name) for name in names}
        self._own = peer_name(names[0]) or names[0]
        self._files = state.Files(os.path.dirname(os.path.dirname(queue.path)))
        self._bell = Bell(f"{queue.path}/queue.sock")
        #: Each peer as the file has it, by name; and those that are not so any more.
        self._texts: dict[str, str] = {}
        self._stale: set[str] = set()
        self._writer = Writer(self._write)
        self._complained = False
        self._probes_seen: object = None
        #: Messages whose last run did not reach their peer.
        self._unreached: set[str] = set()
        now = time()
        found = state.read(self._files.peers).items()
        known = [state.restored(name, entry, now) for name, entry in found]
        self._book = Book(
            lambda name: options().peer(name).per_peer,
            self._tries,
            [facts for facts in known if not state.forgotten(facts, now)],
        )
        for msg_id, dest, tried in self._waiting():
            self._touched(self._book.arrived(msg_id, self._peer(dest), dest))
            result = self._result(f"{queue.path}/que/{msg_id}") if tried else None
            if result is not None and result.get("reached") is False:
                self._book.rests(msg_id, self._peer(dest), dest)
        self._save(*self._book.peers.values())

    def reconfigured(self, queue: QueueInfo) -> None:
        """The queue, or the options, are others."""
        self._queue = queue
        self.woken()

    def woken(self) -> None:
        """The queue starts messages again; calls may have been lost meanwhile."""
        self._book.wake()
        self._ring()

    def ask(self, message: Message) -> Delay | None:
        """May this message start?

        One that stays on this machine always may: it is handed over, and waits for nobody.
        """
        if self._is_local(message):
            return None
        news = self._look_at_probes()
        name, now = self._peer(message.dest), time()
        turn = self._book.peer(name).turn()
        wait = self._book.ask(message.msg_id, name, message.dest, message.due, now)
        peer = self._book.peer(name)
        if news or (peer.failures and peer.turn() != turn):
            self._save(peer)
        self._ring()
        return None if wait is None else Delay(wait.until, wait.reason)

    def queued(self, message: Message) -> None:
        """It waits in ``que``."""
        self._save(self._book.arrived(message.msg_id, self._peer(message.dest), message.dest))
        self._ring()

    def starting(self, message: Message) -> None:
        """Its script is about to run."""
        folder = f"{self._queue.path}/run/{message.msg_id}"
        # The former run's result must not be taken for this one's.
        with contextlib.suppress(OSError):
            durable.remove_quietly(f"{folder}/{_RESULT}")
        self._unreached.discard(message.msg_id)
        self._touched(self._book.started(message.msg_id, self._peer(message.dest)))

    def finishing(self, message: Message, outcome: Outcome) -> None:
        """Its script has ended."""
        result = self._result(f"{self._queue.path}/run/{message.msg_id}")
        if result is None:  # it was killed, and says nothing about its peer
            return
        if self._is_local(message):
            return
        kind, success = str(result.get("kind") or ""), outcome.state is State.RELAYED
        report = Report(
            reached=True if success or kind == "local" else result.get("reached"),
            success=success, kind=kind, sent=int(_number(result, "sent")),
            seconds=_number(result, "seconds"), error=str(result.get("error") or ""),
            retry_after=_number(result, "retry_after"),
        )  # fmt: skip
        if report.reached is False:
            self._unreached.add(message.msg_id)
        self._touched(self._book.reported(message.msg_id, self._peer(message.dest), report, time()))

    def moved(self, message: Message, old: State | None, new: State | None) -> None:
        """It changed its state."""
        name, changed = self._peer(message.dest), None
        if old is State.RUN:
            changed = self._book.ended(message.msg_id, name)
        if old is State.QUE:
            changed = self._book.left(message.msg_id) or self._book.peer(name)
        if new is State.QUE:
            unreached = message.msg_id in self._unreached
            note = self._book.rests if unreached else self._book.arrived
            changed = note(message.msg_id, name, message.dest)
        if changed is not None:
            self._save(changed)
        self._unreached.discard(message.msg_id)
        self._ring()

    # What it stands on

    def _tries(self) -> int:
        workers = self._queue.config.get("num_workers")
        return max(1, int(workers) // 4) if isinstance(workers, int) else 1

    def _peer(self, dest: str) -> str:
        return peer_of(dest) or self._own

    def _is_local(self, message: Message) -> bool:
        return not message.force_remote and self._peer(message.dest) in self._names

    def _waiting(self) -> Iterator[tuple[str, str, bool]]:
        """The messages that lie in ``que``: their destinations, and whether they ran already."""
        for msg_id in durable.children(f"{self._queue.path}/que"):
            msg = _json(f"{self._queue.path}/que/{msg_id}/msg")
            if msg is not None and isinstance(msg.get("dest"), str):
                yield msg_id, msg["dest"], bool(msg.get("count"))

    def _result(self, folder: str) -> dict[str, Any] | None:
        return _json(f"{folder}/{_RESULT}")

    def _look_at_probes(self) -> bool:
        """Take note of new answers; looked for only while somebody is down."""
        if not any(peer.failures for peer in self._book.peers.values()):
            return False
        try:
            info = os.stat(self._files.probes)
        except OSError:
            return False
        seen = (info.st_mtime_ns, info.st_ino)
        if seen == self._probes_seen:
            return False
        self._probes_seen = seen
        told = state.read(self._files.probes).items()
        news = [self._book.answered(name, _number(entry, "answered")) for name, entry in told]
        for peer in filter(None, news):
            _log.info("%s answers again", peer.name)
            self._touched(peer)
        return any(news)

    def _ring(self) -> None:
        self._bell.ring(self._book.calls())

    # The file

    def flush(self) -> None:
        """Return when the file says all that is known."""
        self._writer.flush()

    def _touched(self, peer: Peer) -> None:
        """What is known of it is another; the file says so with the next `_save`, soon."""
        self._stale.add(peer.name)

    def _save(self, *changed: Peer) -> None:
        self._look_at_probes()
        self._stale.update(peer.name for peer in changed)
        for name in self._stale:
            entry = state.described(self._book.peer(name))
            self._texts[name] = f"{json.dumps(name)}: {json.dumps(entry)}"
        self._stale.clear()
        self._writer.put()

    def _write(self) -> None:
        """In the writer's thread."""
        body = ",\n".join(list(self._texts.values()))
        data = f'{{"peers": {{\n{body}\n}}, "at": {time():.3f}}}\n'.encode("ascii")
        try:
            if not os.path.isdir(self._files.folder):
                self._files.make()
            with self._files.locked():
                durable.replace_unsynced(self._files.peers, data)
        except OSError as error:
            if not self._complained:
                _log.error("relay cannot note how its peers are: %s", error)
            self._complained = True
        else:
            self._complained = False


def _json(path: str) -> dict[str, Any] | None:
    try:
        return durable.read_object(path, _MOST)
    except (OSError, ValueError):
        return None


def _number(entry: Mapping[str, Any], key: str) -> float:
    return state.number(entry, key) or 0.0
