"""A proxy that knows how far each HTTP exchange has come, and does something at a chosen point of it.

It stands where the world expects the server (`Proxy`), passes every byte on to the server behind it, and
reads along.  An exchange has five points:

``arriving``   the request's head is here, and nothing of it has been passed on
``midway``     half of the request's body has been passed on (only where it has one)
``arrived``    all of the request has been passed on
``answering``  the head of the answer is here, and nothing of it has been passed back
``answered``   all of the answer has been passed back (a reset may still overtake the end of it)

A `Trap` names a kind of request (`kind_of`) and a point; the first exchange that comes there runs into
it: the trap's action is called in the thread that carries these bytes, and the exchange waits for it.
It may call `Exchange.reset`, so that both ends see a broken connection, or `Exchange.silence`, so that
nothing passes any more and neither end is told.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

POINTS = ("arriving", "midway", "arrived", "answering", "answered")
_CHUNK = 64 * 1024
_KINDS = (
    ("discover", "OPTIONS", r"/api/v1/uploads"),
    ("prepare", "POST", r"/api/v1/queues/[^/]+/messages"),
    ("commit", "POST", r"/api/v1/.*/commit"),
    ("put", "PUT", r"/api/v1/.*/attachments/.*"),
    ("upload", "POST", r"/api/v1/.*/attachments/.*"),
    ("look", "GET", r"/api/v1/.*"),
    ("patch", "PATCH", r"/api/v1/uploads/.*"),
    ("offset", "HEAD", r"/api/v1/uploads/.*"),
    ("plain prepare", "POST", r"/q/[^/]+/new_message"),
    ("plain attach", "POST", r"/q/[^/]+/[^/]+/attach/new"),
    ("plain commit", "POST", r"/q/[^/]+/[^/]+"),
    ("plain look", "GET", r"/q/.*"),
)


def kind_of(method: str, path: str) -> str:
    """What a request is for; "other" for what a relay never asks."""
    for kind, known, pattern in _KINDS:
        if method == known and re.fullmatch(pattern, path):
            return kind
    return "other"


@dataclass
class Exchange:
    """A request and its answer, on their way."""

    kind: str
    method: str
    path: str
    connection: _Connection
    status: int = 0

    def reset(self) -> None:
        """Break the connection: both ends get a reset."""
        self.connection.reset()

    def silence(self) -> None:
        """Pass nothing any more; what comes is taken and lost, and nobody is told."""
        self.connection.silent = True


@dataclass
class Trap:
    """Waits for an exchange of this kind to come to this point; then ``act`` is called, once."""

    kind: str
    point: str
    act: Callable[[Exchange], object]
    #: So many exchanges may pass the point before.
    skip: int = 0
    #: Set when an exchange has run into it, before the action is called.
    begun: threading.Event = field(default_factory=threading.Event)
    #: Set when the action has ended.
    sprung: threading.Event = field(default_factory=threading.Event)
    #: What the action raised, if it did.
    failed: BaseException | None = None


class Proxy:
    """Listens on ``listener`` and passes everything on to what ``connect`` connects to."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._listener, self._connect = listener, connect
        self._lock = threading.Lock()
        self._traps: list[Trap] = []
        self._connections: set[_Connection] = set()
        #: Each point that an exchange has come to: (kind, point), how often.
        self.seen: dict[tuple[str, str], int] = {}
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trap(self, kind: str, point: str, act: Callable[[Exchange], object], skip: int = 0) -> Trap:
        """Set a trap."""
        made = Trap(kind, point, act, skip)
        with self._lock:
            self._traps.append(made)
        return made

    def clear(self) -> None:
        """Take away all traps, and break what has fallen silent."""
        with self._lock:
            self._traps.clear()
            silent = [known for known in self._connections if known.silent]
        for connection in silent:
            connection.reset()

    def close(self) -> None:
        """Let go of everything; connections are broken."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        with self._lock:
            left = list(self._connections)
        for connection in left:
            connection.reset()
            connection.join()

    def reach(self, point: str, exchange: Exchange) -> None:
        """Called by a connection when an exchange has come to this point."""
        with self._lock:
            key = exchange.kind, point
            self.seen[key] = self.seen.get(key, 0) + 1
            fits = [t for t in self._traps if (t.kind, t.point) == key]
            trap = next((t for t in fits if t.skip == 0), None)
            for other in fits:
                other.skip -= 1
            if trap is None:
                return
            self._traps.remove(trap)
            trap.begun.set()
        try:
            trap.act(exchange)
        except BaseException as error:  # noqa: BLE001 - raised where the trap was set
            trap.failed = error
        finally:
            trap.sprung.set()

    def forget(self, connection: _Connection) -> None:
        """Called by a connection that has ended."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:  # as if nobody listened here either
                _break(client)
                continue
            connection = _Connection(self, client, server)
            with self._lock:
                self._connections.add(connection)
            connection.start()


class _Connection:
    """One connection of a client and the one to the server; a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._waiting: list[Exchange] = []
        self._changed = threading.Condition()
        self.silent = False
        self._ended = False
        self._threads = [
            threading.Thread(target=self._run, args=(part,), daemon=True)
            for part in (self._requests, self._answers)
        ]
        self._left = len(self._threads)

    def start(self) -> None:
        self._client.settimeout(None)
        self._server.settimeout(None)
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def reset(self) -> None:
        """Break both ends; the threads then end by themselves."""
        for sock in (self._client, self._server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RD)
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _run(self, part: Callable[[], None]) -> None:
        try:
            part()
        except (OSError, EOFError):  # one of the ends is gone: so is the other, then
            pass
        finally:
            self._finish()

    def _finish(self) -> None:
        self._end()
        # The other direction is woken; the sockets are closed when neither uses them.
        for sock in (self._client, self._server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
        with self._changed:
            self._left -= 1
            last = self._left == 0
        if last:
            self._client.close()
            self._server.close()
            self._proxy.forget(self)

    def _requests(self) -> None:
        stream = _Stream(self._client)
        while head := stream.head():
            first, headers = _parse(head)
            method, target = first.split(" ")[:2]
            path = target.partition("?")[0]
            exchange = Exchange(kind_of(method, path), method, path, self)
            self._reach("arriving", exchange)
            with self._changed:
                self._waiting.append(exchange)
                self._changed.notify_all()
            self._pass(self._server, head)
            length = int(headers.get("content-length", 0))
            if "chunked" in headers.get("transfer-encoding", ""):
                for data in stream.chunks():
                    self._pass(self._server, data)
            elif length:
                half = length // 2
                for data in stream.exactly(half):
                    self._pass(self._server, data)
                self._reach("midway", exchange)
                for data in stream.exactly(length - half):
                    self._pass(self._server, data)
            self._reach("arrived", exchange)

    def _answers(self) -> None:
        stream = _Stream(self._server)
        while head := stream.head():
            first, headers = _parse(head)
            status = int(first.split(" ")[1])
            if status < 200:  # on the way to an answer
                self._pass(self._client, head)
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                exchange = self._waiting.pop(0)
            exchange.status = status
            self._reach("answering", exchange)
            self._pass(self._client, head)
            for data in _body_of(stream, exchange, headers):
                self._pass(self._client, data)
            self._reach("answered", exchange)
            if headers.get("connection", "").lower() == "close":
                self._client.shutdown(socket.SHUT_WR)

    def _reach(self, point: str, exchange: Exchange) -> None:
        if not self.silent:
            self._proxy.reach(point, exchange)
        if self._ended:
            raise EOFError

    def _pass(self, sock: socket.socket, data: bytes) -> None:
        if self._ended:
            raise EOFError
        if not self.silent:
            sock.sendall(data)


class _Stream:
    """The bytes of one direction, taken apart."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._rest = sock, b""

    def head(self) -> bytes:
        """The next head, its empty line included; empty at the end."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return b""
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def exactly(self, size: int) -> Iterator[bytes]:
        """The next so many bytes.  Raises `EOFError` when they do not come."""
        while size:
            if not self._rest and not self._more():
                raise EOFError
            data, self._rest = self._rest[:size], self._rest[size:]
            size -= len(data)
            yield data

    def chunks(self) -> Iterator[bytes]:
        """A body in chunks, the last one and its empty line included."""
        while True:
            while b"\r\n" not in self._rest:
                if not self._more():
                    raise EOFError
            line, _, self._rest = self._rest.partition(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            yield line + b"\r\n"
            yield from self.exactly(size + 2)
            if size == 0:
                return

    def to_the_end(self) -> Iterator[bytes]:
        """All that comes."""
        while self._rest or self._more():
            data, self._rest = self._rest, b""
            yield data

    def _more(self) -> bool:
        data = self._sock.recv(_CHUNK)
        self._rest += data
        return bool(data)


def _parse(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _body_of(stream: _Stream, exchange: Exchange, headers: dict[str, str]) -> Iterator[bytes]:
    if exchange.method == "HEAD" or exchange.status in (204, 304):
        return iter(())
    if "chunked" in headers.get("transfer-encoding", ""):
        return stream.chunks()
    if "content-length" in headers:
        return stream.exactly(int(headers["content-length"]))
    return stream.to_the_end()


def _break(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
