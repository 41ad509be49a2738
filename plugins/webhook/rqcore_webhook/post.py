"""One POST, as webhooks need it: to an address that was looked at, within a time, no redirect followed.

The name is resolved once.  Each of its addresses that the networks of the config allow is tried in
turn, and the connection goes to that very address, so that a name that resolves to another one a
moment later leads nowhere.  TLS is spoken with the name of the URL.  The whole attempt, the name's
resolution apart, takes ``timeout`` seconds at most, however slowly the other end talks: in the main
thread by a timer's signal.

What goes wrong is a `PostError` in words; ``refused`` when nothing was sent because our own rules
forbid it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import signal
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

from rqcore_webhook.networks import Networks
from rqcore_webhook.options import url_problem
from rqcore_webhook.verdict import one_line

_READ = 4096
_SHOWN = 1000
_SWITCHING = 101
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}


class PostError(Exception):
    """There was no answer; ``address`` is the last one that was tried."""

    def __init__(self, text: str, *, refused: bool = False, address: str = "") -> None:
        super().__init__(text)
        self.refused = refused
        self.address = address


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: names of headers in lower case; ``excerpt`` the begin of its body, as text."""

    status: int
    headers: Mapping[str, str]
    excerpt: str
    address: str
    ms: float

    @property
    def error(self) -> str:
        """Why it is no success; "" when it is."""
        if 200 <= self.status < 300:  # noqa: PLR2004 - as HTTP has it
            return ""
        words = f"{self.status} {http.client.responses.get(self.status, '')}".strip()
        if 300 <= self.status < 400:  # noqa: PLR2004
            where = one_line(self.headers.get("location", "elsewhere"), 200)
            return f"answers {words} ({where}); redirects are not followed, correct the URL"
        said = " ".join(self.excerpt.split())[:200]
        return f"answers {words}{': ' + said if said else ''}"


@dataclass(frozen=True, slots=True)
class Way:
    """How a target is spoken to."""

    networks: Networks = field(default_factory=Networks)
    timeout: float = 20.0
    ca: str = ""
    verify: bool = True


def post(url: str, headers: Mapping[str, str], body: bytes, way: Way) -> Reply:
    """Send ``body``; returns the answer, whatever it is.  Raises `PostError`."""
    problem = url_problem(url)
    if problem:
        raise PostError(f"the URL {problem}; correct it, and send it again", refused=True)
    parts = urlsplit(url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    allowed = _allowed(host, port, way.networks)
    began = monotonic()
    place = _Place()
    try:
        with _deadline(way.timeout):
            connection = http.client.HTTPConnection(host, port)
            connection.auto_open = 0
            with contextlib.closing(connection):
                connection.sock = _connect(allowed, host, way, place, tls=tls)
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                given = {**_credentials(parts.username, parts.password), **headers}
                connection.request("POST", _quoted(target), body, given)
                response = connection.getresponse()
                while 100 <= response.status < 200 and response.status != _SWITCHING:  # noqa: PLR2004
                    response.headers = None  # type: ignore[assignment]  # the real answer follows
                    response.begin()
                said = _begin(response)
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = _words(error, host, port, way, connected=place.connected)
        raise PostError(text, address=place.address) from error
    return Reply(
        response.status,
        {name.lower(): value for name, value in response.getheaders()},
        _shown(said), place.address, round((monotonic() - began) * 1000, 1),
    )  # fmt: skip


def _begin(response: http.client.HTTPResponse) -> bytes:
    """The begin of the answer's body; that it does not come does not undo a success."""
    try:
        return response.read(_READ)
    except (OSError, http.client.HTTPException):
        if 200 <= response.status < 300:  # noqa: PLR2004 - as HTTP has it
            return b""
        raise


@dataclass
class _Place:
    """Where it is being connected to."""

    address: str = ""
    connected: bool = False


_Info = tuple[int, int, int, Any]


def _allowed(host: str, port: int, networks: Networks) -> list[_Info]:
    """The addresses of a name that may be connected to.  Raises `PostError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise PostError(f"{host} cannot be found: {error.strerror}") from error
    except (UnicodeError, ValueError) as error:
        raise PostError(f"no host can be called {host}; correct the URL", refused=True) from error
    allowed, refusals = [], []
    for family, kind, protocol, _, address in found:
        why = networks.refusal(str(address[0]))
        if why:
            refusals.append(why)
        else:
            allowed.append((int(family), int(kind), protocol, tuple(address)))
    if not allowed:
        raise PostError(
            f"nothing may be sent to {host}: {'; '.join(dict.fromkeys(refusals))} "
            "(see networks in the options of webhook)",
            refused=True,
        )
    return allowed


def _connect(
    addresses: list[_Info], host: str, way: Way, place: _Place, *, tls: bool
) -> socket.socket:
    trouble: OSError | None = None
    for family, kind, protocol, address in addresses:
        place.address = str(address[0])
        sock = socket.socket(family, kind, protocol)
        try:
            # One address that is silent must not take all the time from the others.
            sock.settimeout(way.timeout / len(addresses))
            sock.connect(address)
            sock.settimeout(way.timeout)
        except OSError as error:
            sock.close()
            trouble = error
            continue
        place.connected = True
        return _with_tls(sock, host, way) if tls else sock
    assert trouble is not None
    raise trouble


def _with_tls(sock: socket.socket, host: str, way: Way) -> socket.socket:
    try:
        context = ssl.create_default_context(cafile=way.ca or None)
        if not way.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in here when it takes longer."""

    def expired(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}


def _quoted(target: str) -> str:
    """What is no ASCII in the path of a URL goes out percent-encoded."""
    if target.isascii():
        return target
    from urllib.parse import quote  # noqa: PLC0415 - hardly ever needed

    return quote(target, safe="%/:=&?~#+!$,;'@()*[]")


def _words(error: Exception, host: str, port: int, way: Way, *, connected: bool) -> str:
    there = f"{host}:{port}"
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"{there} cannot be believed: {error.verify_message}; "
                "see ca and verify in the options of webhook"
            )
        case ssl.SSLError() if error.reason in _NO_TLS:
            return f"{there} does not speak TLS; does it speak http there?"
        case TimeoutError() if connected:
            return f"{there} has not answered within {way.timeout:g} s"
        case TimeoutError():
            return f"{there} takes no connection within {way.timeout:g} s"
        case FileNotFoundError() if way.ca:
            return f"the certificates in {way.ca} cannot be read; correct ca"
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return f"{there} cut the connection off"
        case OSError():
            return f"{there} cannot be reached: {error.strerror or os.strerror(error.errno or 5)}"
        case _:
            return f"{there} does not speak HTTP: {type(error).__name__} {error}".strip()


def _shown(said: bytes) -> str:
    text = said.decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)[:_SHOWN]
