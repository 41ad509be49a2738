"""A store in memory, for tests and for plugin authors: fast, and gone with the process.

It passes the same conformance suite as the others.  What a script must have as files (its directory,
the attachments) lies in a temporary directory, which `close` removes.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import time

from rqcore import durable
from rqcore.durable import Digest
from rqcore.errors import NotFoundError
from rqcore.lifecycle import State, Step, transition
from rqcore.message import IdClock, Message
from rqcore.store import Attached
from rqcore.stores.ids import SortedIds


@dataclass
class _Kept:
    message: Message
    state: State
    status: str = ""
    digests: dict[str, Digest] = field(default_factory=dict)


class MemoryStore:
    """See the head of this module; ``path`` and ``fsync`` are taken and not needed."""

    def __init__(self, path: str, *, fsync: bool) -> None:
        del path, fsync

    def open(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._by_state = {state: SortedIds(()) for state in State}
        self._files = tempfile.TemporaryDirectory(prefix="rq-memory-")
        self._ids = IdClock(0, time)
        self._staged = 0
        #: What was set aside, as (id, reason).
        self.corrupt: list[tuple[str, str]] = []

    def close(self) -> None:
        self._files.cleanup()

    def new_id(self) -> str:
        return self._ids.new()

    def add(self, message: Message, state: State, attached: Sequence[Attached] = ()) -> None:
        transition(Step.PREPARE if state is State.PREP else Step.CREATE, None, state)
        kept = _Kept(message, state)
        path = self._path(message.msg_id)
        os.mkdir(path)
        try:
            for item in attached:
                durable.make_private_dir(f"{path}/attach")
                durable.take_file(item.path, f"{path}/attach/{item.name}")
                if item.digest is not None:
                    kept.digests[item.name] = item.digest
        except BaseException:
            durable.remove_tree(path)
            raise
        self._kept[message.msg_id] = kept
        self._by_state[state].add(message.msg_id)

    def move(
        self, msg_id: str, step: Step, old: State, new: State,
        *, message: Message | None = None, status: str | None = None,
    ) -> None:  # fmt: skip
        transition(step, old, new)
        kept = self._get(msg_id, old)
        kept.message = kept.message if message is None else message
        kept.status = kept.status if status is None else status
        kept.state = new
        self._by_state[old].discard(msg_id)
        self._by_state[new].add(msg_id)
        durable.remove_quietly(f"{self._path(msg_id)}/pid")

    def remove(self, msg_id: str, state: State) -> None:
        transition(Step.DELETE, state, None)
        self._forget(msg_id, state)

    def take_trash(self) -> list[str]:
        return []

    def quarantine(self, msg_id: str, state: State, reason: str) -> None:
        transition(Step.QUARANTINE, state, None)
        self._forget(msg_id, state)
        self.corrupt.append((msg_id, reason))

    def set_aside(self) -> int:
        return len(self.corrupt)

    def adopt(self, name: str, state: State) -> str | None:
        """Nobody can move a message into memory by hand."""
        del name, state
        return None

    def vanished(self, msg_id: str, state: State) -> bool:
        """Nobody can take a message out of memory by hand."""
        del msg_id, state
        return False

    def load(self, msg_id: str, state: State) -> Message:
        return self._get(msg_id, state).message

    def find(self, msg_id: str) -> State | None:
        kept = self._kept.get(msg_id)
        return None if kept is None else kept.state

    def status(self, msg_id: str, state: State) -> str:
        return self._get(msg_id, state).status

    def set_status(self, msg_id: str, text: str) -> None:
        self._get(msg_id, State.RUN).status = text

    def counts(self) -> Mapping[State, int]:
        return {state: ids.count() for state, ids in self._by_state.items()}

    def newest(self, state: State, limit: int, before: str = "") -> list[str]:
        return self._by_state[state].newest(limit, before)

    def present(self, state: State) -> Iterator[str]:
        ids = self._by_state[state]
        yield from ids.newest(ids.count(), "")

    def directory(self, msg_id: str, state: State) -> str:
        self._get(msg_id, state)
        return self._path(msg_id)

    def staging(self) -> str:
        self._staged += 1
        return f"{self._files.name}/staged.{self._staged}"

    def attach(self, msg_id: str, state: State, name: str, staged: str, digest: Digest) -> None:
        kept = self._get(msg_id, state)
        folder = f"{self._path(msg_id)}/attach"
        durable.make_private_dir(folder)
        durable.move_dir(staged, f"{folder}/{name}")
        durable.remove_quietly(staged)  # two names of one file: then the rename did nothing
        kept.digests[name] = digest

    def detach(self, msg_id: str, state: State, name: str) -> None:
        kept = self._get(msg_id, state)
        if name not in {item.name for item in self.attached(msg_id, state)}:
            raise NotFoundError(f"no attachment {name!r} at message {msg_id}")
        durable.remove_quietly(f"{self._path(msg_id)}/attach/{name}")
        kept.digests.pop(name, None)

    def attached(self, msg_id: str, state: State) -> list[Attached]:
        kept = self._get(msg_id, state)
        folder = f"{self._path(msg_id)}/attach"
        return [
            Attached(name, f"{folder}/{name}", kept.digests.get(name))
            for name in sorted(durable.children(folder))
        ]

    def note_digest(self, msg_id: str, state: State, name: str, digest: Digest) -> None:
        self._get(msg_id, state).digests[name] = digest

    def sync(self) -> bool:
        """Nothing here outlives the process."""
        return False

    def _path(self, msg_id: str) -> str:
        return f"{self._files.name}/{msg_id}"

    def _get(self, msg_id: str, state: State) -> _Kept:
        kept = self._kept.get(msg_id)
        if kept is None or kept.state is not state:
            raise NotFoundError("msg not found")
        return kept

    def _forget(self, msg_id: str, state: State) -> None:
        self._get(msg_id, state)
        del self._kept[msg_id]
        self._by_state[state].discard(msg_id)
        with contextlib.suppress(FileNotFoundError):
            durable.remove_tree(self._path(msg_id))
