"""Where a message that comes in is put together: ``prep/.import.ID.PID.N`` of its queue.

A directory with a dot is nothing to the queue.  It is locked while somebody writes in it; what an import
that was killed has left is removed by the next one.  `put_in` makes it a message by one rename.
Everything is durable before that.  Raises `OSError`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count

from rqcore import durable
from rqcore.durable import Digest, Incoming
from rqcore.message import Message
from rqcore_cli.portable import layout

_PREFIX = ".import."


class Staging:
    """See the head of this module; ``queue_dir`` is the directory of the queue."""

    def __init__(self, queue_dir: str, msg_id: str) -> None:
        self._prep = f"{queue_dir}/prep"
        _clear_up(self._prep)
        durable.make_private_dir(self._prep)
        for number in count():
            self.path = f"{self._prep}/{_PREFIX}{msg_id}.{os.getpid()}.{number}"
            # Another import may take it for left behind before it is locked, and remove it.
            with contextlib.suppress(FileExistsError, FileNotFoundError, BlockingIOError):
                durable.make_dir(self.path)
                self._lock = _locked(self.path)
                if durable.exists(self.path):
                    return
                os.close(self._lock)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep all other imports from putting a message into this queue meanwhile."""
        fd = os.open(self._prep, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def file(self, path: str) -> Incoming:
        """A new file of the message, to be written."""
        self._make_below(os.path.dirname(path))
        return Incoming(f"{self.path}/{path}")

    def _make_below(self, folder: str) -> None:
        if folder and not durable.exists(f"{self.path}/{folder}"):
            self._make_below(os.path.dirname(folder))
            durable.make_dir(f"{self.path}/{folder}")

    def finish(self, message: Message, status: str, attached: Mapping[str, Digest]) -> None:
        """Write what is not simply copied: the fields, the status, and the attachments' digests."""
        durable.write_file(f"{self.path}/{layout.MSG}", message.to_json())
        if status:
            durable.write_file(
                f"{self.path}/{layout.STATUS}", json.dumps({"job_status": status}).encode("ascii")
            )
        if attached:
            known = {
                name: {
                    **asdict(digest),
                    "mtime_ns": os.stat(f"{self.path}/attach/{name}").st_mtime_ns,
                }
                for name, digest in attached.items()
            }
            durable.write_file(f"{self.path}/{layout.DIGESTS}", json.dumps(known).encode("ascii"))

    def drop_job(self) -> None:
        """Keep of ``job/`` the log alone."""
        for name in durable.children(f"{self.path}/job"):
            if name != "stdio.log":
                durable.remove_tree(f"{self.path}/job/{name}")

    def put_in(self, target: str) -> bool:
        """Make it a message at this place; False when one is there already."""
        durable.make_private_dir(os.path.dirname(target))  # of a queue that has never run
        try:
            durable.move_dir(self.path, target)
        except OSError:
            if not durable.exists(target):
                raise
            return False
        return True

    def close(self) -> None:
        """Let go of it; what was not put in is removed."""
        durable.remove_tree(self.path)
        os.close(self._lock)


def _locked(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _clear_up(prep: str) -> None:
    for name in durable.children(prep):
        if name.startswith(_PREFIX):
            with _unless_in_use(f"{prep}/{name}") as left:
                if left:
                    durable.remove_tree(f"{prep}/{name}")


@contextlib.contextmanager
def _unless_in_use(path: str) -> Iterator[bool]:
    try:
        fd = _locked(path)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(fd)
