"""Where families are brought: a Graphite that comes and goes, a StatsD, a file."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rqcore_metrics import carriers
from rqcore_metrics.carriers import GraphiteCarrier, StatsDCarrier, TextfileCarrier
from rqcore_metrics.hookspecs import Family
from rqcore_metrics.options import Graphite, StatsD, Textfile

from rqcore.testing import free_port

if TYPE_CHECKING:
    from tests.conftest import Lines


def up(value: float = 1) -> list[Family]:
    return [Family("rqcore_up", "gauge", "Is it?", [({}, value)])]


def taken(value: float) -> list[Family]:
    return [Family("rqcore_taken_total", "counter", "Taken.", [({}, value)])]


def values(lines: list[str]) -> list[int]:
    return [int(line.split(" ")[1]) for line in lines]


def line(value: int) -> str:
    return f"rqcore.mq1.up {value} {1000 + value}\n"


def to(port: int, interval: float = 60) -> GraphiteCarrier:
    return GraphiteCarrier(Graphite("127.0.0.1", port, interval), "mq1")


def test_graphite_keeps_one_connection(graphite: Lines) -> None:
    carrier = to(graphite.port)
    for value in range(3):
        carrier.carry(up(value), 1000 + value)
    assert graphite.until(lambda lines: len(lines) == 3) == [line(0), line(1), line(2)]
    assert graphite.connections == 1
    assert carrier.to == f"127.0.0.1:{graphite.port}"
    carrier.close()


def test_what_a_lost_connection_swallowed_is_sent_again(graphite: Lines) -> None:
    carrier = to(graphite.port)
    carrier.carry(up(0), 1000)
    graphite.until(lambda lines: len(lines) == 1)
    graphite.cut()
    carrier.carry(up(1), 1001)
    carrier.carry(up(2), 1002)
    lines = graphite.until(lambda lines: len(lines) == 4)
    assert lines == [line(0), line(0), line(1), line(2)]
    assert graphite.connections == 2
    carrier.close()


def test_what_waits_for_graphite_is_sent_when_it_is_back(
    listen: Callable[[int], Lines],
) -> None:
    port = free_port()
    carrier = to(port, interval=0)  # so that nothing has to pass between two tries
    for value in range(5):
        with pytest.raises(ConnectionRefusedError):
            carrier.carry(up(value), 1000 + value)
    assert carrier.waiting == len("".join(map(line, range(5))))
    back = listen(port)
    carrier.carry(up(5), 1005)
    assert back.until(lambda lines: len(lines) == 6) == [line(value) for value in range(6)]
    assert (carrier.waiting, carrier.lost) == (0, 0)
    carrier.close()


def test_between_two_tries_a_pause_grows(graphite: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    tried: list[float] = []
    monkeypatch.setattr(carriers, "monotonic", lambda: now)

    def connect(*_: object, **__: object) -> socket.socket:
        tried.append(now)
        raise ConnectionRefusedError(111, "Connection refused")

    real = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", connect)
    carrier = to(graphite.port, interval=60)
    for tick in range(70):
        now = tick * 60.0
        with pytest.raises(ConnectionRefusedError):
            carrier.carry(up(tick), 1000 + tick)
    assert [tick / 60 for tick in tried] == [0, 1, 3, 7, 15, 24, 33, 42, 51, 60, 69]
    monkeypatch.setattr(socket, "create_connection", real)
    now += 600
    carrier.carry(up(70), 1070)
    assert values(graphite.until(lambda lines: len(lines) == 71)) == list(range(71))
    carrier.close()


def test_no_more_waits_than_a_few_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "MOST", 100)
    carrier = to(free_port())
    for value in range(20):
        with pytest.raises(ConnectionRefusedError):
            carrier.carry(up(value), 1000 + value)
    assert carrier.waiting <= 100
    assert carrier.lost == 20 - carrier.waiting // len(line(10))
    carrier.close()


def test_a_host_that_there_is_not() -> None:
    carrier = GraphiteCarrier(Graphite("no-such-host.invalid"), "mq1")
    with pytest.raises(OSError, match=r"[Nn]ame|address|resolution"):
        carrier.carry(up(), 1000)
    statsd = StatsDCarrier(StatsD("no-such-host.invalid"), "mq1")
    with pytest.raises(OSError, match=r"[Nn]ame|address|resolution"):
        statsd.carry(up(), 1000)
    carrier.close()
    statsd.close()


def test_statsd(udp: socket.socket) -> None:
    carrier = StatsDCarrier(StatsD("127.0.0.1", udp.getsockname()[1]), "mq1")
    carrier.carry([*up(), *taken(5)], 1000)
    assert udp.recv(65536) == b"rqcore.mq1.up:1|g"
    carrier.carry([*up(), *taken(9)], 1001)
    assert udp.recv(65536) == b"rqcore.mq1.up:1|g\nrqcore.mq1.taken_total:4|c"
    many = [Family(f"rqcore_number_{number}", "gauge", "", [({}, 1)]) for number in range(200)]
    carrier.carry(many, 1002)
    got: list[bytes] = []
    while sum(packet.count(b"\n") + 1 for packet in got) < 200:
        got.append(udp.recv(65536))
    assert len(got) > 1
    assert max(map(len, got)) <= 1432
    carrier.close()


def test_a_statsd_that_does_not_listen_is_told_the_difference_later(udp: socket.socket) -> None:
    port = udp.getsockname()[1]
    carrier = StatsDCarrier(StatsD("127.0.0.1", port), "mq1")
    carrier.carry([*up(), *taken(5)], 1000)
    udp.close()
    with pytest.raises(OSError, match="nobody listens"):
        carrier.carry([*up(), *taken(7)], 1001)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))
        again.settimeout(10)
        carrier.carry([*up(), *taken(8)], 1002)
        assert again.recv(65536).endswith(b"taken_total:3|c")


def test_the_file_is_replaced_in_one_step_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rqcore.prom"
    carrier = TextfileCarrier(Textfile(str(path)))
    carrier.carry(up(1), 1000)
    with path.open() as old:
        carrier.carry(up(0), 1001)
        assert "rqcore_up 1.0" in old.read()
    assert re.search(r"^rqcore_up 0\.0$", path.read_text(), re.MULTILINE)
    assert path.stat().st_mode & 0o044, "node-exporter is another user"
    assert [found.name for found in tmp_path.iterdir()] == ["rqcore.prom"]
    carrier.retract()
    assert not path.exists()
    carrier.carry([], 2.0)  # its thread had still been collecting
    assert not path.exists()
    carrier.retract()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    carrier = TextfileCarrier(Textfile(str(tmp_path / "nowhere" / "rqcore.prom")))
    with pytest.raises(FileNotFoundError):
        carrier.carry(up(), 1000)
