"""Who gets in, by real curl: addresses, names, forged requests, users, tokens; what every answer has."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_web.security import passwords, tokens
from rqcore_web.security.answers import CSP
from rqcore_web.security.throttle import FREE

from rqcore.testing import PATIENCE
from rqcore.unix import Inotify

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

ALICE = passwords.hash_password("s3cret: \u00fc")
NEW = "q/test/new_message"
MESSAGE = '{"dest": "test"}'
JSON = ("-H", "Content-Type: application/json")


def send(web: Web, *options: str) -> Answer:
    """Make a message; 200 when it was let in."""
    return web.curl(NEW, *JSON, "-d", MESSAGE, *options)


def give_tokens(web: Web, *made: tokens.Token) -> None:
    tokens.write_tokens(web.rq.directory / "config" / "tokens.json", made)


def token(
    name: str, scope: str = "read", *, expires: datetime | None = None
) -> tuple[tokens.Token, tuple[str, str]]:
    """A token, and what curl is given to show it."""
    made, text = tokens.make_token(name, scope, (), expires, datetime.now(UTC))
    return made, ("-H", f"Authorization: Bearer {text}")


@pytest.fixture(scope="module")
def open_site(shared: Web) -> Web:
    """The default: on the loopback address, nobody has to log in."""
    shared.rq.queue("test", shared.HELLO)
    shared.rq.configure(
        host="mq1.example.com", hostnames=["https://mq.example.com/"],
        plugins={"web": {"client_timeout": 2, "max_body": 5000}},
    )  # fmt: skip
    shared.start()
    shared.rq.disconnect()
    return shared


@pytest.fixture
def closed(web: Web) -> Web:
    """Two users, one of them hashed."""
    web.rq.queue("test", web.HELLO)
    users = {"alice": ALICE, "bob": "clear"}
    web.rq.configure(
        basic_auth={"realm": 'mq "1\\'.replace('"', "'"), "users": users},
        plugins={"web": {"roles": {"bob": "read"}}},
    )
    return web


# --- what every answer has


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("q.json", (), 200),
        ("nothing/here", (), 404),
        ("q/nothing.json", (), 404),
        ("q.json", ("-X", "DELETE"), 405),
        ("%00", (), 400),
        ("api/v1/nothing", (), 404),
        ("api/v1/queues", (), 200),
        ("q.json", ("-H", "Host: evil.example"), 403),
        (NEW, ("-d", "x", "-H", "Origin: http://evil.example"), 403),
    ],
)
def test_every_answer_has_the_headers_that_keep_browsers_safe(
    open_site: Web, path: str, options: tuple[str, ...], status: int
) -> None:
    answer = open_site.curl(path, *options)
    assert answer.status == status
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "strict-transport-security" not in answer.headers
    assert "server" not in answer.headers
    assert len(answer.headers["x-request-id"]) == 16


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2_X", True), ("a b", False), ("x" * 65, False), ("<script>", False), ("", False)],
)
def test_a_request_keeps_the_id_it_comes_with_if_it_is_one(
    open_site: Web, given: str, kept: bool
) -> None:
    answer = open_site.curl("q.json", "-H", f"X-Request-Id: {given}")
    assert (answer.headers["x-request-id"] == given) is kept


def test_a_refusal_is_a_problem_for_programs_and_a_line_for_others(open_site: Web) -> None:
    evil = ("-H", "Sec-Fetch-Site: cross-site", "-X", "POST")
    line = open_site.curl(NEW, *evil)
    assert line.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Sec-Fetch-Site: cross-site" in line.text
    problem = open_site.curl("api/v1/queues", *evil)
    assert problem.headers["content-type"] == "application/problem+json"
    told = problem.json()
    assert (told["status"], told["title"]) == (403, "Forbidden")
    assert told["instance"] == "/api/v1/queues"
    assert told["request_id"] == problem.headers["x-request-id"]
    other = open_site.curl("api/v1/queues/none")
    assert other.json()["request_id"] == other.headers["x-request-id"]


# --- where nobody has to log in


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:1", 200),
        ("[::1]", 200),
        ("mq1.example.com:3333", 200),
        ("mq.example.com", 200),
        ("evil.example", 403),
        ("mq.example.com.evil.example", 403),
    ],
)
def test_a_name_that_is_not_the_sites_is_refused(open_site: Web, host: str, status: int) -> None:
    answer = open_site.curl("q.json", "-H", f"Host: {host}")
    assert answer.status == status
    # Neither a password that nobody checks nor anything else is a way around.
    answer = open_site.curl("q.json", "-H", f"Host: {host}", "-u", "any:thing")
    assert answer.status == status


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Real-IP: x"]
)
def test_a_proxy_that_would_let_everybody_in_is_refused(open_site: Web, header: str) -> None:
    answer = open_site.curl("q.json", "-H", header)
    assert answer.status == 403
    assert "rq web passwd" in answer.text
    assert open_site.curl("livez", "-H", header).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 200),
        (("Sec-Fetch-Site: same-origin",), 200),
        (("Sec-Fetch-Site: none",), 200),
        (("Sec-Fetch-Site: same-site",), 403),
        (("Sec-Fetch-Site: cross-site",), 403),
        (("Origin: null",), 403),
        (("Origin: http://evil.example",), 403),
        (("Origin: https://mq.example.com",), 200),
        (("Referer: http://evil.example/",), 403),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    open_site: Web, headers: tuple[str, ...], status: int
) -> None:
    options = [word for header in headers for word in ("-H", header)]
    before = count(open_site)
    assert send(open_site, *options).status == status
    assert count(open_site) - before == (status == 200)
    assert open_site.curl("q.json", *options).status == 200


def count(web: Web) -> int:
    with web.rq.client("test") as client:
        return sum(client.call("num_messages").values())


def test_a_page_of_this_site_may(open_site: Web) -> None:
    own = open_site.url.rstrip("/")
    assert send(open_site, "-H", f"Origin: {own}").status == 200
    assert send(open_site, "-H", f"Referer: {own}/q/test").status == 200
    assert send(open_site, "-H", f"Origin: {own}0").status == 403


def test_a_token_counts_even_there(open_site: Web) -> None:
    made, header = token("reader", "read")
    give_tokens(open_site, made)
    assert open_site.curl("q.json", *header).status == 200
    assert send(open_site, *header).status == 403
    wrong = open_site.curl("q.json", "-H", "Authorization: Bearer rqt_wrong")
    assert wrong.status == 401
    assert 'Bearer error="invalid_token"' in wrong.headers["www-authenticate"]
    assert send(open_site).status == 200


# --- what is no good request


def raw(web: Web, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE) as sock:
        sock.sendall(data)
        answer = b""
        while piece := sock.recv(100_000):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /q.txt HTTP/1.1\r\n", b"400"),
        (b"GET /q.txt HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\n", b"400"),
        (b"GET /q.txt HTTP/1.1\r\nHost:\r\n", b"403"),
        (b"GET /q.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"200"),
        (b"GET http://evil.example/q.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"200"),
        (b"GET /q.txt HTTP/1.0\r\n", b"200"),
        (b"GET //q//test.txt HTTP/1.0\r\n", b"200"),
        (b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"404"),
        (b"TRACE /q.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"405"),
    ],
)
def test_a_request_says_once_which_host_it_is_for(
    open_site: Web, head: bytes, status: bytes
) -> None:
    answer = raw(open_site, head + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    "path",
    [
        "q/test/../../config/config.json",
        "q/test/%2e%2e/%2e%2e/config/config.json",
        "q/test/..%2f..%2fconfig/config.json",
        "..%2f..%2f..%2fetc/passwd",
        "q/./test",
        "q/test%00.json",
        "q/test%0d%0aSet-Cookie:x=1",
        "q/%7f",
        "static/..%2fapp.py",
        "static/%2e%2e/app.py",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused_before_anybody_looks(
    open_site: Web, path: str
) -> None:
    answer = open_site.curl(path, "--path-as-is")
    assert answer.status == 400
    assert "x" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("framing", ["Content-Length: 6000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (NEW, "application/json"),
        (NEW, "application/x-www-form-urlencoded"),
        (NEW, "text/plain"),
        ("api/v1/queues/test/messages", "application/json"),
    ],
)
def test_a_body_that_is_too_long_is_refused(
    open_site: Web, framing: str, kind: str, path: str
) -> None:
    answer = open_site.curl(
        path, "-H", framing, "-H", f"Content-Type: {kind}", "--data-binary", "x" * 6000
    )
    assert answer.status == 413
    assert "5000" in answer.text


@pytest.mark.parametrize("path", [b"/" + NEW.encode(), b"/api/v1/queues/test/messages"])
def test_who_falls_silent_in_the_middle_of_a_body_is_cut_off(open_site: Web, path: bytes) -> None:
    answer = raw(
        open_site,
        b"POST " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n{"dest": ',
    )
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()
    assert b"nothing came for 2 seconds" in answer


# --- users


def challenge(answer: Answer) -> str:
    assert answer.status == 401
    return answer.headers["www-authenticate"]


def test_a_user_logs_in_with_his_password_and_nobody_without(closed: Web) -> None:
    closed.start()
    assert challenge(closed.curl("q.json")) == 'Basic realm="mq \'1\\\\", charset="UTF-8"'
    assert challenge(closed.curl("")).startswith("Basic")
    assert challenge(closed.curl("api/v1/queues")).startswith("Basic")
    assert closed.curl("q.json", "-u", "alice:s3cret: \u00fc").status == 200
    assert closed.curl("q.json", "-u", "bob:clear").status == 200
    for user in ("alice:S3cret: \u00fc", "alice:", "bob:clear ", "nobody:clear", ":"):
        assert challenge(closed.curl("q.json", "-u", user))
    log = closed.rq.log_text()
    assert "password of bob in clear text" in log
    assert "rq web passwd bob" in log
    assert "s3cret" not in log


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Basic " + base64.b64encode(b"alice\0:x").decode(),
        "Digest username=alice",
        "Bearer",
        "alice:s3cret",
        "",
    ],
)
def test_a_damaged_header_is_nobody(closed: Web, header: str) -> None:
    closed.start()
    assert challenge(closed.curl("q.json", "-H", f"Authorization: {header}"))


def test_a_role_is_kept_to(closed: Web) -> None:
    closed.start()
    answer = send(closed, "-u", "bob:clear")
    assert answer.status == 403
    assert "needs the scope enqueue" in answer.text
    assert send(closed, "-u", "alice:s3cret: \u00fc").status == 200


def test_the_health_is_everybodys_to_ask_and_says_nothing_more(closed: Web) -> None:
    closed.start()
    for path in ("livez", "readyz", "healthz", "api/v1/livez", "api/v1/readyz", "api/v1/healthz"):
        answer = closed.curl(path)
        assert answer.status == 200, path
        assert "test" not in answer.text
        assert closed.curl(path, "-X", "POST").status == 401


def test_a_changed_password_counts_from_the_next_request_on(closed: Web) -> None:
    closed.start()
    old, new = ("-u", "alice:s3cret: \u00fc"), ("-u", "alice:other")
    assert closed.curl("q.json", *old).status == 200
    users = {"alice": passwords.hash_password("other")}
    closed.rq.configure(basic_auth={"users": users})
    assert closed.curl("q.json", *old).status == 401
    assert closed.curl("q.json", *new).status == 200
    assert closed.curl("q.json", "-u", "bob:clear").status == 401
    closed.rq.configure(basic_auth=None)
    assert closed.curl("q.json").status == 200  # on this machine, as ever


def test_a_config_that_is_being_edited_closes_and_opens_nothing(closed: Web) -> None:
    closed.start()
    alice = ("-u", "alice:s3cret: \u00fc")
    file = closed.rq.directory / "config" / "config.json"
    good = file.read_text()
    for bad in ("{", "", '{"host": 1}'):
        file.write_text(bad)
        assert closed.curl("q.json", *alice).status == 200
        assert closed.curl("q.json").status == 401
    file.unlink()
    assert closed.curl("q.json").status == 401
    file.write_text(good)
    assert closed.curl("q.json", *alice).status == 200
    told = closed.rq.log_text().count("the former users and tokens stay in force")
    assert told == 4  # once for each


def test_a_damaged_hash_is_told_and_keeps_the_others(closed: Web) -> None:
    closed.rq.configure(basic_auth={"users": {"alice": ALICE, "eve": "scrypt$14$8$1$x$y"}})
    closed.start()
    assert closed.curl("q.json", "-u", "alice:s3cret: \u00fc").status == 200
    assert closed.curl("q.json", "-u", "eve:x").status == 401
    assert "password of eve is a damaged hash" in closed.rq.log_text()


def test_a_right_password_is_hashed_once(closed: Web) -> None:
    """Two hundred requests with one password cost less than two hundred hashes."""
    closed.start()
    alice = "alice:s3cret: \u00fc"
    before = cpu(closed.pid())
    urls = [f"{closed.url}q.txt"] * 200
    done = subprocess.run(
        ["curl", "-sS", "-u", alice, "-w", "%{stderr}%{http_code}\\n", *urls],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr.split() == [b"200"] * len(urls)
    hashes = 200 * 0.04  # seconds; a machine on which a hash takes less is not known
    assert cpu(closed.pid()) - before < hashes


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_who_guesses_is_slowed_down_and_who_is_known_is_not(closed: Web) -> None:
    closed.start()
    alice = ("-u", "alice:s3cret: \u00fc")
    assert closed.curl("q.json", *alice).status == 200
    for number in range(FREE + 1):
        assert closed.curl("q.json", "-u", f"alice:{number}").status == 401
    slow = closed.curl("q.json", "-u", "alice:x")
    assert slow.status == 429
    assert int(slow.headers["retry-after"]) >= 1
    assert (
        closed.curl("q.json", "-u", "bob:clear").status == 429
    )  # not known yet: it may be a guess
    assert closed.curl("q.json", *alice).status == 200
    assert closed.curl("q.json").status == 401
    assert closed.curl("livez").status == 200
    assert "attempts to log in failed from 127.0.0.1" in closed.rq.log_text()


def test_many_guesses_at_once_are_no_way_around(closed: Web) -> None:
    closed.start()
    statuses = []
    running = [
        subprocess.Popen(
            ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-u", f"alice:{number}",
             f"{closed.url}q.json"], stdout=subprocess.PIPE,
        )
        for number in range(30)
    ]  # fmt: skip
    for process in running:
        out, _ = process.communicate(timeout=PATIENCE)
        statuses.append(out)
    assert set(statuses) == {b"401", b"429"}
    assert statuses.count(b"401") <= FREE + 3


# --- tokens


def test_a_token_may_what_its_scope_says_until_it_ends(closed: Web) -> None:
    reader, read = token("reader")
    writer, write = token("writer", "enqueue")
    over, late = token("over", "admin", expires=datetime(2020, 1, 1, tzinfo=UTC))
    give_tokens(closed, reader, writer, over)
    closed.start()
    assert challenge(closed.curl("q.json")).count("realm") == 2
    assert closed.curl("q.json", *read).status == 200
    assert send(closed, *read).status == 403
    assert send(closed, *write).status == 200
    assert closed.curl("q/test/adminoper", *write, "-d", "pause=1").status == 403
    assert closed.curl("q.json", *late).status == 401
    text = write[1].rpartition(" ")[2]
    assert send(closed, "-u", f"any:{text}").status == 200
    assert closed.curl("q.json", "-u", "any:rqt_wrong").status == 401
    give_tokens(closed, reader)
    assert send(closed, *write).status == 401
    (closed.rq.directory / "config" / "tokens.json").unlink()
    assert closed.curl("q.json", *read).status == 401


def test_tokens_that_cannot_be_read_leave_the_former_ones(closed: Web) -> None:
    reader, read = token("reader")
    give_tokens(closed, reader)
    closed.start()
    assert closed.curl("q.json", *read).status == 200
    file = closed.rq.directory / "config" / "tokens.json"
    file.write_text('{"tokens": [{"name": "x"}]}')
    assert closed.curl("q.json", *read).status == 200
    assert '"tokens[0].scope" is no scope' in closed.rq.log_text()


# --- addresses


def test_only_allowed_addresses_are_answered(web: Web) -> None:
    web.rq.configure(allowed_ips=["10.0.0.0/8"])
    web.start()
    for path in ("q.json", "livez", "nothing"):
        answer = web.curl(path)
        assert answer.status == 403
        assert "your address 127.0.0.1" in answer.text
    web.rq.configure(allowed_ips=["10.0.0.0/8", "127.0.0.1"])
    assert web.curl("q.json").status == 200


def test_a_trusted_proxy_is_asked_for_whom_it_speaks(closed: Web) -> None:
    closed.rq.configure(
        allowed_ips=["1.2.3.0/24"],
        plugins={"web": {"trusted_proxies": ["127.0.0.1"]}},
    )
    closed.start()
    alice = ("-u", "alice:s3cret: \u00fc")
    via = ("-H", "X-Forwarded-For: 6.6.6.6, 1.2.3.4")
    assert closed.curl("q.json", *alice).status == 403
    assert closed.curl("q.json", *alice, "-H", "X-Forwarded-For: 1.2.4.4").status == 403
    answer = closed.curl("q.json", *alice, *via, "-H", "X-Forwarded-Proto: https")
    assert answer.status == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    line = access(closed, 3)[-1]
    assert (line["from"], line["who"], line["status"]) == ("1.2.3.4", "alice", 200)


# --- what is written down


def access(web: Web, count: int) -> list[dict[str, Any]]:
    """The access log, once it has so many lines: one is written when its answer was sent."""
    file = web.rq.directory / "log" / "access.jsonl"
    inotify = Inotify()
    try:
        inotify.add(str(file.parent), Inotify.CREATE | Inotify.MODIFY)
        while len(lines := file.read_text().splitlines() if file.exists() else []) < count:
            assert select.select([inotify.fd], [], [], PATIENCE)[0], lines
            inotify.read()
    finally:
        inotify.close()
    return [json.loads(line) for line in lines]


def test_every_request_leaves_a_line_without_a_secret(closed: Web) -> None:
    closed.start()
    alice = ("-u", "alice:s3cret: \u00fc", "-A", "test/1", "-H", "X-Request-Id: mine")
    body = closed.curl("q.txt?token=s3cret", *alice).body
    closed.curl("q.txt", "-u", "eve:s3cret")
    closed.curl("livez")
    first, second = access(closed, 2)
    assert first | {"at": "", "ms": 0} == {
        "at": "", "id": "mine", "from": "127.0.0.1", "who": "alice", "method": "GET",
        "path": "/q.txt", "status": 200, "bytes": len(body), "ms": 0, "agent": "test/1",
    }  # fmt: skip
    assert (second["who"], second["status"]) == ("", 401)
    file = closed.rq.directory / "log" / "access.jsonl"
    assert "s3cret" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    file.rename(file.with_suffix(".1"))
    closed.curl("q.txt", *alice)
    assert len(access(closed, 1)) == 1


def test_the_access_log_can_be_turned_off(web: Web) -> None:
    web.rq.configure(plugins={"web": {"access_log": False}})
    web.start()
    assert web.curl("q.json").status == 200
    assert not (web.rq.directory / "log" / "access.jsonl").exists()


def test_a_change_is_in_the_audit_log_with_who_and_from_where(closed: Web) -> None:
    writer, write = token("writer", "enqueue")
    give_tokens(closed, writer)
    closed.start()
    made = send(closed, *write, "-H", "X-Request-Id: mine").json()[1].rpartition("/")[2]
    file = closed.rq.directory / "log" / "audit.jsonl"
    (line,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert line["at"].endswith("Z")
    assert (line["who"], line["from"], line["request"]) == ("token:writer", "127.0.0.1", "mine")
    assert (line["queue"], line["subject"], line["outcome"]) == ("test", made, "ok")
    assert file.stat().st_mode & 0o777 == 0o600
