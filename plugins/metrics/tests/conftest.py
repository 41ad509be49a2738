"""What the tests of metrics share: a real instance, and listeners that take what it pushes."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rqcore.testing import PATIENCE, RunningInstance, free_port

DONE = "#!/bin/sh\necho 'done fine' >&3\n"
FAILS = "#!/bin/sh\nexit 3\n"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample of an exposition, as Prometheus' own parser reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Counted(RunningInstance):
    """An instance with metrics and a site; ``port`` is the site's."""

    port = 0

    def prepare(self, **settings: Any) -> None:
        """Give it a site and its queues."""
        self.port = free_port()
        self.configure(port=self.port, host="mq1.example.com", **settings)
        self.use_plugins("cli", "metrics", "web")
        self.queue("test", DONE, num_workers=4)
        self.queue("fails", FAILS)

    def rq(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ``rq``."""
        program = Path(sysconfig.get_path("scripts"), "rq")
        environ = {**self.environ, "RQ_DIR": str(self.directory), "NO_COLOR": "1"}
        return subprocess.run(
            [program, *words], env=environ, capture_output=True, text=True, check=False, timeout=60
        )

    def get(self, path: str = "metrics", **headers: str) -> tuple[str, str]:
        """What the site answers, and the type of its content."""
        url = f"http://127.0.0.1:{self.port}/{path}"
        asked = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return answer.read().decode(), answer.headers["Content-Type"]

    def values(self) -> Callable[..., float | None]:
        """The values of now: asks by name and labels, and gets None when there is no such sample."""
        found = samples(self.get()[0])
        return lambda name, **labels: found.get((name, frozenset(labels.items())))

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one sample now."""
        return self.values()(name, **labels)


@pytest.fixture(scope="module")
def shared_counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    with Counted(tmp_path_factory.mktemp("counted") / "rq") as rq:
        rq.prepare()
        rq.start()
        yield rq


@pytest.fixture
def counted(shared_counted: Counted) -> Iterator[Counted]:
    """One that runs, and that the tests of a module share."""
    yield shared_counted
    shared_counted.disconnect()


@pytest.fixture
def rq(tmp_path: Path) -> Iterator[Counted]:
    """One of its own, which is not started yet."""
    with Counted(tmp_path / "rq") as made:
        made.prepare()
        yield made


class Lines:
    """A Graphite: takes lines on a TCP port, and hands them over as they come."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._got = threading.Condition()
        self._lines: list[str] = []
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def until(self, fits: Callable[[list[str]], object]) -> list[str]:
        """Wait until all lines so far are as wanted; returns them."""
        with self._got:
            assert self._got.wait_for(lambda: fits(self._lines), PATIENCE), self._lines[-20:]
            return list(self._lines)

    def cut(self) -> None:
        """End all connections that are open now."""
        for sock in self._open:
            sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with sock:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _start(self, act: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=act, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(sock)
            self.connections += 1
            self._start(self._take, sock)

    def _take(self, sock: socket.socket) -> None:
        with sock.makefile("r") as stream:
            for line in stream:
                with self._got:
                    self._lines.append(line)
                    self._got.notify_all()


@pytest.fixture
def listen() -> Iterator[Callable[[int], Lines]]:
    """Makes a Graphite that listens on a port."""
    made: list[Lines] = []

    def begin(port: int) -> Lines:
        made.append(Lines(port))
        return made[-1]

    yield begin
    for lines in made:
        lines.close()


@pytest.fixture
def graphite(listen: Callable[[int], Lines]) -> Lines:
    return listen(0)


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    """A UDP port of the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        yield sock
