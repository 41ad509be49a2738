"""The wires of the lab: a process that makes hosts of network namespaces and carries their packets.

It is started by `tests.lab.network.Network` with the hosts as JSON in its one argument, ``{name:
address}``, and needs root.  Each host is a namespace with a TUN device, and nothing else in it but the
loopback device; whatever a host sends arrives here as an IPv4 packet and goes to the host that it is
addressed to, over the link between these two in this direction.  A link may lose, delay, slow down and
cut; nothing else of a real wire is played.

The namespaces have no names: they live as long as this process, or as what runs in them, and are gone
with it, however it ends.  Others enter them by ``/proc/PID/fd/N``, which the first line on stdout tells.
Then every line on stdin is an order (`Wires.obey`), answered by a line on stdout; the end of stdin is
the end of this process.  A cut that an order left for later (``cut_after``) is told by a line of its
own when it happens.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = 0x8916, 0x891C, 0x8922
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1
_DEVICE = b"wire"
MTU = 1500
#: So many bytes wait for a slow link; what comes then is lost, as in any router.
BUFFER = 256 * 1024
#: Packets taken from one host before another has its turn.
_TURN = 64

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Link:
    """The way from one host to another; ``rate`` is bytes per second, 0 for no limit."""

    cut: bool = False
    delay: float = 0.0
    loss: float = 0.0
    rate: float = 0.0
    #: Cut it when so many more bytes were carried; -1 for never.
    cut_after: int = -1
    packets: int = 0
    bytes: int = 0
    lost: int = 0


class Wires:
    """All hosts and links."""

    def __init__(self, hosts: dict[str, str]) -> None:
        self._names = list(hosts)
        self._devices, self.namespaces = {}, {}
        for name, address in hosts.items():
            self.namespaces[name], self._devices[name] = _make_host(address)
        self._by_address = {socket.inet_aton(address): name for name, address in hosts.items()}
        self._links = {(a, b): Link() for a in hosts for b in hosts if a != b}
        self._free = dict.fromkeys(self._links, 0.0)
        self._on_the_way: list[tuple[float, int, str, bytes]] = []
        self._number = 0
        self._chance = random.Random(0)

    def run(self) -> None:
        """Carry packets and obey orders until stdin ends."""
        poll = select.epoll()
        readers = {fd: name for name, fd in self._devices.items()}
        for fd in (0, *readers):
            poll.register(fd, select.EPOLLIN)
        rest = b""
        while True:
            for fd, _ in poll.poll(self._patience()):
                if fd:
                    self._take(readers[fd])
                    continue
                data = os.read(0, 65536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    _say(self.obey(json.loads(line)))
            self._deliver()

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """``{"from", "to", …}`` sets what it names of a link; ``{"seed"}`` begins chance anew.

        The answer to both is what all links are now.
        """
        if "seed" in order:
            self._chance.seed(order["seed"])
        else:
            link = self._links[order.pop("from"), order.pop("to")]
            for key, value in order.items():
                setattr(link, key, value)
        return {"links": [[*ends, asdict(link)] for ends, link in self._links.items()]}

    def _patience(self) -> float:
        if not self._on_the_way:
            return -1
        return max(0.0, self._on_the_way[0][0] - monotonic())

    def _take(self, source: str) -> None:
        for _ in range(_TURN):
            try:
                packet = os.read(self._devices[source], 65536)
            except BlockingIOError:
                return
            target = self._by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
            if target is not None and target != source:  # else the kernel's own talk, to nobody
                self._send(source, target, packet)

    def _send(self, source: str, target: str, packet: bytes) -> None:
        link = self._links[source, target]
        if 0 <= link.cut_after < link.bytes + len(packet):
            link.cut, link.cut_after = True, -1
            _say({"cut": [source, target]})
        if link.cut or (link.loss and self._chance.random() < link.loss):
            link.lost += 1
            return
        now = monotonic()
        begin = max(now, self._free[source, target])
        if link.rate:
            if (begin - now) * link.rate > BUFFER:
                link.lost += 1
                return
            begin += len(packet) / link.rate
            self._free[source, target] = begin
        link.packets += 1
        link.bytes += len(packet)
        arrives = begin + link.delay
        if arrives <= now and not self._on_the_way:
            self._write(target, packet)
        else:
            self._number += 1
            heapq.heappush(self._on_the_way, (arrives, self._number, target, packet))

    def _deliver(self) -> None:
        now = monotonic()
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(self._on_the_way)
            self._write(target, packet)

    def _write(self, target: str, packet: bytes) -> None:
        try:
            os.write(self._devices[target], packet)
        except OSError as error:  # the other end's buffer is full: a lost packet
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                raise


def _make_host(address: str) -> tuple[int, int]:
    """A namespace with a device, both as descriptors; this process is in it afterwards."""
    if _libc.unshare(_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}; the lab needs root")
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE, _IFF_TUN | _IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            where = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
            fcntl.ioctl(sock, request, struct.pack("16s16s8x", _DEVICE, where))
        fcntl.ioctl(sock, _SIOCSIFMTU, struct.pack("16si20x", _DEVICE, MTU))
        for name in (b"lo", _DEVICE):
            flags = struct.unpack(
                "16sH22x", fcntl.ioctl(sock, _SIOCGIFFLAGS, name.ljust(40, b"\0"))
            )
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags[1] | _IFF_UP))
    return namespace, device


def _say(what: dict[str, Any]) -> None:
    data = json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def main() -> int:
    """The command; ends when its stdin does."""
    try:
        wires = Wires(json.loads(sys.argv[1]))
    except OSError as error:
        _say({"failed": str(error)})
        return 1
    _say({"pid": os.getpid(), "namespaces": wires.namespaces})
    wires.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
