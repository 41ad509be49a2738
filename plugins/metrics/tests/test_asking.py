"""Asking many sockets at once: who hangs, lies or is not there costs the others nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from rqcore_metrics.asking import ask_all

from rqcore import wire
from rqcore.testing import PATIENCE


@contextlib.contextmanager
def listening(path: Path, *answers: bytes, close: bool = False) -> Iterator[None]:
    """A socket that takes one connection, reads a request, answers this, and then keeps silent."""
    over = threading.Event()

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1 << 16)
            for answer in answers:
                sock.sendall(answer)
            if not close:
                over.wait(PATIENCE)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(PATIENCE)


def frame(value: object) -> bytes:
    return wire.encode(json.dumps(value).encode())


def test_who_answers_is_heard_whoever_else_does_not(tmp_path: Path) -> None:
    whole = frame(["ok", 1]) + frame(["ok", 2])
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(tmp_path / "good", whole[:7], whole[7:]))
        stack.enter_context(listening(tmp_path / "silent"))
        stack.enter_context(listening(tmp_path / "half", whole[:-3]))
        stack.enter_context(listening(tmp_path / "one", frame(1)))
        stack.enter_context(listening(tmp_path / "gone", frame(1), close=True))
        stack.enter_context(listening(tmp_path / "other", b"HTTP/1.0 200 OK\r\n\r\n"))
        stack.enter_context(listening(tmp_path / "odd", wire.encode(b"{") + frame(1)))
        names = ("good", "silent", "half", "one", "gone", "other", "odd", "nobody")
        paths = {name: str(tmp_path / name) for name in names}
        began = monotonic()
        found = ask_all(paths, ["describe", "plugins"], 1.0)
        took = monotonic() - began
    assert found == {"good": [["ok", 1], ["ok", 2]]}
    assert took >= 1.0


def test_it_waits_for_nobody_when_all_have_answered(tmp_path: Path) -> None:
    with listening(tmp_path / "good", frame("pong")):
        began = monotonic()
        assert ask_all({"x": str(tmp_path / "good")}, ["ping"], PATIENCE) == {"x": ["pong"]}
        assert monotonic() - began < PATIENCE
    assert ask_all({}, ["ping"], PATIENCE) == {}


def test_a_path_that_is_too_long_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with listening(Path("s"), frame("pong")):
        assert ask_all({"x": str(deep / "s")}, ["ping"], PATIENCE) == {"x": ["pong"]}
