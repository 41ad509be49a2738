"""HTTP/1 as this site speaks it: uvicorn's protocol, with a limit to everything a client sends.

* The request line is at most `_LINE` bytes (414), all headers together `_HEADERS` bytes and `_COUNT`
  in number (431).  Trailers behind a chunked body are read and dropped: they are no headers.
* A request whose headers are not complete ``patience`` seconds after it began is ended, however
  slowly they come (408).  A client that takes nothing of its answer for so long is cut off.
* What is ambiguous is refused, with 400, and the connection closed: two lengths, a length beside a
  transfer coding, and the like (the parser is strict).
* A request that ends before its body was read is answered, the rest of the body is read and dropped
  for a moment, so that the answer arrives, and the connection closed.
* A wish for another protocol (``Upgrade``) is ignored, as HTTP allows; the body is read as usual.

Connections take their place in a `Room`.  uvicorn hands each piece of an answer on only when the
client has taken the one before, so a slow reader holds no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast

import httptools
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from rqcore_web.security.answers import HEADERS
from rqcore_web.security.connections import Room

_log = logging.getLogger(__name__)
_LINE = 8 << 10
_HEADERS = 32 << 10
_COUNT = 100
#: How long the rest of a body that nobody wants is read, and how long a silence ends that.
_LINGER, _LINGER_SILENCE = 10.0, 2.0
_LINGER_BYTES = 4 << 20
_RETRY_AFTER = 5
_BUSY_PATIENCE = 5.0
_TOO_LONG = f"the headers are more than {_COUNT}, or longer than {_HEADERS} bytes"


class _RefusedError(Exception):
    """Raised through the parser: this request is not read on."""


class Http(HttpToolsProtocol):
    """See the head of this module; ``patience`` is seconds."""

    def __init__(
        self, room: Room, patience: float, *, config: Config, server_state: ServerState,
        app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = int(patience)
        self._served = self.app
        self.app = cast("Any", self._serve)
        self._room = room
        self._patience = patience
        #: Is a request being read whose headers are not complete, or whose body is not?
        self._in_headers = False
        self._in_body = False
        #: Bytes of its headers so far.
        self._size = self._raw = 0
        #: The parser reads what no client sent (`_ignore_upgrade`).
        self._muted = False
        #: Nothing that still comes is looked at.
        self._deaf = False
        self._refusal = (400, "this is no request of HTTP/1, or one that can be read in two ways")
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, and wait for a request."""
        super().connection_made(transport)
        patience = self._patience
        if not self._room.enter(self):
            self._served = cast("Any", _busy)
            patience = min(patience, _BUSY_PATIENCE)
        self._await_headers(patience)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._room.leave(self)
        self._stop_deadline()
        self._stop_stalled()
        super().connection_lost(exc)

    def give_way(self) -> None:
        """Close: it is idle, and somebody else needs the place."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """The client is slow to take its answer: for so long, and no longer."""
        super().pause_writing()
        self._stop_stalled()
        self._stalled = self.loop.call_later(self._patience, self._cut_off)

    def resume_writing(self) -> None:
        """It has taken some."""
        super().resume_writing()
        self._stop_stalled()

    def _cut_off(self) -> None:
        # With a reset: else the system would go on offering what is in its buffers.
        sock: socket.socket = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # Reading

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._deaf:
            self._raw += len(data)
            if self._raw > _LINGER_BYTES:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        before = self._in_headers
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
            return
        if before and self._in_headers:
            self._raw += len(data)
            if self._raw > _LINE + _HEADERS:
                self._refuse(431, _TOO_LONG)
                return
        if not (self._in_body or self._deadline or self._is_answering()):
            self._await_headers(self._patience)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._ignore_upgrade()
                data = data[upgrade.args[0] :]
            else:
                return

    def _ignore_upgrade(self) -> None:
        """Read on from behind the headers, with a parser that was not asked for an upgrade."""
        framing = [
            name + b": " + value
            for name, value in self.headers
            if name in (b"content-length", b"transfer-encoding")
        ]
        self.parser = httptools.HttpRequestParser(self)
        self._muted = True
        self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]))

    def on_message_begin(self) -> None:
        """A request begins."""
        if not self._muted:
            super().on_message_begin()
            self._in_headers = True
            self._size = self._raw = 0

    def on_url(self, url: bytes) -> None:
        """Part of the request line."""
        if not self._muted:
            super().on_url(url)
            if len(self.url) > _LINE:
                self._read_no_further(414, f"the request line is longer than {_LINE} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what is called so behind the body is none."""
        if not self._muted and self._in_headers:
            super().on_header(name, value)
            self._size += len(name) + len(value)
            if len(self.headers) > _COUNT or self._size > _HEADERS:
                self._read_no_further(431, _TOO_LONG)

    def on_headers_complete(self) -> None:
        """The request is known; its body may be to come."""
        if self._muted:
            self._muted = False
            return
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._read_no_further(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
        self._in_headers = False
        self._in_body = True
        self._stop_deadline()
        self._room.works(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete; not when the parser, asked for an upgrade, believes there is none."""
        if not self.parser.should_upgrade():
            self._in_body = False
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request was answered; the next one's headers may have begun long ago."""
        super().on_response_complete()
        if not self._is_answering():
            self._room.rests(self)
            if self._in_headers:
                self._unset_keepalive_if_required()
                self._await_headers(self._patience)

    def _is_answering(self) -> bool:
        latest: RequestResponseCycle | None = self.cycle
        return latest is not None and not latest.response_complete

    # Refusing

    def _await_headers(self, patience: float) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(patience, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self._in_headers:
            self._refuse(408, f"the headers were not complete after {self._patience:g} seconds")
        else:
            self.transport.close()

    def _read_no_further(self, status: int, words: str) -> None:
        self._refusal = (status, words)
        raise _RefusedError

    def _refuse(self, status: int, words: str) -> None:
        """Answer what cannot be read on, in its turn; and close."""
        self._deaf = True
        self._stop_deadline()
        if self._is_answering() and not self._in_body:
            self.cycle.keep_alive = False  # what came before it was good, and is answered first
            return
        if self._is_answering():
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        _log.debug("refused with %d: %s", status, words)
        body = f"{words}\n".encode()
        headers = [
            *self.server_state.default_headers, *HEADERS.items(),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"connection", b"close"),
        ]  # fmt: skip
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode("ascii")
        lines = [head, *(name + b": " + value for name, value in headers), b"", body]
        self.transport.write(b"\r\n".join(lines))
        # The client may still be sending: closed at once, it would not read this.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(_LINGER_SILENCE, self.transport.close)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def _stop_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._stalled = None

    # Answering

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered; a body that nobody read is not taken for the next request."""
        # A client that waits for leave to send its body, and got an answer instead, may not send it.
        unasked = self.scope is scope and self.expect_100_continue
        closing = False

        async def take() -> Message:
            nonlocal unasked
            unasked = False
            return self._body_first(scope, await receive())

        async def give(message: Message) -> None:
            nonlocal closing
            if self.transport.is_closing():
                raise ClientDisconnect  # else it would be made to its end, for nobody
            if message["type"] == "http.response.start":
                closing = self._is_unread(scope)
                if closing:
                    message = {**message, "headers": _closing(message.get("headers", []))}
            elif closing and not unasked and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _drain(receive)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            await self._served(scope, take, give)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the service ends; what could be answered has been
            self.transport.abort()
        if self.transport.is_closing():
            self.cycle.disconnected = True  # that it was not answered to its end is nobody's fault

    def _body_first(self, scope: Scope, message: Message) -> Message:
        """What came before the end of a connection is read first; asked again, the end is told."""
        if message["type"] != "http.disconnect" or self.scope is not scope or not self.cycle.body:
            return message
        rest, self.cycle.body = bytes(self.cycle.body), bytearray()
        return {"type": "http.request", "body": rest, "more_body": True}

    def _is_unread(self, scope: Scope) -> bool:
        return self.scope is scope and self._in_body


def _closing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    others = [header for header in headers if header[0].lower() != b"connection"]
    return [*others, (b"connection", b"close")]


async def _drain(receive: Receive) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            more = True
            while more:
                async with asyncio.timeout(_LINGER_SILENCE):
                    more = (await receive()).get("more_body", False)


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Retry-After": str(_RETRY_AFTER), "Connection": "close"}
    answer = PlainTextResponse("every place is taken; come back in a moment\n", 503, headers)
    answer.raw_headers = [*answer.raw_headers, *HEADERS.items()]
    await answer(scope, receive, send)
