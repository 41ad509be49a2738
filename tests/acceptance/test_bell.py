"""The word to the own queue: it comes in order, survives a socket that is not there, and waits never."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqcore.bell import Bell
from rqcore.testing import PATIENCE
from rqcore.wire import Decoder, encode


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "queue.sock")


@pytest.fixture
def bell(path: str) -> Iterator[Bell]:
    made = Bell(path)
    yield made
    made.close()


def listen(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    sock.settimeout(PATIENCE)
    return sock


def heard(sock: socket.socket, count: int) -> list[bytes]:
    decoder, found = Decoder(), list[bytes]()
    sock.settimeout(PATIENCE)
    while len(found) < count:
        found += decoder.feed(sock.recv(4096))
    return found


def asked(number: str) -> bytes:
    return b'run_message {"msg_id": "%s"}' % number.encode()


def test_the_first_to_start_is_sent_to_the_front_last(bell: Bell, path: str) -> None:
    with listen(path) as server:
        bell.ring(["1", "2"])
        with server.accept()[0] as there:
            assert heard(there, 2) == [asked("2"), asked("1")]
            there.send(encode(b'["ok"]'))
            bell.ring(["3"])
            assert heard(there, 1) == [asked("3")]


def test_what_could_not_be_sent_is_sent_later(bell: Bell, path: str) -> None:
    bell.ring(["1"])  # nobody listens yet
    with listen(path) as server:
        bell.ring(["2"])
        there, _ = server.accept()
        assert heard(there, 2) == [asked("1"), asked("2")]
        there.close()
        bell.ring(["3"])  # it notices that the connection is gone
        bell.ring(["4"])
        with server.accept()[0] as again:
            assert heard(again, 2) == [asked("3"), asked("4")]


def test_a_socket_that_takes_nothing_holds_nobody_up(bell: Bell, path: str) -> None:
    count = 20_000
    with listen(path) as server:
        bell.ring(str(number) for number in range(count))  # more than any buffer holds
        with server.accept()[0] as there:
            decoder, found = Decoder(), list[bytes]()
            while len(found) < count:
                there.settimeout(PATIENCE)
                found += decoder.feed(there.recv(1 << 20))
                bell.ring([])
    assert found[-1] == asked("0")
