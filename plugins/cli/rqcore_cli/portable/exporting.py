"""Messages out of the spool, into a tar that is written as it goes.

A message is found by its directory, so RQ need not run.  Its directory is opened once and everything in
it is read through that, so it may move to another state meanwhile; its file ``msg`` is locked (shared,
by flock) as everybody does who reads long, so that no cleaner takes it away.  Each file passes memory
once, in pieces, and is hashed on the way.  The same message gives the same bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from rqcore.errors import NotFoundError, RefusedError, RqError
from rqcore.instance import Instance
from rqcore.lifecycle import State
from rqcore.message import full_id, load_message
from rqcore.stores.ids import hashed_path
from rqcore_cli.portable import layout
from rqcore_cli.portable.layout import About, ArchiveError
from rqcore_cli.refs import Ref
from rqcore_cli.spoolstore import require_directories

_HASHED = (State.DONE, State.RELAYED)
#: Of the moment, or what an export itself adds (the message may have come out of one by hand).
_NOT_ITS_OWN = {"pid", layout.ABOUT, layout.SUMS}


@dataclass(slots=True)
class Exported:
    """What became of one message."""

    queue: str
    msg_id: str
    state: str
    attachments: int = 0
    bytes: int = 0
    #: What was not taken along, or is not what it should be; sentences.
    problems: list[str] = field(default_factory=list)


def locate(instance: Instance, ref: Ref) -> tuple[State, str]:
    """The state and the directory of a message.  Raises `NotFoundError`, `RefusedError`."""
    require_directories(instance, ref.queue)
    for _ in range(2):  # it may have moved past us
        for state in State:
            root = f"{instance.queue_dir(ref.queue)}/{state}"
            path = hashed_path(root, ref.msg_id) if state in _HASHED else f"{root}/{ref.msg_id}"
            if os.path.isdir(path):
                return state, path
    raise NotFoundError(f"there is no message {ref}")


class Export:
    """A tar that is being written to ``out``; ``tell`` is told of bytes as they pass."""

    def __init__(self, out: BinaryIO, instance: Instance, total: int,
                 tell: Callable[[int], None]) -> None:  # fmt: skip
        self._tar = tarfile.open(  # noqa: SIM115 - `close` writes its end
            fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8",
            errors="surrogateescape",
        )  # fmt: skip
        self._instance = instance
        self._base_url = instance.load_config()[0].base_url
        self._total = total
        self._number = 0
        self._tell = tell

    def close(self) -> None:
        """Write the end; without it, a reader sees that something is missing."""
        self._tar.close()

    def add(self, ref: Ref) -> Exported:
        """One more message.  Raises `RqError` or `OSError`: then the tar is of no use."""
        state, path = locate(self._instance, ref)
        if state is State.RUN:
            raise RefusedError(f"{ref} is running; wait until it has ended: rq wait {ref}")
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(f"{ref} was taken away, or moved on; try again") from None
        try:
            return self._add(ref, state, folder)
        finally:
            os.close(folder)

    def _add(self, ref: Ref, state: State, folder: int) -> Exported:
        self._number += 1
        try:
            msg = os.open(layout.MSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise RqError(f"{ref} has no file msg that can be read: {error.strerror}") from None
        try:
            _hold(msg, ref)
            done = Exported(ref.queue, ref.msg_id, str(state))
            about = self._about(ref, state, folder, msg)
            name = f"{ref.queue}/{ref.msg_id}"
            sums = self._put(f"{name}/{layout.ABOUT}", layout.ABOUT, about.to_json())
            known = _digests(folder)
            for path in sorted(_taken(name, _files(folder, done), done), key=layout.order):
                digest = self._copy(name, path, folder, done)
                sums += layout.sum_line(path, digest)
                _compare(path, digest, known, done)
            self._put(f"{name}/{layout.SUMS}", layout.SUMS, sums)
        finally:
            os.close(msg)
        return done

    def _about(self, ref: Ref, state: State, folder: int, msg: int) -> About:
        try:
            message = load_message(os.pread(msg, layout.MAX_TEXT, 0), ref.msg_id)
        except ValueError as error:
            raise RqError(f"the file msg of {ref} is {error}; see rq fsck {ref.queue}") from None
        return About(
            ref.queue, ref.msg_id, str(state), _status(folder),
            full_id(self._base_url, ref.queue, ref.msg_id), message.to_fields(),
            self._number, self._total,
        )  # fmt: skip

    def _put(self, name: str, path: str, data: bytes) -> bytes:
        self._member(name, len(data), 0, io.BytesIO(data))
        return layout.sum_line(path, hashlib.sha256(data).hexdigest())

    def _copy(self, name: str, path: str, folder: int, done: Exported) -> str:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            raise RqError(f"{path} of {name} cannot be read: {error.strerror}") from None
        with open(fd, "rb", buffering=0) as file:
            info = os.fstat(fd)
            hashed = _Hashed(file, info.st_size, f"{path} of {name}", self._tell)
            self._member(f"{name}/{path}", info.st_size, int(info.st_mtime), hashed)
        done.bytes += info.st_size
        done.attachments += path.startswith(layout.ATTACH)
        return hashed.sha256.hexdigest()

    def _member(self, name: str, size: int, mtime: int, content: Any) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, mtime, 0o644
        self._tar.addfile(member, content)
        # It would remember each for ever.
        self._tar.members.clear()  # type: ignore[attr-defined]  # which nobody told the type checker


class _Hashed:
    """A file that is hashed while ``size`` bytes of it are read; ``what`` it is called in errors."""

    def __init__(self, file: Any, size: int, what: str, tell: Callable[[int], None]) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file
        self._left = size
        self._what = what
        self._tell = tell

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at its end.  Raises `RqError`."""
        data = b""
        try:
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        except OSError as error:
            raise RqError(f"{self._what} cannot be read: {error.strerror}") from None
        self._left -= len(data)
        if len(data) < size and self._left > 0:
            raise RqError(f"{self._what} became shorter while it was read; try again")
        self.sha256.update(data)
        self._tell(len(data))
        return data


def sizes(instance: Instance, ref: Ref) -> int:
    """How many bytes an export of this message has to read, about; 0 for one that is gone."""
    try:
        folder = os.open(locate(instance, ref)[1], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (RqError, OSError):
        return 0
    try:
        files = _files(folder, Exported("", "", ""))
        return sum(os.stat(path, dir_fd=folder, follow_symlinks=False).st_size for path in files)
    except OSError:
        return 0
    finally:
        os.close(folder)


def _hold(msg: int, ref: Ref) -> None:
    try:
        fcntl.flock(msg, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotFoundError(f"{ref} is just being removed") from None


def _taken(name: str, paths: Iterator[str], done: Exported) -> Iterator[str]:
    """Those that an import would take in again."""
    for path in paths:
        try:
            layout.split(f"{name}/{path}")
        except ArchiveError as error:
            done.problems.append(f"{path} was left out: {error}")
        else:
            yield path


def _files(folder: int, done: Exported) -> Iterator[str]:
    """The files of a message, by their paths in its directory; what is left out is told."""
    for name in os.listdir(folder):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and name in ("attach", "job"):
            yield from _below(folder, name, done)
        elif stat.S_ISREG(mode) and name not in _NOT_ITS_OWN and not name.startswith("."):
            yield name


def _below(folder: int, path: str, done: Exported) -> Iterator[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        names = os.listdir(fd)
    finally:
        os.close(fd)
    for name in names:
        below = f"{path}/{name}"
        mode = os.stat(below, dir_fd=folder, follow_symlinks=False).st_mode
        attached = path == "attach"
        if stat.S_ISREG(mode) and not (attached and name.startswith(".")):
            yield below
        elif stat.S_ISDIR(mode) and not attached:
            yield from _below(folder, below, done)
        elif not attached:
            done.problems.append(f"{below} is a link or no file, and was left out")


def _status(folder: int) -> str:
    found = _json(folder, layout.STATUS)
    return str(found.get("job_status", "")) if isinstance(found, dict) else ""


def _digests(folder: int) -> dict[str, Any]:
    found = _json(folder, layout.DIGESTS)
    return found if isinstance(found, dict) else {}


def _json(folder: int, name: str) -> Any:
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
        )
        with open(fd, "rb") as file:
            return json.loads(file.read(layout.MAX_TEXT))
    except (OSError, ValueError, RecursionError):
        return None


def _compare(path: str, digest: str, known: dict[str, Any], done: Exported) -> None:
    noted = known.get(path.removeprefix(layout.ATTACH)) if path.startswith(layout.ATTACH) else None
    if isinstance(noted, dict) and noted.get("sha256") not in (None, digest):
        done.problems.append(
            f"{path} is not what was attached: it has the SHA-256 {digest}, not {noted['sha256']}"
        )
