"""The lab's own hosts and links are what they say: apart, and doing what is ordered."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Self

import pytest

from tests.lab.needs import needs_root
from tests.lab.network import Network

pytestmark = needs_root

PORT = 9


@pytest.fixture(scope="module")
def shared() -> Iterator[Network]:
    with Network("a", "b", "c") as made:
        yield made


@pytest.fixture
def network(shared: Network) -> Network:
    shared.mend()
    return shared


class Sink:
    """A server on a host that counts what it gets, and says when a connection has ended."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._listener = network.hosts[name].listen(network.hosts[name].address, PORT)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._network.mend()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(65536):
                self.received += data
            connection.sendall(b"all of it")

    def take(self, network: Network, data: bytes, source: str = "a", target: str = "b") -> float:
        """Send this from another host; the seconds until all was confirmed."""
        began = monotonic()
        address = network.hosts[target].address
        with network.hosts[source].connect(address, PORT) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b"all of it"
        assert self.received == data
        return monotonic() - began


def test_a_host_is_reached_from_another_at_its_own_address(network: Network) -> None:
    with Sink(network, "b") as sink:
        sink.take(network, b"hello" * 100_000)
    with Sink(network, "c") as sink:
        sink.take(network, b"hello", target="c")


def test_programs_run_on_a_host(network: Network) -> None:
    with network.hosts["b"].listen("127.0.0.1", 9999):
        command = network.hosts["b"].command("cat", "/proc/net/tcp")
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "0100007F:270F" in said
    command = network.hosts["a"].command("cat", "/proc/net/tcp")
    assert "0100007F:270F" not in subprocess.check_output(command, text=True)


def test_a_delay_is_paid_by_every_way_there_and_back(network: Network) -> None:
    network.both_ways("a", "b", delay=0.05)
    with Sink(network, "b") as sink:
        # The handshake, and what was sent with its answer: two ways there and back.
        assert sink.take(network, b"hello") >= 0.2
    assert network.link("a", "c")["delay"] == 0


def test_a_slow_link_lets_through_what_it_can(network: Network) -> None:
    network.one_way("a", "b", rate=1_000_000)
    with Sink(network, "b") as sink:
        assert sink.take(network, bytes(200_000)) >= 0.2


def test_a_link_that_loses_packets_loses_some_and_tcp_all_the_same_nothing(
    network: Network,
) -> None:
    network.seed(1)
    network.one_way("a", "b", loss=0.05)
    before = network.link("a", "b")
    with Sink(network, "b") as sink:
        sink.take(network, bytes(500_000))
    after = network.link("a", "b")
    assert after["lost"] > before["lost"]
    assert after["bytes"] - before["bytes"] >= 500_000


def test_a_cut_is_silence_and_what_waited_goes_on_after_it(network: Network) -> None:
    with Sink(network, "b") as sink:
        with network.hosts["a"].connect(network.hosts["b"].address, PORT) as sock:
            sock.sendall(b"one, ")
            network.both_ways("a", "b", cut=True)
            lost = network.link("a", "b")["lost"]
            sock.sendall(b"two")
            sock.shutdown(socket.SHUT_WR)
            while network.link("a", "b")["lost"] == lost:
                pass
            network.both_ways("a", "b", cut=False)
            assert sock.recv(100) == b"all of it"
        assert sink.received == b"one, two"


def test_one_direction_can_be_cut_alone(network: Network) -> None:
    network.one_way("b", "a", cut=True)
    with network.hosts["b"].listen(network.hosts["b"].address, PORT) as listener:
        before = network.link("b", "a")["lost"], network.link("a", "b")["packets"]
        with pytest.raises(TimeoutError):
            network.hosts["a"].connect(network.hosts["b"].address, PORT, timeout=0.2)
        assert network.link("b", "a")["lost"] > before[0]
        assert network.link("a", "b")["packets"] > before[1]
        del listener
    with Sink(network, "c") as sink:
        sink.take(network, b"c hears b all the same", source="b", target="c")


def test_a_cut_can_wait_for_a_number_of_bytes(network: Network) -> None:
    with Sink(network, "b") as sink:
        with network.hosts["a"].connect(network.hosts["b"].address, PORT) as sock:
            before = network.link("a", "b")["bytes"]
            network.one_way("a", "b", cut_after=before + 50_000)
            sending = threading.Thread(target=sock.sendall, args=(bytes(200_000),))
            sending.start()
            assert network.until_cut() == ("a", "b")
            link = network.link("a", "b")
            assert before + 48_000 < link["bytes"] <= before + 50_000
            network.mend()
            sending.join()
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b"all of it"
        assert len(sink.received) == 200_000


def test_nothing_is_left_of_it_when_it_is_closed_or_its_owner_ends() -> None:
    with Network("only") as network:
        namespace = network.hosts["only"].namespace
        assert subprocess.run(network.hosts["only"].command("true"), check=False).returncode == 0
    assert not os.path.exists(namespace)
