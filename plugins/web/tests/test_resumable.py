"""Uploads that go on where they were cut off, over HTTP: curl, raw sockets, and a service that dies."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_web.security import tokens

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

MEGA = 1 << 20
PARTIAL = ("-X", "PATCH", "-H", "Content-Type: application/partial-upload")
OFFSET = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset"
LENGTH = "https://iana.org/assignments/http-problem-types#inconsistent-upload-length"
URN = "urn:rqcore:problem:"


def eventually(fact: Callable[[], bool]) -> None:
    """Wait until this is so."""
    deadline = monotonic() + PATIENCE
    while not fact():
        assert monotonic() < deadline
        threading.Event().wait(0.01)


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def prepared(web: Web, queue: str = "test", *options: str) -> str:
    """The path of a new message in prep."""
    answer = web.curl(
        f"api/v1/queues/{queue}/messages", "-H", "Content-Type: application/json",
        "-d", '{"mode": "prep"}', *options,
    )  # fmt: skip
    assert answer.status == 201, answer.text
    return answer.headers["location"].lstrip("/")


def begin(
    web: Web, message: str, name: str = "file", length: int | None = None, sha: str = "",
    complete: str = "?0", data: bytes = b"", options: tuple[str, ...] = (),
) -> Answer:  # fmt: skip
    given = ["-X", "POST", "-H", f"Upload-Complete: {complete}", "--data-binary", "@-", *options]
    given += ["-H", f"Upload-Length: {length}"] if length is not None else []
    given += ["-H", f"Repr-Digest: {sha}"] if sha else []
    return web.curl(f"{message}/attachments/{name}", *given, stdin=data)


def begun(
    web: Web, message: str, name: str = "file", length: int | None = None, sha: str = ""
) -> str:
    """The path of a new upload."""
    answer = begin(web, message, name, length, sha)
    assert answer.status == 201, answer.text
    return answer.headers["location"].lstrip("/")


def send(
    web: Web, upload: str, offset: int, data: bytes, complete: str = "?1", *options: str
) -> Answer:
    return web.curl(
        upload, *PARTIAL, "-H", f"Upload-Offset: {offset}", "-H", f"Upload-Complete: {complete}",
        "--data-binary", "@-", *options, stdin=data,
    )  # fmt: skip


def head(web: Web, upload: str) -> Answer:
    return web.curl(upload, "-I")


def offset_of(web: Web, upload: str) -> int:
    answer = head(web, upload)
    assert answer.status == 204, answer.status
    return int(answer.headers["upload-offset"])


def problem(answer: Answer, status: int, kind: str, words: str = "") -> dict[str, Any]:
    assert answer.status == status, answer.text
    told: dict[str, Any] = answer.json()
    assert told["type"] == (
        kind if kind.startswith("http") or kind == "about:blank" else URN + kind
    )
    assert words in told["detail"], told["detail"]
    return told


def attachments(web: Web, message: str) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in web.curl(message).json()["attachments"]}


def left(web: Web) -> list[str]:
    """What lies in the directory of uploads."""
    return sorted(os.listdir(web.rq.directory / "tmp"))


def patch_head(web: Web, upload: str, offset: int, length: int, complete: str = "?1") -> bytes:
    lines = [
        f"PATCH /{upload} HTTP/1.1", f"Host: 127.0.0.1:{web.port}", f"Content-Length: {length}",
        "Content-Type: application/partial-upload", f"Upload-Offset: {offset}",
        f"Upload-Complete: {complete}", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


def sending(web: Web, upload: str, offset: int, length: int, data: bytes) -> socket.socket:
    """A connection in the middle of a PATCH: so much of it has come, and the rest does not."""
    sock = socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE)
    sock.sendall(patch_head(web, upload, offset, length) + data)
    return sock


def until_at_work(web: Web, upload: str) -> None:
    eventually(lambda: web.curl(upload).json()["active"])


def answer_of(sock: socket.socket) -> tuple[int, bytes]:
    """What is answered on this connection until it is closed."""
    data = b""
    while block := sock.recv(65536):
        data += block
    first, _, body = data.partition(b"\r\n\r\n")
    return int(first.split()[1]), body


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("test", shared.HELLO)
    shared.rq.queue("other", shared.HELLO)
    shared.rq.configure(plugins={"web": {"max_upload": 20 * MEGA}})
    return shared.start()


@pytest.fixture
def message(site: Web) -> str:
    return prepared(site)


# --- how it goes


def test_it_is_known_that_uploads_can_be_resumed(site: Web) -> None:
    answer = site.curl("api/v1/uploads", "-X", "OPTIONS")
    assert answer.status == 204
    assert answer.headers["upload-limit"] == f"max-size={20 * MEGA}, max-age=86400"


@pytest.mark.parametrize("name", ["plain.bin", "two words", "Grüße €.txt", "a'b+c=d"])
def test_a_file_comes_in_pieces(site: Web, message: str, name: str) -> None:
    from urllib.parse import quote

    data = os.urandom(2 * MEGA + 77)
    began = begin(site, message, quote(name), len(data), digest(data))
    assert began.status == 201
    assert began.headers["upload-offset"] == "0"
    upload = began.headers["location"].lstrip("/")
    assert began.json()["name"] == name
    first = send(site, upload, 0, data[:MEGA], "?0")
    assert (first.status, first.headers["upload-offset"]) == (204, str(MEGA))
    assert first.headers["upload-complete"] == "?0"
    assert attachments(site, message) == {}
    told = head(site, upload)
    assert told.headers["upload-length"] == str(len(data))
    assert told.headers["cache-control"] == "no-store"
    last = send(site, upload, MEGA, data[MEGA:])
    assert last.status == 201
    assert last.headers["upload-complete"] == "?1"
    sha = hashlib.sha256(data).hexdigest()
    assert (last.json()["name"], last.json()["size"], last.json()["sha256"]) == (
        name,
        len(data),
        sha,
    )
    assert attachments(site, message)[name] == last.json()
    assert site.curl(last.headers["location"].lstrip("/")).body == data
    # Who did not hear it finds out, and may ask for the same again.
    told = head(site, upload)
    assert told.headers["upload-complete"] == "?1"
    assert told.headers["repr-digest"] == digest(data)
    again = send(site, upload, len(data), b"")
    assert (again.status, again.json()) == (201, last.json())
    assert site.curl(f"{message}/commit", "-X", "POST").status == 200
    eventually(lambda: head(site, upload).status == 404)


@pytest.mark.parametrize("size", [0, 1, MEGA])
@pytest.mark.parametrize("way", ["POST", "POST and PATCH", "POST with it all", "unknown length"])
def test_small_files_and_empty_ones(site: Web, message: str, size: int, way: str) -> None:
    data = os.urandom(size)
    if way == "POST":
        last = begin(site, message, "small", size, digest(data), "?1", data)
    elif way == "POST with it all":  # and says later that this was all
        upload = begin(site, message, "small", size, complete="?0", data=data)
        assert upload.headers["upload-offset"] == str(size)
        last = send(site, upload.headers["location"].lstrip("/"), size, b"")
    elif way == "POST and PATCH":
        last = send(site, begun(site, message, "small", size), 0, data)
    else:
        last = send(
            site, begun(site, message, "small"), 0, data, "?1", "-H", "Transfer-Encoding: chunked"
        )
    assert last.status == 201, last.text
    assert last.json()["size"] == size
    assert site.curl(f"{message}/attachments/small").body == data


def test_an_upload_can_be_looked_at_and_cancelled(site: Web, message: str) -> None:
    upload = begun(site, message, "file", 100)
    send(site, upload, 0, b"x" * 10, "?0")
    shown = site.curl(upload).json()
    assert shown["url"] == f"/{upload}"
    assert (shown["offset"], shown["length"]) == (10, 100)
    assert (shown["queue"], shown["msg_id"]) == ("test", message.rpartition("/")[2])
    assert (shown["complete"], shown["active"], shown["who"]) == (False, False, "anonymous")
    assert shown in [
        {**item, "touched_at": shown["touched_at"]}
        for item in site.curl("api/v1/uploads").json()["items"]
    ]
    files = [name for name in left(site) if shown["id"] in name]
    assert len(files) == 2
    assert site.curl(upload, "-X", "DELETE").status == 204
    for again in (head(site, upload), site.curl(upload), send(site, upload, 10, b"x")):
        assert again.status == 404
    assert not set(files) & set(left(site))


def test_a_second_upload_of_the_same_takes_the_place_of_the_first(site: Web, message: str) -> None:
    first, other = begun(site, message, "file", 10), begun(site, message, "other", 10)
    send(site, first, 0, b"12345", "?0")
    second = begun(site, message, "file", 3)
    assert head(site, first).status == 404
    assert "begin anew" in send(site, first, 5, b"67890").json()["detail"]
    assert offset_of(site, second) == offset_of(site, other) == 0
    assert send(site, second, 0, b"abc").status == 201
    assert site.curl(f"{message}/attachments/file").body == b"abc"
    # So does one that comes whole, of any that is under way.
    assert begin(site, message, "other", 1, complete="?1", data=b"x").status == 201
    assert head(site, other).status == 404


# --- what is wrong is refused, in words


def test_bytes_for_another_place_are_refused_with_the_right_one(site: Web, message: str) -> None:
    upload = begun(site, message, "file", 100)
    send(site, upload, 0, b"x" * 10, "?0")
    for offset in (0, 9, 11, 100):
        answer = send(site, upload, offset, b"y" * (100 - offset))
        told = problem(answer, 409, OFFSET, f"begin there, not at {offset}")
        assert answer.headers["upload-offset"] == "10"
        assert (told["expected-offset"], told["provided-offset"]) == (10, offset)
    assert send(site, upload, 10, b"y" * 90).status == 201
    answer = send(site, upload, 10, b"y" * 90)
    assert problem(answer, 409, OFFSET)["expected-offset"] == 100


@pytest.mark.parametrize("way", ["announced", "chunked"])
def test_more_or_less_than_was_said_is_refused(site: Web, message: str, way: str) -> None:
    chunked = ("-H", "Transfer-Encoding: chunked") if way == "chunked" else ()
    upload = begun(site, message, "file", 10)
    problem(send(site, upload, 0, b"x" * 11, "?1", *chunked), 400, LENGTH)
    at = 10 if chunked else 0  # what fits has come meanwhile
    assert offset_of(site, upload) == at
    upload = begun(site, message, "less", 10)
    problem(send(site, upload, 0, b"x" * 9, "?1", *chunked), 400, LENGTH)
    at = 9 if chunked else 0
    assert offset_of(site, upload) == at
    assert send(site, upload, at, b"x" * (10 - at)).status == 201


def test_lengths_that_contradict_each_other_are_refused(site: Web, message: str) -> None:
    problem(begin(site, message, "f", 9, complete="?1", data=b"x" * 10), 400, LENGTH, "all of it")
    problem(
        begin(site, message, "f", 9, complete="?0", data=b"x" * 10), 400, LENGTH, "10 bytes come"
    )
    upload = begun(site, message, "f", 10)
    for length in (9, 11):
        more = ("-H", f"Upload-Length: {length}")
        problem(send(site, upload, 0, b"xx", "?0", *more), 400, LENGTH, "with 10 bytes")
    unknown = begun(site, message, "g")
    assert "upload-length" not in head(site, unknown).headers
    assert send(site, unknown, 0, b"xx", "?0", "-H", "Upload-Length: 4").status == 204
    assert head(site, unknown).headers["upload-length"] == "4"
    assert send(site, unknown, 2, b"yy").status == 201


@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        (["Upload-Complete: ?1"], 400, "Upload-Offset is missing"),
        (["Upload-Offset: 0"], 400, "Upload-Complete must be ?1"),
        (["Upload-Offset: 0", "Upload-Complete: yes"], 400, "not 'yes'"),
        (["Upload-Offset: -1", "Upload-Complete: ?1"], 400, "a whole number of bytes, not '-1'"),
        (["Upload-Offset: 0", "Upload-Complete: ?1", "Upload-Length: x"], 400, "Upload-Length must be"),
        (["Upload-Offset: 0", "Upload-Complete: ?1", "Repr-Digest: sha-256=:x:"], 400, "32 bytes"),
        (["Upload-Offset: 0", "Upload-Complete: ?1", "Content-Type: text/plain"], 415,
         "send application/partial-upload"),
    ],
)  # fmt: skip
def test_a_request_that_says_it_wrongly(
    site: Web, message: str, lines: list[str], status: int, words: str
) -> None:
    upload = begun(site, message, "file", 2)
    given = [word for line in lines for word in ("-H", line)]
    if not any(line.startswith("Content-Type") for line in lines):
        given += ["-H", "Content-Type: application/partial-upload"]
    answer = site.curl(upload, "-X", "PATCH", *given, "--data-binary", "@-", stdin=b"xx")
    problem(answer, status, "about:blank", words)
    assert offset_of(site, upload) == 0


def test_an_upload_is_refused_before_its_first_byte(site: Web, message: str) -> None:
    problem(begin(site, message, "big", 20 * MEGA + 1), 413, "about:blank", "max_upload")
    for name in (".dot", "a%7Cb", "%3Cb%3E"):
        problem(begin(site, message, name, 1), 422, "invalid", "name")
    none = "api/v1/queues/test/messages/20200101.0000.00.000.1"
    problem(begin(site, none, "file", 1), 404, "about:blank", "msg not found")
    site.curl(f"{message}/commit", "-X", "POST")
    problem(begin(site, message, "file", 1), 409, "conflict", "only one in prep takes attachments")
    assert site.curl("api/v1/uploads/none", *PARTIAL).status == 404


@pytest.mark.parametrize("way", ["POST", "PATCH", "announced with the last", "PUT"])
def test_another_digest_than_was_announced_drops_it(site: Web, message: str, way: str) -> None:
    wrong = digest(b"other")
    if way == "POST":
        answer = begin(site, message, "file", 4, wrong, "?1", b"data")
    elif way == "PUT":
        options = ("-X", "PUT", "-H", f"Repr-Digest: {wrong}", "--data-binary", "data")
        answer = site.curl(f"{message}/attachments/file", *options)
    else:
        upload = begun(site, message, "file", 4, wrong if way == "PATCH" else "")
        more = ("-H", f"Repr-Digest: {wrong}") if way != "PATCH" else ()
        answer = send(site, upload, 0, b"data", "?1", *more)
        eventually(lambda: head(site, upload).status == 404)
    problem(answer, 422, "digest-mismatch", hashlib.sha256(b"data").hexdigest())
    assert attachments(site, message) == {}
    # A digest of another kind says nothing here.
    assert begin(site, message, "file", 4, "sha-512=:eA==:", "?1", b"data").status == 201


# --- cut off


def test_what_came_before_a_cut_is_kept_and_told_at_once(site: Web, message: str) -> None:
    data = os.urandom(5 * MEGA)
    upload = begun(site, message, "file", len(data), digest(data))
    came = 0
    for most in (3 * MEGA + 11, 4 * MEGA):
        sock = sending(site, upload, came, len(data) - came, data[came:most])
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
        sock.close()
        came = offset_of(site, upload)
        assert came == most
    assert send(site, upload, came, data[came:]).status == 201
    assert site.curl(f"{message}/attachments/file").body == data


@pytest.mark.parametrize("way", ["HEAD", "PATCH", "DELETE", "POST"])
def test_a_newer_request_takes_over_from_a_connection_that_is_silent(
    site: Web, message: str, way: str
) -> None:
    """Nobody says that the older one is gone: so it is when a cable is pulled."""
    data = os.urandom(2 * MEGA)
    upload = begun(site, message, "file", len(data))
    with sending(site, upload, 0, len(data), data[: MEGA + 5]) as silent:
        until_at_work(site, upload)
        eventually(lambda: site.curl(upload).json()["offset"] >= MEGA)
        if way == "HEAD":
            assert offset_of(site, upload) == MEGA + 5
        elif way == "PATCH":
            told = problem(send(site, upload, 0, data), 409, OFFSET)
            assert told["expected-offset"] == MEGA + 5
        elif way == "DELETE":
            assert site.curl(upload, "-X", "DELETE").status == 204
        else:
            upload = begun(site, message, "file", len(data))
        status, body = answer_of(silent)
    assert status == 409
    assert json.loads(body)["type"] == f"{URN}upload-taken-over"
    if way != "DELETE":
        came = 0 if way == "POST" else MEGA + 5
        assert send(site, upload, came, data[came:]).status == 201
        assert site.curl(f"{message}/attachments/file").body == data


@pytest.mark.parametrize("way", ["commit", "delete"])
def test_a_message_that_goes_on_without_it_ends_an_upload(
    site: Web, message: str, way: str
) -> None:
    upload, idle = begun(site, message, "file", 2 * MEGA), begun(site, message, "idle", 5)
    with sending(site, upload, 0, 2 * MEGA, b"x" * MEGA) as under_way:
        until_at_work(site, upload)
        method, path = ("POST", f"{message}/commit") if way == "commit" else ("DELETE", message)
        assert site.curl(path, "-X", method).status in (200, 204)
        status, body = answer_of(under_way)
    assert status == 409
    assert "its message" in json.loads(body)["detail"]
    eventually(lambda: {head(site, one).status for one in (upload, idle)} == {404})
    ids = [one.rpartition("/")[2] for one in (upload, idle)]
    eventually(lambda: not [name for name in left(site) for uid in ids if uid in name])


def test_many_attachments_come_side_by_side(site: Web, message: str) -> None:
    data = {f"file{n}": os.urandom(MEGA + n) for n in range(6)}
    answers: list[Answer] = []

    def bring(name: str) -> None:
        upload = begun(site, message, name, len(data[name]), digest(data[name]))
        send(site, upload, 0, data[name][:1000], "?0")
        answers.append(send(site, upload, 1000, data[name][1000:]))

    threads = [threading.Thread(target=bring, args=(name,)) for name in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 2)
    assert [answer.status for answer in answers] == [201] * 6
    found = attachments(site, message)
    assert {name: item["sha256"] for name, item in found.items()} == {
        name: hashlib.sha256(one).hexdigest() for name, one in data.items()
    }


def test_a_queue_that_is_down_takes_nothing_and_loses_nothing(site: Web) -> None:
    message = prepared(site, "other")
    upload = begun(site, message, "file", 10)
    assert send(site, upload, 0, b"12345", "?0").status == 204
    down = site.rq.directory / "config/other.down"
    down.touch()
    problem(send(site, upload, 5, b"67890"), 503, "queue-down")
    problem(begin(site, message, "another", 10), 503, "queue-down")
    assert offset_of(site, upload) == 5
    down.unlink()
    assert send(site, upload, 5, b"67890").status == 201
    assert site.curl(f"{message}/attachments/file").body == b"1234567890"


# --- who may


def test_an_upload_is_for_whoever_may_attach_to_its_message(web: Web) -> None:
    for name in ("mine", "other"):
        web.rq.queue(name, web.HELLO)
    web.rq.configure(basic_auth={"users": {"nobody": "else"}})
    given = {
        name: tokens.make_token(name, scope, [queue] if queue else (), None, datetime.now(UTC))
        for name, scope, queue in (
            ("all", "enqueue", ""), ("mine", "enqueue", "mine"), ("other", "enqueue", "other"),
            ("reads", "read", ""),
        )
    }  # fmt: skip
    tokens.write_tokens(
        web.rq.directory / "config/tokens.json", [made for made, _ in given.values()]
    )
    bearer = {name: ("-H", f"Authorization: Bearer {text}") for name, (_, text) in given.items()}
    web.start()
    message = prepared(web, "mine", *bearer["mine"])
    answer = begin(web, message, "file", 4, options=bearer["mine"])
    upload = answer.headers["location"].lstrip("/")
    assert answer.json()["who"] == "token:mine"
    for name, status in (("other", 404), ("reads", 403)):
        for asked in (
            web.curl(upload, "-I", *bearer[name]), send(web, upload, 0, b"data", "?1", *bearer[name]),
            web.curl(upload, "-X", "DELETE", *bearer[name]),
        ):  # fmt: skip
            assert asked.status == status
    assert web.curl(upload, *bearer["other"]).status == 404
    assert web.curl(upload, *bearer["reads"]).status == 200
    assert web.curl("api/v1/uploads", *bearer["other"]).json()["items"] == []
    assert len(web.curl("api/v1/uploads", *bearer["mine"]).json()["items"]) == 1
    for name, status in (("all", 204), ("reads", 403)):
        assert web.curl("api/v1/uploads", "-X", "OPTIONS", *bearer[name]).status == status
    assert web.curl("api/v1/uploads", "-X", "OPTIONS").status == 401
    # Not who began it counts, but what one may do with its message.
    assert send(web, upload, 0, b"data", "?1", *bearer["all"]).status == 201


# --- the service dies


def killed(web: Web, during: Callable[[], None] = lambda: None) -> None:
    """Kill the service, and wait for the next one."""

    def kill() -> None:
        os.kill(web.pid(), signal.SIGKILL)
        during()

    restarted(web, kill)


def restarted(web: Web, by: Callable[[], None]) -> None:
    """Do what ends the service, and wait for the next one."""
    pid = web.pid()
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=PATIENCE)
        by()
        while True:
            children = web.rq.manager.ask("describe")["children"]
            (found,) = [child for child in children if child["kind"] == "service"]
            if found["state"] == "running" and found["pid"] != pid:
                return
            next(events)


def test_who_is_in_the_middle_when_the_service_is_stopped_is_told_or_cut_off(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    message, data = prepared(web), os.urandom(16 * MEGA)
    assert begin(web, message, "large", len(data), complete="?1", data=data).status == 201
    upload = begun(web, message, "file", len(data))
    with (
        sending(web, upload, 0, len(data), data[:MEGA]) as patching,
        socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE) as fetching,
    ):
        until_at_work(web, upload)
        get = f"GET /{message}/attachments/large HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\n\r\n"
        fetching.sendall(get.encode())
        assert fetching.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: web.curl(upload).json()["offset"] > 0)
        web.rq.stop()
        status, body = answer_of(patching)
        assert (status, json.loads(body)["detail"]) == (
            503, "the web service is being stopped; come back when it runs again",
        )  # fmt: skip
    log = web.rq.log_text()
    assert f"PATCH /{upload} is ended, as the service is" in log
    assert "Traceback" not in log
    assert "Exception in ASGI" not in log
    web.start()
    assert offset_of(web, upload) == MEGA


def test_an_upload_outlives_the_service(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    message, data = prepared(web), os.urandom(6 * MEGA)
    upload = begun(web, message, "file", len(data), digest(data))
    done = begun(web, message, "done", 4)
    gone = begun(web, prepared(web), "gone", 4)
    assert send(web, done, 0, b"done").status == 201
    with sending(web, upload, 0, len(data), data[: 4 * MEGA]):
        eventually(lambda: web.curl(upload).json()["offset"] >= 3 * MEGA)
        # Its message goes while nobody listens.
        lost = web.curl(gone).json()["msg_id"]
        killed(web, lambda: web.rq.ask("test", "delete_message", {"msg_id": lost}))
    came = offset_of(web, upload)
    assert 3 * MEGA <= came <= 4 * MEGA
    assert send(web, upload, came, data[came : came + 10], "?0").status == 204
    killed(web)
    assert offset_of(web, upload) == came + 10
    last = send(web, upload, came + 10, data[came + 10 :])
    assert last.json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert web.curl(f"{message}/attachments/file").body == data
    for _ in range(2):  # also what was complete is still known to be
        for one in (upload, done):
            assert head(web, one).headers["upload-complete"] == "?1"
        killed(web)
    eventually(lambda: head(web, gone).status == 404)
    assert web.curl(f"{message}/commit", "-X", "POST").status == 200
    eventually(lambda: left(web) == [])


#: A plugin that has the service die once, before the queue is asked to attach, or after it has.
DIES = """
import os
from pathlib import Path

from rqcore.hookspecs import hookimpl


@hookimpl(optionalhook=True)
def rq_web_routes(site):
    file = Path(site.instance.directory) / "die"
    ask = site.spool.ask

    async def asking(name, command, args=None):
        where = file.read_text() if command == "attach_message" and file.exists() else ""
        if where == "before":
            file.unlink()
            os._exit(1)
        answer = await ask(name, command, args)
        if where == "after":
            file.unlink()
            os._exit(1)
        return answer

    site.spool.ask = asking
    return []
"""


@pytest.mark.parametrize("where", ["before", "after"])
def test_wherever_the_service_dies_at_the_end_it_is_attached_once(web: Web, where: str) -> None:
    web.rq.plugin("dies", DIES)
    web.rq.queue("test", web.HELLO)
    web.start()
    message, data = prepared(web), os.urandom(MEGA)
    upload = begun(web, message, "file", len(data), digest(data))
    (web.rq.directory / "die").write_text(where)
    restarted(web, lambda: lost(web, upload, data))
    told = head(web, upload)
    assert (told.headers["upload-offset"], told.headers["upload-complete"]) == (
        str(len(data)),
        "?0",
    )
    assert send(web, upload, len(data), b"").status == 201
    (found,) = attachments(web, message).values()
    assert found["sha256"] == hashlib.sha256(data).hexdigest()


def lost(web: Web, upload: str, data: bytes) -> None:
    with pytest.raises(AssertionError, match=r"curl: \((52|56)\)"):
        send(web, upload, 0, data)


def test_what_no_upload_stands_for_is_removed_when_the_service_starts(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    upload = begun(web, prepared(web), "file", 4)
    (data, record) = left(web)
    folder = web.rq.directory / "tmp"
    for name, text in (
        (f"{data}0", "bytes without a record"), (f".{record}.tmp", "half a record"),
        (f"{data}1.json", "no JSON"), (f"{data}2.json", '{"uid": "2"}'), ("mine", "not ours"),
    ):  # fmt: skip
        Path(folder, name).write_text(text)
    killed(web)
    assert left(web) == ["mine", data, record]
    assert offset_of(web, upload) == 0
