"""What counts as an answer of a peer that was down."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rqcore_relay.options import Options, PeerOptions
from rqcore_relay.probe import Probe, ask

from rqcore.testing import PATIENCE, free_port


@dataclass
class Far:
    """A web server that answers everything with one status."""

    server: http.server.HTTPServer
    thread: threading.Thread
    status: int = 200
    seen: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"localhost:{self.server.server_port}"


@pytest.fixture
def far() -> Iterator[Far]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.seen.append((self.path, self.headers["Authorization"]))
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", free_port()), Handler)
    made = Far(server, threading.Thread(target=server.serve_forever, args=(0.01,)))
    made.thread.start()
    yield made
    server.shutdown()
    made.thread.join(PATIENCE)
    server.server_close()


def test_an_answer_is_an_answer_but_for_a_broken_server(far: Far) -> None:
    for status, problem in ((200, ""), (401, ""), (404, ""), (503, "it answers 503")):
        far.status = status
        assert ask(f"http://{far.place}/rq/", Options(), PeerOptions(token="t")) == problem
    assert far.seen == [("/rq/q.txt", "Bearer t")] * 4


def test_a_peer_that_is_not_there_or_says_nothing() -> None:
    port = free_port()
    assert "refused" in ask(f"http://localhost:{port}/", Options(), PeerOptions())
    with socket.create_server(("127.0.0.1", port)):  # it takes the connection, and that is all
        problem = ask(f"http://127.0.0.1:{port}/", Options(connect_timeout=0.2), PeerOptions())
    assert problem == "timed out"


def test_tls_is_verified_unless_that_is_not_wanted(far: Far, tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    far.server.socket = context.wrap_socket(
        far.server.socket, server_side=True, do_handshake_on_connect=False
    )
    name = f"https://{far.place}/"
    assert "self-signed certificate" in ask(name, Options(), PeerOptions())
    assert ask(name, Options(), PeerOptions(ca=certificate)) == ""
    assert ask(name, Options(), PeerOptions(verify=False)) == ""
    assert "No such file" in ask(name, Options(), PeerOptions(ca="/no/such.pem"))


def test_an_answer_lets_a_message_try_unless_it_did_in_vain_just_now() -> None:
    probe = Probe()
    assert not probe.heard("refused", 1, 101)
    assert probe.told == {"tried": None, "answered": None, "error": "refused"}
    tries = [now for now in range(2, 200) if probe.heard("", now, 100 + now)]
    assert tries == [2, 12, 52, 142]
    assert probe.told["answered"] == 242
    assert not probe.heard("refused", 200, 300)  # it was really away again
    assert probe.heard("", 201, 301)
