"""What the tests of webhook share: a receiver that is posted to, and instances that post to it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import pytest
from rqcore_webhook.signing import signature

from rqcore.testing import PATIENCE, RunningInstance, free_port

DONE = '#!/bin/sh\necho "run half way" >&3\necho "${RQ_PARAM1:-done} said so" >&3\n'


@dataclass(frozen=True)
class Got:
    """A request that came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {key: value for key, [value] in parse_qs(self.body.decode()).items()}

    @property
    def payload(self) -> dict[str, Any]:
        """The message of RQ's form, or the body of the standard form."""
        form = self.headers["content-type"] == "application/x-www-form-urlencoded"
        told: dict[str, Any] = json.loads(self.form["payload"] if form else self.body)
        return told

    def signed_by(self, secret: str) -> bool:
        stamp = int(self.headers["webhook-timestamp"])
        made = signature(secret, self.headers["webhook-id"], stamp, self.body)
        return made in self.headers["webhook-signature"].split(" ")


@dataclass
class Answer:
    """What is answered: once, or (``always``) from then on."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"thank you"
    before: Callable[[], object] = lambda: None
    always: bool = False


class Receiver:
    """An HTTP server on loopback that remembers what it was sent; one for each module."""

    def __init__(self) -> None:
        self.port = free_port()
        self.got: list[Got] = []
        self.answers: dict[str, list[Answer]] = {}
        #: How many requests are being answered now, and the most there ever were, by path.
        self.busy: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self._news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.take(Got(self.path, headers, body))
                with contextlib.suppress(OSError):
                    answer.before()
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                receiver.answered(self.path)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False
            request_queue_size = 128

        self._server = Server(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, *answers: Mapping[str, Any]) -> None:
        """What this path answers, one after another, each the fields of an `Answer`; then 200."""
        self.answers[path] = [Answer(**answer) for answer in answers]

    def take(self, got: Got) -> Answer:
        with self._news:
            self.got.append(got)
            self.busy[got.path] = self.busy.get(got.path, 0) + 1
            self.most[got.path] = max(self.most.get(got.path, 0), self.busy[got.path])
            self._news.notify_all()
            waiting = self.answers.get(got.path) or [Answer()]
            return waiting[0] if waiting[0].always else waiting.pop(0)

    def answered(self, path: str) -> None:
        with self._news:
            self.busy[path] -= 1

    def at(self, path: str) -> list[Got]:
        """What this path got."""
        with self._news:
            return [got for got in self.got if got.path == path]

    def until(self, path: str, count: int = 1) -> list[Got]:
        """Wait until this path got so many; returns them."""
        end = monotonic() + PATIENCE
        with self._news:
            while sum(got.path == path for got in self.got) < count:
                assert self._news.wait(end - monotonic()), (path, count, self.got)
        return self.at(path)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@dataclass
class Rq:
    """A running instance with the plugin."""

    instance: RunningInstance

    @property
    def directory(self) -> Path:
        return self.instance.directory

    def webhook_ids(self, state: str = "done") -> list[str]:
        items = self.instance.ask("webhook", "list_messages", {"state": state})["items"]
        return [item["msg_id"] for item in items]

    def webhooks(self, full_id: str) -> list[dict[str, Any]]:
        """The webhook messages about a message, in whatever state they are."""
        found = self.instance.found("webhook", full_id)
        return [item for item in found if item["src"] == full_id]

    def outbox(self) -> list[str]:
        folder = self.directory / "var/webhook/outbox"
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))

    def empty(self) -> None:
        """Wait until the outbox is empty."""
        wait_for(self.directory / "var/webhook/outbox", lambda: self.outbox() in ([], ["poke"]))


def wait_for(folder: Path, fact: Callable[[], object]) -> None:
    """Wait until something is a fact that shows by a change in this directory."""
    import select

    from rqcore.unix import Inotify

    inotify = Inotify()
    try:
        mask = Inotify.CREATE | Inotify.MOVED_TO | Inotify.MOVED_FROM | Inotify.DELETE
        inotify.add(str(folder), mask | Inotify.CLOSE_WRITE)
        while not fact():
            ready, _, _ = select.select([inotify.fd], [], [], PATIENCE)
            assert ready, f"{folder} does not become what it should: {list(folder.iterdir())}"
            inotify.read()
    finally:
        inotify.close()


def webhook_instance(directory: Path, **options: Any) -> RunningInstance:
    """An instance with the plugin and a queue ``work``, not started yet."""
    made = RunningInstance(directory)
    made.use_plugins("cli", "webhook")
    made.configure(port=free_port(), plugins={"webhook": options})
    made.queue("work", DONE, num_workers=4)
    made.queue("same", "#!/bin/sh\necho done fine >&3\n", coalesce_params=[1])
    return made


@pytest.fixture(scope="module")
def options(receiver: Receiver) -> dict[str, Any]:
    """The options of the module's instance; a module may have its own."""
    return {}


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any]
) -> Iterator[RunningInstance]:
    with webhook_instance(tmp_path_factory.mktemp("webhook") / "rq", **options) as made:
        yield made.start()


@pytest.fixture
def rq(shared: RunningInstance) -> Iterator[Rq]:
    """The running instance of the module."""
    yield Rq(shared)
    shared.disconnect()


@pytest.fixture
def wait() -> Callable[[Path, Callable[[], object]], None]:
    """`wait_for`."""
    return wait_for


@pytest.fixture
def make_rq(tmp_path: Path) -> Iterator[Callable[..., Rq]]:
    """Makes instances of a test's own, with these options, not started; they end with the test."""
    made: list[RunningInstance] = []

    def make(**options: Any) -> Rq:
        made.append(webhook_instance(tmp_path / f"rq{len(made)}", **options))
        return Rq(made[-1])

    yield make
    for instance in made:
        instance.close()


@pytest.fixture(scope="session")
def made_of() -> Callable[[RunningInstance], Rq]:
    """`Rq` of an instance that somebody else made."""
    return Rq
