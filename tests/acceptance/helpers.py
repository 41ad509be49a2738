"""What the acceptance tests share: raw sockets, gates that scripts wait at, and a journal of facts.

Nothing here waits for time to pass: a script that waits at a `Gate` goes on when the test opens it,
and `Journal.until` returns when the instance has told of what is asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from rqcore import unix, wire
from rqcore.address import reachable
from rqcore.testing import PATIENCE, RunningInstance

ROOT = Path(__file__).resolve().parents[2]
BASE = "http://localhost:3333/"
#: A script that does nothing but end well.
DONE = "#!/bin/sh\necho 'done fine' >&3\n"


class Raw:
    """A plain socket to a queue (or, without a name, to the manager), to send any bytes by."""

    def __init__(self, instance: RunningInstance, queue: str | None = None) -> None:
        path = instance.instance.queue_socket(queue) if queue else instance.instance.manager_socket
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self._bytes = b""
        try:
            with reachable(str(path)) as short:
                self.sock.connect(short)
        except OSError:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *payloads: bytes) -> None:
        """Send these payloads as frames, in one piece."""
        self.sock.sendall(b"".join(map(wire.encode, payloads)))

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def answer(self) -> Any:
        """The next answer; its frame is taken apart byte by byte, as the contract says."""
        header = self._take(13)
        assert header[:4] == b"rq1 "
        assert header[4:12].isdigit()
        assert header[12:] == b" "
        return json.loads(self._take(int(header[4:12])))

    def at_end(self) -> bool:
        """Has the other end closed, with nothing unread before it?"""
        try:
            return not self._bytes and self.sock.recv(1) == b""
        except ConnectionResetError:  # it did not read everything that we sent
            return True

    def _take(self, count: int) -> bytes:
        while len(self._bytes) < count:
            data = self.sock.recv(65536)
            assert data, f"the connection ended after {self._bytes!r}"
            self._bytes += data
        taken, self._bytes = self._bytes[:count], self._bytes[count:]
        return taken


class Gate:
    """A fifo that a script waits at (``cat PATH``) until the test opens it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path

    def open(self) -> None:
        """Let the one who waits go on; waits for him to come."""
        os.close(os.open(self.path, os.O_WRONLY))


class Journal:
    """Every fact that the instance's hooks are told of, by the example plugin ``journal``."""

    def __init__(self, instance: RunningInstance) -> None:
        shutil.copy(ROOT / "examples/plugins/journal.py", instance.directory / "plugins")
        self.file = instance.directory / "log" / "journal.jsonl"
        self.file.touch()

    def facts(self, hook: str = "", **wanted: Any) -> list[dict[str, Any]]:
        """What was told so far: of this hook, with these fields."""
        lines = self.file.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [fact for fact in found if _fits(fact, hook, wanted)]

    def until(self, hook: str, *, count: int = 1, **wanted: Any) -> dict[str, Any]:
        """Wait until it was told ``count`` times; returns the last of them."""
        with growth(self.file) as grown:
            while len(found := self.facts(hook, **wanted)) < count:
                assert grown(), f"never told: {hook} {wanted}; but: {self.file.read_text()}"
        return found[count - 1]


def _fits(fact: Mapping[str, Any], hook: str, wanted: Mapping[str, Any]) -> bool:
    name = fact["hook"].removeprefix("rq_")
    return hook in ("", name) and all(fact.get(key) == value for key, value in wanted.items())


@contextlib.contextmanager
def growth(path: Path) -> Iterator[Callable[[], bool]]:
    """Gives a function that waits until the file was written to, or is False after long."""
    inotify = unix.Inotify()
    try:
        inotify.add(str(path), unix.Inotify.MODIFY)
        yield lambda: bool(select.select([inotify.fd], [], [], PATIENCE)[0] and inotify.read())
    finally:
        inotify.close()


def logged(instance: RunningInstance, text: str) -> None:
    """Wait until one of the instance's processes has said this in its log."""
    with growth(instance.log) as grown:
        while text not in instance.log_text():
            assert grown(), f"never logged: {text}; but:\n{instance.log_text()}"


def script_log(message: Mapping[str, Any]) -> str:
    """What the script of this message wrote."""
    return (Path(message["path"]) / "job/stdio.log").read_text(errors="surrogateescape")


def full(queue: str, msg_id: str) -> str:
    """The full id of a message."""
    return f"{BASE}q/{queue}/{msg_id}"


def running(message: Mapping[str, Any], text: str = "ready") -> bool:
    """Does the message's status say that its script has come so far?"""
    return text in str(message["status"])


class Ended:
    """Remembers processes, so that their end can be awaited, whoever their parent is."""

    def __init__(self, *pids: int) -> None:
        self._fds = {pid: os.pidfd_open(pid) for pid in pids}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds.values():
            os.close(fd)

    def wait(self) -> None:
        """Wait until all of them have ended."""
        for pid, fd in self._fds.items():
            assert select.select([fd], [], [], PATIENCE)[0], f"process {pid} does not end"

    def alive(self) -> list[int]:
        """Those that have not ended."""
        return [pid for pid, fd in self._fds.items() if not select.select([fd], [], [], 0)[0]]


def queue_pid(instance: RunningInstance, name: str) -> int:
    """The pid of a queue's process."""
    return int(instance.ask(name, "describe")["pid"])
