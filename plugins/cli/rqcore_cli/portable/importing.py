"""Messages out of a tar, into the spool: whole and verified, or not at all.

Each message is put together beside the others (`rqcore_cli.portable.staging`), compared with its
digests, and moved into ``prep`` or ``que`` by one rename; a queue that runs takes it up as it does what
an operator moves there.  Nothing is asked of the queue before, so RQ need not run.  What had waited in
``que`` waits there again, with everything it had; what lay in ``prep`` likewise.  What had ended waits
in ``prep``, as after a retry: count 0, due now; what had succeeded begins with its log alone.

It keeps its id.  Where that id is in the queue already, in whatever state, nothing is done, so importing
twice does not double a message.  Raises `ArchiveError` for what is damaged or hostile, `RqError` and
`OSError` for what cannot be done; the messages before it are in by then.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from time import time
from typing import Any, BinaryIO

from rqcore import words
from rqcore.client import QueueClient
from rqcore.durable import Digest, Incoming
from rqcore.errors import NotFoundError, RefusedError, RqError, UnreachableError
from rqcore.instance import Instance
from rqcore.lifecycle import State
from rqcore.message import IdClock, Message, load_message, parse_dest
from rqcore.stores.ids import hashed_path
from rqcore_cli.fsck.repair import kept_from_starting
from rqcore_cli.owner import require_owner
from rqcore_cli.portable import layout
from rqcore_cli.portable.layout import About, ArchiveError
from rqcore_cli.portable.staging import Staging
from rqcore_cli.portable.tarball import Member, members
from rqcore_cli.spoolstore import require_directories

_HASHED = (State.DONE, State.RELAYED)
_SUCCEEDED = ("done", "relayed")
_WAITING = ("prep", "que")
#: So much of the disk is left to those who work.
_RESERVE = 64 << 20
_RESERVED_FILES = 1000
_MOST_FILES = 1_000_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """How ``rq import`` was called."""

    queue: str | None = None
    run: bool = False
    again: bool = False
    damaged: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one message: ``action`` is imported, there, or would be imported."""

    queue: str
    msg_id: str
    state: str
    action: str
    was: About
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Coming:
    """A message of which the first part has come."""

    about: About
    queue: str
    staging: Staging | None
    msg: bytes = b""
    known: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    attached: dict[str, Digest] = field(default_factory=dict)


class Import:
    """One file that is read; `run` gives each message when it is in."""

    def __init__(self, instance: Instance, wishes: Wishes, tell: Callable[[int], None]) -> None:
        self._instance = instance
        self._wishes = wishes
        self._tell = tell
        self._coming: _Coming | None = None
        self._number = 0

    def run(self, stream: BinaryIO) -> Iterator[Imported]:
        """Read it to its end."""
        of = -1
        try:
            for member in members(stream):
                queue, msg_id, path = layout.split(member.name)
                coming = self._coming
                if path == layout.ABOUT:
                    coming = self._begin(member, queue, msg_id)
                    of = coming.about.of
                elif coming is None or (queue, msg_id) != (coming.about.queue, coming.about.msg_id):
                    raise ArchiveError(f"{member.name!r} stands where no such message has begun")
                elif path == layout.SUMS:
                    yield self._end(coming, member)
                else:
                    self._take(coming, member, path)
            if self._coming is not None or self._number != of:
                raise ArchiveError(f"it has {self._number} of {max(of, 1)} messages; it is cut off")
        finally:
            self._drop()

    def _drop(self) -> None:
        if self._coming is not None and self._coming.staging is not None:
            self._coming.staging.close()
        self._coming = None

    # One message

    def _begin(self, member: Member, queue: str, msg_id: str) -> _Coming:
        if self._coming is not None:
            raise ArchiveError(f"{self._coming.about.queue}/{self._coming.about.msg_id} has no end")
        data = member.text(layout.MAX_TEXT)
        about = layout.read_about(data, queue, msg_id)
        if about.number != self._number + 1:
            raise ArchiveError(f"message {self._number + 1} of {about.of} is missing")
        target = self._wishes.queue or queue
        if not os.path.lexists(self._instance.queue_config_file(target)):
            raise NotFoundError(
                f"there is no queue {target} here for {queue}/{msg_id}; make it, or name another "
                "with --queue"
            )
        require_directories(self._instance, target)
        if not self._wishes.dry_run:
            require_owner(self._instance, target)
        if self._instance.admin_state(target) == "DOWN":
            raise RefusedError(f"queue {target} is DOWN and takes no message; rq queue up {target}")
        staging = None
        if not self._wishes.dry_run and not self._there(target, msg_id):
            if not self._wishes.again:
                layout.check_id(msg_id)
            staging = Staging(str(self._instance.queue_dir(target)), msg_id)
        self._coming = _Coming(about, target, staging)
        self._coming.sums[layout.ABOUT] = hashlib.sha256(data).hexdigest()
        return self._coming

    def _take(self, coming: _Coming, member: Member, path: str) -> None:
        if path in coming.sums:
            raise ArchiveError(f"{member.name!r} comes twice")
        if len(coming.sums) >= _MOST_FILES:
            raise ArchiveError(f"{member.name!r} is one file too many: a message has {_MOST_FILES}")
        if path in (layout.MSG, layout.STATUS, layout.DIGESTS):
            data = member.text(layout.MAX_TEXT)
            coming.sums[path] = hashlib.sha256(data).hexdigest()
            if path == layout.MSG:
                coming.msg = data
            elif path == layout.DIGESTS:
                coming.known = _object(data)
            return
        if coming.staging is None:
            coming.sums[path] = self._read(member)
            return
        self._check_room(coming, member)
        try:
            digest = self._write(coming.staging.file(path), member)
        except (NotADirectoryError, FileExistsError):
            raise ArchiveError(f"{member.name!r} is both a file and a directory") from None
        coming.sums[path] = digest.sha256
        if path.startswith(layout.ATTACH):
            coming.attached[path.removeprefix(layout.ATTACH)] = digest

    def _write(self, file: Incoming, member: Member) -> Digest:
        try:
            for piece in member.pieces():
                file.write(piece)
                self._tell(len(piece))
            return file.finish()
        except BaseException:
            file.discard()
            raise

    def _read(self, member: Member) -> str:
        hashed = hashlib.sha256()
        for piece in member.pieces():
            hashed.update(piece)
            self._tell(len(piece))
        return hashed.hexdigest()

    def _check_room(self, coming: _Coming, member: Member) -> None:
        disk = os.statvfs(self._instance.queue_dir(coming.queue))
        if disk.f_files > 0 and disk.f_favail < _RESERVED_FILES:
            raise RefusedError(
                f"the disk has room for {disk.f_favail} more files; make room, then import once more"
            )
        free = disk.f_bavail * disk.f_frsize - _RESERVE
        if member.size > free:
            raise RefusedError(
                f"{member.name!r} has {words.size(member.size)}, and the disk has room for "
                f"{words.size(max(free, 0))} more; make room, then import once more"
            )

    def _end(self, coming: _Coming, member: Member) -> Imported:
        about = coming.about
        name = f"{about.queue}/{about.msg_id}"
        if layout.read_sums(member.text(layout.MAX_TEXT)) != coming.sums:
            raise ArchiveError(f"{name} is damaged: its files are not those of its {layout.SUMS}")
        problems = tuple(_changed(coming))
        if problems and not self._wishes.damaged:
            raise ArchiveError(f"{name}: {problems[0]}; import it all the same with --damaged")
        try:
            message = load_message(coming.msg, about.msg_id)
        except ValueError as error:
            raise ArchiveError(f"the file msg of {name} is {error}") from None
        if coming.staging is not None:
            imported = self._put_in(coming, coming.staging, message, problems)
        else:
            state = self._there(coming.queue, about.msg_id)
            action = "there" if state else "would be imported"
            if state == "prep" and self._is_cut_off(about):
                commit(self._instance, coming.queue, about.msg_id)
                state, action = "que", "imported"
            imported = Imported(
                coming.queue, about.msg_id, state or self._target(about), action, about, problems
            )
        self._number += 1
        self._drop()
        return imported

    def _put_in(
        self, coming: _Coming, staging: Staging, message: Message, problems: tuple[str, ...]
    ) -> Imported:
        about = coming.about
        message = self._changed_fields(coming, staging, message)
        if about.state in _SUCCEEDED or self._wishes.again:
            staging.drop_job()
        status = about.status
        if about.state not in _WAITING:
            status = f"imported; it was {about.state}" + (f" - {about.status}" if status else "")
        staging.finish(message, status, coming.attached)
        state = self._target(about)
        queue_dir = str(self._instance.queue_dir(coming.queue))
        done = _enter(self._instance, coming.queue, queue_dir, staging, message.msg_id, state)
        found = done or self._there(coming.queue, message.msg_id) or "prep"
        action = "imported" if done else "there"
        return Imported(coming.queue, message.msg_id, found, action, about, problems)

    def _is_cut_off(self, about: About) -> bool:
        """Is what waits in prep there only since an import was killed before it could commit it?"""
        wanted = self._target(about) == "que" and not self._wishes.dry_run
        return wanted and about.state != "prep"

    def _target(self, about: About) -> str:
        return "que" if self._wishes.run or about.state == "que" else "prep"

    def _changed_fields(self, coming: _Coming, staging: Staging, message: Message) -> Message:
        about = coming.about
        if about.state not in _WAITING or self._wishes.again:
            message = replace(message, count=0, due=int(time()), dups=())
        if self._wishes.again:
            made = IdClock(os.stat(staging.path).st_ino, time).new()
            message = replace(message, msg_id=made, cloned_from=about.msg_id)
        address = parse_dest(message.dest)
        if coming.queue != about.queue and address is not None and address.queue == about.queue:
            message = replace(message, dest=coming.queue)
        return message

    def _there(self, queue: str, msg_id: str) -> str:
        """The state of the message with this id that is there already, if another is not wanted."""
        return "" if self._wishes.again else _state_of(self._instance, queue, msg_id)


def _state_of(instance: Instance, queue: str, msg_id: str) -> str:
    for _ in range(2):  # it may have moved past us
        for state in State:
            root = f"{instance.queue_dir(queue)}/{state}"
            path = hashed_path(root, msg_id) if state in _HASHED else f"{root}/{msg_id}"
            if os.path.lexists(path):
                return str(state)
    return ""


def _enter(
    instance: Instance, queue: str, queue_dir: str, staging: Staging, msg_id: str, state: str
) -> str:
    """Make it a message; returns the state it is in, "" when another was quicker.

    Into ``que`` it goes by the way of every message, ``prep`` and a commit, so that plugins are asked;
    while the queue does not run, directly.
    """
    with staging.alone():
        if _state_of(instance, queue, msg_id):  # it may be past prep and que by now
            return ""
        if state == "que":
            with kept_from_starting(queue_dir) as stopped:
                if stopped:
                    return "que" if staging.put_in(f"{queue_dir}/que/{msg_id}") else ""
        if not staging.put_in(f"{queue_dir}/prep/{msg_id}"):
            return ""
    if state == "que":
        commit(instance, queue, msg_id)
    return state


def commit(instance: Instance, queue: str, msg_id: str) -> None:
    """Have a prepared message wait for its turn.  Raises `RqError`: then it waits in prep."""
    try:
        with QueueClient(instance.directory, queue) as client:
            client.ask("commit_message", {"msg_id": msg_id})
    except (RefusedError, UnreachableError) as error:
        if _state_of(instance, queue, msg_id) not in ("prep", ""):
            return  # another import has done it
        raise RqError(
            f"{queue}/{msg_id} is in, and waits in prep, for it could not be committed: {error}; "
            f"then: rq commitmesg --msg_id /q/{queue}/{msg_id}"
        ) from None


def _changed(coming: _Coming) -> Iterator[str]:
    """Attachments that are not what their queue once took in."""
    for path, digest in coming.sums.items():
        noted = coming.known.get(path.removeprefix(layout.ATTACH))
        if not path.startswith(layout.ATTACH) or not isinstance(noted, dict):
            continue
        if noted.get("sha256") not in (None, digest):
            yield f"{path} had changed since it was attached"


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
