"""The default store: plain directories, one per message, one rename per change of state.

    queue/NAME/{prep,que,run,err}/ID/           the message
    queue/NAME/{done,relayed}/DAY/HH/MM/ID/     the same, by the minute in its id
    queue/NAME/tmp/                             not promised to anybody: emptied at every start
    queue/NAME/corrupt/ID, corrupt/ID.reason    set aside, with the reason

and in a message's directory ``msg``, ``status``, ``attach/``, ``job/``, ``pid``, and
``digests.json`` with the size and digests of its attachments, taken once when they came.

An operator may move, copy and remove with Unix tools while the queue runs.  What this store knows of
its directories in memory is therefore a help, never the truth: a rename that fails because the
message is gone says so (`NotFoundError`), and the counts follow.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from time import time, time_ns

from rqcore import durable
from rqcore.durable import Digest, Sync
from rqcore.errors import NotFoundError
from rqcore.lifecycle import State, Step, transition
from rqcore.message import IdClock, Message, is_msg_id, load_message
from rqcore.store import Attached, UnreadableError
from rqcore.stores.ids import HashedIds, SortedIds, hashed_path, links_count_subdirectories

_FLAT = (State.PREP, State.QUE, State.RUN, State.ERR)
_HASHED = (State.DONE, State.RELAYED)
_TMP, _CORRUPT = "tmp", "corrupt"
_DIGESTS = "digests.json"
#: What is wrong with a file itself; anything else is the system's trouble, and may pass.
_UNREADABLE = {
    errno.EISDIR, errno.EACCES, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EFBIG
}  # fmt: skip
#: What was accepted is far shorter (`rqcore.message.MAX_MESSAGE_BYTES`).
_MAX_FILE = 64 * 1024 * 1024
#: Nanoseconds within which a directory may change twice and show the same time.
_SAME_TIME = 1_000_000_000


class DirectoryStore:
    """See the head of this module."""

    def __init__(self, path: str, *, fsync: bool) -> None:
        self._path = durable.absolute(path)
        self._fsync = fsync
        self._roots = {state: f"{self._path}/{state}" for state in State}
        self._counts = dict.fromkeys(State, 0)
        self._staged = 0
        self._trash: list[str] = []
        self._corrupt, self._corrupt_at = 0, 0

    def open(self) -> None:
        for name in (*State, _TMP, _CORRUPT):
            if not durable.exists(f"{self._path}/{name}"):
                durable.make_dir(f"{self._path}/{name}")
        self._sync = Sync(self._path, enabled=self._fsync)
        for name in durable.children(f"{self._path}/{_TMP}"):
            durable.clear_away(f"{self._path}/{_TMP}/{name}")
        self._flat = {
            state: SortedIds(filter(is_msg_id, durable.children(self._roots[state])))
            for state in _FLAT
        }
        self._hashed = {state: HashedIds(self._roots[state]) for state in _HASHED}
        self._ids = IdClock(os.stat(self._path).st_ino, time)
        self._count()

    def close(self) -> None:
        self._sync.close()

    def _count(self) -> None:
        trust = links_count_subdirectories(self._path)
        for state in State:
            self._counts[state] = (
                self._hashed[state].count(trust_links=trust)
                if state in self._hashed
                else self._flat[state].count()
            )
            for newest in self.newest(state, 1):
                self._ids.saw(newest)

    # Paths

    def directory(self, msg_id: str, state: State) -> str:
        root = self._roots[state]
        return hashed_path(root, msg_id) if state in self._hashed else f"{root}/{msg_id}"

    def staging(self) -> str:
        self._staged += 1
        return f"{self._path}/{_TMP}/attach.{self._staged}"

    # A message's life

    def new_id(self) -> str:
        return self._ids.new()

    def add(self, message: Message, state: State, attached: Sequence[Attached] = ()) -> None:
        transition(Step.PREPARE if state is State.PREP else Step.CREATE, None, state)
        staged = f"{self._path}/{_TMP}/{message.msg_id}"
        self._sync.new_dir(staged)
        try:
            self._sync.new_file(f"{staged}/msg", message.to_json())
            if attached:
                self._share(staged, attached)
            self._sync.rename(staged, self.directory(message.msg_id, state), old_matters=False)
        except BaseException:
            durable.clear_away(staged)
            raise
        self._entered(message.msg_id, state)

    def move(
        self, msg_id: str, step: Step, old: State, new: State,
        *, message: Message | None = None, status: str | None = None,
    ) -> None:  # fmt: skip
        row = transition(step, old, new)
        source = self.directory(msg_id, old)
        with self._gone_means_not_found(msg_id, old):
            if message is not None:
                self._sync.replace(f"{source}/msg", message.to_json(), promised=True)
            if status is not None:
                self._sync.replace(f"{source}/status", _status_json(status))
            if old is State.RUN:
                durable.remove_quietly(f"{source}/pid")
            if row.durable:
                self._rename_into(source, msg_id, new)
            else:
                durable.rename_unsynced(source, self.directory(msg_id, new))
        self._left(msg_id, old)
        self._entered(msg_id, new)

    def _rename_into(self, source: str, msg_id: str, state: State) -> None:
        target = self.directory(msg_id, state)
        if state in self._hashed:
            self._sync.ensure_dir(os.path.dirname(target), self._path)
        try:
            self._sync.rename(source, target)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise
            self._set_aside(target, f"{msg_id} came into {state} a second time; this was the first")
            self._left(msg_id, state)
            self._sync.rename(source, target)

    def remove(self, msg_id: str, state: State) -> None:
        transition(Step.DELETE, state, None)
        self._staged += 1
        trash = f"{self._path}/{_TMP}/deleted.{self._staged}"
        with self._gone_means_not_found(msg_id, state):
            self._sync.rename(self.directory(msg_id, state), trash)
        self._left(msg_id, state)
        if durable.is_heavy(f"{trash}/attach") or durable.is_heavy(f"{trash}/job"):
            self._trash.append(trash)
        else:
            durable.clear_away(trash)

    def take_trash(self) -> list[str]:
        trash, self._trash = self._trash, []
        return trash

    def quarantine(self, msg_id: str, state: State, reason: str) -> None:
        transition(Step.QUARANTINE, state, None)
        with self._gone_means_not_found(msg_id, state):
            self._set_aside(self.directory(msg_id, state), reason)
        self._left(msg_id, state)

    def set_aside(self) -> int:
        folder = f"{self._path}/{_CORRUPT}"
        try:
            changed = os.stat(folder).st_mtime_ns
        except FileNotFoundError:
            return 0
        if changed != self._corrupt_at:
            names = durable.children(folder)
            self._corrupt = sum(not name.endswith(".reason") for name in names)
            self._corrupt_at = changed if time_ns() - changed > _SAME_TIME else 0
        return self._corrupt

    def _set_aside(self, path: str, reason: str) -> None:
        """Into corrupt/, under a name that is free, with the reason beside it."""
        name = os.path.basename(path)
        target, number = f"{self._path}/{_CORRUPT}/{name}", 1
        while durable.exists(target):
            number += 1
            target = f"{self._path}/{_CORRUPT}/{name}.{number}"
        self._sync.rename(path, target)
        with contextlib.suppress(OSError):  # a full disk: the thing itself matters more
            self._sync.replace(f"{target}.reason", f"{reason}\n".encode("utf-8", "replace"))

    def adopt(self, name: str, state: State) -> str | None:
        path = f"{self._roots[state]}/{name}"
        if name in self._flat[state] or name.startswith("."):  # being copied there (rsync)
            return None
        if not os.path.isdir(path) or os.path.islink(path):
            return None
        msg_id = name
        if not is_msg_id(name) or self._elsewhere(name, state):
            msg_id = self.new_id()
            with self._gone_means_not_found(name, state):
                self._sync.rename(path, f"{self._roots[state]}/{msg_id}")
        self._entered(msg_id, state)
        return msg_id

    def _elsewhere(self, msg_id: str, state: State) -> bool:
        return any(
            durable.exists(self.directory(msg_id, other)) for other in State if other is not state
        )

    def vanished(self, msg_id: str, state: State) -> bool:
        if msg_id not in self._flat[state] or durable.exists(self.directory(msg_id, state)):
            return False
        self._left(msg_id, state)
        return True

    # Looking

    def load(self, msg_id: str, state: State) -> Message:
        path = f"{self.directory(msg_id, state)}/msg"
        try:
            data = durable.read_file(path, _MAX_FILE)
        except FileNotFoundError:
            if not durable.exists(os.path.dirname(path)):
                raise _not_found() from None
            raise UnreadableError("it has no file 'msg'") from None
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            raise UnreadableError(f"its file 'msg' cannot be read: {error.strerror}") from error
        try:
            return load_message(data, msg_id)
        except ValueError as error:
            raise UnreadableError(f"its file 'msg' is {error}") from error

    def find(self, msg_id: str) -> State | None:
        if not is_msg_id(msg_id):
            return None
        for state in State:
            if durable.exists(self.directory(msg_id, state)):
                return state
        return None

    def status(self, msg_id: str, state: State) -> str:
        try:
            found = json.loads(
                durable.read_file(f"{self.directory(msg_id, state)}/status", _MAX_FILE)
            )
        except (OSError, ValueError, RecursionError):  # a script may have spoiled it
            return ""
        return str(found.get("job_status", "")) if isinstance(found, dict) else ""

    def set_status(self, msg_id: str, text: str) -> None:
        path = f"{self.directory(msg_id, State.RUN)}/status"
        with self._gone_means_not_found(msg_id, State.RUN):
            durable.replace_unsynced(path, _status_json(text))

    def counts(self) -> Mapping[State, int]:
        return self._counts

    def newest(self, state: State, limit: int, before: str = "") -> list[str]:
        if state in self._hashed:
            return self._hashed[state].newest(limit, before)
        return self._flat[state].newest(limit, before)

    def present(self, state: State) -> Iterator[str]:
        if state in self._hashed:
            yield from self._hashed[state].all()
        else:
            # All names, also those that are no ids: whoever starts a queue adopts them.
            yield from durable.children(self._roots[state])

    # Attachments

    def attach(self, msg_id: str, state: State, name: str, staged: str, digest: Digest) -> None:
        path = self.directory(msg_id, state)
        with self._gone_means_not_found(msg_id, state):
            self._sync.ensure_dir(f"{path}/attach", path)
            known = self._digests(path)
            known[name] = _digest_json(staged, digest)
            self._sync.replace(f"{path}/{_DIGESTS}", json.dumps(known).encode("ascii"))
            self._sync.rename(staged, f"{path}/attach/{name}", old_matters=False)
            # Two names of the same file: then the rename did nothing, by the letter of POSIX.
            durable.remove_quietly(staged)

    def detach(self, msg_id: str, state: State, name: str) -> None:
        path = self.directory(msg_id, state)
        try:
            self._sync.unlink(f"{path}/attach/{name}")
        except FileNotFoundError:
            raise NotFoundError(f"no attachment {name!r} at message {msg_id}") from None
        known = self._digests(path)
        if known.pop(name, None) is not None:
            self._sync.replace(f"{path}/{_DIGESTS}", json.dumps(known).encode("ascii"))

    def attached(self, msg_id: str, state: State) -> list[Attached]:
        path = self.directory(msg_id, state)
        names = sorted(
            name
            for name in durable.children(f"{path}/attach")
            # What else a hand may have put there is left alone.
            if not name.startswith(".") and os.path.isfile(f"{path}/attach/{name}")
        )
        known = self._digests(path) if names else {}
        return [self._attached(f"{path}/attach/{name}", name, known.get(name)) for name in names]

    def note_digest(self, msg_id: str, state: State, name: str, digest: Digest) -> None:
        path = self.directory(msg_id, state)
        with self._gone_means_not_found(msg_id, state):
            known = self._digests(path)
            known[name] = _digest_json(f"{path}/attach/{name}", digest)
            durable.replace_unsynced(f"{path}/{_DIGESTS}", json.dumps(known).encode("ascii"))

    def _share(self, staged: str, attached: Sequence[Attached]) -> None:
        self._sync.new_dir(f"{staged}/attach")
        known: dict[str, object] = {}
        for item in attached:
            target = f"{staged}/attach/{item.name}"
            try:
                self._sync.link(item.path, target)
            except OSError:
                # Another file system, or too many links: the bytes are brought over instead.
                durable.take_file(item.path, target)
            if item.digest is not None:
                known[item.name] = _digest_json(target, item.digest)
        self._sync.new_file(f"{staged}/{_DIGESTS}", json.dumps(known).encode("ascii"))

    def _digests(self, path: str) -> dict[str, object]:
        try:
            known = json.loads(durable.read_file(f"{path}/{_DIGESTS}", _MAX_FILE))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def _attached(self, path: str, name: str, known: object) -> Attached:
        """What was noted counts only for the very file it was noted of."""
        if isinstance(known, dict):
            with contextlib.suppress(OSError, KeyError, TypeError):
                info = os.stat(path)
                if (info.st_size, info.st_mtime_ns) == (known["size"], known["mtime_ns"]):
                    digest = Digest(known["size"], str(known["md5"]), str(known["sha256"]))
                    return Attached(name, path, digest)
        return Attached(name, path, None)

    # Durability and bookkeeping

    def sync(self) -> bool:
        return self._sync.commit()

    def _entered(self, msg_id: str, state: State) -> None:
        if state in self._hashed or self._flat[state].add(msg_id):
            self._counts[state] += 1

    def _left(self, msg_id: str, state: State) -> None:
        if state in self._hashed or self._flat[state].discard(msg_id):
            self._counts[state] -= 1

    @contextlib.contextmanager
    def _gone_means_not_found(self, msg_id: str, state: State) -> Iterator[None]:
        """An operator may have taken the message away: then it is not found, and not counted."""
        try:
            yield
        except FileNotFoundError:
            if durable.exists(self.directory(msg_id, state)):
                raise
            if state in self._flat:  # of the others nobody knows whether it was ever counted
                self._left(msg_id, state)
            raise _not_found() from None


def _not_found() -> NotFoundError:
    return NotFoundError("msg not found")


def _status_json(text: str) -> bytes:
    return json.dumps({"job_status": text}).encode("ascii")


def _digest_json(path: str, digest: Digest) -> dict[str, object]:
    return {**asdict(digest), "mtime_ns": os.stat(path).st_mtime_ns}
