"""rqcore_relay.http and far: peers that are silent, busy, rude, or only believed with a certificate."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from rqcore_relay.far import FarEnd
from rqcore_relay.http import Answer, Body, Http, Origin, Piece
from rqcore_relay.job import Job
from rqcore_relay.options import Options, PeerOptions
from rqcore_relay.progress import Progress
from rqcore_relay.verdict import CutError, TroubleError

from rqcore.testing import PATIENCE, RunningInstance, free_port

if TYPE_CHECKING:
    from tests.conftest import Pair

QUICK = Options(connect_timeout=5, timeout=0.3)


class Scripted:
    """A server that does to each connection what it is told, in order."""

    def __init__(self, *acts: Callable[[socket.socket], None], room: int = 0) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.origin = Origin.of(self.url)
        self._acts = acts
        self._listener = socket.create_server(("127.0.0.1", self.port))
        if room:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        for act in self._acts:
            with contextlib.suppress(OSError):
                sock, _ = self._listener.accept()
                with sock:
                    sock.settimeout(PATIENCE)
                    act(sock)


def read_head(sock: socket.socket) -> bytes:
    """Everything up to the empty line, or to the end."""
    data = b""
    while b"\r\n\r\n" not in data and (more := sock.recv(1)):
        data += more
    return data


def says(answer: bytes) -> Callable[[socket.socket], None]:
    def act(sock: socket.socket) -> None:
        while read_head(sock):
            sock.sendall(answer)

    return act


def until_gone(sock: socket.socket) -> None:
    """Take what comes, say nothing."""
    while sock.recv(1 << 16):
        pass


def http_of(server: Scripted, options: Options = QUICK) -> Http:
    return Http(server.origin, options, PeerOptions())


def test_a_connection_is_kept_and_made_anew_when_the_peer_closed_it() -> None:
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def once(sock: socket.socket) -> None:
        for _ in range(2):
            read_head(sock)
            sock.sendall(kept)
        sock.close()
        closed.set()

    closed = threading.Event()
    with Scripted(once, says(kept)) as server, http_of(server) as http:
        assert [http.request("GET", "/").body for _ in range(2)] == [b"ok"] * 2
        assert closed.wait(PATIENCE)
        assert http.request("GET", "/").body == b"ok"
        assert http.answered


def test_an_old_peer_closes_after_each_answer() -> None:
    def old(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b'HTTP/1.0 200 OK\r\n\r\n["ok","x"]')

    with Scripted(old, old) as server, http_of(server) as http:
        assert [http.request("GET", "/").json() for _ in range(2)] == [["ok", "x"]] * 2


def test_nobody_there_and_nobody_of_that_name() -> None:
    with Http(Origin.of(f"http://127.0.0.1:{free_port()}/"), QUICK, PeerOptions()) as http:
        with pytest.raises(CutError, match="cannot be reached: Connection refused"):
            http.request("GET", "/")
        assert not http.answered
    nowhere = Http(Origin.of("http://no-such-host.invalid:1/"), QUICK, PeerOptions())
    with pytest.raises(CutError, match=r"no-such-host\.invalid cannot be found"):
        nowhere.request("GET", "/")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (until_gone, "is silent for 0.3 s"),
        (read_head, "cut the connection off"),
        (says(b"220 mail.example.com ESMTP\r\n"), "does not speak HTTP"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "is silent"),
    ],
    ids=["silent", "gone", "mail", "half"],
)
def test_what_went_wrong_is_said(act: Callable[[socket.socket], None], words: str) -> None:
    with Scripted(act) as server:
        with http_of(server) as http, pytest.raises(CutError, match=words) as caught:
            http.request("GET", "/")
        assert server.url in str(caught.value)


def test_a_peer_that_still_takes_is_not_silent(tmp_path: Path) -> None:
    """It takes a body in more time than it may be silent; the socket holds what it has not taken."""
    size = 8 << 20
    (tmp_path / "file").write_bytes(bytes(size))

    def slow(sock: socket.socket) -> None:
        read_head(sock)
        left, disk = size, threading.Event()
        while left and (block := sock.recv(1 << 18)):
            disk.wait(0.03)  # this is how slow it is; nothing is waited for
            left -= len(block)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    sent: list[int] = []
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with Scripted(slow, room=1 << 16) as server, http_of(server) as http:
            body = Body(Piece(fd, 0, size), sent.append)
            assert http.request("PUT", "/", {}, body).status == 200
    finally:
        os.close(fd)
    assert sum(sent) == size


def test_a_refusal_in_the_midst_of_a_body_is_heard(tmp_path: Path) -> None:
    size = 64 << 20
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size)

    def refuse(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(
            b"HTTP/1.1 413 Too Large\r\nContent-Type: application/problem+json\r\n"
            b'Content-Length: 38\r\n\r\n{"detail":"at most 7 bytes","x":12345}'
        )
        until_gone(sock)

    sent: list[int] = []
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with Scripted(refuse) as server, http_of(server) as http:
            answer = http.request("PUT", "/", {}, Body(Piece(fd, 0, size), sent.append))
            assert (answer.status, answer.words()) == (413, "at most 7 bytes")
            http.close()
    finally:
        os.close(fd)
    assert sum(sent) < size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("7", 7), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert Answer(503, {"retry-after": text}, b"").retry_after == seconds


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'["fail","status: DOWN"]', "status: DOWN"),
        (b'{"title":"Refused","detail":"not you"}', "not you"),
        (b"<html>", "HTTP 503 Service Unavailable"),
        (b"[[[", "HTTP 503 Service Unavailable"),
    ],
)
def test_the_words_of_an_answer(body: bytes, words: str) -> None:
    answer = Answer(503, {}, body)
    assert answer.words() == words
    assert str(answer.trouble("http://x:1/")) == f"http://x:1/ answers: {words}"


# --- which kind of peer it is


@pytest.fixture
def job(tmp_path: Path) -> Job:
    folder = tmp_path / "rq/queue/relay/run/20260101.0000.00.000.1"
    (folder / "job").mkdir(parents=True)
    (folder / "msg").write_text(json.dumps({"dest": "http://x:1/q/test"}))
    return Job({
        "RQ_MSG_DIR": f"{folder}/job", "RQ_MSG_ID": folder.name, "RQ_HOST": "http://me:1/",
    })  # fmt: skip


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("401 Unauthorized", "does not let us in: .* give a token or a user"),
        ("403 Forbidden", "does not let us in"),
        ("503 Busy\r\nRetry-After: 9", "HTTP 503"),
        ("502 Bad Gateway", "HTTP 502"),
        (
            "301 Moved\r\nLocation: https://there/",
            "sends us to https://there/; send messages there",
        ),
    ],
)
def test_an_answer_that_says_nothing_of_the_peer_is_trouble(
    job: Job, head: str, words: str
) -> None:
    answer = f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode()
    with Scripted(says(answer)) as server, FarEnd(job, server.url, QUICK) as end:
        with pytest.raises(TroubleError, match=words) as caught:
            end.carry([], Progress(0, lambda _: None, lambda: 0.0))
        assert end.answered
        assert end.kind == ""
        assert caught.value.retry_after == (9 if "Retry" in head else None)


def carry_error(job: Job, url: str) -> str:
    """Why the message cannot be carried to this peer."""
    with FarEnd(job, url, QUICK) as end, pytest.raises(TroubleError) as caught:
        end.carry([], Progress(0, lambda _: None, lambda: 0.0))
    return str(caught.value)


def test_a_peer_that_is_no_rq_is_told_so(job: Job) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        told = carry_error(job, url)
        server.shutdown()
        thread.join()
    assert told == (
        f"{url} answers: HTTP 501 Not Implemented; is it an RQ, and is the URL right?"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "is_doubted"),
    [
        ("404 Not Found", "404", True),
        ("404 Not Found", '["fail", "no such queue: x"]', False),
        ("200 OK", "<html>", True),
        ("500 Internal Server Error", "<html>", False),
    ],
)
def test_only_what_no_rq_says_is_doubted(
    job: Job, status: str, body: str, is_doubted: bool
) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"

    def act(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        read_head(sock)
        sock.sendall(answer.encode())

    with Scripted(act) as server:
        assert ("is it an RQ" in carry_error(job, server.url)) is is_doubted


@pytest.mark.parametrize(
    "answer",
    [
        b"\x15\x03\x03\x00\x02\x02F",
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        b"HTTP/1.0 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port",
    ],
    ids=["alert", "go", "nginx"],
)
def test_http_to_a_port_of_https(job: Job, answer: bytes) -> None:
    def act(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)

    with Scripted(act) as server:
        secure = server.url.replace("http:", "https:")
        assert carry_error(job, server.url) == f"{server.url} speaks https there; write {secure}…"


def test_https_to_a_port_of_http(job: Job) -> None:
    def act(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        until_gone(sock)

    with Scripted(act) as server:
        secure = server.url.replace("http:", "https:")
        assert carry_error(job, secure) == (
            f"{secure} does not speak TLS; does it speak http there? write {server.url}…"
        )


# --- TLS and tokens, at a real instance


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """A certificate for this machine, and its key."""
    pem, key = f"{folder}/{name}.pem", f"{folder}/{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", pem, "-days", "2", "-subj", f"/CN={name}",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return pem, key


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Pair], None]:
    """The far site speaks TLS and lets nobody in without a token or a password."""
    from rqcore_web.security.tokens import TOKENS_FILE, make_token, write_tokens

    def make(pair: Pair) -> None:
        pem, key = certificate(pair.folder, "far")
        certificate(pair.folder, "other")
        pair.far.configure(
            addr="127.0.0.1",
            plugins={"web": {"certificate": pem, "key": key}},
            basic_auth={"realm": "RQ", "users": {"boss": "a long password of ours"}},
        )
        token, text = make_token("relay", "enqueue", ["test"], None, datetime.now(UTC))
        write_tokens(pair.far.directory / "config" / TOKENS_FILE, [token])
        (pair.folder / "token").write_text(text)

    return make


def give_options(near: RunningInstance, port: int, **peer: object) -> None:
    near.configure(plugins={"relay": {"peers": {f"https://127.0.0.1:{port}/": peer}}})


@pytest.fixture
def secured(pair: Pair) -> Iterator[Pair]:
    yield pair
    pair.near.configure(plugins={})


@pytest.mark.process
def test_tls_is_verified_and_the_token_is_told(secured: Pair) -> None:
    """What is missing is said in words, one after the other; then the message arrives."""
    pair, near, folder = secured, secured.near, secured.folder
    dest = pair.url.replace("http:", "https:")
    files = (os.urandom(400_000), b"x" * 300_000, b"small")

    def refused(**peer: object) -> str:
        give_options(near, pair.port, **peer)
        message = near.until("relay", pair.send(dest=dest, max_count=1))
        assert message["state"] == "err"
        assert not pair.arrived(message["msg_id"])
        return str(message["status"])

    message = near.until("relay", pair.send(dest=pair.url, max_count=1))
    assert f"write {dest.removesuffix('q/test')}…" in message["status"]
    assert "cannot be believed: self-signed certificate" in refused()
    assert "see ca and verify in the options of relay" in refused(ca=f"{folder}/other.pem")
    assert "the certificates in" in refused(ca=f"{folder}/nowhere.pem")
    assert "the token in" in refused(ca=f"{folder}/far.pem", token_file=f"{folder}/nowhere")
    assert "does not let us in" in refused(ca=f"{folder}/far.pem")
    assert "does not let us in" in refused(verify=False, token="rqt_wrong")
    give_options(near, pair.port, ca=f"{folder}/far.pem", token_file=f"{folder}/token")
    msg_id = pair.send(*files, dest=dest)
    message = pair.relayed(msg_id)
    pair.once(msg_id, *files)
    assert (folder / "token").read_text() not in pair.log(message)
    give_options(near, pair.port, verify=False, user="boss", password="a long password of ours")
    pair.relayed(pair.send(b"x", dest=dest))
