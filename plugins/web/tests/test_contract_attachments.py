"""Attachments and logs over the contract's URLs: sent, refused, served, removed; by real curl."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from rqcore.unix import Inotify

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

JSON = ("-F", "x_format=json")
#: A plugin that does not like some files.
PICKY = """
from rqcore.hookspecs import Reject, hookimpl

@hookimpl
def rq_check_attachment(message, attachment, queue):
    return Reject("no viruses") if attachment.name == "virus" else None
"""


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("test", shared.HELLO)
    shared.rq.plugin("picky", PICKY)
    shared.rq.queue(
        "writes",
        "#!/bin/sh\necho '<script>alert(1)</script>'\necho x > out.html\nln -s /etc/passwd link\n"
        'mkdir dir\nmkfifo pipe\necho y > .hidden\necho "done ok" >&3\n',
    )
    shared.start()
    return shared


@pytest.fixture(autouse=True)
def nothing_is_left_of_uploads(site: Web) -> Any:
    yield
    assert os.listdir(site.rq.directory / "tmp") == []
    site.rq.disconnect()


def prepared(site: Web, queue: str = "test") -> str:
    """A message that attachments can be added to: its short id."""
    full: str = site.rq.ask(queue, "prep_message", {"dest": queue})
    return full.rpartition("/")[2]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def attach(site: Web, msg_id: str, *options: str, stdin: bytes = b"content") -> Answer:
    return site.curl(f"q/test/{msg_id}/attach/new", *options, stdin=stdin)


def attached(site: Web, msg_id: str) -> dict[str, Any]:
    found: dict[str, Any] = site.curl(f"q/test/{msg_id}.json").json()["_attachments"]
    return found


WAYS = {
    "as the Ruby tests do": ("-0", "-F", "filedata=@-;filename=a b.txt", "-F", "pathname=a b.txt",
                             "-F", "msg_id=ID", *JSON),
    "HTTP/1.1": ("-F", "filedata=@-;filename=a b.txt", "-F", "pathname=x", "-F", "msg_id=ID", *JSON),
    "fields first": (*JSON, "-F", "msg_id=ID", "-F", "filedata=@-;filename=a b.txt"),
    "expecting": ("-H", "Expect: 100-continue", "-F", "filedata=@-;filename=a b.txt", *JSON),
    "chunked": ("-H", "Transfer-Encoding: chunked", "-F", "filedata=@-;filename=a b.txt", *JSON),
    "in the query": ("-F", "filedata=@-;filename=a b.txt"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 7, 3_000_000])
def test_a_file_is_attached(site: Web, way: str, size: int) -> None:
    msg_id, data = prepared(site), os.urandom(size)
    options = [option.replace("ID", msg_id) for option in WAYS[way]]
    query = "?x_format=json" if way == "in the query" else ""
    answer = site.curl(f"q/test/{msg_id}/attach/new{query}", *options, stdin=data)
    assert answer.status == 200
    assert answer.text == f'["ok","{md5(data)}-Attached successfully"]'
    found = attached(site, msg_id)["a b.txt"]
    assert (found["md5"], found["size"]) == (md5(data), size)
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    served = site.curl(f"q/test/{msg_id}/attach/a%20b.txt")
    assert (served.status, served.body) == (200, data)
    assert served.headers["content-type"] == "text/plain; charset=utf-8"
    assert served.headers["repr-digest"].startswith("sha-256=:")


def test_people_are_led_to_the_message(site: Web) -> None:
    msg_id = prepared(site)
    answer = attach(site, msg_id, "-F", "filedata=@-;filename=x")
    assert (answer.status, answer.headers["location"]) == (303, f"/q/test/{msg_id}")
    assert "rq_flash=" in answer.headers["set-cookie"]


def test_what_a_plugin_refuses_is_told_and_leaves_nothing(site: Web) -> None:
    msg_id = prepared(site)
    answer = attach(site, msg_id, "-F", "filedata=@-;filename=virus", *JSON)
    assert (answer.status, answer.json()) == (200, ["fail", "no viruses (plugin picky)"])
    assert attached(site, msg_id) == {}


def test_the_same_name_replaces_and_the_script_finds_it(site: Web) -> None:
    msg_id = prepared(site)
    for data in (b"first", b"second"):
        attach(site, msg_id, "-F", "filedata=@-;filename=x", *JSON, stdin=data)
    assert {name: a["md5"] for name, a in attached(site, msg_id).items()} == {"x": md5(b"second")}
    site.curl(f"q/test/{msg_id}", "-d", "_method=commit")
    done = site.rq.until("test", msg_id, "done")
    assert (Path(done["path"]) / "attach" / "x").read_bytes() == b"second"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-F", "pathname=x"), "Missing required param filedata"),
        (("-F", "file=@-;filename=x"), "Missing required param filedata"),
        (("-F", "filedata=text"), "Wrong input type for filedata param"),
        (("-F", "filedata=@-;filename="), "Missing filename of uploaded file in filedata param"),
        (("-d", "filedata=x"), "Wrong input type for filedata param"),
        (("-d", ""), "Missing required param filedata"),
    ],
)
def test_a_part_that_is_missing_is_404(site: Web, options: tuple[str, ...], reason: str) -> None:
    form = ("-F" if "-F" in options else "-d", "x_format=json")
    answer = attach(site, prepared(site), *options, *form)
    assert answer.status == 404
    assert reason in answer.json()[1]
    assert reason in attach(site, prepared(site), *options, form[0], "x_format=html").text


NAMES = {
    "../x": "dot-file", "/etc/x": "invalid character", "..": "dot-file", ".x": "dot-file",
    "a%b": "invalid character", "a<b": "invalid character", "a%0D%0Ab": "invalid character",
    "x" * 256: "longer than 255 bytes",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused(site: Web, name: str) -> None:
    msg_id = prepared(site)
    answer = attach(site, msg_id, "-F", f"filedata=@-;filename={name}", *JSON)
    assert (answer.status, answer.json()[0]) == (200, "fail")
    assert NAMES[name] in answer.json()[1]
    assert attached(site, msg_id) == {}
    assert not (site.rq.directory / "queue" / "x").exists()


def raw(site: Web, head: str, body: bytes) -> bytes:
    """What is answered to these very bytes."""
    with socket.create_connection(("127.0.0.1", site.port)) as sock:
        sock.settimeout(30)
        sock.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
        answer = b""
        while data := sock.recv(65_536):
            answer += data
    return answer


@pytest.mark.parametrize("name", [b"a\0b", b"a\rb", b"a\nb", b'a\\"/b', b"\xff/"])
def test_a_name_with_bytes_that_no_client_sends(site: Web, name: bytes) -> None:
    msg_id = prepared(site)
    body = b'--B\r\nContent-Disposition: form-data; name="filedata"; filename="' + name
    body += b'"\r\n\r\nx\r\n--B--\r\n'
    head = (
        f"POST /q/test/{msg_id}/attach/new?x_format=json HTTP/1.0\nContent-Length: {len(body)}\n"
        "Content-Type: multipart/form-data; boundary=B\n"
    )
    answer = raw(site, head, body)
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert attached(site, msg_id) == {}


@pytest.mark.parametrize("name", ["ü☃.txt", "a'b;c", 'a"b', "a+b&c", "data:text,x"])
def test_names_in_any_letters(site: Web, name: str) -> None:
    msg_id = prepared(site)
    escaped = name.replace('"', '\\"')
    answer = attach(site, msg_id, "-F", f'filedata=@-;filename="{escaped}"', *JSON)
    if "&" in name:
        assert "invalid character" in answer.json()[1]
        return
    assert list(attached(site, msg_id)) == [name]
    served = site.curl(f"q/test/{msg_id}/attach/{quote(name, safe='')}?download=1")
    assert served.body == b"content"
    assert served.headers["content-disposition"].startswith("attachment; filename=")


def test_a_message_that_is_not_in_prep_takes_none(site: Web) -> None:
    for msg_id in (site.rq.send("test", due=4_000_000_000), "20260101.0000.00.000.1", "x"):
        answer = attach(site, msg_id, "-F", "filedata=@-;filename=x", *JSON, stdin=b"x" * 2_000_000)
        assert (answer.status, answer.text) == (200, '["fail","cannot find message"]')
        answer = attach(site, msg_id, "-F", "filedata=@-;filename=x")
        assert answer.status == 303


PART = b'--B\r\nContent-Disposition: form-data; name="filedata"; filename="x"\r\n\r\n'
FIELD = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
UNREADABLE = {
    "nonsense": (b"nonsense", 400, "the form cannot be read"),
    "half": (PART + b"half", 400, "not all of it"),
    "thousands of parts": (FIELD * 2000, 413, "too many fields"),
    "megabytes of nothing": (b"\r\n" * 6_000_000, 413, "max_body"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_form_that_cannot_be_read(site: Web, case: str) -> None:
    body, status, reason = UNREADABLE[case]
    msg_id = prepared(site)
    kind = "Content-Type: multipart/form-data; boundary=B"
    answer = attach(site, msg_id, "-H", kind, "--data-binary", "@-", stdin=body)
    assert answer.status == status
    assert reason in answer.json()[1]
    assert attached(site, msg_id) == {}


# Refused before the first byte


def limited(web: Web, **options: Any) -> str:
    web.rq.queue("test", web.HELLO)
    web.rq.configure(plugins={"web": options})
    web.start()
    return prepared(web)


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"max_upload": 1000}, 413, "at most 1000 bytes are taken (max_upload)"),
        ({"keep_free": 1 << 50}, 507, "are kept (keep_free)"),
    ],
)
def test_an_upload_that_is_not_taken_is_not_sent_either(
    web: Web, options: dict[str, int], status: int, reason: str
) -> None:
    msg_id = limited(web, **options)
    length = 1 << 40
    head = (
        f"POST /q/test/{msg_id}/attach/new HTTP/1.1\nHost: localhost\nContent-Length: {length}\n"
        "Content-Type: multipart/form-data; boundary=B\nExpect: 100-continue\n"
    )
    answer = raw(web, head, b"")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert reason.encode() in answer
    assert b"100 Continue" not in answer
    # Nobody said how much it would be: it ends when it is too much.
    chunked = ("-H", "Transfer-Encoding: chunked", "-F", "filedata=@-;filename=x", *JSON)
    unsaid = web.curl(f"q/test/{msg_id}/attach/new", *chunked, stdin=b"x" * 3_000_000)
    assert (unsaid.status, unsaid.json()[0]) == (status, "fail")
    assert attached(web, msg_id) == {}
    assert os.listdir(web.rq.directory / "tmp") == []


# Interrupted


def begun(web: Web, msg_id: str) -> socket.socket:
    """An upload of which more than a block has come, and lies on the disk."""
    inotify = Inotify()
    try:
        inotify.add(str(web.rq.directory / "tmp"), Inotify.MODIFY)
        sock = socket.create_connection(("127.0.0.1", web.port))
        head = (
            f"POST /q/test/{msg_id}/attach/new HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Length: 100000000\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n"
            '--B\r\nContent-Disposition: form-data; name="filedata"; filename="x"\r\n\r\n'
        )
        sock.sendall(head.encode() + b"x" * 3_000_000)
        assert select.select([inotify.fd], [], [], 30)[0]
    finally:
        inotify.close()
    assert len(os.listdir(web.rq.directory / "tmp")) == 1
    return sock


def gone(web: Web) -> None:
    """Wait until no upload lies in the instance's tmp any more."""
    inotify = Inotify()
    try:
        inotify.add(str(web.rq.directory / "tmp"), Inotify.DELETE)
        while os.listdir(web.rq.directory / "tmp"):
            assert select.select([inotify.fd], [], [], 30)[0], "an upload stays behind"
            inotify.read()
    finally:
        inotify.close()


def descriptors(web: Web) -> list[str]:
    """The uploads that the service has open."""
    pid, tmp, found = web.pid(), str(web.rq.directory / "tmp"), []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return [path for path in found if path.startswith(tmp)]


def test_a_client_that_goes_away_leaves_nothing(site: Web) -> None:
    msg_id = prepared(site)
    for _ in range(3):
        begun(site, msg_id).close()
        gone(site)
    assert attached(site, msg_id) == {}
    assert descriptors(site) == []
    answer = attach(site, msg_id, "-F", "filedata=@-;filename=x", *JSON)
    assert answer.json()[0] == "ok"


def test_a_client_that_says_nothing_more_leaves_nothing(web: Web) -> None:
    msg_id = limited(web, client_timeout=1)
    with begun(web, msg_id) as sock:
        gone(web)
        sock.settimeout(30)
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert attached(web, msg_id) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_service_that_ends_in_the_middle_leaves_nothing(web: Web, number: int) -> None:
    msg_id = limited(web)
    with begun(web, msg_id):
        with web.rq.manager as manager:
            events = manager.subscribe({}, timeout=30)
            os.kill(web.pid(), number)
            while next(events)["state"] != "running":
                pass
        assert os.listdir(web.rq.directory / "tmp") == []
    assert attached(web, msg_id) == {}
    answer = web.curl(
        f"q/test/{msg_id}/attach/new", "-F", "filedata=@-;filename=x", *JSON, stdin=b"x"
    )
    assert answer.json()[0] == "ok"


# Removing


def test_an_attachment_is_removed(site: Web) -> None:
    msg_id = prepared(site)
    attach(site, msg_id, "-F", "filedata=@-;filename=a b", *JSON)
    path = f"q/test/{msg_id}/attach/a%20b"
    answer = site.curl(path, "-d", "_method=delete", "-d", "x_format=json")
    assert (answer.status, answer.text) == (200, '["ok","Attachment deleted successfully"]')
    assert site.curl(path).status == 404
    answer = site.curl(path, "-d", "_method=delete", "-d", "x_format=json")
    assert answer.json()[0] == "fail"
    answer = site.curl(path, "-d", "_method=delete")
    assert (answer.status, answer.headers["location"]) == (303, f"/q/test/{msg_id}")
    for method in ("", "put", "commit"):
        assert site.curl(path, "-d", f"_method={method}").status == 400


# A message that comes with its file


@pytest.mark.parametrize("method", ["commit", "prep"])
def test_a_message_comes_with_its_file(site: Web, method: str) -> None:
    body = json.dumps({"dest": "test", "_method": method})
    answer = site.curl(
        "q/test/new_message", "-F", f"mesg={body}", "-F", "filedata=@-;filename=x", stdin=b"abc"
    )
    assert answer.json()[0] == "ok"
    msg_id = answer.json()[1].rpartition("/")[2]
    if method == "commit":
        site.rq.until("test", msg_id, "done")
    assert site.curl(f"q/test/{msg_id}/attach/x").body == b"abc"


@pytest.mark.parametrize(
    ("body", "name", "status", "reason"),
    [
        ('{"dest": "test"}', "a%b", 200, "invalid character"),
        ('{"dest": "test"}', "virus", 200, "no viruses"),
        ('{"dest": ""}', "x", 200, 'missing required "dest"'),
        ('{"dest": "test", "_method": "single_que"}', "x", 400, "single_que takes no file"),
        ("{", "x", 400, "mesg is not JSON"),
    ],
)
def test_a_message_that_is_refused_leaves_no_file(
    site: Web, body: str, name: str, status: int, reason: str
) -> None:
    before = site.curl("q/test.json").json()
    answer = site.curl(
        "q/test/new_message", "-F", f"mesg={body}", "-F", f"filedata=@-;filename={name}", stdin=b"x"
    )
    assert (answer.status, answer.json()[0]) == (status, "fail")
    assert reason in answer.json()[1]
    after = site.curl("q/test.json").json()
    assert [after[f"{state}_size"] for state in ("prep", "que")] == [
        before["prep_size"],
        before["que_size"],
    ]


def test_a_field_that_no_file_was_chosen_for_is_no_file(site: Web) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="mesg[dest]"\r\n\r\ntest\r\n'
        b'--B\r\nContent-Disposition: form-data; name="filedata"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--B--\r\n"
    )
    kind = "Content-Type: multipart/form-data; boundary=B"
    answer = site.curl("q/test/new_message", "-H", kind, "--data-binary", "@-", stdin=body)
    assert answer.json()[0] == "ok"


# Logs


@pytest.fixture(scope="module")
def written(site: Web) -> str:
    """A message whose script left files of every kind in its directory."""
    msg_id = site.rq.send("writes")
    site.rq.until("writes", msg_id, "done")
    site.rq.disconnect()
    return msg_id


def test_a_log_is_served_as_text(site: Web, written: str) -> None:
    answer = site.curl(f"q/writes/{written}/log/stdio.log")
    assert (answer.status, answer.body) == (200, b"<script>alert(1)</script>\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "repr-digest" not in answer.headers
    page = site.curl(f"q/writes/{written}/log/out.html")
    assert (page.body, page.headers["content-type"]) == (b"x\n", "text/plain; charset=utf-8")


def test_a_log_is_served_in_pieces(site: Web, written: str) -> None:
    path = f"q/writes/{written}/log/stdio.log"
    answer = site.curl(path, "-r", "-10")
    assert (answer.status, answer.body) == (206, b"</script>\n")
    assert answer.headers["content-range"] == "bytes 16-25/26"
    assert site.curl(path, "-r", "26-").status == 416
    etag = answer.headers["etag"]
    assert site.curl(path, "-H", f"If-None-Match: {etag}").status == 304
    head = site.curl(path, "-I", "-o", "/dev/null")
    assert (head.status, head.headers["content-length"]) == (200, "26")


@pytest.mark.parametrize(
    "name",
    ["missing", "link", "dir", "pipe", ".hidden", "..", "%2e%2e%2fmsg", "..%2fmsg", "a%00b", "%ff"],
)
@pytest.mark.parametrize("folder", ["log", "attach"])
def test_nothing_else_is_served(site: Web, written: str, name: str, folder: str) -> None:
    answer = site.curl(f"q/writes/{written}/{folder}/{name}", "--path-as-is")
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body


def test_a_log_is_served_while_it_grows(web: Web) -> None:
    web.rq.queue("test", web.WAITS)
    web.start()
    fifo = web.rq.directory / "fifo"
    os.mkfifo(fifo)
    msg_id = web.rq.send("test", param1=str(fifo))
    web.rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    first = web.curl(f"q/test/{msg_id}/log/stdio.log")
    assert (first.status, first.body) == (200, b"ready\n")
    fifo.write_bytes(b"more\n")
    web.rq.until("test", msg_id, "done")
    rest = web.curl(f"q/test/{msg_id}/log/stdio.log", "-r", "6-")
    assert (rest.status, rest.body) == (206, b"more\n")
