"""The lab's proxy passes on what it gets, and catches an exchange at every point of it."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from rqcore.testing import PATIENCE, free_port
from tests.lab.network import Host
from tests.lab.proxy import POINTS, Exchange, Proxy, kind_of


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was sent; as chunks where it is asked for that."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(body)
        self.send_response(200)
        if "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        assert isinstance(sys.exc_info()[1], ConnectionError), "a broken connection is no news"


class Front:
    """A server, the proxy before it, and a client."""

    def __init__(self) -> None:
        here = Host("here", "127.0.0.1", "/proc/self/ns/net")
        inner, self.port = free_port(), free_port()
        self._server = Server(("127.0.0.1", inner), Echo)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.proxy = Proxy(
            here.listen("127.0.0.1", self.port), lambda: here.connect("127.0.0.1", inner)
        )

    def close(self) -> None:
        self.proxy.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def client(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front()
    Echo.seen.clear()
    yield made
    made.close()


def ask(client: http.client.HTTPConnection, path: str, body: bytes) -> bytes:
    client.request("POST", path, body)
    return client.getresponse().read()


COMMIT = "/api/v1/queues/q/messages/1/commit"


def test_requests_and_answers_pass_as_they_are(front: Front) -> None:
    client = front.client()
    for path, body in (("/a", b"x" * 300_000), ("/chunked", b"y" * 1000), ("/c", b"")):
        client.request("POST", path, body)
        assert client.getresponse().read() == body
    client.close()
    assert front.proxy.seen["other", "arriving"] == 3
    assert front.proxy.seen["other", "midway"] == 2


@pytest.mark.parametrize("point", POINTS)
def test_an_exchange_is_caught_at_each_point(front: Front, point: str) -> None:
    read = threading.Event()  # a reset takes with it what has not been read

    def reset(exchange: Exchange) -> None:
        assert point != "answered" or read.wait(PATIENCE)
        exchange.reset()

    trap = front.proxy.trap("commit", point, reset)
    client = front.client()
    client.request("POST", "/other", b"no commit")
    assert client.getresponse().read() == b"no commit"
    if point == "answered":  # all of it has come; the next request finds the connection broken
        client.request("POST", COMMIT, b"0123456789" * 10_000)
        assert client.getresponse().read() == b"0123456789" * 10_000
        read.set()
        assert trap.sprung.wait(PATIENCE)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(client, COMMIT, b"0123456789" * 10_000)
    client.close()
    assert trap.sprung.wait(PATIENCE)
    assert trap.failed is None
    whole = [body for body in Echo.seen if len(body) == 100_000]
    if point in ("arriving", "midway"):
        assert not whole
    elif point != "arrived":  # there it may be on its way to the server yet
        assert len(whole) == 1
    again = front.client()
    again.request("POST", COMMIT, b"a trap springs once")
    assert again.getresponse().read() == b"a trap springs once"
    again.close()


def test_silence_lasts_until_it_is_cleared(front: Front) -> None:
    trap = front.proxy.trap("commit", "answering", Exchange.silence)
    client = front.client(timeout=0.1)
    client.request("POST", COMMIT, b"well?")
    assert trap.sprung.wait(PATIENCE)
    with pytest.raises(TimeoutError):
        client.getresponse()
    assert Echo.seen == [b"well?"]
    client.close()
    front.proxy.clear()


def test_a_trap_may_let_some_pass_and_tells_what_its_action_raised(front: Front) -> None:
    def fail(exchange: Exchange) -> None:
        raise LookupError(exchange.path)

    trap = front.proxy.trap("commit", "arrived", fail, skip=1)
    client = front.client()
    for number in range(2):
        assert trap.sprung.is_set() is False
        client.request("POST", COMMIT, str(number).encode())
        assert client.getresponse().read() == str(number).encode()
    client.close()
    assert trap.sprung.wait(PATIENCE)
    assert isinstance(trap.failed, LookupError)


def test_a_server_that_does_not_listen_is_a_broken_connection(front: Front) -> None:
    front._server.shutdown()
    front._thread.join()
    front._server.server_close()
    client = front.client()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(client, "/x", b"")
    client.close()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("OPTIONS", "/api/v1/uploads", "discover"),
        ("POST", "/api/v1/queues/test/messages", "prepare"),
        ("POST", "/api/v1/queues/test/messages/1/attachments/a%20b", "upload"),
        ("PATCH", "/api/v1/uploads/x", "patch"),
        ("HEAD", "/api/v1/uploads/x", "offset"),
        ("GET", "/api/v1/queues/test/messages/1", "look"),
        ("POST", "/q/test/new_message", "plain prepare"),
        ("POST", "/q/test/1/attach/new", "plain attach"),
        ("POST", "/q/test/1", "plain commit"),
        ("GET", "/q/test/1.json", "plain look"),
        ("GET", "/q.txt", "other"),
    ],
)
def test_what_a_request_is_for_is_known(method: str, path: str, kind: str) -> None:
    assert kind_of(method, path) == kind
