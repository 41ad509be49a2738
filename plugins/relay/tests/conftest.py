"""What the tests of relay share: two real instances, and a proxy between them that sees each request.

The far instance listens on 127.0.0.2 and calls itself 127.0.0.1, where the proxy (`Tap`) listens on the
same port: so everything goes through the proxy, also what is asked of the addresses in full ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sysconfig
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from rqcore.testing import PATIENCE, RunningInstance, free_port

SCRIPT = f"{sysconfig.get_path('scripts')}/rq-relay"
DONE = "#!/bin/sh\necho 'done fine' >&3\n"
When = Literal["before", "within", "after"]


@dataclass
class Rule:
    """What is done, once, when a request is seen: ``act``, and then the connection may be cut.

    ``before`` the far end gets it; ``within`` its body, when ``at`` bytes have been passed on; ``after``
    the far end has answered it, and the near end does not know yet.
    """

    method: str
    path: str
    when: When
    act: Callable[[], object] = lambda: None
    cut: bool = True
    at: int = 0
    used: bool = False


class Tap:
    """The proxy; for HTTP/1.1 with lengths, which both ends speak."""

    def __init__(self, port: int) -> None:
        self.port = port
        #: Requests in the order in which they came: method and path.
        self.seen: list[tuple[str, str]] = []
        self.rules: list[Rule] = []
        #: Be a peer that knows the contract's URLs and no others.
        self.plain = False
        #: Bytes of bodies that the far end was given.
        self.passed = 0
        self.failures: list[BaseException] = []
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._start(self._accept)

    def rule(self, method: str, path: str, when: When, **more: Any) -> Rule:
        """Add a rule; `Rule` says what there is."""
        self.rules.append(Rule(method, path, when, **more))
        return self.rules[-1]

    def close(self) -> None:
        """Cut everything off."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self.failures:
            raise self.failures[0]

    def _start(self, act: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=act, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._open.append(sock)
                self._start(self._serve, sock)

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near:
            far = socket.create_connection(("127.0.0.2", self.port))
            self._open.append(far)
            with far, near.makefile("rb") as asked, far.makefile("rb") as answered:
                while self._pass_on(asked, answered, near, far):
                    pass

    def _pass_on(self, asked: Any, answered: Any, near: socket.socket, far: socket.socket) -> bool:
        """One request and its answer; may the next one come?"""
        head, length = _head(asked)
        if not head:
            return False
        method, path = head.split(b" ")[:2]
        request = (method.decode(), path.decode())
        self.seen.append(request)
        if self._cut(request, "before"):
            return False
        if self.plain and request[0] == "OPTIONS":
            if self._cut(request, "after"):
                return False
            near.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return True
        far.sendall(head)
        at = 0
        while at < length:
            block = asked.read1(min(length - at, 1 << 16))
            if not block:
                return False
            far.sendall(block)
            at += len(block)
            self.passed += len(block)
            if self._cut(request, "within", at):
                return False
        head, length = _head(answered)
        if not head or self._cut(request, "after"):
            return False
        near.sendall(head + (answered.read(length) if method != b"HEAD" else b""))
        return True

    def _cut(self, request: tuple[str, str], when: When, at: int = 0) -> bool:
        for rule in self.rules:
            fits = rule.method == request[0] and rule.path in request[1] and rule.when == when
            if fits and not rule.used and at >= rule.at:
                rule.used = True
                try:
                    rule.act()
                except BaseException as error:  # noqa: BLE001 - the test is told at its end
                    self.failures.append(error)
                return rule.cut
        return False


def _head(stream: Any) -> tuple[bytes, int]:
    lines = [stream.readline()]
    while lines[-1] not in (b"\r\n", b""):
        lines.append(stream.readline())
    length = next(
        (int(x.split(b":")[1]) for x in lines if x.lower().startswith(b"content-length:")), 0
    )
    return b"".join(lines), length


@dataclass
class Pair:
    """Two instances: ``near`` has the queue relay, ``far`` the queue test, whose URL is ``url``."""

    near: RunningInstance
    far: RunningInstance
    port: int
    folder: Path
    made: int = field(default=0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/q/test"

    def send(self, *files: bytes, queue: str = "relay", **fields: Any) -> str:
        """Send a message with these files (named f0, f1, …) to the far queue; returns its short id."""
        full_id = self.near.ask(queue, "prep_message", {"dest": self.url, **fields})
        for number, content in enumerate(files):
            self.made += 1
            path = self.folder / f"file{self.made}"
            path.write_bytes(content)
            args = {"msg_id": full_id, "pathname": str(path), "name": f"f{number}"}
            self.near.ask(queue, "attach_message", args)
        self.near.ask(queue, "commit_message", {"msg_id": full_id})
        return str(full_id.rpartition("/")[2])

    @contextlib.contextmanager
    def held(self, queue: str = "relay") -> Iterator[None]:
        """What is sent meanwhile is carried afterwards."""
        file = self.near.directory / "config" / f"{queue}.pause"
        file.touch()
        yield
        file.unlink()

    def relayed(self, msg_id: str, queue: str = "relay") -> dict[str, Any]:
        """Wait until the message is relayed; returns it."""
        message = self.near.until(queue, msg_id)
        assert message["state"] == "relayed", (message, self.log(message))
        return message

    def log(self, message: dict[str, Any]) -> str:
        """What the script wrote."""
        return Path(message["path"], "job", "stdio.log").read_text()

    def arrived(self, msg_id: str, queue: str = "relay", at: str = "test") -> list[dict[str, Any]]:
        """The far messages that came of it, in whatever state they are."""
        full_id = self.near.message(queue, msg_id)["orig_msg_id"]
        ids = sorted(item["msg_id"] for item in self.far.found(at, full_id))
        found = [self.far.message(at, msg_id) for msg_id in ids]
        return [message for message in found if message["orig_msg_id"] == full_id]

    def once(self, msg_id: str, *files: bytes, queue: str = "relay") -> dict[str, Any]:
        """It must have arrived once and whole, and nothing of it twice; returns the far message."""
        [message] = self.arrived(msg_id, queue)
        assert message["state"] != "prep"
        there = {name: about["sha256"] for name, about in message["_attachments"].items()}
        assert there == {
            f"f{number}": hashlib.sha256(content).hexdigest()
            for number, content in enumerate(files)
        }
        return message

    def script_pid(self, msg_id: str, queue: str = "relay") -> int:
        """The process that carries the message now."""
        file = self.near.directory / "queue" / queue / "run" / msg_id / "pid"
        return int(file.read_text().split()[0])


def make_pair(folder: Path) -> Pair:
    """Two instances, not started yet."""
    near, far = RunningInstance(folder / "near"), RunningInstance(folder / "far")
    near.use_plugins("cli")  # the script alone: nothing holds a message back, or has it run at once
    near.configure(port=free_port())
    near.queue("relay", SCRIPT, num_workers=4)
    near.queue("here", DONE)
    far.use_plugins("cli", "web")
    port = free_port()
    far.configure(host="127.0.0.1", addr="127.0.0.2", port=port)
    for name in ("test", "größe"):
        far.queue(name, DONE)
    return Pair(near, far, port, folder)


@pytest.fixture(scope="module")
def configured() -> Callable[[Pair], None]:
    """What a module does to its instances before they start; a module may have its own."""
    return lambda _: None


@pytest.fixture(scope="module")
def shared_pair(
    tmp_path_factory: pytest.TempPathFactory, configured: Callable[[Pair], None]
) -> Iterator[Pair]:
    """Two running instances, shared by the tests of a module."""
    made = make_pair(tmp_path_factory.mktemp("pair"))
    configured(made)
    try:
        made.near.start()
        made.far.start()
        yield made
    finally:
        made.near.close()
        made.far.close()


@pytest.fixture
def pair(shared_pair: Pair) -> Iterator[Pair]:
    """The instances of the module; connections of a test end with it."""
    yield shared_pair
    shared_pair.near.disconnect()
    shared_pair.far.disconnect()


@pytest.fixture
def tap(pair: Pair) -> Iterator[Tap]:
    """The proxy between the two."""
    made = Tap(pair.port)
    yield made
    made.close()


@pytest.fixture(scope="session")
def big() -> bytes:
    """A file that no two requests carry alike: 3 MB."""
    return os.urandom(3_000_000)
