"""Messages between two instances over the loopback device.

The raw limit of a large attachment is ``curl -T`` of the same file to the same server's upload, in the
same round; both are parsed, hashed twice and durable when answered.  What is timed of the relay is
from the commit of the message until it is ``relayed``, its process's start included.  Peak memory is
the kernel's own high-water mark of each process that takes part.

For the cut a forwarder of our own stands between the two, which breaks its connections once, when nine
tenths of the file have passed, and counts what passes: what exceeds the file's size was sent again.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import SH_SCRIPT, Bench, Figure, beside
from benchmarks.sites import service_pid
from rqcore.testing import RunningInstance, free_port

_BLOCK = 1 << 20
_LOOK = 0.02
#: So long a peer is away until it is seen that it is back, seconds.
_AWAY = (2, 4, 8)


def measure(bench: Bench) -> list[Figure]:
    """A large file, the same with a cut, small messages, and a peer that comes back."""
    with bench.instance("sender") as sender, bench.instance("receiver") as receiver:
        pair = _Pair(sender, receiver)
        size = bench.pick(1024, 32) * _BLOCK
        file = _made(bench.folder / "large", size)
        return [
            _large(bench, pair, file, size),
            _cut(pair, file, size),
            _small(pair, bench.pick(500, 50)),
            _back(pair, _AWAY[: bench.pick(3, 1)]),
        ]


class _Pair:
    """Two running instances, one of which sends to the other's queue ``bench``."""

    def __init__(self, sender: RunningInstance, receiver: RunningInstance) -> None:
        self.sender, self.receiver = sender, receiver
        self.port = free_port()
        for instance, port in ((sender, free_port()), (receiver, self.port)):
            instance.use_plugins("cli", "web", "relay")
            instance.configure(port=port, host="127.0.0.1")
            instance.queue("bench", SH_SCRIPT)
            instance.start()

    def prepare(self, port: int, *files: Path) -> str:
        """A message for the receiver, as it is reached on this port; its id."""
        dest = f"http://127.0.0.1:{port}/q/bench"
        full_id = str(self.sender.ask("relay", "prep_message", {"dest": dest}))
        for file in files:
            args = {"msg_id": full_id, "pathname": str(file), "name": "file"}
            self.sender.ask("relay", "attach_message", args)
        return full_id.rpartition("/")[2]

    def carry(self, msg_id: str, meanwhile: Callable[[], object] = lambda: None) -> float:
        """Commit it; the seconds until it is relayed.  ``meanwhile`` is called now and then."""
        began = time.perf_counter()
        self.sender.ask("relay", "commit_message", {"msg_id": msg_id})
        nudged = began
        while (found := self.sender.message("relay", msg_id))["state"] != "relayed":
            assert found["state"] != "err", found["status"]
            now = time.perf_counter()
            if found["state"] == "que" and found["count"] and now - nudged > 1:
                nudged = now  # the cut cost a try: the next is to be measured, not the pause before
                self.sender.ask("relay", "run_message", {"msg_id": msg_id})
            meanwhile()
            select.select([], [], [], _LOOK)
        return time.perf_counter() - began

    def drop(self, msg_id: str) -> None:
        """Give back the room at the receiver."""
        arrived = self.sender.message("relay", msg_id)["status"].rpartition("/")[2]
        self.receiver.until("bench", arrived, "done")
        self.receiver.ask("bench", "delete_message", {"msg_id": arrived})


def _large(bench: Bench, pair: _Pair, file: Path, size: int) -> Figure:
    peaks: dict[str, int] = {}
    rounds = []
    for _ in range(min(3, bench.rounds)):
        os.sync()
        raw = _curl(pair, file, size)
        os.sync()
        msg_id = pair.prepare(pair.port, file)
        watched = _Peaks(pair, msg_id, peaks)
        seconds = pair.carry(msg_id, watched.look)
        rounds.append((size / 1e6 / seconds, raw))
        pair.drop(msg_id)
    told = ", ".join(f"{name} {kib / 1024:.1f}" for name, kib in peaks.items())
    note = f"peak memory in MiB: {told}"
    return beside(f"relay of {size >> 20} MiB", "MB/s", "curl -T", rounds, note)


def _cut(pair: _Pair, file: Path, size: int) -> Figure:
    with _forwarder(pair.port, cut_at=size * 9 // 10) as forwarder:
        msg_id = pair.prepare(forwarder.port, file)
        seconds = pair.carry(msg_id)
        pair.drop(msg_id)
    again = max(0, forwarder.passed - size)
    note = f"{again:,} bytes of {size:,}, {seconds:.1f} s in all; goal: under 2 %"
    return Figure("sent again after a cut at 90 %", 100 * again / size, "%", note=note)


def _small(pair: _Pair, count: int) -> Figure:
    pair.sender.manager.ask("pause_queue", "relay")
    ids = [pair.prepare(pair.port) for _ in range(count)]
    for msg_id in ids:
        pair.sender.ask("relay", "commit_message", {"msg_id": msg_id})
    before = pair.sender.ask("relay", "num_messages")["relayed"]
    sending = int(pair.sender.ask("relay", "describe")["pid"])
    taking = service_pid(pair.receiver), int(pair.receiver.ask("bench", "describe")["pid"])
    spent = [_cpu(sending), *map(_cpu, taking)]
    began = time.perf_counter()
    pair.sender.manager.ask("resume_queue", "relay")
    while pair.sender.ask("relay", "num_messages")["relayed"] - before < count:
        select.select([], [], [], _LOOK)
    seconds = time.perf_counter() - began
    after = [_cpu(sending), *map(_cpu, taking)]
    own, scripts, service, queue = (
        (after[which][part] - spent[which][part]) / count * 1e3
        for which, part in ((0, 0), (0, 1), (1, 0), (2, 0))
    )
    note = (
        f"{count} messages, 4 transfers at a time; ms of CPU each: script {scripts:.0f}, "
        f"sender's queue {own:.1f}, receiver's service {service:.1f}, its queue {queue:.1f}"
    )
    return Figure("small messages through one peer", count / seconds, "/s", note=note)


def _back(pair: _Pair, aways: tuple[int, ...]) -> Figure:
    noticed = []
    for away in aways:
        pair.receiver.stop()
        gone = time.perf_counter()
        msg_id = pair.prepare(pair.port)
        pair.sender.ask("relay", "commit_message", {"msg_id": msg_id})
        pair.sender.until("relay", msg_id, "que", matching=lambda found: found["count"] > 0)
        while time.perf_counter() - gone < away:  # the length of the outage is what is given
            select.select([], [], [], _LOOK)
        pair.receiver.start()
        began = time.perf_counter()
        pair.sender.until("relay", msg_id, "relayed")
        noticed.append(time.perf_counter() - began)
    each = ", ".join(f"{n:.1f} s after {away} s" for n, away in zip(noticed, aways, strict=True))
    return Figure("a dead peer is back, noticed after", statistics.median(noticed), "s", note=each)


# What it stands on


def _curl(pair: _Pair, file: Path, size: int) -> float:
    full_id = str(pair.receiver.ask("bench", "prep_message", {"dest": "bench"}))
    msg_id = full_id.rpartition("/")[2]
    url = f"http://127.0.0.1:{pair.port}/api/v1/queues/bench/messages/{msg_id}/attachments/file"
    began = time.perf_counter()
    subprocess.run(["curl", "-sSf", "-o", "/dev/null", "-T", str(file), url], check=True)
    seconds = time.perf_counter() - began
    pair.receiver.ask("bench", "delete_message", {"msg_id": msg_id})
    return size / 1e6 / seconds


class _Peaks:
    """The most memory that each process of a transfer has had, in KiB, by name."""

    def __init__(self, pair: _Pair, msg_id: str, peaks: dict[str, int]) -> None:
        self._script = pair.sender.directory / "queue/relay/run" / msg_id / "pid"
        self._peaks = peaks
        self._others = {
            "sender's queue": int(pair.sender.ask("relay", "describe")["pid"]),
            "receiver's service": service_pid(pair.receiver),
            "receiver's queue": int(pair.receiver.ask("bench", "describe")["pid"]),
        }

    def look(self) -> None:
        """The kernel keeps the peaks; those of the script must be read while it lives."""
        with contextlib.suppress(OSError, IndexError):
            self._note("script", int(self._script.read_text().split()[0]))
        for name, pid in self._others.items():
            self._note(name, pid)

    def _note(self, name: str, pid: int) -> None:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                self._peaks[name] = max(self._peaks.get(name, 0), int(line.split()[1]))


def _cpu(pid: int) -> tuple[float, float]:
    """CPU seconds of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return own / os.sysconf("SC_CLK_TCK"), children / os.sysconf("SC_CLK_TCK")


def _made(path: Path, size: int) -> Path:
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(block)
        os.fsync(file.fileno())
    return path


class _Forwarder:
    """Passes connections on to a port of the loopback address; breaks all of them once."""

    def __init__(self, target: int, cut_at: int) -> None:
        self._target, self._cut_at = target, cut_at
        self.port = free_port()
        #: Bytes that clients have sent through it.
        self.passed = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            for ends in ((client, server), (server, client)):
                counted = {"counted": ends[0] is client}
                thread = threading.Thread(target=self._pass, args=ends, kwargs=counted)
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, target: socket.socket, *, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_BLOCK):
                if counted and self._is_cut(len(data)):  # what is on the wire is lost
                    for sock in (source, target):
                        sock.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _is_cut(self, size: int) -> bool:
        with self._lock:
            self.passed += size
            cut = 0 < self._cut_at <= self.passed
            if cut:
                self._cut_at = 0
            return cut


@contextmanager
def _forwarder(target: int, cut_at: int) -> Iterator[_Forwarder]:
    made = _Forwarder(target, cut_at)
    try:
        yield made
    finally:
        made.close()
