"""Calling held messages by the queue's socket: nothing waits, and a lost connection costs no call."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqcore.bell import Bell
from rqcore.wire import Decoder


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(f"{tmp_path}/queue.sock")
        sock.listen()
        yield sock


def called(connection: socket.socket) -> list[str]:
    """The messages that were called on a connection so far, in the order of the requests."""
    connection.settimeout(0.0)
    data = b""
    try:
        while block := connection.recv(1 << 16):
            data += block
    except BlockingIOError:
        pass
    return [json.loads(p.partition(b" ")[2])["msg_id"] for p in Decoder().feed(data)]


def test_the_first_starts_first(listener: socket.socket, tmp_path: Path) -> None:
    bell = Bell(f"{tmp_path}/queue.sock")
    bell.ring(["1", "2"])
    bell.ring([])
    connection, _ = listener.accept()
    with connection:
        assert called(connection) == ["2", "1"]  # each that is sent to the front passes the others
        connection.sendall(b"answers that nobody looks at")
        bell.ring(["3"])
        assert called(connection) == ["3"]
    bell.close()


def test_a_connection_that_ended_is_made_anew(listener: socket.socket, tmp_path: Path) -> None:
    bell = Bell(f"{tmp_path}/queue.sock")
    bell.ring(["1"])
    listener.accept()[0].close()
    bell.ring(["2"])
    connection, _ = listener.accept()
    with connection:
        assert called(connection) == ["2"]
    bell.close()


def test_a_queue_that_is_busy_or_away_gets_them_later_and_whole(
    listener: socket.socket, tmp_path: Path
) -> None:
    away = Bell(f"{tmp_path}/nobody.sock")
    away.ring(["1"])
    bell = Bell(f"{tmp_path}/queue.sock")
    many = [f"{number:05d}" for number in range(20_000)]
    bell.ring(many)  # more than a socket takes in
    connection, _ = listener.accept()
    connection.close()  # in the midst of a call
    bell.ring(["last"])
    connection, _ = listener.accept()
    got: list[str] = []
    decoder = Decoder()
    with connection:
        connection.settimeout(0.0)
        while "last" not in got:
            try:
                got += [
                    json.loads(p.partition(b" ")[2])["msg_id"]
                    for p in decoder.feed(connection.recv(1 << 20))
                ]
            except BlockingIOError:
                bell.ring([])
    assert got[-1] == "last"
    assert got[:-1] == many[::-1][len(many) - len(got) + 1 :]
    bell.close()
