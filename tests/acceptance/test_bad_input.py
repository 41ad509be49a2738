"""What comes in and should not: attachments of every kind, params of every byte, a clock that jumps."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time
from typing import Any

import pytest

from rqcore.testing import RunningInstance
from tests.acceptance.helpers import DONE, Journal, Raw

pytestmark = pytest.mark.process

#: Leaves its params as it finds them, those in files too.
PARAMS = r"""#!/usr/bin/env python3
import json, os
found = {}
for number in range(1, 5):
    name = f"RQ_PARAM{number}".encode()
    path = os.environb.get(name + b"_FILE")
    data = open(path, "rb").read() if path else os.environb[name]
    found[number] = [data.hex(), bool(path), os.environb[name].hex()]
with open("found.json", "w") as file:
    json.dump(found, file)
os.write(3, b"done fine\n")
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("bad") / "rq") as instance:
        instance.queue("test", DONE)
        instance.queue("params", PARAMS)
        yield instance.start()


@pytest.fixture
def rq(shared: RunningInstance) -> Iterator[RunningInstance]:
    yield shared
    shared.disconnect()
    assert not os.listdir(shared.directory / "queue/test/tmp"), "something half-made stayed"


def prepared(rq: RunningInstance, queue: str = "test") -> str:
    answer: str = rq.ask(queue, "prep_message", {"dest": queue})
    return answer.rpartition("/")[2]


def attach(rq: RunningInstance, msg_id: str, path: object, **name: object) -> list[str]:
    args = {"msg_id": msg_id, "pathname": os.fspath(path) if isinstance(path, Path) else path}
    answer: list[str] = rq.client("test").call("attach_message", {**args, **name})
    return answer


# Attachments


@pytest.mark.parametrize("name", [
    "a b", "ü" * 127, "x" * 255, "-rf", "semi;colon", "'quote\"", "back\\slash", "caf\udce9",
    "a,b:c@d(e){f}+g=h^i`j#k!", "no.dot.first.", "CON", " ",
])  # fmt: skip
def test_names_that_attachments_may_have(rq: RunningInstance, name: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("content")
    msg_id = prepared(rq)
    word, text = attach(rq, msg_id, tmp_path / "source", name=name)
    assert word == "ok", text
    rq.ask("test", "commit_message", {"msg_id": msg_id})
    message = rq.until("test", msg_id, "done")
    assert list(message["_attachments"]) == [name]
    assert os.listdir(Path(message["path"]) / "attach") == [name]


@pytest.mark.parametrize("name", [
    "a/b", "/etc/passwd", "../x", "..", ".", ".hidden", "a\nb", "a\x01b", "a\x7fb", "a\tb", "a\0b",
    "x" * 256, "ü" * 128, "a~b", "a?b", "a[b", "a]b", "a%b", "a|b", "a$b", "a&b", "a<b", "a>b", 5,
    ["a"], {"a": 1}, True,
])  # fmt: skip
def test_names_that_attachments_may_not_have(
    rq: RunningInstance, name: object, tmp_path: Path
) -> None:
    (tmp_path / "source").write_text("content")
    msg_id = prepared(rq)
    word, reason = attach(rq, msg_id, tmp_path / "source", name=name)
    assert word == "fail"
    assert "ttachment name" in reason
    assert rq.message("test", msg_id)["_attachments"] == {}
    detach = {"msg_id": msg_id, "attachment_name": name}
    assert rq.client("test").call("delete_attach_message", detach)[0] == "fail"
    assert rq.client("test").call("ping") == ["pong"]


def test_kinds_of_files_that_are_no_attachments(rq: RunningInstance, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "to dir").symlink_to(tmp_path)
    (tmp_path / "to fifo").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        msg_id = prepared(rq)
        for path, words in {
            tmp_path: "a directory", tmp_path / "to dir": "a directory",
            tmp_path / "fifo": "not a regular file", tmp_path / "to fifo": "not a regular file",
            tmp_path / "socket": "not a regular file", "/dev/zero": "not a regular file",
            tmp_path / "dangling": "No such file", tmp_path / "circle": "symbolic links",
            tmp_path / "missing": "No such file", tmp_path / ("x" * 300): "name too long",
            "": "pathname", None: "pathname", 5: "pathname", "/tmp/a\0b": "pathname",
        }.items():  # fmt: skip
            word, reason = attach(rq, msg_id, path, name="it")
            assert word == "fail"
            assert words.lower() in reason.lower(), path
    assert rq.message("test", msg_id)["_attachments"] == {}


def test_a_link_stands_for_the_file_it_leads_to(rq: RunningInstance, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("real")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "empty").touch()
    msg_id = prepared(rq)
    for name in ("link", "empty"):
        assert attach(rq, msg_id, tmp_path / name)[0] == "ok"
    found = rq.message("test", msg_id)["_attachments"]
    assert sorted(found) == ["empty", "link"]
    assert not os.path.islink(found["link"]["path"])
    assert os.path.samefile(found["link"]["path"], tmp_path / "real"), "a hard link, no copy"
    assert found["empty"]["md5"] == "d41d8cd98f00b204e9800998ecf8427e"


def test_a_file_from_another_file_system(rq: RunningInstance) -> None:
    path = Path("/dev/shm") / f"rq-test-{os.getpid()}"
    content = os.urandom(700_000)
    try:
        path.write_bytes(content)
        msg_id = prepared(rq)
        md5 = hashlib.md5(content).hexdigest()
        assert attach(rq, msg_id, path) == ["ok", f"{md5}-Attached successfully"]
        taken = Path(rq.message("test", msg_id)["_attachments"][path.name]["path"])
        assert taken.read_bytes() == content
    finally:
        path.unlink()


#: Whoever reads an attachment has opened it, then waits at the fifo ``gate`` of the instance.
HELD = """
from rqcore import durable
from rqcore.hookspecs import hookimpl

@hookimpl
def rq_spool_ready(queue):
    real = durable._digest
    def held(fd, each):
        with open("gate") as gate:
            gate.read()
        return real(fd, each)
    durable._digest = held
"""


def test_a_file_that_changes_while_it_is_read(rq_instance: RunningInstance, tmp_path: Path) -> None:
    """It is refused; and while it is read, the queue goes on with everything else."""
    rq = rq_instance
    rq.plugin("held", HELD)
    os.mkfifo(rq.directory / "gate")
    rq.queue("test", DONE)
    rq.start()
    source = tmp_path / "growing"
    source.write_bytes(bytes(600_000))
    msg_id = prepared(rq)
    with Raw(rq, "test") as raw:
        args = json.dumps({"msg_id": msg_id, "pathname": str(source)})
        raw.send(f"attach_message {args}".encode())
        with (rq.directory / "gate").open("w"):  # the reader is there, and waits for the end
            rq.until("test", rq.send("test"), "done")
            with source.open("ab") as file:
                file.write(b"more")
        word, reason = raw.answer()
    assert word == "fail"
    assert "changed while it was read" in reason
    assert rq.message("test", msg_id)["_attachments"] == {}


def test_files_placed_into_a_message_by_hand(rq: RunningInstance) -> None:
    """What is no file is no attachment; what is one is hashed when somebody looks."""
    msg_id = prepared(rq)
    folder = Path(rq.message("test", msg_id)["path"]) / "attach"
    folder.mkdir()
    (folder / "by hand").write_text("hand")
    (folder / "a directory").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / ".hidden").touch()
    os.mkfifo(folder / "fifo")
    found = rq.message("test", msg_id)["_attachments"]
    assert list(found) == ["by hand"]
    assert found["by hand"]["md5"] == hashlib.md5(b"hand").hexdigest()
    rq.ask("test", "commit_message", {"msg_id": msg_id})
    rq.until("test", msg_id, "done")
    clone = rq.ask("test", "clone_message", {"msg_id": msg_id}).rpartition("/")[2]
    assert list(rq.until("test", clone, "done")["_attachments"]) == ["by hand"]


# Params


def params(rq: RunningInstance, payload: bytes) -> dict[int, tuple[bytes, bool, bytes]]:
    """What the script found: the param, whether in a file, and what its variable held."""
    with Raw(rq, "params") as raw:
        raw.send(b"create_message " + payload)
        word, msg_id = raw.answer()
    assert word == "ok", msg_id
    message = rq.until("params", msg_id.rpartition("/")[2])
    assert message["state"] == "done", message
    found = json.loads((Path(message["path"]) / "job/found.json").read_text())
    return {
        int(number): (bytes.fromhex(data), in_file, bytes.fromhex(variable))
        for number, (data, in_file, variable) in found.items()
    }


def as_json(*values: str) -> bytes:
    fields = {f"param{number}": value for number, value in enumerate(values, 1)}
    return json.dumps({"dest": "params", **fields}).encode()


def test_params_of_any_bytes(rq: RunningInstance) -> None:
    texts = ["line\nbreak\r\n", "$(touch /tmp/x); `id`", "tab\t\x01\x7f", "\U0001f40c"]
    found = params(rq, as_json(*texts))
    assert [data for data, _, _ in found.values()] == [text.encode() for text in texts]
    assert not any(in_file for _, in_file, _ in found.values())
    # No UTF-8, raw on the wire; the same bytes as JSON can write them; and half a pair.
    raw = (
        b'{"dest": "params", "param1": "caf\xe9 \xff", "param2": "caf\\udce9", "param3": "\\ud83d"}'
    )
    found = params(rq, raw)
    assert [data for data, _, _ in found.values()] == [
        b"caf\xe9 \xff", b"caf\xe9", b"\xed\xa0\xbd", b""
    ]  # fmt: skip


def test_params_that_no_variable_can_carry(rq: RunningInstance) -> None:
    longest = 131_072 - len("RQ_PARAM1=") - 1
    found = params(rq, as_json("a\0b", "x" * 1_000_000, "y" * longest, "z" * (longest + 1)))
    assert found[1] == (b"a\0b", True, b"")
    assert found[2] == (b"x" * 1_000_000, True, b"")
    assert found[3] == (b"y" * longest, False, b"y" * longest)
    assert found[4] == (b"z" * (longest + 1), True, b"")


def test_a_message_that_is_too_large(rq: RunningInstance) -> None:
    with Raw(rq, "test") as raw:
        raw.send(as_json("x" * 9_000_000).replace(b"params", b"test").join([b"create_message ", b""]),
                 b"ping")  # fmt: skip
        word, reason = raw.answer()
        assert raw.answer() == ["pong"]
    assert word == "fail"
    assert "message too large" in reason
    assert "attachment" in reason


def test_more_environment_than_a_process_may_have(rq_instance: RunningInstance) -> None:
    """Linux lets it be a quarter of the stack's limit: each param fits, four of them do not."""
    rq_instance.queue("test", DONE)
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, hard))
    try:
        rq_instance.start()
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    fat = {f"param{number}": "x" * 100_000 for number in range(1, 5)}
    for _ in range(2):
        message = rq_instance.until("test", rq_instance.send("test", **fat))
        assert message["status"] == (
            "err - the params and env_vars together are more than the system lets a process have"
        )
    rq_instance.until("test", rq_instance.send("test"), "done")
    assert rq_instance.client("test").call("status") == ["UP", "UP"]


@pytest.mark.parametrize("fields", [
    {"dest": "http://h/q/x\0y"}, {"dest": "test\n"}, {"orig_msg_id": "a\0b"}, {"dest": ["test"]},
    {"dest": {"a": 1}}, {"dest": 5}, {"param1": ["list"]}, {"param1": {"a": 1}}, {"due": "soon"},
    {"due": -1}, {"due": 1e300}, {"due": True}, {"count": "many"}, {"count": -1}, {"count": 1.5e99},
    {"max_count": []}, {"post_run_webhook": 5}, {"post_run_webhook": [5]}, {"src": []},
])  # fmt: skip
def test_fields_that_are_refused_in_words(rq: RunningInstance, fields: dict[str, Any]) -> None:
    word, reason = rq.client("test").call("create_message", {"dest": "test", **fields})
    assert word == "fail"
    (name,) = fields
    assert f'field "{name}" must' in reason


@pytest.mark.parametrize("fields", [
    {"dest": "http://h/q/\ud800"}, {"orig_msg_id": "\ud800"}, {"dest": "no queue's name"},
    {"dest": "x" * 200_000}, {"dest": "http://h/q/" + "x" * 200_000}, {"src": "\0\n"},
])  # fmt: skip
def test_odd_fields_strand_no_message(rq: RunningInstance, fields: dict[str, Any]) -> None:
    """It runs, or it is in err with the reason; the next one runs in any case."""
    message = rq.until("test", rq.send("test", **fields))
    if message["state"] == "err":
        assert (
            "more than the system lets" in message["status"] or "no script can" in message["status"]
        )
    rq.until("test", rq.send("test"), "done")


# Many at once


def test_ids_of_many_clients_are_unique_and_sorted(rq: RunningInstance) -> None:
    def create(_: int) -> list[str]:
        with Raw(rq, "test") as raw:
            answers = []
            for _ in range(10):
                raw.send(b'create_message {"dest": "test", "due": 4000000000}')
                answers.append(raw.answer()[1].rpartition("/")[2])
            return answers

    with ThreadPoolExecutor(32) as pool:
        of_each = list(pool.map(create, range(32)))
    for ids in of_each:
        assert ids == sorted(ids)
    everything = sorted(msg_id for ids in of_each for msg_id in ids)
    assert len(set(everything)) == 32 * 10
    listed = [m["msg_id"] for m in rq.client("test").call("messages", {"state": "que"})]
    assert listed == everything[::-1]
    with Raw(rq, "test") as raw:
        raw.send(*(b'delete_message {"msg_id": "%s"}' % i.encode() for i in everything))
        assert {tuple(raw.answer()) for _ in everything} == {("ok", "msg deleted")}


# The clock


#: The wall clock of a process, moved by the seconds that stand in a file; every other clock is real.
CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    char text[32] = "";
    const char *path = getenv("TEST_CLOCK");
    if (syscall(SYS_clock_gettime, clock, now) != 0) return -1;
    if (clock == CLOCK_REALTIME && path != NULL) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            if (read(fd, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
            close(fd);
        }
    }
    return 0;
}
time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds != NULL) *seconds = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict value, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    value->tv_sec = now.tv_sec;
    value->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.fixture
def clock(tmp_path: Path, rq_instance: RunningInstance) -> Callable[[int], None]:
    """Sets the clock of the instance: so many seconds from the real one."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler, or no Linux")
    library, file = tmp_path / "clock.so", tmp_path / "clock"
    (tmp_path / "clock.c").write_text(CLOCK)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "clock.c")]
    subprocess.run(command, check=True)
    rq_instance.environ |= {"LD_PRELOAD": str(library), "TEST_CLOCK": str(file)}

    def set_clock(seconds: int) -> None:
        file.with_suffix(".new").write_text(str(seconds))
        file.with_suffix(".new").rename(file)

    set_clock(0)
    return set_clock


def test_a_clock_that_is_set_back_an_hour(
    rq_instance: RunningInstance, clock: Callable[[int], None]
) -> None:
    """Ids go on growing, nothing runs twice, and what is sent runs, before and after a restart."""
    rq = rq_instance
    every_minute = {"cron": "* * * * *", "param1": "minute"}
    rq.queue("test", DONE, schedule=[every_minute])
    (rq.directory / "queue/test/cron.json").write_text(json.dumps(
        {"last": {json.dumps(["* * * * *", "", "minute", "", "", ""]): time() - 90}, "intents": {}}
    ))  # fmt: skip
    journal = Journal(rq)
    rq.start()
    fired = journal.until("message_done")["msg_id"]
    before = rq.until("test", rq.send("test"), "done")
    clock(-3600)
    back = rq.until("test", rq.send("test"), "done")
    assert back["due"] < before["due"] - 3000, "the clock was set back"
    assert back["msg_id"] > before["msg_id"] > fired
    rq.stop()
    rq.start()
    again = rq.until("test", rq.send("test"), "done")
    assert again["msg_id"] > back["msg_id"]
    assert again["due"] < before["due"] - 3000
    listed = [item["msg_id"] for item in rq.client("test").call("messages", {"state": "done"})]
    by_hand = [i for i in listed if not rq.message("test", i)["param1"]]
    assert by_hand == [again["msg_id"], back["msg_id"], before["msg_id"]]
    scheduled = [rq.message("test", i)["due"] for i in listed if i not in by_hand]
    assert len(set(scheduled)) == len(scheduled), "a minute came twice"
    assert min(scheduled) > time() - 300, "a minute of the hour that came twice ran again"
