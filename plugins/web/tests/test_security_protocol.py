"""What a client may send, and how slowly: real sockets against a server with a small application."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rqcore.testing import PATIENCE

CHUNK = 1 << 16

#: The application: it tells what it saw, in one line for each request, at /seen.
TOY = """
import asyncio, functools, socket, sys
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from rqcore_web.security.connections import Room
from rqcore_web.security.protocol import Http

seen, go_on = [], asyncio.Event()

async def echo(request):
    body = (await request.body()).decode("latin-1")
    seen.append(f"{request.method} {request.url.path} {len(body)}")
    names = [name.decode() for name, _ in request.headers.raw]
    return JSONResponse({"method": request.method, "body": body, "names": names})

async def hello(request):
    seen.append(f"{request.method} {request.url.path}")
    return PlainTextResponse("hello.")

async def big(request):
    async def chunks():
        for number in range(4000):
            seen.append("chunk")
            yield bytes(65536)
    return StreamingResponse(chunks())

async def late(request):
    came = 0
    try:
        async for piece in request.stream():
            came += len(piece)
            seen.append(f"came {came}")
            await go_on.wait()
    except ClientDisconnect:
        seen.append("cut off")

async def go(request):
    go_on.set()
    return PlainTextResponse("went on")

async def tell(request):
    told = list(seen)
    seen.clear()
    return JSONResponse(told)

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(0, lambda: setattr(self, "should_exit", True))
        print(sock.getsockname()[1], flush=True)

routes = [
    Route("/echo", echo, methods=["GET", "POST"]), Route("/hello", hello, methods=["GET", "POST"]),
    Route("/big", big), Route("/seen", tell), Route("/late", late, methods=["POST"]), Route("/go", go),
]
patience, most = float(sys.argv[1]), int(sys.argv[2])
sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
config = uvicorn.Config(
    Starlette(routes=routes), http=functools.partial(Http, Room(most), patience), ws="none",
    log_config=None, access_log=False, timeout_graceful_shutdown=1,
)
asyncio.run(Server(config).serve(sockets=[sock]))
"""
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Toy:
    """A server in a process of its own."""

    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def talk(self, *pieces: bytes) -> bytes:
        """Send these, and return all that is answered until the server closes."""
        with self.connect() as sock:
            for piece in pieces:
                sock.sendall(piece)
            return read_all(sock)

    def statuses(self, *pieces: bytes) -> list[int]:
        return statuses(self.talk(*pieces))

    def seen(self) -> list[str]:
        """What the application was asked since the last time."""
        answer = self.talk(b"GET /seen HTTP/1.1\r\n" + HOST + END)
        found: list[str] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return found


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = sock.recv(1 << 20)
        assert piece, data
        data += piece
    return data


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            piece = sock.recv(1 << 20)
        except ConnectionResetError:
            return data
        if not piece:
            return data
        data += piece


def send_for_ever(sock: socket.socket) -> None:
    for _ in range(2000):
        sock.sendall(b"a" * CHUNK)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in ANSWER.findall(answer)]


def serve(patience: float, most: int) -> Iterator[Toy]:
    command = [sys.executable, "-c", TOY, str(patience), str(most)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Toy(int(process.stdout.readline()))
        process.stdin.close()  # its sign to end
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def toy() -> Iterator[Toy]:
    yield from serve(patience=30, most=500)


@pytest.fixture(scope="module")
def hasty() -> Iterator[Toy]:
    """A server without patience."""
    yield from serve(patience=1, most=500)


@pytest.fixture
def small() -> Iterator[Toy]:
    """A server with three places."""
    yield from serve(patience=30, most=3)


HOST = b"Host: x\r\n"
END = b"Connection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + END


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abc"),
        (b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"),
        (b"Content-Length: +3\r\n", b"abc"),
        (b"Content-Length: 3, 3\r\n", b"abc"),
        (b"Content-Length: 0x3\r\n", b"abc"),
        (b"Content-Length: -1\r\n", b""),
        (b"Content-Length: 99999999999999999999999\r\n", b""),
        (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: identity\r\n", b""),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding:\x0bchunked\r\n", b"0\r\n\r\n"),
        (b" Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"X: 1\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"X: a\rb\r\n", b""),
        (b"X: a\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"X: a\0b\r\n", b""),
        (b"X\0: a\r\n", b""),
        (b"no colon\r\n", b""),
        (b": no name\r\n", b""),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_and_closed(
    toy: Toy, head: bytes, body: bytes
) -> None:
    toy.seen()
    answer = toy.talk(b"POST /hello HTTP/1.1\r\n" + HOST + head + b"\r\n" + body + SMUGGLED)
    assert statuses(answer) == [400]
    assert b"connection: close" in answer
    assert b"x-content-type-options: nosniff" in answer
    assert not [line for line in toy.seen() if "smuggled" in line]


@pytest.mark.parametrize(
    "chunks",
    [
        b"5;\nx\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"-1\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_a_damaged_chunk_ends_the_request_and_nothing_behind_it_is_read(
    toy: Toy, chunks: bytes
) -> None:
    toy.seen()
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert toy.statuses(head + chunks + SMUGGLED) == [400]
    assert toy.seen() == []


@pytest.mark.parametrize(
    "line",
    [
        b"GET /hello HTTP/1.2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /a\tb HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody speaks TLS to us
        b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"NONSENSE / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"get /hello HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_what_is_no_request_is_refused(toy: Toy, line: bytes) -> None:
    assert toy.statuses(line) == [400]


@pytest.mark.parametrize("line", [b"GET /hello", b"GET /hello HTTP/0.9", b"GET /hello HTTP/2.0"])
def test_another_version_of_http_is_told_which_is_spoken(toy: Toy, line: bytes) -> None:
    toy.seen()
    assert toy.statuses(line + b"\r\n\r\n") == [505]
    assert toy.seen() == []


def test_http_1_0_is_served_and_closed(toy: Toy) -> None:
    answer = toy.talk(b"GET /hello HTTP/1.0\r\n\r\n")
    assert statuses(answer) == [200]
    assert answer.endswith(b"\r\n\r\nhello.")


def test_requests_in_one_piece_are_answered_in_turn(toy: Toy) -> None:
    post = b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi"
    get = b"GET /hello HTTP/1.1\r\n" + HOST
    answer = toy.talk(post + get + b"\r\n" + post + get + END)
    assert statuses(answer) == [200, 200, 200, 200]
    assert answer.index(b'"hi"') < answer.index(b"hello")


def test_what_is_good_is_answered_before_what_is_not_is_refused(toy: Toy) -> None:
    toy.seen()
    answer = toy.talk(b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\nNONSENSE\r\n\r\n" + SMUGGLED)
    assert statuses(answer) == [200]
    assert toy.seen() == ["GET /hello"]


def test_a_request_comes_in_any_pieces(toy: Toy) -> None:
    request = (
        b"POST /echo?x=1 HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n"
    )
    answer = toy.talk(*(request[i : i + 1] for i in range(len(request))))
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert found["body"] == "abcde"
    assert found["names"][:2] == ["host", "x-empty"]


def test_trailers_are_no_headers(toy: Toy) -> None:
    answer = toy.talk(
        b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTrailer: X-Who\r\n"
        b"Connection: close\r\n\r\n1\r\na\r\n0\r\nX-Who: admin\r\nAuthorization: x\r\n\r\n"
    )
    names = json.loads(answer.partition(b"\r\n\r\n")[2])["names"]
    assert names == ["host", "transfer-encoding", "trailer", "connection"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /hello?" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /hello HTTP/1.1\r\n" + b"X: 1\r\n" * 101 + HOST + b"\r\n", 431),
        (b"GET /hello HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n" + HOST + b"\r\n", 431),
        (b"GET /hello HTTP/1.1\r\n" + b"a" * 40_000 + b": 1\r\n" + HOST + b"\r\n", 431),
        (b"GET /hello HTTP/1.1\r\n" + (b"X: " + b"a" * 8000 + b"\r\n") * 5 + b"\r\n", 431),
    ],
)
def test_what_is_too_long_is_refused_in_words(toy: Toy, request_: bytes, status: int) -> None:
    toy.seen()
    answer = toy.talk(request_)
    assert statuses(answer) == [status]
    assert b"than" in answer.partition(b"\r\n\r\n")[2]
    assert toy.seen() == []


@pytest.mark.parametrize(
    "start", [b"GET /hello HTTP/1.1\r\n", b"GET /hello HTTP/1.1\r\nX: ", b"GET /"]
)
def test_headers_without_an_end_take_no_memory(toy: Toy, start: bytes) -> None:
    with toy.connect() as sock:
        sock.sendall(start)
        with pytest.raises(ConnectionError):
            send_for_ever(sock)


def test_half_a_request_is_ended_however_slowly_it_comes(hasty: Toy) -> None:
    with hasty.connect() as silent, hasty.connect() as half, hasty.connect() as dripping:
        half.sendall(b"GET /hello HTTP/1.1\r\nHost")
        dripping.sendall(b"GET /hello HTTP/1.1\r\n")
        dripping.settimeout(0.1)
        answer = b""
        while not answer:
            try:
                answer = dripping.recv(1000)
            except TimeoutError:
                dripping.sendall(b"X: 1\r\n")
        assert statuses(answer) == [408]
        assert statuses(read_all(half)) == [408]
        assert read_all(silent) == b""


def test_a_connection_that_rests_or_sends_only_line_ends_is_closed(hasty: Toy) -> None:
    with hasty.connect() as resting, hasty.connect() as teasing:
        for sock in (resting, teasing):
            sock.sendall(b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n")
            read_until(sock, b"hello.")
        teasing.sendall(b"\r\n")
        assert read_all(resting) == read_all(teasing) == b""


def test_what_has_begun_behind_another_request_has_its_time_too(hasty: Toy) -> None:
    get = b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n"
    assert hasty.statuses(get + get[:10]) == [200, 408]
    with hasty.connect() as sock:
        sock.sendall(get + get[:10])
        read_until(sock, b"hello.")
        sock.sendall(get[10:])
        read_until(sock, b"hello.")


def test_a_reader_that_takes_nothing_holds_little_and_not_for_long(hasty: Toy) -> None:
    with hasty.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n")
        cut_off = select.poll()
        cut_off.register(sock, select.POLLRDHUP)
        assert cut_off.poll(PATIENCE * 1000)
    # What the system's own buffers hold, and a little.
    assert hasty.seen().count("chunk") * CHUNK < 16 << 20


def test_a_body_that_nobody_reads_is_no_request(toy: Toy) -> None:
    """The answer arrives though the body is still being sent, and the connection ends with it."""
    toy.seen()
    head = b"POST /hello HTTP/1.1\r\n" + HOST + b"Content-Length: 8000000\r\n\r\n"
    with toy.connect() as sock:
        sock.sendall(head)
        for _ in range(100):
            sock.sendall(SMUGGLED * 100)
        answer = read_all(sock)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
    assert toy.seen() == ["POST /hello"]


def test_what_came_before_a_cut_is_read_before_the_cut_is_told(toy: Toy) -> None:
    toy.seen()
    told: list[str] = []
    with toy.connect() as sock:
        sock.sendall(b"POST /late HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n0123456789")
        while told != ["came 10"]:
            told += toy.seen()
        sock.sendall(bytes(20))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    toy.talk(b"GET /go HTTP/1.1\r\n" + HOST + END)
    while told[-1] != "cut off":
        told += toy.seen()
    assert told == ["came 10", "came 30", "cut off"]


def test_a_client_that_waited_for_leave_may_not_go_on(toy: Toy) -> None:
    """It may send its body or the next request: nobody could tell which."""
    toy.seen()
    head = (
        b"POST /hello HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 60\r\n\r\n"
    )
    with toy.connect() as sock:
        sock.sendall(head)
        answer = read_all(sock)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
    head = head.replace(b"/hello", b"/echo").replace(b"60", b"2")
    with toy.connect() as sock:
        sock.sendall(head)
        assert statuses(sock.recv(1000)) == [100]
        sock.sendall(b"hi")
        assert statuses(sock.recv(1000)) == [200]


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_wish_for_another_protocol_is_ignored_and_the_body_is_a_body(
    toy: Toy, framing: bytes
) -> None:
    toy.seen()
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    body = b"hello" if b"Length" in framing else b"5\r\nhello\r\n0\r\n\r\n"
    post = b"POST /echo HTTP/1.1\r\n" + HOST + wish + framing + b"\r\n" + body
    get = b"GET /hello HTTP/1.1\r\n" + HOST + wish + b"\r\n"
    answer = toy.talk(post + get + post + b"GET /hello HTTP/1.1\r\n" + HOST + END)
    assert statuses(answer) == [200] * 4
    assert answer.count(b'"body":"hello"') == 2
    assert toy.seen() == ["POST /echo 5", "GET /hello"] * 2


def test_curl_that_wishes_for_http_2_is_served(toy: Toy) -> None:
    url = f"http://127.0.0.1:{toy.port}/echo"
    done = subprocess.run(
        ["curl", "-sS", "--http2", "--max-time", "20", "-d", "x=1", url, url],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.count(b'"body":"x=1"') == 2


def test_who_waits_makes_room_for_who_asks(small: Toy) -> None:
    """Idle connections and half requests keep nobody out: the one longest so is closed."""
    half = [small.connect() for _ in range(3)]
    for sock in half:
        sock.sendall(b"GET /hello HTTP/1.1\r\n")
    for _ in range(10):
        assert small.statuses(b"GET /hello HTTP/1.1\r\n" + HOST + END) == [200]
    assert read_all(half[0]) == b""
    for sock in half:
        sock.close()


def test_when_all_are_at_work_one_more_is_told_to_come_back(small: Toy) -> None:
    working = [small.connect() for _ in range(3)]
    try:
        for sock in working:
            sock.sendall(b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n")
            assert sock.recv(100)
        answer = small.talk(b"GET /hello HTTP/1.1\r\n" + HOST + b"\r\n")
        assert statuses(answer) == [503]
        assert b"retry-after: 5" in answer
        assert b"connection: close" in answer
    finally:
        for sock in working:
            sock.close()
    answer = b"503"
    while b"503" in answer:  # until the server has noticed that they are gone
        answer = small.talk(b"GET /hello HTTP/1.1\r\n" + HOST + END)
    assert statuses(answer) == [200]


def test_two_thousand_idle_connections_keep_nobody_out(toy: Toy) -> None:
    idle = [toy.connect() for _ in range(2000)]
    try:
        assert toy.statuses(b"GET /hello HTTP/1.1\r\n" + HOST + END) == [200]
        assert read_all(idle[0]) == b""
    finally:
        for sock in idle:
            sock.close()
