"""Sockets of the wire protocol on the event loop: accepting, framing, answering in order.

`Connection` is one socket of either end.  It hands over whole payloads, keeps what the other end
does not yet take, and survives nothing: whatever is wrong with the bytes or the socket ends this
connection, with the reason in the log, and nothing else.

`Server` listens, reads requests, and gives them to a handler one after another per connection: the
next one is handed over when the one before was answered (`Request.reply`), so answers come in the
order of the questions even when some wait for the disk.  Whoever has said that nothing more comes,
or has sent what is no frame, still gets the answers to what he asked before, then in the latter case
the reason, then the end.

Whoever asks faster than he reads is not listened to for a while: no request of his is begun while
much lies unsent, and no more is read while much lies unasked.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from rqcore import wire
from rqcore.address import reachable
from rqcore.durable import remove_quietly, rename_unsynced
from rqcore.errors import RefusedError, WireError
from rqcore.loop import Loop

_log = logging.getLogger(__name__)
_RECEIVE = 1 << 16
#: A follower that is so many bytes behind is cut off: it can come back and look.
_MAX_BACKLOG = 4 << 20
#: Bytes of answers that wait to be sent, and of requests that wait to be asked: more can wait.
_MAX_UNSENT = 1 << 16
_MAX_UNASKED = 1 << 16
#: What a waiting request costs beside its bytes: of empty ones, too, no number is free.
_REQUEST = 64
_ACCEPT_PAUSE = 0.25


class Connection:
    """One end of a connection; its callbacks are called in the loop.

    ``on_end`` is called when no more payloads will come, with what was wrong with the bytes, "" when
    nothing was; without it the connection is then closed.  ``on_sent`` is called when everything that
    had to wait is sent.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket,
        on_payload: Callable[[bytes], None], on_close: Callable[[], None],
        on_end: Callable[[str], None] | None = None, on_sent: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        sock.setblocking(False)
        self.closed = False
        self._reading = True
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._decoder = wire.Decoder()
        self._on_payload = on_payload
        self._on_close = on_close
        self._on_end = on_end
        self._on_sent = on_sent
        self._out: deque[memoryview] = deque()
        self._backlog = 0
        self._held = False
        self._closing = False
        loop.reader(self._fd, self._on_readable)

    def send(self, value: Any) -> None:
        """Send a JSON value; what cannot be sent now is sent when the other end takes it."""
        self.send_bytes(json.dumps(value).encode("ascii"))

    def send_bytes(self, payload: bytes) -> None:
        """Send a payload as it is."""
        if self.closed or self._closing:
            return
        data = memoryview(wire.encode(payload))
        if not self._out:
            try:
                data = data[self._sock.send(data) :]
            except (BlockingIOError, InterruptedError):
                pass  # the other end has as much as it holds; the rest waits
            except OSError:
                self.close()
                return
        if data:
            self._out.append(data)
            self._backlog += len(data)
            self._loop.writer(self._fd, self._on_writable)

    def hold(self, payload: bytes) -> None:
        """Send a payload with the next `flush`, so that several go in one piece."""
        if not self.closed and not self._closing:
            data = memoryview(wire.encode(payload))
            self._out.append(data)
            self._backlog += len(data)
            self._held = True

    def flush(self) -> None:
        """Send what is held."""
        if not self._held or self.closed:
            return
        self._held = False
        self._out = deque([memoryview(b"".join(self._out))])
        self._on_writable()
        if self._out:
            self._loop.writer(self._fd, self._on_writable)

    @property
    def lagging(self) -> bool:
        """Is the other end too far behind to be sent more?"""
        return self._backlog > _MAX_BACKLOG

    @property
    def clogged(self) -> bool:
        """Does the other end not take what it is sent?"""
        return self._backlog > _MAX_UNSENT

    def listen(self, *, on: bool) -> None:
        """Go on reading, or leave for a while what comes where it is."""
        if on is self._reading or self.closed or self._closing:
            return
        self._reading = on
        if on:
            self._loop.reader(self._fd, self._on_readable)
        else:
            self._loop.forget_reader(self._fd)

    def close_when_sent(self) -> None:
        """Close as soon as everything is sent; read no more."""
        if self.closed:  # its number may be another's by now
            return
        self.flush()
        self._closing = True
        if self._out:
            self._loop.forget_reader(self._fd)
        else:
            self.close()

    def close(self) -> None:
        """Close now."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget_reader(self._fd)
        self._loop.forget_writer(self._fd)
        self._sock.close()
        self._out.clear()
        self._on_close()

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        payloads: list[bytes] = []
        with contextlib.suppress(WireError):  # told below: it is kept
            if data:
                payloads = self._decoder.feed(data)
            else:
                self._decoder.close()
        for payload in payloads:
            if self.closed or self._closing:
                return
            self._on_payload(payload)
        fault = self._decoder.fault
        if fault is not None:
            _log.warning("a connection is ended: %s", fault)
        if (fault is not None or not data) and not self.closed:
            self._ended("" if fault is None else str(fault))

    def _ended(self, problem: str) -> None:
        self._loop.forget_reader(self._fd)
        if self._on_end is None:
            self.close()
        else:
            self._on_end(problem)

    def _on_writable(self) -> None:
        while self._out:
            try:
                sent = self._sock.send(self._out[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            self._backlog -= sent
            if sent == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][sent:]
        self._loop.forget_writer(self._fd)
        if self._closing:
            self.close()
        elif self._on_sent is not None:
            self._on_sent()


class Request:
    """A question on a connection: ``command``, and ``args`` (the JSON value or text after it)."""

    def __init__(self, asker: _Asker, command: str, args: Any) -> None:
        self.command = command
        self.args = args
        self._asker: _Asker | None = asker

    @property
    def connection(self) -> Connection:
        """Where the question came from."""
        assert self._asker is not None
        return self._asker.connection

    def reply(self, value: Any) -> None:
        """Answer, once."""
        asker, self._asker = self._asker, None
        assert asker is not None, f"{self.command} was answered twice"
        asker.answered(value)

    def fields(self) -> dict[str, Any]:
        """The arguments as an object; raises `RefusedError` when they are none."""
        if self.args in ("", None):
            return {}
        if not isinstance(self.args, dict):
            raise RefusedError(f"{self.command} wants a JSON object after its name")
        return self.args


class _Asker:
    """The requests of one connection, one at a time."""

    def __init__(self, loop: Loop, sock: socket.socket, server: Server) -> None:
        self._server = server
        self._waiting: deque[bytes] = deque()
        self._unasked = 0
        self._busy = False
        self._looping = False
        #: Why no more requests come: "" when that was said in good order, None while some may.
        self._end: str | None = None
        self.connection = Connection(
            loop, sock, self._on_payload, self._on_close, self._on_end, self._next
        )

    def _on_payload(self, payload: bytes) -> None:
        self._waiting.append(payload)
        self._unasked += len(payload) + _REQUEST
        self._next()

    def _on_end(self, problem: str) -> None:
        self._end = problem
        self._next()

    def _on_close(self) -> None:
        self._waiting.clear()
        self._server.forget(self)

    def _next(self) -> None:
        if self._looping:  # an answer given at once comes back here
            return
        self._looping = True
        try:
            while self._waiting and not self._busy and not self.connection.clogged:
                self._busy = True
                payload = self._waiting.popleft()
                self._unasked -= len(payload) + _REQUEST
                self._ask(payload)
        finally:
            self._looping = False
        if self._end is None:
            self.connection.listen(on=self._unasked <= _MAX_UNASKED)
        elif not self._busy and not self._waiting:
            if self._end:
                self.connection.send(["fail", self._end])
            self.connection.close_when_sent()

    def _ask(self, payload: bytes) -> None:
        command, rest = wire.split_request(payload)
        try:
            request = Request(self, command, wire.parse_args(rest))
        except RefusedError as error:
            self.answered(["fail", str(error)])
        else:
            self._server.handler(request)

    def answered(self, value: Any) -> None:
        self._busy = False
        self.connection.send(value)
        self._next()


class Server:
    """Listens at a path until `close`; ``handler`` is called with each `Request`."""

    def __init__(self, loop: Loop, path: str, handler: Callable[[Request], None]) -> None:
        self.handler = handler
        self._loop = loop
        self._path = path
        self._askers: set[_Asker] = set()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Under its final name only once it listens: whoever finds it there can connect.
        folder, name = os.path.split(path)
        unready = os.path.join(folder, f".{name}")
        remove_quietly(unready)
        before = os.umask(0o177)  # owner only, from the first moment
        try:
            with reachable(unready) as short:
                self._sock.bind(short)
        finally:
            os.umask(before)
        self._sock.listen(128)
        rename_unsynced(unready, path)
        self._sock.setblocking(False)
        loop.reader(self._sock.fileno(), self._on_connect)

    def _on_connect(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    raise
                _log.error("no connection can be accepted for a moment: %s", error)
                self._loop.forget_reader(self._sock.fileno())
                self._loop.after(_ACCEPT_PAUSE, self._accept_again)
                return
            self._askers.add(_Asker(self._loop, sock, self))

    def _accept_again(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.reader(self._sock.fileno(), self._on_connect)

    def forget(self, asker: _Asker) -> None:
        """The connection is closed."""
        self._askers.discard(asker)

    def close(self) -> None:
        """Listen no more and close all connections."""
        self._loop.forget_reader(self._sock.fileno())
        self._sock.close()
        remove_quietly(self._path)
        for asker in list(self._askers):
            asker.connection.close_when_sent()
