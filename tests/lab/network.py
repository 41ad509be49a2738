"""Hosts of their own addresses on this machine, and the links between them: for the lab's tests.

`Network` starts the process that makes and carries it all (`tests.lab.carrier`); the test orders what
its links do.  Programs are run on a `Host` by `Host.command`; sockets of the test itself are opened on
it with `Host.inside`.  It needs root; when it is closed, or the test is killed, nothing is left of it.
Whatever goes wrong with it is an `AssertionError` or an `OSError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rqcore.testing import PATIENCE

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Host:
    """One of the hosts: its address, and the file that its namespace is entered by."""

    name: str
    address: str
    namespace: str

    def command(self, *command: str) -> list[str]:
        """The command, run on this host; the process is the same one, not a child."""
        return ["nsenter", f"--net={self.namespace}", "--", *command]

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens meanwhile, it opens on this host."""
        with contextlib.ExitStack() as stack:
            here, there = (
                stack.enter_context(open(path, "rb"))
                for path in ("/proc/thread-self/ns/net", self.namespace)
            )
            _enter(there.fileno())
            stack.callback(_enter, here.fileno())
            yield

    def listen(self, address: str, port: int) -> socket.socket:
        """A socket that listens on this host."""
        with self.inside():
            return socket.create_server((address, port), backlog=128)

    def connect(self, address: str, port: int, timeout: float = PATIENCE) -> socket.socket:
        """A connection from this host."""
        with self.inside():
            return socket.create_connection((address, port), timeout=timeout)


class Network:
    """Hosts 10.77.0.1, 10.77.0.2, … of these names, each linked to each, perfectly at first."""

    def __init__(self, *names: str) -> None:
        addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        program = Path(__file__).with_name("carrier.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), json.dumps(addresses)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cuts: queue.Queue[tuple[str, str]] = queue.Queue()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        made = self._answers.get(timeout=PATIENCE)
        if "failed" in made:
            self.close()
            raise OSError(made["failed"])
        self.hosts = {
            name: Host(name, addresses[name], f"/proc/{made['pid']}/fd/{fd}")
            for name, fd in made["namespaces"].items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def one_way(self, source: str, target: str, **settings: Any) -> None:
        """Set what one direction does; see `tests.lab.carrier.Link` for what there is."""
        self._order({"from": source, "to": target, **settings})

    def both_ways(self, a: str, b: str, **settings: Any) -> None:
        """Set what both directions do."""
        self.one_way(a, b, **settings)
        self.one_way(b, a, **settings)

    def mend(self) -> None:
        """Make all links perfect again."""
        for a in self.hosts:
            for b in self.hosts:
                if a != b:
                    self.one_way(a, b, cut=False, cut_after=-1, delay=0.0, loss=0.0, rate=0.0)

    def seed(self, number: int) -> None:
        """From here on the same packets are lost for the same number."""
        self._order({"seed": number})

    def link(self, source: str, target: str) -> dict[str, Any]:
        """What this direction does, and what it has carried and lost so far."""
        for a, b, about in self._order({"from": source, "to": target})["links"]:
            if (a, b) == (source, target):
                found: dict[str, Any] = about
                return found
        raise LookupError(f"there is no link from {source} to {target}")

    def until_cut(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Wait for a cut that was ordered by ``cut_after``; returns which direction it is."""
        return self._cuts.get(timeout=timeout)

    def close(self) -> None:
        """End it; what runs on the hosts should have ended before."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()
        status = self._process.wait(PATIENCE)
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        assert status in (0, 1), f"the carrier of packets ended with status {status}"

    @property
    def _pipe(self) -> Any:
        return self._process.stdin

    def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._pipe.write(json.dumps(order).encode() + b"\n")
            self._pipe.flush()
            return self._answers.get(timeout=PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "cut" in said:
                self._cuts.put(tuple(said["cut"]))
            else:
                self._answers.put(said)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
