"""What strangers try: names and redirects that lead elsewhere, headers made of data, floods."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from rqcore_web.access import Who
from rqcore_web.audit import Audit
from rqcore_web.security.lines import LineLog
from starlette.requests import Request

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

#: Stands in files of the instance that no URL leads to.
SECRET = b"zq-secret"
#: Leaves in its directory what a script could leave there to lead out of it.
SCRIPT = """#!/bin/sh
echo visible
ln -s ../../../../../config/config.json link
ln -s ../../../../.. up
ln -s / root
mkdir folder && echo zq-secret > folder/inside
mkfifo fifo
echo "done ok" >&3
"""
FILE_ROUTES = (
    "q/test/{id}/log/{file}",
    "q/test/{id}/attach/{file}",
    "q/test/{id}/tailviewlog/{file}",
    "q/test/{id}/tailview/{file}",
    "api/v1/queues/test/messages/{id}/logs/{file}",
    "api/v1/queues/test/messages/{id}/logs/{file}/events?from=0",
    "api/v1/queues/test/messages/{id}/logs/{file}/search?q=zq",
    "api/v1/queues/test/messages/{id}/attachments/{file}",
    "api/v1/queues/test/messages/{id}/attachments/{file}/search?q=zq",
    "-/static/x/{file}",
)
NAMES = (
    "..%2fmsg",
    "..%2f..%2f..%2f..%2fconfig%2fconfig.json",
    "%2e%2e%2fmsg",
    "%2e%2e/msg",
    "../msg",
    "..%5cmsg",
    "..%252fmsg",
    "....%2f%2fmsg",
    "%2fetc%2fpasswd",
    "%2f..%2fmsg",
    "stdio.log%2f..%2f..%2fmsg",
    "stdio.log%00.png",
    "%00",
    ".",
    "..",
    "%2e",
    "link",
    "up%2fconfig%2fconfig.json",
    "up/config/config.json",
    "root",
    "root%2fetc%2fpasswd",
    "folder",
    "folder%2finside",
    "fifo",
    "stdio.log%0d%0aX-Evil: 1",
    "%c0%ae%c0%ae%c0%afmsg",
    "%uff0e%uff0e/msg",
    "a" * 300,
    "~root",
)


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("test", SCRIPT)
    shared.rq.configure(tmpdir="", env="test", zq="zq-secret", allow_new_queue=True)
    shared.start()
    return shared


@pytest.fixture(scope="module")
def msg_id(site: Web) -> str:
    found = site.rq.send("test", param1="zq-secret", src="zq-secret")
    site.rq.until("test", found, "done")
    site.rq.disconnect()
    return found


@pytest.mark.parametrize("route", FILE_ROUTES)
def test_no_name_of_a_file_leads_elsewhere(site: Web, msg_id: str, route: str) -> None:
    with ThreadPoolExecutor(4) as threads:

        def ask(name: str) -> tuple[str, Answer]:
            url = route.format(id=msg_id, file=name.replace(" ", "%20"))
            return name, site.curl(url, "--path-as-is", "--max-time", "20")

        for name, answer in threads.map(ask, NAMES):
            assert SECRET not in answer.body, name
            assert b"root:" not in answer.body, name
            assert "x-evil" not in answer.headers, name
            # What is not there yet has a page and a stream all the same; bytes of it there are none.
            shown = answer.headers["content-type"].startswith(("text/html", "text/event-stream"))
            assert answer.status in (400, 403, 404) or shown, f"{name}: {answer.status}"


def test_what_is_there_is_served(site: Web, msg_id: str) -> None:
    answer = site.curl(FILE_ROUTES[0].format(id=msg_id, file="stdio.log"))
    assert answer.text == "visible\n"


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", "..%2f..%2fconfig", "test%2f..%2f..%2fconfig", "test%00", ".", "%2fetc", "a.b",
     "test%0a", "~", "test.json%2f..%2f..", "a" * 500],
)  # fmt: skip
@pytest.mark.parametrize("rest", ["", ".json", "/config.json", "/config", "/new_message", "/x/msg"])
def test_no_name_of_a_queue_leads_elsewhere(site: Web, name: str, rest: str) -> None:
    answer = site.curl(f"q/{name}{rest}", "--path-as-is")
    assert SECRET not in answer.body
    assert answer.status in (400, 404, 405)


@pytest.mark.parametrize(
    "back",
    [
        "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "https://evil.example/", "javascript:alert(1)", "data:text/html,x", "/%2f/evil.example",
        ".evil.example", "http:evil.example",
    ],
)  # fmt: skip
def test_no_redirect_leads_to_another_site(site: Web, msg_id: str, back: str) -> None:
    fields = ["--data-urlencode", f"back={back}", "-d", "x_format=html"]
    for url, more in [
        ("q/test/adminoper", ["-d", "resume=1"]),
        (f"q/test/{msg_id}", ["-d", "_method=clone"]),
        (f"q/test/{msg_id}/clone", []),
        ("-/q/test/bulk", ["-d", "action=retry"]),
        ("delete_queue", ["-d", "queue_name=none"]),
    ]:
        answer = site.curl(url, *fields, *more)
        assert "x-evil" not in answer.headers
        leads_to = answer.headers.get("location")
        if leads_to is not None:
            assert leads_to.startswith("/")
            assert leads_to[1:2] not in ("/", "\\", "\t")


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "//evil.example/",
        "/%2fevil.example/",
        "/\\evil.example/..",
        "%5cevil.example/",
    ],
)
def test_a_path_is_no_host(site: Web, path: str) -> None:
    answer = site.curl(path, "--path-as-is")
    leads_to = answer.headers.get("location", "/")
    assert leads_to.startswith(("/", site.url))
    assert not leads_to.startswith(("//", "/\\"))


def test_a_root_without_its_slash_leads_to_itself(web: Web) -> None:
    web.rq.configure(relative_root="/mq/")
    web.root = "/"
    web.start()
    assert web.curl("mq").headers["location"] == "/mq/"
    assert web.curl("/mq").headers["location"] == "/mq/"
    assert web.curl("q.json").status == 404
    assert web.curl("mq/q.json").status == 200
    assert web.curl("mq/livez").status == 200


def test_what_is_said_comes_back_as_text_and_never_as_markup(site: Web) -> None:
    evil = "<script>alert(1)</script>"
    for url in (
        f"q/{quote(evil)}",
        f"-/search?q={quote(evil)}",
        f"errors?queue={quote(evil)}",
        f"q/test?q={quote(evil)}",
        f"search?name=test&query[param1]={quote(evil)}",
        f"nothing/{quote(evil)}",
    ):
        answer = site.curl(url, "-g", "-H", "Accept: text/html")
        if "html" in answer.headers.get("content-type", ""):
            assert evil.encode() not in answer.body, url
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_flood_of_half_requests_is_survived_with_little_memory(site: Web, msg_id: str) -> None:
    """Two thousand half requests, with headers as long as may be, and the site answers."""
    before = memory(site.pid())
    head = b"GET /q/test HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: " + b"a" * 30_000
    flood = []
    try:
        for _ in range(2000):
            sock = socket.create_connection(("127.0.0.1", site.port), PATIENCE)
            sock.sendall(head)
            flood.append(sock)
        assert site.curl("q.json").status == 200
        # At most `max_connections` of them are kept, each with what it has sent.
        assert memory(site.pid()) - before < 1000 * 64_000 + (16 << 20)
    finally:
        for sock in flood:
            sock.close()
        site.rq.disconnect()
    assert site.curl("q.json").status == 200


def memory(pid: int) -> int:
    """Resident memory, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def test_many_slow_uploads_leave_room_for_others(site: Web, msg_id: str) -> None:
    slow = [socket.create_connection(("127.0.0.1", site.port), PATIENCE) for _ in range(200)]
    for sock in slow:
        sock.sendall(
            b"POST /q/test/new_message HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n"
            b'Content-Type: application/json\r\n\r\n{"'
        )
    assert site.curl("q.json").status == 200
    for sock in slow:
        sock.close()


# --- the logs


def request(**state: object) -> Request:
    return Request({"type": "http", "client": ("::1", 1), "headers": [], "state": state})


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_audit_log_cannot_be_forged_and_goes_on_when_it_is_rotated(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    asker = request(who=Who("al\nice"), request_id="r1")
    audit.note(asker, "delete", "test", '1\n{"who": "eve"}', "no\r\n" + "x" * 10_000)
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit.jsonl.1")
    audit.note(asker, "kill", "test", "\udcff", "ok")
    (first,) = lines(tmp_path / "audit.jsonl.1")
    assert (first["who"], first["from"], first["request"]) == ("al\nice", "::1", "r1")
    assert first["subject"] == '1\n{"who": "eve"}'
    assert len(str(first["outcome"])) == 2000
    (second,) = lines(tmp_path / "audit.jsonl")
    assert (second["action"], second["subject"]) == ("kill", "\udcff")
    (tmp_path / "audit.jsonl").unlink()
    audit.note(asker, "run", "test")
    assert [line["action"] for line in lines(tmp_path / "audit.jsonl")] == ["run"]
    audit._lines.close()


def test_a_line_that_cannot_be_written_is_told_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(tmp_path / "missing" / "audit.jsonl")
    audit.note(request(who=Who("alice")), "delete", "test", "17")
    assert "audit.jsonl cannot be written: No such file or directory" in caplog.text.replace(
        "[Errno 2] ", ""
    )
    assert "'action': 'delete'" in caplog.text
    log = LineLog(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left"):
        log.write({"a": 1})
    log.close()


def test_lines_of_two_processes_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "both.jsonl"
    program = (
        "import sys, pathlib; from rqcore_web.security.lines import LineLog\n"
        "log = LineLog(pathlib.Path(sys.argv[1]))\n"
        "for n in range(500): log.write({'n': n, 'x': 'y' * 3000})\n"
    )
    command = [sys.executable, "-c", program, str(file)]
    running = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(PATIENCE) for process in running] == [0, 0]
    assert len(lines(file)) == 1000
