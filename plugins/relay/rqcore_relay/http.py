"""HTTP as a transfer needs it: one connection, bodies of any size, flat memory, patience with an end.

    with Http(origin, options, peer_options) as http:
        answer = http.request("POST", "/q/test/new_message", headers, body)
        answer = http.request("POST", path, headers, Body(b"head", piece, b"tail", progress))

A connection is kept for the next request where the peer keeps it, and is opened anew where it does not.
A request is sent once, never again by itself: only the caller knows what sending it twice would do.

What goes wrong is a `TroubleError` in words: no such host, refused, no certificate to be believed,
silent for ``timeout`` seconds, cut off.  A peer that still takes in what was sent is not silent, however
long that takes.  When a peer refuses in the midst of a body, what it said is the answer.

``answered`` says whether the peer has ever answered.  The standard library's client is used because a
process for each message cannot wait for a larger one to be loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import select
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from rqcore.errors import RefusedError
from rqcore_relay.options import Options, PeerOptions
from rqcore_relay.verdict import CutError, GivenUpError, TroubleError

_BLOCK = 1 << 20
#: Through TLS blocks pass memory; so much fits into a socket that can be written to.
_TLS_BLOCK = 1 << 16
_MAX_ANSWER = 16 << 20
#: What OpenSSL calls bytes that are no TLS, over its versions; and how a line begins that is an alert.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}
_TLS_ALERT = "\x15\x03"
_TIOCOUTQ = getattr(termios, "TIOCOUTQ", None)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a peer is: ``url`` is its base URL, ``root`` the path in it."""

    url: str
    scheme: str
    host: str
    port: int
    root: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Of a base URL as `rqcore_relay.peers.peer_name` gives it."""
        parts = urlsplit(url)
        return cls(url, parts.scheme, parts.hostname or "", parts.port or 0, parts.path)

    @property
    def place(self) -> tuple[str, int, str]:
        """What makes it this one: full ids say ``http`` also where TLS is spoken."""
        return self.host, self.port, self.root

    @property
    def is_loopback(self) -> bool:
        """Does this name lead every machine to itself?"""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an open file."""

    fd: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Body:
    """A body made of a part of a file, and what stands around it.

    ``sent`` is told of each block of the file that has been handed to the system; it may raise.
    """

    piece: Piece
    sent: Callable[[int], None]
    head: bytes = b""
    tail: bytes = b""

    @property
    def size(self) -> int:
        """All its bytes."""
        return len(self.head) + self.piece.size + len(self.tail)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        import json  # noqa: PLC0415 - loaded by others already

        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def retry_after(self) -> float | None:
        """How many seconds the peer wants to be left alone."""
        text = self.headers.get("retry-after", "").strip()
        if not text:
            return None
        if text.isdecimal():
            return float(text[:9])
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - seldom needed
        from time import time  # noqa: PLC0415

        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time())
        except (ValueError, OverflowError):
            return None

    @property
    def problem(self) -> str:
        """The kind of a problem as rqcore tells it (RFC 9457), such as ``conflict``; empty for none."""
        if not self.headers.get("content-type", "").startswith("application/problem+json"):
            return ""
        said = self.json()
        kind = str(said.get("type", "")) if isinstance(said, dict) else ""
        return kind.rpartition("#")[2].rpartition(":")[2] or "about:blank"

    def words(self) -> str:
        """Why it is not what was hoped for: the peer's reason, else what HTTP calls it."""
        said = self.json()
        reason = ""
        if isinstance(said, list) and said[:1] == ["fail"]:
            reason = " ".join(str(part) for part in said[1:])
        elif isinstance(said, dict):
            reason = str(said.get("detail") or said.get("title") or "")
        known = http.client.responses.get(self.status, "")
        return reason or f"HTTP {self.status} {known}".strip()

    def trouble(self, peer: str) -> TroubleError:
        """The same as an error."""
        return TroubleError(f"{peer} answers: {self.words()}", self.retry_after)


class Http:
    """A connection to one peer; for one thread."""

    def __init__(self, origin: Origin, options: Options, peer: PeerOptions) -> None:
        self.origin = origin
        self.answered = False
        self._options = options
        self._peer = peer
        self._connection: http.client.HTTPConnection | None = None
        self._authorization: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def open(self) -> None:
        """Be connected."""
        self._connected()

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None,
        body: bytes | Body = b"", patience: float = 0.0,
    ) -> Answer:  # fmt: skip
        """Ask; ``path`` is the whole path.  ``patience`` is added to how long an answer may take."""
        connection = self._connected()
        size = len(body) if isinstance(body, bytes) else body.size
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            connection.putheader("User-Agent", "rqcore-relay")
            if self._authorization:
                connection.putheader("Authorization", self._authorization)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if size or method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
                connection.putheader("Content-Length", str(size))
            early = self._send(connection, body)
            answer = self._answer(connection, patience)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise CutError(self._words(error)) from error
        except BaseException:  # what is half sent is no connection for another request
            self.close()
            raise
        if early:  # the rest of the body is still owed
            self.close()
        return answer

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is not None and self._connection.sock is not None:
            # Readable between two requests: the peer has closed it, or speaks out of turn.
            if not select.select([self._connection.sock], [], [], 0)[0]:
                return self._connection
            self.close()
        origin, patience = self.origin, self._options.connect_timeout
        try:
            if self._authorization is None:
                self._authorization = self._peer.authorization()
            if origin.scheme == "https":
                made: http.client.HTTPConnection = http.client.HTTPSConnection(
                    origin.host, origin.port, timeout=patience, context=self._context()
                )
            else:
                made = http.client.HTTPConnection(origin.host, origin.port, timeout=patience)
            made.connect()
        except RefusedError as error:
            raise TroubleError(str(error)) from error
        except UnicodeError as error:
            raise GivenUpError(f"no host can be called {origin.host}; correct dest") from error
        except OSError as error:
            raise CutError(self._words(error, connecting=True)) from error
        made.sock.settimeout(self._options.timeout)
        self._connection = made
        return made

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._peer.ca or None)
        except OSError as error:
            raise RefusedError(
                f"the certificates in {self._peer.ca} cannot be read: {error.strerror}; correct ca"
            ) from error
        if not self._peer.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _send(self, connection: http.client.HTTPConnection, body: bytes | Body) -> bool:
        """Send head and body; has the peer answered, or broken off, before the end?"""
        if isinstance(body, bytes):
            connection.endheaders(body or None)
            return False
        connection.endheaders(body.head or None)
        try:
            if _send_piece(connection.sock, body, self._options.timeout):
                return True
            if body.tail:
                connection.send(body.tail)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    def _answer(self, connection: http.client.HTTPConnection, patience: float) -> Answer:
        """The answer, awaited for as long as the peer still takes in what was sent, and then some."""
        sock = connection.sock
        limit = self._options.timeout + patience
        _until_ready(sock, limit, writing=False)
        if patience:
            sock.settimeout(limit)
        response = connection.getresponse()
        body = response.read(_MAX_ANSWER)
        self.answered = True
        if response.will_close or not response.isclosed():
            self.close()
        elif patience:
            sock.settimeout(self._options.timeout)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, body)

    def _words(self, error: Exception, *, connecting: bool = False) -> str:
        peer = self.origin.url
        mixed_up = self._mixed_up(error, connecting=connecting)
        match error:
            case _ if mixed_up:
                return mixed_up
            case socket.gaierror():
                return f"{self.origin.host} cannot be found: {error.strerror}"
            case ssl.SSLCertVerificationError():
                return (
                    f"{peer} cannot be believed: {error.verify_message}; "
                    "see ca and verify in the options of relay"
                )
            case TimeoutError() if connecting:
                return f"{peer} takes no connection within {self._options.connect_timeout:g} s"
            case TimeoutError():
                return f"{peer} is silent for {self._options.timeout:g} s"
            case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
                return f"{peer} cut the connection off"
            case OSError():
                return f"{peer} cannot be reached: {error.strerror or error}"
            case _:
                return f"{peer} does not speak HTTP: {type(error).__name__} {error}".strip()

    def _mixed_up(self, error: Exception, *, connecting: bool) -> str:
        """Words for http where https is spoken, or the reverse; empty when it does not look so."""
        peer = self.origin.url
        if self.origin.scheme == "https":
            if connecting and isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
                other = f"http{peer.removeprefix('https')}"
                return f"{peer} does not speak TLS; does it speak http there? write {other}…"
            return ""
        other = f"https{peer.removeprefix('http')}"
        if isinstance(error, http.client.BadStatusLine) and _TLS_ALERT in str(error):
            return f"{peer} speaks https there; write {other}…"
        if not self.answered and isinstance(error, http.client.RemoteDisconnected):
            return (
                f"{peer} cut the connection off before it said a word (if it speaks https there, "
                f"write {other}…)"
            )
        return ""


def _send_piece(sock: socket.socket, body: Body, limit: float) -> bool:
    """Send the part of the file; has the peer answered before its end?"""
    fd, offset, end = body.piece.fd, body.piece.offset, body.piece.offset + body.piece.size
    plain = not isinstance(sock, ssl.SSLSocket)
    while offset < end:
        if plain and select.select([sock], [], [], 0)[0]:
            return True
        _until_ready(sock, limit, writing=True)
        if plain:
            try:
                count = os.sendfile(sock.fileno(), fd, offset, min(_BLOCK, end - offset))
            except BlockingIOError:  # there was room, and it was taken back
                continue
        else:
            block = os.pread(fd, min(_TLS_BLOCK, end - offset), offset)
            sock.sendall(block)
            count = len(block)
        if count == 0:
            raise TroubleError("an attachment became shorter while it was sent")
        body.sent(count)
        offset += count
    return False


def _until_ready(sock: socket.socket, limit: float, *, writing: bool) -> None:
    """Wait until it can be written to, or read; as long as the peer takes in what was sent before.

    Raises `TimeoutError` when it is silent for ``limit`` seconds.
    """
    wanted = ([], [sock]) if writing else ([sock], [])
    unsent = _unsent(sock)
    while not any(select.select(*wanted, [], limit)):
        before, unsent = unsent, _unsent(sock)
        if unsent >= before:
            raise TimeoutError


def _unsent(sock: socket.socket) -> int:
    """Bytes that were handed to the system and that the peer has not acknowledged."""
    if _TIOCOUTQ is None or sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(sock, _TIOCOUTQ, b"\0\0\0\0"))[0])
    return 0
