"""Many clients at once, cheap enough not to be what is measured.

Connections in processes of their own, each with one request under way at a time, as a client that waits
for its answer has.  The request is framed once; an answer is only looked at for its end, its ``ok`` and
its id.  They speak to a queue's socket or, given an `Http`, to the web service.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any

from rqcore import wire

#: By either interface: ``["ok", FULL_ID]``, or an object with the field ``full_id``.
_ANSWER = re.compile(rb'(?:\["ok", *|"full_id": *)"[^"]*/([\d.]+)"')
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


@dataclass(frozen=True, slots=True)
class Http:
    """A URL to create messages by: the port on the loopback address, and the path."""

    port: int
    path: str

    @property
    def request(self) -> bytes:
        """The whole request."""
        body = json.dumps(_MESSAGE).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def send(
    path: str | Http, connections: int, processes: int = 1,
    *, seconds: float | None = None, count: int | None = None,
) -> Sent:  # fmt: skip
    """Send messages to this socket or URL, for so long or so many; returns when all are answered."""
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


def _connect(path: str | Http) -> socket.socket:
    if isinstance(path, Http):
        sock = socket.create_connection(("127.0.0.1", path.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock


def _whole(answer: bytes, path: str | Http) -> bool:
    """Is this all of the answer?  One of the wire protocol comes in one piece."""
    if not isinstance(path, Http):
        return True
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def _id_of(answer: bytes) -> str:
    found = _ANSWER.search(answer)
    if found is None:
        raise RuntimeError(f"not accepted: {answer!r}")
    return found[1].decode()


def _fork(
    path: str | Http, connections: int, seconds: float | None, count: int | None
) -> tuple[int, int]:
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


def _work(
    path: str | Http, connections: int, seconds: float | None, count: int | None
) -> dict[str, Any]:
    request = path.request if isinstance(path, Http) else frame()
    selector = selectors.DefaultSelector()
    asked: dict[socket.socket, float] = {}
    pieces: dict[socket.socket, bytes] = {}
    for _ in range(connections):
        selector.register(_connect(path), selectors.EVENT_READ)
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
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            piece = sock.recv(4096)
            answer = pieces.pop(sock, b"") + piece
            if piece and not _whole(answer, path):
                pieces[sock] = answer
                continue
            now = time.perf_counter()
            latencies.append(now - asked.pop(sock))
            answered.append((now, _id_of(answer)))
            if left and now < end:
                asked[sock] = now
                sock.sendall(request)
                left -= 1
    return {
        "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu,
        "answered": answered, "latencies": latencies,
    }  # fmt: skip
