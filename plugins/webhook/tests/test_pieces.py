"""The pieces that need no instance: signatures, networks, verdicts, options, events, one POST."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_webhook import events, post, verdict
from rqcore_webhook.health import Files, Health, target_of
from rqcore_webhook.networks import MODES, Networks, parse_network
from rqcore_webhook.options import EVENTS, Options, parse_options, url_problem
from rqcore_webhook.outbox import Outbox, entry_of, webhook_id
from rqcore_webhook.signing import headers, key_of, new_secret, signature

from rqcore.message import Message
from rqcore.schema import ConfigError
from rqcore.testing import PATIENCE, free_port

if TYPE_CHECKING:
    from tests.conftest import Receiver

# Signatures


def test_the_vector_of_the_standard() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    msg_id, stamp, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, msg_id, stamp, body) == expected
    other = new_secret()
    both = headers((other, secret), msg_id, stamp, body)["webhook-signature"].split(" ")
    assert both == [signature(other, msg_id, stamp, body), expected]
    assert "webhook-signature" not in headers((), msg_id, stamp, body)


@pytest.mark.parametrize(
    "secret", ["", "MfKQ", "whsec_", "whsec_***", "whsec_MfKQ9r8GKYqr", "whsk_" + "A" * 44]
)
def test_what_is_no_secret_is_said_without_showing_it(secret: str) -> None:
    with pytest.raises(ValueError, match="rq webhook secret") as caught:
        key_of(secret)
    assert len(secret) < 7 or secret not in str(caught.value)


def test_an_id_has_no_dot_and_is_another_for_each_target() -> None:
    entry = entry_of(at=1.0, queue="q", msg_id="1", webhooks=())
    assert "." not in webhook_id(entry.key, 0)
    assert webhook_id(entry.key, 0) != webhook_id(entry.key, 1)


# Networks


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
     "2002:a9fe:a9fe::1", "64:ff9b:1::a9fe:a9fe", "::169.254.169.254", "fd20:ce::254", "100.100.100.200",
     "168.63.129.16", "192.0.0.192", "224.0.0.1", "ff02::1"],
)  # fmt: skip
def test_where_secrets_of_clouds_are_nothing_goes(address: str) -> None:
    for mode in MODES:
        assert Networks(mode).refusal(address)


def test_internal_hosts_are_allowed_and_one_word_forbids_them() -> None:
    for address in ("127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "fd12::1", "100.64.0.1",
                    "0.0.0.0", "::", "::127.0.0.1", "192.0.0.8", "64:ff9b:1::1", "fec0::1"):  # fmt: skip
        assert Networks().refusal(address) == ""
        assert Networks("public").refusal(address)
    for address in ("93.184.216.34", "2606:2800:220:1::1"):
        assert Networks("public").refusal(address) == ""
        assert Networks("none").refusal(address)


def test_lists_come_before_modes_and_allow_before_deny() -> None:
    ten, part = parse_network("10.0.0.0/8"), parse_network("10.1.0.0/16")
    assert ten is not None
    assert part is not None
    assert Networks("none", allow=(ten,)).refusal("10.1.2.3") == ""
    assert "10.0.0.0/8" in Networks(deny=(ten,)).refusal("::ffff:10.2.0.1")
    both = Networks(allow=(part,), deny=(ten,))
    assert both.refusal("10.1.2.3") == ""
    assert both.refusal("10.2.2.3")
    metadata = parse_network("169.254.169.254")
    assert metadata is not None
    assert Networks(allow=(metadata,)).refusal("169.254.169.254") == ""
    assert Networks().refusal("nonsense")


# Verdicts


def test_the_schedule_of_rqs_form() -> None:
    waits = [
        verdict.delay(count, standard=False, retry_after=None, random=lambda: 1)
        for count in range(17)
    ]
    assert waits == [*(count * count * 60 for count in range(15)), None, None]


def test_the_schedule_of_the_standard() -> None:
    for random, factor in ((lambda: 0.0, 1.0), (lambda: 1.0, 1.1)):
        waits = [
            verdict.delay(count, standard=True, retry_after=None, random=random)
            for count in range(10)
        ]
        assert waits[:9] == pytest.approx([s * factor for s in verdict.SCHEDULE], abs=1)
        assert waits[9] is None
    assert sum(verdict.SCHEDULE) == 75 * 3600 + 35 * 60 + 5


@pytest.mark.parametrize(
    ("attempt", "start"),
    [
        (verdict.Attempt(204), "done answered 204"),
        (verdict.Attempt(500, "no"), "resend 60-no"),
        (verdict.Attempt(503, "no", 90.0), "resend 90-no"),
        (verdict.Attempt(503, "no", 1e9), "resend 86400-no"),
        (verdict.Attempt(410, "gone"), "fail gone; to send it again: rq retry webhook/1"),
        (verdict.Attempt(400, "no", abort=True), "fail no"),
        (verdict.Attempt(None, "a\nb", refused=True), "fail a b"),
        (verdict.Attempt(None, "a\nb", refused=True, later=True), "resend 60-a b"),
    ],
)
def test_what_is_said_of_an_attempt(attempt: verdict.Attempt, start: str) -> None:
    line = verdict.line(attempt, 1, "webhook/1", standard=False, random=lambda: 0.0)
    assert line.startswith(start)
    assert "\n" not in line


def test_when_it_is_given_up() -> None:
    attempt = verdict.Attempt(500, "no")
    line = verdict.line(attempt, 15, "webhook/1", standard=False, random=lambda: 0.0)
    assert line == "fail given up after 16 tries: no; to send it again: rq retry webhook/1"
    line = verdict.line(attempt, 9, "webhook/1", standard=True, random=lambda: 0.0)
    assert line.startswith("fail given up after 10 tries")


def test_retry_after_in_both_spellings() -> None:
    assert verdict.retry_after({"retry-after": "120"}, 0.0) == 120
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert verdict.retry_after({"retry-after": date}, 1792567680.0 - 30) == 30
    assert verdict.retry_after({"retry-after": date}, 2e9) == 0
    for nonsense in ("", "soon", "-5", "²"):
        assert verdict.retry_after({"retry-after": nonsense}, 0.0) is None


def test_a_target_that_throttles_is_left_alone_longer_and_longer() -> None:
    pauses = [verdict.throttle_seconds(times, None) for times in (1, 2, 3, 9, 10, 100)]
    assert pauses == [10, 20, 40, 2560, 3600, 3600]
    assert verdict.throttle_seconds(5, 7.0) == 7


# Options


def parsed(**given: Any) -> Options:
    return parse_options(given, "/rq/config/config.json")


def test_every_mistake_is_named_at_once_and_no_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(
            num_workers=0, timout=3, networks={"mode": "open", "allow": ["10.0.0.0/33"]},
            endpoints={
                "a b": {"url": "https://x/"}, "text": "https://x/",
                "bad": {
                    "url": "ftp://me:geheim@x/", "format": "xml", "events": ["message.dun"],
                    "secrets": ["whsec_geheim", 7], "headers": {"Host": "x", "a b": "x", "x": "a\nb"},
                    "timeout": 0, "disable_after": True,
                },
                "unsigned": {"url": "https://x/", "secret_file": "a"},
            },
        )  # fmt: skip
    text = str(caught.value)
    for part in (
        "num_workers", 'did you mean "timeout"', "networks", "10.0.0.0/33", "endpoints.a b",
        "endpoints.text", "does not begin with http", "xml", "message.dun", "secrets[0]", "secrets[1]",
        "headers.Host", "headers.a b", "headers.x", "leaves nobody any time", "disable_after",
        "signs nothing",
    ):  # fmt: skip
        assert part in text, part
    assert "geheim" not in text


def test_defaults_and_paths() -> None:
    secret = new_secret()
    options = parsed(timeout=3, endpoints={"a": {
        "url": "https://x/", "format": "standard", "secrets": [secret], "secret_file": "config/a",
        "ca": "/ca",
    }})  # fmt: skip
    endpoint = options.endpoints["a"]
    assert (endpoint.secret_file, endpoint.ca) == ("/rq/config/a", "/ca")
    assert endpoint.timeout == 3
    assert endpoint.events == ("message.done", "message.err", "message.relayed")
    assert secret not in repr(options)
    assert parsed(networks="public").networks == Networks("public")


@given(st.dictionaries(st.sampled_from(["url", "events", "networks", "endpoints", "timeout"]),
st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)))  # fmt: skip
def test_whatever_stands_there_is_taken_or_refused(given: dict[str, Any]) -> None:
    try:
        parsed(**given)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - it may be either


@pytest.mark.parametrize(
    "url",
    ["", "x", "http:///x", "http://h:0/", "http://h:99999/", "http://a b/", "http://[::1/", 7],
)
def test_what_is_no_url(url: object) -> None:
    assert url_problem(url)


# Events


def test_one_end_is_one_webhook_for_each_target() -> None:
    options = parsed(endpoints={
        "all": {"url": "https://a/", "events": ["message.err", "message.timeout"]},
        "own": {"url": "https://b/", "events": []},
        "few": {"url": "https://c/", "queues": ["mail*"]},
    })  # fmt: skip
    names = events.end_names("err", timed_out=True, recovered=False)
    assert names == ("message.timeout", "message.err")
    urls = ["https://b/", "http://d/", "http://d/"]
    found = events.targets(options, names, "work", urls)
    assert [(t.endpoint, t.url, t.event) for t in found] == [
        ("all", "https://a/", "message.timeout"), ("own", "https://b/", "message.err"),
        ("", "http://d/", "message.err"),
    ]  # fmt: skip
    assert [t.endpoint for t in events.targets(options, names, "mail-out")] == ["all", "few"]
    names = events.end_names("done", timed_out=False, recovered=True)
    assert names == ("message.recovered", "message.done")
    assert events.end_names("err", timed_out=False, recovered=True) == ("message.err",)


def test_the_standard_body_stays_small() -> None:
    message = Message(msg_id="1", dest="q", param1="x" * 100_000, param4="\u20ac" * 100_000)
    data = events.message_data(message, "http://h/", "q", "done", "well")
    body = events.standard("message.done", 1.5, data)
    told = json.loads(body)
    assert told["type"] == "message.done"
    assert told["timestamp"] == "1970-01-01T00:00:01.500000Z"
    assert told["data"]["truncated"] == ["param1", "param4"]
    assert told["data"]["msg_id"] == "http://h/q/q/1"
    assert len(body) < 30_000


def test_targets_by_host() -> None:
    assert target_of("ops", "http://x/") == "ops"
    assert (
        target_of("", "http://X.example/a?b")
        == target_of("", "http://x.example:80/")
        == "http://x.example:80"
    )
    assert target_of("", "https://[::1]/") == "https://[::1]:443"
    assert target_of("", "http://h:99999/") == "://"


# Files


def test_files_that_hands_spoiled_count_as_empty(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    assert files.read() == {}
    files.make()
    for text in ("", "[]", '{"targets": 3}', '{"targets": {"a": 3}}', "[" * 100_000):
        Path(files.health).write_text(text)
        assert files.read() == {}
    odd = {"failures": "x", "last_status": -1, "attempts": 7}
    Path(files.health).write_text(json.dumps({"targets": {"a": odd}}))
    assert files.read() == {"a": Health()}
    Path(files.folder, "disabled/ops").touch()
    found = files.disabled("ops")
    assert found == {"at": None, "by": "hand", "reason": "no reason is given"}
    outbox = Outbox(str(tmp_path))
    outbox.make()
    Path(outbox.folder, "0.a.go").write_text('{"webhooks": 3}')
    assert outbox.read("0.a.go") is None
    outbox.set_aside("0.a.go")
    assert outbox.ready() == []


def test_hosts_are_forgotten_and_endpoints_are_not(tmp_path: Path) -> None:
    files, now = Files(str(tmp_path)), time()
    known = {f"http://h{n}:80": Health(last_success=now - n) for n in range(700)}
    known |= {"http://old:80": Health(last_success=now - 40 * 86_400), "ops": Health()}
    files.write(known)
    kept = files.read()
    assert len(kept) == 501
    assert "ops" in kept
    assert "http://h0:80" in kept


# One POST


def test_a_post_goes_to_the_address_that_was_looked_at(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **more: Any) -> Any:
        asked.append(host)
        assert len(asked) == 1, "it is resolved once"
        bad = real("169.254.169.254", *args, **more)
        return [*bad, *real("127.0.0.1", *args, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = f"http://user:p%40ss@hook.example:{receiver.port}/two?t=%C3%A9#part"
    reply = post.post(url, {"X-Own": "1"}, b"body", post.Way())
    assert (reply.status, reply.address, reply.excerpt) == (200, "127.0.0.1", "thank you")
    [got] = receiver.at("/two?t=%C3%A9")
    assert got.headers["host"] == f"hook.example:{receiver.port}"
    assert got.headers["authorization"] == "Basic dXNlcjpwQHNz"
    assert (got.headers["x-own"], got.body) == ("1", b"body")


def test_a_name_that_leads_only_where_nothing_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **m: real("169.254.1.1", *a, **m))
    with pytest.raises(post.PostError, match=r"nothing may be sent to innocent.example") as caught:
        post.post("http://innocent.example/", {}, b"", post.Way())
    assert caught.value.refused


@pytest.fixture
def talker() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Starts a server that does this with its one connection; returns its port."""
    threads: list[threading.Thread] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def start(talk: Callable[[socket.socket], None]) -> int:
        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1 << 16)
                talk(sock)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    listener.close()
    for thread in threads:
        thread.join(10)


def test_one_that_talks_for_ever_does_not_hold_us(talker: Any) -> None:
    stop = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        try:
            while not stop.wait(0.02):
                sock.sendall(b"X-Drip: drop\r\n")
        except OSError:
            pass

    port, began = talker(drip), monotonic()
    with pytest.raises(post.PostError, match=r"has not answered within 0\.4 s"):
        post.post(f"http://127.0.0.1:{port}/", {}, b"", post.Way(timeout=0.4))
    stop.set()
    assert monotonic() - began < PATIENCE


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"", "cut the connection off"), (b"220 smtp ready\r\n", "does not speak HTTP")],
)
def test_one_that_is_rude(talker: Any, said: bytes, words: str) -> None:
    port = talker(lambda sock: sock.sendall(said))
    with pytest.raises(post.PostError, match=words):
        post.post(f"http://127.0.0.1:{port}/", {}, b"", post.Way())


def test_what_comes_before_the_answer_is_no_answer(talker: Any) -> None:
    said = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    port = talker(
        lambda sock: sock.sendall(said + b"HTTP/1.1 201 Made\r\nContent-Length: 2\r\n\r\nok")
    )
    reply = post.post(f"http://127.0.0.1:{port}/", {}, b"", post.Way())
    assert (reply.status, reply.error, reply.excerpt) == (201, "", "ok")


@pytest.mark.parametrize("status", [200, 500])
def test_a_success_stands_even_if_its_body_never_comes(talker: Any, status: int) -> None:
    port = talker(
        lambda sock: sock.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\nhalf" % status)
    )
    way = post.Way(timeout=0.4)
    if status == 200:
        assert post.post(f"http://127.0.0.1:{port}/", {}, b"", way).error == ""
    else:
        assert "500" in post.post(f"http://127.0.0.1:{port}/", {}, b"", way).error


def test_where_a_redirect_leads_is_told_in_a_line(talker: Any) -> None:
    where = b"http://x/\x1b[31m" + b"y" * 60000
    port = talker(lambda sock: sock.sendall(b"HTTP/1.1 302 F\r\nLocation: " + where + b"\r\n\r\n"))
    error = post.post(f"http://127.0.0.1:{port}/", {}, b"", post.Way()).error
    assert "\x1b" not in error
    assert len(error) < 300


def test_a_long_answer_is_cut(talker: Any) -> None:
    port = talker(
        lambda sock: sock.sendall(
            b"HTTP/1.1 500 No\r\nContent-Length: 50000\r\n\r\n\x1b[31m" + b"x" * 50000
        )
    )
    reply = post.post(f"http://127.0.0.1:{port}/", {}, b"", post.Way())
    assert len(reply.excerpt) == 1000
    assert "\x1b" not in reply.excerpt
    assert reply.error.startswith("answers 500 Internal Server Error: ")


def test_tls_is_believed_with_its_certificate_alone(tmp_path: Path) -> None:
    pem, key = tmp_path / "a.pem", tmp_path / "a.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes",
         "-keyout", key, "-out", pem, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    class Server(http.server.HTTPServer):
        def handle_error(self, *args: object) -> None:
            pass

    port = free_port()
    server = Server(("127.0.0.1", port), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        url, other = f"https://localhost:{port}/", f"https://127.0.0.1:{port}/"
        assert post.post(url, {}, b"", post.Way(ca=str(pem))).status == 204
        assert post.post(other, {}, b"", post.Way(verify=False)).status == 204
        with pytest.raises(post.PostError, match=r"cannot be believed: .*see ca and verify"):
            post.post(url, {}, b"", post.Way())
        with pytest.raises(post.PostError, match="cannot be believed"):
            post.post(other, {}, b"", post.Way(ca=str(pem)))
        with pytest.raises(post.PostError, match="cannot be read; correct ca"):
            post.post(url, {}, b"", post.Way(ca=str(tmp_path / "nowhere")))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_https_where_http_is_spoken(receiver: Receiver) -> None:
    with pytest.raises(post.PostError, match=r"does not speak TLS|cut the connection|bad"):
        post.post(f"https://127.0.0.1:{receiver.port}/", {}, b"", post.Way(timeout=5))


def test_every_event_has_words() -> None:
    assert all(EVENTS.values())
