"""The ports that tests give to their servers: nobody else takes them before these listen."""

from __future__ import annotations

import socket
import subprocess
import sys

from rqcore.testing import PORTS, free_port

ASK = "from rqcore.testing import free_port; print(free_port(), flush=True); input()"


def test_no_port_is_given_twice() -> None:
    given = [free_port() for _ in range(5)]
    assert len(set(given)) == 5
    assert set(given) <= set(PORTS)


def test_no_client_is_given_one_by_the_system() -> None:
    with socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        assert client.getsockname()[1] not in PORTS


def test_two_test_runs_are_given_different_ones() -> None:
    runs = [
        subprocess.Popen([sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    given = [int(run.stdout.readline()) for run in runs if run.stdout]
    given.append(free_port())
    for run in runs:
        run.communicate(b"\n")
    assert len(set(given)) == 4


def test_one_that_is_listened_on_is_left_alone() -> None:
    following = free_port() + 1
    with socket.create_server(("127.0.0.1", following)):
        assert free_port() != following
