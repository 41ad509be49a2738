"""The contract of the two sockets: framing by the byte, every command, every answer, every refusal."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from rqcore import __version__
from rqcore.testing import RunningInstance
from tests.acceptance.helpers import BASE, DONE, Raw, full

pytestmark = pytest.mark.process

WAITS = '#!/bin/sh\necho "run waiting" >&3\nread go < "$RQ_PARAM1"\necho "done waited" >&3\n'
RELAYED = f'#!/bin/sh\necho "relayed {BASE}q/other/20260101.0000.00.000.7" >&3\n'
UNKNOWN = "20200101.0000.00.000.1"
FULL_ID = re.compile(r"http://localhost:3333/q/[a-z]+/\d{8}\.\d{4}\.\d\d\.\d{3}\.\d+")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("socket") / "rq") as instance:
        instance.queue("test", DONE)
        instance.queue("fail", "#!/bin/sh\necho 'err broken' >&3\n")
        instance.queue("relays", RELAYED)
        instance.queue("waits", WAITS, num_workers=4)
        for name in ("idle", "rest", "page", "single"):
            instance.queue(name, DONE)
            (instance.directory / "config" / f"{name}.pause").touch()
        instance.queue("down", DONE)
        instance.queue("later", DONE)
        yield instance.start()


@pytest.fixture
def rq(shared: RunningInstance) -> Iterator[RunningInstance]:
    yield shared
    shared.disconnect()


def ask(rq: RunningInstance, queue: str | None, command: str, args: object = None) -> Any:
    """One request on a connection of its own, as Ruby's clients do."""
    text = command if args is None else f"{command} {json.dumps(args)}"
    with Raw(rq, queue) as raw:
        raw.send(text.encode())
        return raw.answer()


def short(answer: Any) -> str:
    """The id in an answer ``["ok", FULL_ID]``."""
    word, full_id = answer
    assert word == "ok", answer
    assert FULL_ID.fullmatch(full_id), answer
    return str(full_id).rpartition("/")[2]


# Framing


@pytest.mark.parametrize("queue", ["test", None])
def test_one_request_per_connection(rq: RunningInstance, queue: str | None) -> None:
    with Raw(rq, queue) as raw:
        raw.sock.sendall(b"rq1 00000004 ping")
        assert raw.sock.recv(100) == b'rq1 00000008 ["pong"]'


@pytest.mark.parametrize("queue", ["test", None])
def test_a_frame_may_come_byte_by_byte(rq: RunningInstance, queue: str | None) -> None:
    with Raw(rq, queue) as raw:
        for byte in b"rq1 00000004 pingrq1 00000005 ping ":
            raw.sock.sendall(bytes([byte]))
        assert [raw.answer(), raw.answer()] == [["pong"], ["pong"]]


@pytest.mark.parametrize("queue", ["test", None])
def test_a_half_sent_frame_holds_up_nobody(rq: RunningInstance, queue: str | None) -> None:
    with Raw(rq, queue) as half, Raw(rq, queue) as header, Raw(rq, queue) as gone:
        half.sock.sendall(b"rq1 00000004 pi")
        header.sock.sendall(b"rq1 0000")
        gone.sock.sendall(b"rq1 00000009 pi")
        gone.sock.close()
        assert ask(rq, queue, "ping") == ["pong"]
        half.sock.sendall(b"ng")
        header.sock.sendall(b"0004 ping")
        assert [half.answer(), header.answer()] == [["pong"], ["pong"]]


@pytest.mark.parametrize("queue", ["test", None])
@pytest.mark.parametrize("sent", [
    b"GET / HTTP/1.0\r\n\r\n", b"rq2 00000004 ping", b"rq1 0000004x ping", b"rq1 00000004ping",
    b"rq1 -0000004 ping", b"\0\0\0\0", b"rq1 99999999 ping", b"rq1 16777217 p", b"\xff\xfe" * 50000,
])  # fmt: skip
def test_what_is_no_frame_ends_its_connection_only(
    rq: RunningInstance, queue: str | None, sent: bytes
) -> None:
    with Raw(rq, queue) as other, Raw(rq, queue) as raw:
        with contextlib.suppress(BrokenPipeError):  # the answer may come before all is sent
            raw.sock.sendall(sent)
        word, reason = raw.answer()
        assert word == "fail"
        assert reason
        assert raw.at_end()
        other.send(b"ping")
        assert other.answer() == ["pong"]


def test_an_oversized_frame_is_refused_in_words(rq: RunningInstance) -> None:
    with Raw(rq, "test") as raw:
        raw.sock.sendall(b"rq1 99999999 ")
        assert raw.answer() == [
            "fail", "frame of 99999999 bytes refused: the limit is 16777216 bytes"
        ]  # fmt: skip


def test_a_frame_that_ends_half_way_is_told_to_the_one_who_still_listens(
    rq: RunningInstance,
) -> None:
    with Raw(rq, "test") as raw:
        raw.sock.sendall(b"rq1 00000009 pi")
        raw.finish()
        assert raw.answer() == ["fail", "connection ended after 2 of the 9 bytes of a payload"]
        assert raw.at_end()


def test_many_requests_on_one_connection_are_answered_in_order(rq: RunningInstance) -> None:
    create = b'create_message {"dest": "test"}'
    with Raw(rq, "test") as raw:
        raw.send(*[b"ping", create, b"no_such_command"] * 50)
        answers = [raw.answer() for _ in range(150)]
    assert answers[0::3] == [["pong"]] * 50
    assert answers[2::3] == [["ERROR"]] * 50
    ids = [short(answer) for answer in answers[1::3]]
    assert len(set(ids)) == 50
    assert ids == sorted(ids)


def test_whoever_says_that_he_is_finished_still_gets_all_answers(rq: RunningInstance) -> None:
    with Raw(rq, "test") as raw:
        raw.send(b'create_message {"dest": "test"}', b"ping", b'create_message {"dest": "test"}')
        raw.finish()
        first, pong, second = raw.answer(), raw.answer(), raw.answer()
        assert raw.at_end()
    assert pong == ["pong"]
    assert short(first) < short(second)


def test_requests_before_a_bad_frame_are_answered_first(rq: RunningInstance) -> None:
    with Raw(rq, "test") as raw:
        raw.sock.sendall(b'rq1 00000031 create_message {"dest": "test"}rq1 00000004 pingbad')
        created, pong, (word, _) = raw.answer(), raw.answer(), raw.answer()
        assert raw.at_end()
    assert rq.message("test", short(created))["dest"] == "test"
    assert (pong, word) == (["pong"], "fail")


def test_sockets_are_for_their_owner_only(rq: RunningInstance) -> None:
    for path in (rq.instance.queue_socket("test"), rq.instance.manager_socket):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_client_may_leave_without_reading(rq: RunningInstance) -> None:
    with Raw(rq, "test") as raw:
        raw.send(*[b"config"] * 2000)
    assert ask(rq, "test", "ping") == ["pong"]


# What is no usable request


@pytest.mark.parametrize(("payload", "answer"), [
    (b"", ["ERROR"]),
    (b" ", ["ERROR"]),
    (b"no_such_command", ["ERROR"]),
    (b"PING", ["ERROR"]),
    (b"\xff\xfe\x00", ["ERROR"]),
    (b"__init__", ["ERROR"]),
    (b"handle {}", ["ERROR"]),
    (b"create_message", ["fail", 'input missing required "dest" parameter']),
    (b"create_message ", ["fail", 'input missing required "dest" parameter']),
    (b"create_message {}", ["fail", 'input missing required "dest" parameter']),
    (b'create_message {"dest": null}', ["fail", 'input missing required "dest" parameter']),
    (b"create_message []", ["fail", "create_message wants a JSON object after its name"]),
    (b'create_message "x"', ["fail", "create_message wants a JSON object after its name"]),
    (b"create_message dest=test", ["fail", "create_message wants a JSON object after its name"]),
    (b"commit_message", ["fail", "lacking 'msg_id' field"]),
    (b"commit_message x", ["fail", "commit_message wants a JSON object after its name"]),
    (b"messages", ["fail", "invalid or missing 'state' field ()"]),
    (b'messages {"state": "corrupt"}', ["fail", "invalid or missing 'state' field (corrupt)"]),
    (b'messages {"state": 5}', ["fail", "invalid or missing 'state' field (5)"]),
    (b'messages {"state": "done", "limit": "x"}',
     ["fail", "'limit' must be a whole number, not 'x'"]),
])  # fmt: skip
def test_unusable_requests(rq: RunningInstance, payload: bytes, answer: object) -> None:
    with Raw(rq, "test") as raw:
        raw.send(payload, b"ping")
        assert [raw.answer(), raw.answer()] == [answer, ["pong"]]


@pytest.mark.parametrize("payload", [
    b'create_message {"dest": "test"', b"create_message {'dest': 'test'}", b"create_message {nope}",
    b'create_message {"dest": "test", "due": NaN}', b"create_message " + b"[" * 100_000,
    b'create_message {"dest": "test", "count": ' + b"9" * 10_000 + b"}",
])  # fmt: skip
def test_bad_json_is_refused_in_words(rq: RunningInstance, payload: bytes) -> None:
    with Raw(rq, "test") as raw:
        raw.send(payload, b"ping")
        word, reason = raw.answer()
        assert word == "fail"
        assert reason.startswith("arguments are not usable JSON: ")
        assert raw.answer() == ["pong"]


WITH_ID = [
    "get_message", "get_message_state", "get_message_status", "delete_message", "destroy_message",
    "run_message", "clone_message", "attach_message", "delete_attach_message", "commit_message",
]  # fmt: skip


@pytest.mark.parametrize("command", WITH_ID)
def test_without_an_id_or_with_an_unknown_one(rq: RunningInstance, command: str) -> None:
    unknown = "msg not found"
    if command in ("attach_message", "commit_message"):
        unknown = "cannot find message"
    for args in (None, {}, {"msg_id": ""}, {"msg_id": None}, {"other": 1}):
        assert ask(rq, "test", command, args) == ["fail", "lacking 'msg_id' field"]
    rest = {"pathname": "/etc/hostname", "name": "a", "attachment_name": "a"}
    odd: list[object] = [UNKNOWN, full("test", UNKNOWN), "../../config", "x", 5, {"a": 1}]
    for msg_id in (*odd, UNKNOWN + "\n"):
        answer = ask(rq, "test", command, {"msg_id": msg_id, **rest})
        assert answer == ["fail", unknown], msg_id


# About a queue


def test_a_queue_tells_about_itself(rq: RunningInstance) -> None:
    assert ask(rq, "idle", "ping") == ["pong"]
    (seconds,) = ask(rq, "idle", "uptime")
    assert 0 <= seconds < 600
    word, config = ask(rq, "idle", "config")
    assert word == "ok"
    assert config["name"] == "idle"
    assert config["script"] == str(rq.directory / "code/idle.script")
    assert config["num_workers"] == 1
    assert config["fsync"] is True
    assert ask(rq, "idle", "status") == ["PAUSE", "UP"]
    assert ask(rq, "test", "status") == ["UP", "UP"]
    zero = {"prep": 0, "que": 0, "run": 0, "done": 0, "relayed": 0, "err": 0}
    assert ask(rq, "idle", "num_messages") == zero


def test_a_queue_describes_what_runs_and_since_when_what_waits(
    rq: RunningInstance, tmp_path: Path
) -> None:
    os.mkfifo(fifo := tmp_path / "go")
    before = time()
    run = short(ask(rq, "waits", "create_message", {"dest": "waits", "param1": str(fifo)}))
    rq.until("waits", run, "run", matching=lambda m: m["status"] == "run - waiting")
    word, found = ask(rq, "waits", "describe")
    assert word == "ok"
    (one,) = found["running"]
    assert one.pop("pid") > 1
    assert before <= one.pop("started_at") <= time()
    assert one == {"msg_id": run, "status": "waiting", "dest": "waits"}
    assert (found["status"], found["problem"], found["workers"]) == ("UP", "", 4)
    with fifo.open("w") as go:
        go.write("\n")
    rq.until("waits", run)
    for due in (4_000_000_001, 4_000_000_000, 4_000_000_002):
        ask(rq, "later", "create_message", {"dest": "later", "due": due})
    found = ask(rq, "later", "describe")[1]
    assert (found["earliest_due"], found["next_wake"]) == (4_000_000_000, 4_000_000_000)
    assert ask(rq, "idle", "describe")[1]["earliest_due"] is None


def test_messages_of_every_state(rq: RunningInstance, tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "go")
    for queue in ("fail", "relays", "rest", "waits"):
        assert [ask(rq, queue, "messages", {"state": s}) for s in ("prep", "que", "run")] == [
            []
        ] * 3
    prep = short(ask(rq, "rest", "prep_message", {"dest": "rest"}))
    que = short(ask(rq, "rest", "create_message", {"dest": "/q/rest", "due": 4_000_000_000}))
    run = short(ask(rq, "waits", "create_message", {"dest": "waits", "param1": str(fifo)}))
    done = rq.send("test")
    err, relayed = rq.send("fail"), rq.send("relays")
    for queue, msg_id in (("test", done), ("fail", err), ("relays", relayed)):
        rq.until(queue, msg_id)
    rq.until("waits", run, "run", matching=lambda m: m["status"] == "run - waiting")
    assert ask(rq, "rest", "messages", {"state": "prep"}) == [{"msg_id": prep}]
    assert ask(rq, "rest", "messages", {"state": "que"}) == [
        {"msg_id": que, "due": 4_000_000_000, "dest": "/q/rest"}
    ]
    assert ask(rq, "waits", "messages", {"state": "run"}) == [
        {"msg_id": run, "status": "waiting", "dest": "waits"}
    ]
    assert ask(rq, "test", "messages", {"state": "done", "limit": 1}) == [{"msg_id": done}]
    assert ask(rq, "fail", "messages", {"state": "err"}) == [{"msg_id": err}]
    new = f"{BASE}q/other/20260101.0000.00.000.7"
    assert ask(rq, "relays", "messages", {"state": "relayed"}) == [
        {"msg_id": relayed, "status": new, "dest": "relays", "new_msg": new}
    ]
    assert ask(rq, "rest", "num_messages") == {
        "prep": 1, "que": 1, "run": 0, "done": 0, "relayed": 0, "err": 0
    }  # fmt: skip
    assert ask(rq, "waits", "num_messages")["run"] == 1
    with fifo.open("w") as go:
        go.write("\n")
    assert rq.until("waits", run)["status"] == "done - waited"
    assert ask(rq, "waits", "get_message_state", {"msg_id": run}) == ["ok", "done"]
    assert ask(rq, "waits", "get_message_status", {"msg_id": run}) == ["ok", "done - waited"]
    assert ask(rq, "rest", "get_message_status", {"msg_id": prep}) == ["ok", "prep"]
    assert ask(rq, "relays", "get_message_status", {"msg_id": relayed}) == [
        "ok",
        f"relayed - {new}",
    ]


def test_lists_are_newest_first_and_paged(rq: RunningInstance) -> None:
    ids = [short(ask(rq, "page", "create_message", {"dest": "page"})) for _ in range(7)]
    newest = ids[::-1]

    def page(**args: object) -> list[str]:
        answer = ask(rq, "page", "messages", {"state": "que", **args})
        return [item["msg_id"] for item in answer]

    assert page() == newest
    assert page(limit=3) == newest[:3]
    assert page(limit="3") == newest[:3]
    assert page(limit=3, before=newest[2]) == newest[3:6]
    assert page(limit=3, before=newest[5]) == newest[6:]
    assert page(before=newest[6]) == []
    seen: list[str] = []
    before: str | None = ""
    while before is not None:
        args = {"state": "que", "limit": 2, "before": before}
        answer = ask(rq, "page", "list_messages", args)[1]
        seen += [item["msg_id"] for item in answer["items"]]
        before = answer["next"]
    assert seen == newest
    found = ask(rq, "page", "list_messages", {"state": "que", "text": newest[3]})[1]
    assert [item["msg_id"] for item in found["items"]] == [newest[3]]


# A message's way


def test_prep_attach_commit_and_look(rq: RunningInstance, tmp_path: Path) -> None:
    file = tmp_path / "a file.txt"
    file.write_bytes(b"content\n")
    md5 = hashlib.md5(b"content\n").hexdigest()
    fields = {
        "dest": "/q/idle", "src": "me", "param1": "one", "param2": 2, "param3": "", "due": "12",
        "count": "3", "max_count": 4, "post_run_webhook": "http://a/ http://b/", "unknown": "x",
        "force_remote": "yes", "state": "done", "msg_id": "mine", "_method": "commit",
    }  # fmt: skip
    msg_id = short(ask(rq, "idle", "prep_message", fields))
    attach = {"msg_id": msg_id, "pathname": str(file)}
    assert ask(rq, "idle", "attach_message", attach) == ["ok", f"{md5}-Attached successfully"]
    for name in ("other name", "x" * 255, "gone"):
        answer = ask(rq, "idle", "attach_message", {**attach, "name": name})
        assert answer == ["ok", f"{md5}-Attached successfully"]
    gone = {"msg_id": msg_id, "attachment_name": "gone"}
    deleted = ask(rq, "idle", "delete_attach_message", gone)
    assert deleted == ["ok", "Attachment deleted successfully"]
    assert ask(rq, "idle", "delete_attach_message", gone)[0] == "fail"
    word, message = ask(rq, "idle", "get_message", {"msg_id": msg_id})
    assert word == "ok"
    found = message.pop("_attachments")
    assert sorted(found) == ["a file.txt", "other name", "x" * 255]
    assert found["a file.txt"]["md5"] == md5
    assert found["a file.txt"]["size"] == 8
    assert Path(found["a file.txt"]["path"]).read_bytes() == b"content\n"
    expected = {
        "msg_id": msg_id, "dest": "/q/idle", "src": "me", "param1": "one", "param2": "2",
        "param3": "", "param4": "", "due": 12, "count": 3, "max_count": 4, "force_remote": True,
        "orig_msg_id": full("idle", msg_id), "post_run_webhook": ["http://a/", "http://b/"],
        "state": "prep", "status": "prep",
    }  # fmt: skip
    assert {key: message.get(key) for key in expected} == expected
    assert not {"unknown", "_method"} & set(message)
    committed = ask(rq, "idle", "commit_message", {"msg_id": full("idle", msg_id)})
    assert committed == ["ok", "msg commited"]
    assert ask(rq, "idle", "get_message_state", {"msg_id": msg_id}) == ["ok", "que"]
    for command in ("commit_message", "attach_message"):
        answer = ask(rq, "idle", command, attach)
        assert answer == ["fail", "cannot find message"], command
    assert ask(rq, "idle", "delete_attach_message", {**gone, "name": "other name"})[0] == "fail"
    assert ask(rq, "idle", "delete_message", {"msg_id": msg_id}) == ["ok", "msg deleted"]


def test_attaching_the_same_name_again_replaces_it(rq: RunningInstance, tmp_path: Path) -> None:
    msg_id = short(ask(rq, "idle", "prep_message", {"dest": "idle"}))
    for content in (b"first", b"second", b"second"):
        file = tmp_path / "f"
        if content != b"second" or not file.exists() or file.read_bytes() != content:
            file.unlink(missing_ok=True)
            file.write_bytes(content)
        args = {"msg_id": msg_id, "pathname": str(file), "name": "it"}
        md5 = hashlib.md5(content).hexdigest()
        answer = ask(rq, "idle", "attach_message", args)
        assert answer == ["ok", f"{md5}-Attached successfully"]
    message = rq.message("idle", msg_id)
    assert list(message["_attachments"]) == ["it"]
    assert Path(message["_attachments"]["it"]["path"]).read_bytes() == b"second"
    assert not os.listdir(rq.directory / "queue/idle/tmp"), "a temporary attachment stayed"


def test_who_hashed_a_file_while_writing_it_has_it_attached_unread(
    rq: RunningInstance, tmp_path: Path
) -> None:
    """The digest that he says is kept as it is: nobody reads gigabytes twice."""
    file = tmp_path / "upload"
    file.write_bytes(b"x" * 300_000)
    digest = {"size": 300_000, "md5": "a" * 32, "sha256": "b" * 64}
    msg_id = short(ask(rq, "idle", "prep_message", {"dest": "idle"}))
    args = {"msg_id": msg_id, "pathname": str(file), "digest": digest}
    attached = ask(rq, "idle", "attach_message", args)
    assert attached == ["ok", f"{'a' * 32}-Attached successfully"]
    found = rq.message("idle", msg_id)["_attachments"]["upload"]
    assert {key: found[key] for key in digest} == digest
    assert file.samefile(found["path"])
    unusable: list[object] = [{}, {"size": "x", "md5": "", "sha256": ""}, [], "digest", {"size": 1}]
    for wrong in unusable:
        assert ask(rq, "idle", "attach_message", {**args, "digest": wrong}) == [
            "fail", "'digest' must be an object with size, md5 and sha256"
        ]  # fmt: skip
    other = {**args, "name": "other", "digest": {**digest, "size": 299_999}}
    word, reason = ask(rq, "idle", "attach_message", other)
    assert (word, "changed while it was read" in reason) == ("fail", True)
    assert list(rq.message("idle", msg_id)["_attachments"]) == ["upload"]
    assert not os.listdir(rq.directory / "queue/idle/tmp")


@pytest.mark.parametrize(("args", "reason"), [
    ({"name": ".x"}, "Attachment name as a dot-file not allowed: .x"),
    ({"name": ".."}, "Attachment name as a dot-file not allowed: .."),
    ({"name": "a/b"}, "Attachment name has invalid character. not allowed: a/b"),
    ({"name": "a&b"}, "Attachment name has invalid character. not allowed: a&b"),
    ({"pathname": "/no/such file"}, "No such file /no/such file to attach to message"),
    ({"pathname": "/etc/hostname/x"}, "No such file /etc/hostname/x to attach to message"),
])  # fmt: skip
def test_reasons_why_nothing_is_attached(
    rq: RunningInstance, args: dict[str, str], reason: str
) -> None:
    msg_id = short(ask(rq, "idle", "prep_message", {"dest": "idle"}))
    full_args = {"msg_id": msg_id, "pathname": "/etc/hostname", **args}
    assert ask(rq, "idle", "attach_message", full_args) == ["fail", reason]
    assert rq.message("idle", msg_id)["_attachments"] == {}


def test_single_que(rq: RunningInstance) -> None:
    first = ask(rq, "single", "single_que", {"dest": "single", "param1": "a"})
    assert ask(rq, "single", "single_que", {"dest": "single", "param1": "b"}) == first
    refused = ask(rq, "single", "single_que", {})
    assert refused == ["fail", 'input missing required "dest" parameter']
    assert ask(rq, "single", "num_messages")["que"] == 1
    with Raw(rq, "single") as raw:
        raw.send(b'delete_message {"msg_id": "%s"}' % short(first).encode(),
                 *[b'single_que {"dest": "single"}'] * 3)  # fmt: skip
        answers = [raw.answer() for _ in range(4)]
    assert answers[1] == answers[2] == answers[3] != first


def test_run_message(rq: RunningInstance, tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "go")
    later = {"dest": "waits", "param1": str(fifo), "due": 4_000_000_000}
    msg_id = short(ask(rq, "waits", "create_message", later))
    run = {"msg_id": msg_id}
    assert ask(rq, "waits", "run_message", run) == ["ok", "msg sent to front of run queue"]
    rq.until("waits", msg_id, "run")
    assert ask(rq, "waits", "run_message", run) == ["fail", "msg already running"]
    assert ask(rq, "waits", "delete_message", run)[0] == "fail"
    assert ask(rq, "waits", "clone_message", run) == ["fail", "cannot clone message in run state"]
    with fifo.open("w") as go:
        go.write("\n")
    rq.until("waits", msg_id)
    assert ask(rq, "waits", "run_message", run) == ["fail", "msg not in runnable state"]
    prep = short(ask(rq, "idle", "prep_message", {"dest": "idle"}))
    not_now = ask(rq, "idle", "run_message", {"msg_id": prep})
    assert not_now == ["fail", "msg not in runnable state"]
    cannot = ask(rq, "idle", "clone_message", {"msg_id": prep})
    assert cannot == ["fail", "cannot clone message in prep state"]


@pytest.mark.parametrize(("queue", "state"), [
    ("test", "done"), ("fail", "err"), ("relays", "relayed")
])  # fmt: skip
def test_clone_and_delete(rq: RunningInstance, queue: str, state: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shared")
    prep = ask(rq, queue, "prep_message", {"dest": queue, "param2": "b", "count": 2, "src": "s"})
    msg_id = short(prep)
    args = {"msg_id": msg_id, "pathname": str(tmp_path / "file")}
    assert ask(rq, queue, "attach_message", args)[0] == "ok"
    ask(rq, queue, "commit_message", args)
    assert rq.until(queue, msg_id)["state"] == state
    clone = rq.until(queue, short(ask(rq, queue, "clone_message", args)))
    assert (clone["count"], clone["cloned_from"], clone["param2"]) == (0, msg_id, "b")
    assert clone["src"] == "s"
    original = rq.message(queue, msg_id)["_attachments"]["file"]
    assert os.path.samefile(original["path"], clone["_attachments"]["file"]["path"])
    before = ask(rq, queue, "num_messages")[state]
    # For relayed the contract does not promise it, but how else would one be got rid of?
    assert ask(rq, queue, "delete_message", args) == ["ok", "msg deleted"]
    assert ask(rq, queue, "get_message", args) == ["fail", "msg not found"]
    assert ask(rq, queue, "num_messages")[state] == before - 1
    assert (tmp_path / "file").read_text() == "shared"


def test_destroy(rq: RunningInstance, tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "go")
    args = {"dest": "waits", "param1": str(fifo)}
    msg_id = short(ask(rq, "waits", "create_message", args))
    rq.until("waits", msg_id, "run")
    assert ask(rq, "waits", "destroy_message", {"msg_id": msg_id}) == ["ok", "msg destroyed"]
    message = rq.until("waits", msg_id)
    assert message["state"] == "err"
    assert "SIGTERM" in message["status"]
    assert ask(rq, "waits", "destroy_message", {"msg_id": msg_id})[0] == "fail"


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b"])
def test_no_copy_writes_outside_of_its_directory(rq: RunningInstance, name: str) -> None:
    item = {"name": name, "path": "/etc/hostname", "digest": None}
    args = {"fields": {"dest": "test"}, "attached": [item]}
    refused = ["fail", "an attachment's name leads out of its directory"]
    assert ask(rq, "test", "copy_message", args) == refused


# Following


def test_whoever_subscribes_is_told(rq: RunningInstance, tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "go")
    args = {"dest": "waits", "param1": str(fifo)}
    with Raw(rq, "waits") as everything, Raw(rq, "waits") as one:
        everything.send(b"subscribe {}")
        assert everything.answer() == ["ok", "subscribed"]
        msg_id = short(ask(rq, "waits", "prep_message", args))
        one.send(json.dumps({"msg_id": full("waits", msg_id)}).encode().join([b"subscribe ", b""]))
        assert one.answer() == ["ok", "subscribed"]
        ask(rq, "waits", "commit_message", {"msg_id": msg_id})
        rq.until("waits", msg_id, "run", matching=lambda m: "waiting" in m["status"])
        with fifo.open("w") as go:
            go.write("\n")
        told: list[dict[str, Any]] = []
        while not told or told[-1].get("new") != "done":
            told.append(one.answer())
        assert {event["msg_id"] for event in told} == {msg_id}
        steps = [(e["old"], e["new"], e["step"]) for e in told if e["event"] == "state"]
        assert steps == [
            ("prep", "que", "commit"), ("que", "run", "start"), ("run", "done", "finish")
        ]  # fmt: skip
        assert told[-1]["status"] == "waited"
        assert "waiting" in [event["status"] for event in told if event["event"] == "status"]
        assert everything.answer()["step"] == "prepare"
        assert [everything.answer() for _ in told] == told
        # It is still a connection that answers.
        one.send(b"ping")
        assert one.answer() == ["pong"]


def test_whoever_subscribes_to_a_log_is_told_how_it_grows(rq_instance: RunningInstance) -> None:
    os.mkfifo(fifo := rq_instance.directory / "go")
    rq_instance.queue("test", (
        f'#!/bin/sh\necho first; echo "run waiting" >&3; read x < "{fifo}"; echo and more\n'
        f'read x < "{fifo}"; echo done >&3\n'
    ))  # fmt: skip
    rq_instance.start()
    msg_id = rq_instance.send("test")
    rq_instance.until("test", msg_id, "run", matching=lambda m: "waiting" in m["status"])
    with rq_instance.client("test") as follower:
        events = follower.subscribe({"msg_id": msg_id, "log": True}, timeout=30)
        size = next(event["size"] for event in events if event["event"] == "log")
        assert size == len("first\n")
        with fifo.open("w") as go:
            go.write("\n")
        for event in events:
            if event["event"] == "log" and event["size"] > size:
                assert event["size"] == len("first\nand more\n")
                break
        with fifo.open("w") as go:
            go.write("\n")
        rq_instance.until("test", msg_id, "done")


def test_a_queue_that_is_another_is_told_to_all_who_follow(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    config = rq_instance.directory / "config"
    script = rq_instance.directory / "code/test.script"
    with Raw(rq_instance, "test") as everything, Raw(rq_instance, "test") as one:
        for follower, args in ((everything, {}), (one, {"msg_id": UNKNOWN})):
            follower.send(f"subscribe {json.dumps(args)}".encode())
            assert follower.answer() == ["ok", "subscribed"]

        def told() -> tuple[str, ...]:
            event = everything.answer()
            assert one.answer() == event
            assert event.pop("event") == "queue"
            return tuple(event[key] for key in ("status", "admin", "oper", "problem"))

        (config / "test.pause").touch()
        assert told() == ("PAUSE", "PAUSE", "UP", "")
        (config / "test.pause").unlink()
        assert told() == ("UP", "UP", "UP", "")
        script.rename(script.with_name("away"))
        ask(rq_instance, "test", "status")
        status, admin, oper, problem = told()
        assert (status, admin, oper) == ("SCRIPTERROR", "UP", "SCRIPTERROR")
        assert "test.script" in problem
        script.with_name("away").rename(script)
        assert told() == ("UP", "UP", "UP", "")
        rq_instance.manager.ask("reload")
        assert told() == ("UP", "UP", "UP", "")
        # And when a hand changed what lies in it, for then its numbers are others.
        prep = short(ask(rq_instance, "test", "prep_message", {"dest": "test"}))
        assert everything.answer()["event"] == "state"
        os.rename(rq_instance.directory / "queue/test/prep" / prep, rq_instance.directory / "gone")
        assert told() == ("UP", "UP", "UP", "")


def test_whoever_subscribes_to_the_manager_is_told_of_its_children(
    rq_instance: RunningInstance,
) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    manager = rq_instance.manager
    with Raw(rq_instance) as raw:
        raw.send(b"subscribe {}", b"ping")
        assert [raw.answer(), raw.answer()] == [["ok", "subscribed"], ["pong"]]

        def told(state: str, name: str = "test") -> dict[str, Any]:
            event: dict[str, Any] = raw.answer()
            assert (event["event"], event["kind"]) == ("child", "queue")
            assert (event["name"], event["state"]) == (name, state), event
            return event

        pid = ask(rq_instance, "test", "describe")[1]["pid"]
        rq_instance.kill(pid)
        gone = told("waiting")
        assert (gone["pid"], gone["problem"]) == (0, "was killed by signal 9")
        back = told("running")
        assert (back["problem"], back["restarts"]) == ("", 1)
        assert back["pid"] not in (0, pid)
        manager.ask("create_queue", {"name": "new", "script": "/bin/true"})
        told("running", "new")
        manager.ask("delete_queue", "new")
        told("stopped", "new")
        config = rq_instance.instance.queue_config_file("test")
        config.write_text("{")
        rq_instance.kill(back["pid"])
        told("waiting")
        assert "config.json" in told("failed")["problem"]
        manager.ask("delete_queue", "test")
        told("stopped")


# DOWN


REFUSED_WHEN_DOWN = ["create_message", "single_que", "prep_message", *WITH_ID]


def test_what_a_queue_that_is_down_answers(rq: RunningInstance) -> None:
    msg_id = short(ask(rq, "down", "prep_message", {"dest": "down"}))
    assert ask(rq, None, "down_queue")[0] == "fail"
    with Raw(rq) as raw:
        raw.send(b"down_queue down")
        assert raw.answer() == ["ok", "down"]
    args = {"dest": "down", "msg_id": msg_id, "pathname": "/etc/hostname", "name": "x"}
    for command in REFUSED_WHEN_DOWN:
        assert ask(rq, "down", command, args) == ["fail", "status: DOWN"], command
        assert ask(rq, "down", command) == ["fail", "status: DOWN"], command
    assert ask(rq, "down", "ping") == ["pong"]
    assert ask(rq, "down", "status") == ["DOWN", "UP"]
    assert ask(rq, "down", "num_messages")["prep"] == 1
    assert ask(rq, "down", "messages", {"state": "prep"}) == [{"msg_id": msg_id}]
    assert ask(rq, "down", "uptime")
    assert ask(rq, "down", "config")[0] == "ok"
    # Our own tools say that they know, and may look and clear up.
    assert ask(rq, "down", "get_message", {**args, "even_down": True})[0] == "ok"
    gone = ask(rq, "down", "delete_message", {**args, "even_down": True})
    assert gone == ["ok", "msg deleted"]
    refused = ask(rq, "down", "create_message", {**args, "even_down": True})
    assert refused == ["fail", "status: DOWN"]
    with Raw(rq) as raw:
        raw.send(b"up_queue down")
        assert raw.answer() == ["ok", "down"]
    rq.until("down", short(ask(rq, "down", "create_message", args)))


# The manager


def test_the_manager_tells_about_itself(rq: RunningInstance) -> None:
    assert ask(rq, None, "ping") == ["pong"]
    assert ask(rq, None, "environment") == ["test"]
    assert ask(rq, None, "version") == [__version__]
    queues = ask(rq, None, "queues")
    assert queues == sorted(queues)
    assert {"test", "waits", "down"} <= set(queues)
    (seconds,) = ask(rq, None, "uptime")
    assert 0 <= seconds < 600


@pytest.mark.parametrize("payload", [b"", b"no_such", b"create_message {}", b"\xff", b"do_ping"])
def test_the_manager_knows_no_such_command(rq: RunningInstance, payload: bytes) -> None:
    with Raw(rq) as raw:
        raw.send(payload, b"ping")
        assert [raw.answer(), raw.answer()] == [["error"], ["pong"]]


@pytest.mark.parametrize("command", [
    "delete_queue", "up_queue", "down_queue", "pause_queue", "resume_queue", "restart_queue",
])  # fmt: skip
def test_queues_that_cannot_be_named(rq: RunningInstance, command: str) -> None:
    for name, reason in {
        "": "queue name must be 1 to 128 characters of text",
        "nosuch": "no such queue: nosuch",
        "../config": "queue name has invalid characters",
        "a b": "queue name has invalid characters",
        "[]": "queue name must be 1 to 128 characters of text",
        "{}": "queue name must be 1 to 128 characters of text",
    }.items():
        with Raw(rq) as raw:
            raw.send(f"{command} {name}".encode(), b"ping")
            assert [raw.answer(), raw.answer()] == [["fail", reason], ["pong"]], name


def test_admin_state_by_the_socket(rq: RunningInstance) -> None:
    config = rq.directory / "config"
    for command, state, files in (
        ("pause_queue", "PAUSE", {"relays.pause"}),
        ("pause_queue", "PAUSE", {"relays.pause"}),
        ("down_queue", "DOWN", {"relays.pause", "relays.down"}),
        ("up_queue", "PAUSE", {"relays.pause"}),
        ("resume_queue", "UP", set()),
        ("up_queue", "UP", set()),
    ):
        with Raw(rq) as raw:
            raw.send(f"{command} relays".encode())
            assert raw.answer() == ["ok", "relays"]
        assert ask(rq, "relays", "status") == [state, "UP"]
        assert {p.name for p in config.glob("relays.*")} == files
