"""Many clients at once, cheap enough not to be what is measured.

`Clients` are connections in processes of their own, each connection with one request under way at
a time, as a client that waits for its answer has.  The request is framed once; an answer is only
looked at for its ``ok`` and its id.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any

from rqcore import wire

_MESSAGE = {"dest": "bench", "param1": "one", "param2": "two", "due": 1}


@dataclass(frozen=True, slots=True)
class Sent:
    """What clients did: the answered messages' ids in order of the answers, latencies in seconds.

    ``cpu_share`` is the busiest process's CPU time over the time it took: near 1, the clients are
    what was measured.
    """

    seconds: float
    ids: list[str]
    latencies: list[float]
    cpu_share: float

    @property
    def rate(self) -> float:
        """Answered messages per second."""
        return len(self.ids) / self.seconds


def frame(**fields: Any) -> bytes:
    """A request to create a message."""
    return wire.encode(b"create_message " + json.dumps({**_MESSAGE, **fields}).encode())


def send(
    path: str, connections: int, processes: int = 1,
    *, seconds: float | None = None, count: int | None = None,
) -> Sent:  # fmt: skip
    """Send messages to this socket, for so long or so many; returns when all are answered."""
    shares = [_share(connections, processes, i) for i in range(processes)]
    counts = [None if count is None else _share(count, processes, i) for i in range(processes)]
    began = time.perf_counter()
    readers = [
        _fork(path, share, seconds, wanted) for share, wanted in zip(shares, counts, strict=True)
    ]
    parts = []
    for pid, pipe in readers:
        with os.fdopen(pipe, "rb") as file:
            parts.append(json.loads(file.read() or b"null"))
        os.waitpid(pid, 0)
    if None in parts:
        raise RuntimeError("a client failed; see above")
    took = max(part["seconds"] for part in parts) if seconds else time.perf_counter() - began
    answered = sorted(pair for part in parts for pair in part["answered"])
    return Sent(
        took,
        [msg_id for _, msg_id in answered],
        [latency for part in parts for latency in part["latencies"]],
        max(part["cpu"] / part["seconds"] for part in parts),
    )


def _share(total: int, parts: int, which: int) -> int:
    return total // parts + (which < total % parts)


def _fork(path: str, connections: int, seconds: float | None, count: int | None) -> tuple[int, int]:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    status = 1
    try:
        report = json.dumps(_work(path, connections, seconds, count)).encode()
        with os.fdopen(theirs, "wb") as file:
            file.write(report)
        status = 0
    except BaseException:  # noqa: BLE001 - told, and told again by the missing report
        traceback.print_exc()
    finally:
        os._exit(status)


def _work(path: str, connections: int, seconds: float | None, count: int | None) -> dict[str, Any]:
    request = frame()
    selector = selectors.DefaultSelector()
    asked: dict[socket.socket, float] = {}
    for _ in range(connections):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        selector.register(sock, selectors.EVENT_READ)
    left = count if count is not None else 1 << 60
    answered: list[tuple[float, str]] = []
    latencies: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()
    end = began + (seconds if seconds is not None else 3600)
    for key in list(selector.get_map().values()):
        if left:
            assert isinstance(key.fileobj, socket.socket)
            asked[key.fileobj] = time.perf_counter()
            key.fileobj.sendall(request)
            left -= 1
    while asked:
        for key, _ in selector.select():
            sock = key.fileobj  # type: ignore[assignment]  # only sockets were registered
            answer = sock.recv(4096)
            now = time.perf_counter()
            latencies.append(now - asked.pop(sock))
            if b'["ok"' not in answer:
                raise RuntimeError(f"not accepted: {answer!r}")
            answered.append((now, answer.rpartition(b"/")[2].rstrip(b'"]').decode()))
            if left and now < end:
                asked[sock] = now
                sock.sendall(request)
                left -= 1
    return {
        "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu,
        "answered": answered, "latencies": latencies,
    }  # fmt: skip
