"""What operators do: reload, stop, make and remove queues, and move messages about by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from rqcore.testing import RunningInstance
from tests.acceptance.helpers import (
    DONE,
    ROOT,
    Ended,
    Gate,
    Journal,
    Raw,
    full,
    logged,
    queue_pid,
    running,
    script_log,
)

pytestmark = pytest.mark.process

#: Waits at the gate that its first parameter names, if there is one.
WAITS = """#!/bin/bash
echo "run ready" >&3
[ -p "$RQ_PARAM1" ] && read x < "$RQ_PARAM1"
echo "done version 1" >&3
"""
CREATED = ["success", "queue created - awesome"]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def signal_manager(rq: RunningInstance, number: int) -> None:
    assert rq.process is not None
    rq.process.send_signal(number)


def waiting(rq: RunningInstance, name: str, gate: Gate) -> str:
    """A message whose script waits at the gate."""
    msg_id = rq.send(name, param1=str(gate.path))
    rq.until(name, msg_id, "run", matching=running)
    return msg_id


def child(rq: RunningInstance, name: str) -> dict[str, Any]:
    (found,) = [c for c in rq.manager.ask("describe")["children"] if c["name"] == name]
    return dict(found)


# Reload


def test_reload_by_sighup(rq_instance: RunningInstance, gate: Gate) -> None:
    rq = rq_instance
    rq.queue("stays", WAITS)
    rq.queue("goes", DONE)
    journal = Journal(rq)
    rq.start()
    msg_id = waiting(rq, "stays", gate)
    pids = [rq.process.pid if rq.process else 0, queue_pid(rq, "stays")]
    rq.queue("comes", DONE)
    rq.queue("stays", WAITS.replace("version 1", "version 2"), num_workers=2)
    shutil.move(rq.directory / "queue/goes", rq.directory / "gone")
    signal_manager(rq, signal.SIGHUP)
    journal.until("queue_config_reloaded", queue="stays")
    journal.until("spool_ready", queue="comes")
    journal.until("queue_process_exited", name="goes", status=0)
    # What runs is not disturbed, and the second worker is there.
    assert rq.message("stays", msg_id)["state"] == "run"
    assert rq.until("stays", rq.send("stays"))["status"] == "done - version 2"
    rq.serving("comes")
    rq.until("comes", rq.send("comes"), "done")
    assert rq.manager.call("queues") == ["comes", "stays"]
    gate.open()
    assert rq.until("stays", msg_id)["status"] == "done - version 1"
    assert pids == [rq.process.pid if rq.process else 0, queue_pid(rq, "stays")]


def test_a_wrong_config_costs_its_own_queue_only(rq_instance: RunningInstance, gate: Gate) -> None:
    rq = rq_instance
    rq.queue("fine", WAITS)
    rq.queue("broken", DONE, num_workers=0)
    rq.queue("worse", DONE)
    worse = rq.directory / "queue/worse/config.json"
    worse.write_text('{"script": ')
    (rq.directory / "queue/nothing").mkdir()
    journal = Journal(rq)
    rq.start()
    rq.until("fine", rq.send("fine"), "done")
    for name, word in (("broken", "num_workers"), ("worse", "config.json")):
        assert child(rq, name)["state"] == "failed"
        assert word in child(rq, name)["problem"]
    rq.queue("broken", DONE)
    rq.queue("worse", DONE)
    # One that runs keeps its old configuration when the new one is wrong.
    rq.queue("fine", "code/fine.script", num_workers="many")
    main = rq.directory / "config/config.json"
    good = main.read_text()
    main.write_text("{}")
    problems = rq.manager.ask("reload")
    assert any("host" in problem for problem in problems)
    for name in ("broken", "worse"):
        journal.until("spool_ready", queue=name)
        rq.serving(name)
        rq.until(name, rq.send(name), "done")
    rq.until("fine", rq.send("fine"), "done")
    main.write_text(good)


# Stop


def test_stop_lets_scripts_finish(rq_instance: RunningInstance, gate: Gate) -> None:
    rq = rq_instance
    rq.configure(stop_grace=600)
    rq.queue("test", WAITS)
    journal = Journal(rq)
    rq.start()
    msg_id = waiting(rq, "test", gate)
    queued = rq.send("test")
    queue = rq.client("test")
    assert queue.call("single_que", {"dest": "test"}) == ["ok", full("test", queued)]
    signal_manager(rq, signal.SIGTERM)
    # That the manager stops is not yet known to the queue, which would start the next one.
    logged(rq, "queue test stops; 1 still run")
    word, reason = queue.call("single_que", {"dest": "test"})
    assert (word, "the queue is stopping" in reason) == ("fail", True)
    gate.open()
    assert rq.wait() == 0
    assert not rq.processes()
    journal.until("message_done", msg_id=msg_id)
    assert os.listdir(rq.directory / "queue/test/que") == [queued], "nothing new was started"
    rq.start()
    assert rq.message("test", msg_id)["status"] == "done - version 1"
    rq.until("test", queued, "done")


@pytest.mark.parametrize("script", [
    WAITS, WAITS.replace("echo", "trap '' TERM; echo", 1), WAITS.replace("echo", "trap 'exit 1' TERM; echo", 1)  # noqa: E501
])  # fmt: skip
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_request_to_stop_skips_the_grace(
    rq_instance: RunningInstance, gate: Gate, script: str, first: int
) -> None:
    rq = rq_instance
    rq.configure(stop_grace=600, kill_grace=0.1)
    rq.queue("test", script)
    journal = Journal(rq)
    rq.start()
    msg_id = waiting(rq, "test", gate)
    signal_manager(rq, first)
    journal.until("daemon_stopping")
    signal_manager(rq, signal.SIGTERM)
    assert rq.wait() == 0
    assert not rq.processes()
    assert os.listdir(rq.directory / "queue/test/que") == [msg_id]
    gate.path.unlink()
    rq.start()
    assert rq.until("test", msg_id)["status"] == "done - version 1"


def test_stop_by_the_socket(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    assert rq_instance.manager.call("shutdown") == ["ok"]
    assert rq_instance.wait() == 0
    assert not rq_instance.processes()


def test_a_queue_that_is_shut_down_comes_back(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    with Ended(queue_pid(rq_instance, "test")) as ended:
        assert rq_instance.client("test").call("shutdown") == ["ok"]
        ended.wait()
    rq_instance.serving("test")
    rq_instance.until("test", rq_instance.send("test"), "done")


def test_restart_of_a_queue(rq_instance: RunningInstance) -> None:
    """Also when several ask for it at once."""
    rq_instance.queue("test", DONE)
    rq_instance.start()
    before = queue_pid(rq_instance, "test")
    raws = [Raw(rq_instance) for _ in range(4)]
    for raw in raws:
        raw.send(b"restart_queue test")
    for raw in raws:
        assert raw.answer() == ["ok", "test"]
        raw.sock.close()
    assert queue_pid(rq_instance, "test") != before
    rq_instance.until("test", rq_instance.send("test"), "done")
    assert [c["name"] for c in rq_instance.manager.ask("describe")["children"]] == ["test"]


# One manager per directory


def run_again(rq: RunningInstance, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rqcore", str(rq.directory), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_second_manager_is_refused_and_harms_nobody(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    assert rq_instance.process is not None
    refused = run_again(rq_instance)
    assert refused.returncode == 3
    said = f"RQ already runs in {rq_instance.directory} (pid {rq_instance.process.pid})"
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    pid_file = rq_instance.directory / "config/queuemgr.pid"
    assert pid_file.read_text().strip() == str(rq_instance.process.pid)
    assert rq_instance.manager.call("ping") == ["pong"]
    rq_instance.until("test", rq_instance.send("test"), "done")


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that has nothing to do with RQ, in a group of its own."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process.pid
    assert process.poll() is None, "the stranger was killed"
    process.kill()
    process.wait()


def test_pid_files_that_are_stale_name_nobody(rq_instance: RunningInstance, stranger: int) -> None:
    rq_instance.queue("test", DONE)
    for path in ("config/queuemgr.pid", "queue/test/queue.pid"):
        (rq_instance.directory / path).write_text(f"{stranger}\n")
    ids = ["20260101.0000.00.000.1", "20260101.0000.00.000.2"]
    for msg_id, pid in zip(ids, (f"{stranger}\n", f"{stranger}\nanother time\n"), strict=True):
        folder = rq_instance.directory / "queue/test/run" / msg_id
        folder.mkdir(parents=True)
        (folder / "msg").write_text('{"dest": "test"}')
        (folder / "pid").write_text(pid)
    rq_instance.start()
    for msg_id in ids:
        rq_instance.until("test", msg_id, "done")
    assert rq_instance.process is not None
    for path, pid_of in (
        ("config/queuemgr.pid", rq_instance.process.pid),
        ("queue/test/queue.pid", queue_pid(rq_instance, "test")),
    ):
        assert (rq_instance.directory / path).read_text().strip() == str(pid_of)


def test_stale_sockets_are_replaced(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    (rq_instance.directory / "config/queuemgr.sock").touch()
    (rq_instance.directory / "queue/test/queue.sock").symlink_to("/nowhere")
    rq_instance.start()
    rq_instance.until("test", rq_instance.send("test"), "done")


# Directories as they are found


RUBY_MSG = {
    "msg_id": "", "dest": "http://localhost:3333/q/test", "src": "ruby", "count": "0",
    "max_count": "15", "param1": "p", "param2": None, "due": "1400000000",
    "orig_msg_id": "http://localhost:3333/q/test/20140513.1614.05.000.100", "_method": "commit",
    "state": "que", "status": "que - ", "some_old_key": [1],
}  # fmt: skip


def test_an_instance_of_the_first_rq_is_taken_as_it_is(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    shutil.rmtree(rq.directory)
    (rq.directory / "config").mkdir(parents=True)
    (rq.directory / "config/config.json").write_text(json.dumps({
        "env": "test", "host": "localhost", "port": "3333", "addr": "0.0.0.0",
        "relative_root": "/", "tmpdir": "/tmp",
    }))  # fmt: skip
    script = rq.script("test", DONE)
    queue = rq.directory / "queue/test"
    ids = {state: f"20140513.1614.05.{number:03}.{number}" for number, state in enumerate(
        ("prep", "que", "run", "err", "done", "relayed"))}  # fmt: skip
    for state, msg_id in ids.items():
        hashed = "20140513/16/14" if state in ("done", "relayed") else ""
        folder = queue / state / hashed / msg_id
        (folder / "job").mkdir(parents=True)
        (folder / "attach").mkdir()
        (folder / "attach/old file").write_text("old")
        (folder / "job/stdio.log").write_text("of the first run\n")
        (folder / "msg").write_text(json.dumps({**RUBY_MSG, "msg_id": msg_id}))
        (folder / "status").write_text('{"job_status": "as it was"}')
    (queue / "run" / ids["run"] / "pid").write_text("999999999")
    (queue / "config.json").write_text(json.dumps({
        "name": "test", "script": str(script), "num_workers": "1", "ordering": "ordered",
        "fsync": "no-fsync", "coalesce": "no", "coalesce_param1": "0", "exec_prefix": "",
        "url": "http://localhost:3333/", "is_user_queue": True,
    }))  # fmt: skip
    (rq.directory / "queue/old.deleted.12345").mkdir()
    rq.log = rq.directory / "test.log"
    rq.start()
    for state in ("que", "run"):
        message = rq.until("test", ids[state])
        assert (message["state"], message["count"], message["src"]) == ("done", 0, "ruby")
        assert script_log(message) == "of the first run\n"
    counts = {"prep": 1, "que": 0, "run": 0, "err": 1, "done": 3, "relayed": 1}
    assert rq.client("test").call("num_messages") == counts
    for state in ("done", "relayed", "err", "prep"):
        message = rq.message("test", ids[state])
        assert message["status"] == f"{state} - as it was"
        assert message["_attachments"]["old file"]["md5"] == "149603e6c03516362a8da23f624db945"
    newest = [item["msg_id"] for item in rq.client("test").call("messages", {"state": "done"})]
    assert newest == [ids["done"], ids["run"], ids["que"]]
    clone = rq.ask("test", "clone_message", {"msg_id": ids["relayed"]})
    message = rq.until("test", clone.rpartition("/")[2], "done")
    assert message["cloned_from"] == ids["relayed"]
    assert message["msg_id"] > ids["done"]
    committed = rq.ask("test", "commit_message", {"msg_id": full("test", ids["prep"])})
    assert committed == "msg commited"
    rq.until("test", ids["prep"], "done")


def test_an_instance_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 20) / ("päth-" * 20)
    folder.mkdir(parents=True)
    assert len(os.fsencode(folder)) > 200
    name = "q" * 128
    with RunningInstance(folder / "rq") as rq:
        rq.queue(name, '#!/bin/sh\necho "dup 0-X-other" >&3; read a <&4; echo "done $a" >&3\n')
        rq.queue("other", DONE)
        rq.start()
        message = rq.until(name, rq.send(name))
        assert message["status"].startswith("done - ok http://localhost:3333/q/other/")
        rq.until("other", message["status"].rpartition("/")[2], "done")
    assert not [link for link in Path("/tmp").glob("rq-*/d") if leads_into(link, folder)]


def leads_into(link: Path, folder: Path) -> bool:
    """Others use /tmp in the same way, this very moment too."""
    try:
        return Path(os.readlink(link)).is_relative_to(folder)
    except FileNotFoundError:
        return False


# Making and removing queues


def call(rq: RunningInstance, command: str, args: Any = "") -> Any:
    return rq.manager.call(command, args)


def test_a_queue_is_made_and_removed(rq_instance: RunningInstance) -> None:
    rq = rq_instance.start()
    script = rq.script("new", DONE)
    config = {"name": "new", "script": str(script), "num_workers": "2", "fsync": "fsync"}
    assert call(rq, "create_queue", config) == CREATED
    # "Created" means that it can be used.
    msg_id = rq.send("new")
    rq.until("new", msg_id, "done")
    assert json.loads((rq.directory / "queue/new/config.json").read_text()) == config
    assert call(rq, "create_queue", config) == ["fail", "already created"]
    assert call(rq, "queues") == ["new"]
    inode = (rq.directory / "queue/new").stat().st_ino
    call(rq, "pause_queue", "new")
    pid = queue_pid(rq, "new")
    with Ended(pid) as ended:
        assert call(rq, "delete_queue", "new") == ["ok", "new"]
        assert not ended.alive()
    deleted = rq.directory / f"queue/new.deleted.{inode}"
    assert list(deleted.glob(f"done/*/*/*/{msg_id}/msg"))
    assert call(rq, "queues") == []
    assert call(rq, "delete_queue", "new") == ["fail", "no such queue: new"]
    assert call(rq, "create_queue", config) == CREATED
    assert rq.client("new").call("status") == ["UP", "UP"], "another queue of the same name"
    assert rq.client("new").call("num_messages")["done"] == 0
    # Several at once: one of them does it.
    raws = [Raw(rq) for _ in range(3)]
    for raw, command in zip(raws, ("restart", "delete", "delete"), strict=True):
        raw.send(f"{command}_queue new".encode())
    answers = [raw.answer() for raw in raws]
    for raw in raws:
        raw.sock.close()
    assert answers[1:].count(["ok", "new"]) == 1
    assert call(rq, "queues") == []
    assert call(rq, "ping") == ["pong"]


def test_a_queue_whose_config_is_elsewhere(rq_instance: RunningInstance, tmp_path: Path) -> None:
    rq = rq_instance.start()
    config = tmp_path / "my config.json"
    config.write_text(json.dumps({"name": "linked", "script": str(rq.script("linked", DONE))}))
    assert call(rq, "create_queue_link", str(config)) == CREATED
    assert os.readlink(rq.directory / "queue/linked/config.json") == str(config)
    rq.until("linked", rq.send("linked"), "done")
    assert call(rq, "create_queue_link", str(config)) == ["fail", "already created"]
    os.mkfifo(tmp_path / "fifo")
    wrong = {"nojson": "{", "noname": "{}", "list": "[]", "noscript": '{"name": "x"}'}
    for name, content in wrong.items():
        (tmp_path / name).write_text(content)
    for path in ("nojson", "noname", "list", "noscript", "missing", "fifo", "."):
        word, reason = call(rq, "create_queue_link", str(tmp_path / path))
        assert word == "fail"
        assert reason
    assert call(rq, "create_queue_link") == ["fail", f"{rq.directory} is not a file"]
    assert call(rq, "queues") == ["linked"]
    assert call(rq, "delete_queue", "linked") == ["ok", "linked"]
    assert config.exists()


@pytest.mark.parametrize("name", [
    *(f"a{c}b" for c in "/. ,;:@\"(){}\\+='^`#~?[]%|$&<>"), "a\nb", "a\0b", "..", ".", "a/../b",
])  # fmt: skip
def test_a_queue_name_with_a_forbidden_character(shared_empty: RunningInstance, name: str) -> None:
    config = {"name": name, "script": "/bin/true"}
    refused = ["fail", "queue name has invalid characters"]
    assert call(shared_empty, "create_queue", config) == refused
    assert os.listdir(shared_empty.directory / "queue") == []


@pytest.mark.parametrize(("config", "words"), [
    ({}, "queue name must be 1 to 128 characters"),
    ({"name": ""}, "queue name must be 1 to 128 characters"),
    ({"name": 5}, "queue name must be 1 to 128 characters"),
    ({"name": "q" * 129, "script": "x"}, "longer than 128 characters"),
    ({"name": "q"}, "script"),
    ({"name": "q", "script": ""}, "script"),
    ({"name": "q", "script": "x" * 1025}, "script"),
    ({"name": "q", "script": "x", "num_workers": 129}, "num_workers"),
    ({"name": "q", "script": "x", "num_workers": "zero"}, "num_workers"),
    ({"name": "q", "script": "x", "coalesce_params": [5]}, "coalesce_params"),
])  # fmt: skip
def test_a_queue_that_cannot_be(
    shared_empty: RunningInstance, config: dict[str, Any], words: str
) -> None:
    word, reason = call(shared_empty, "create_queue", config)
    assert word == "fail"
    assert words in reason
    assert os.listdir(shared_empty.directory / "queue") == []


@pytest.fixture(scope="module")
def _empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("empty") / "rq") as instance:
        yield instance.start()


@pytest.fixture
def shared_empty(_empty: RunningInstance) -> Iterator[RunningInstance]:
    yield _empty
    _empty.disconnect()


# Messages


def test_retry(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", (
        '#!/bin/sh\necho again >> notes; echo "try $RQ_COUNT"\n'
        '[ "$(wc -l < notes)" = 1 ] && echo "err not yet" >&3 || echo "done now" >&3\n'
    ))  # fmt: skip
    rq_instance.start()
    msg_id = rq_instance.send("test", count=4)
    assert rq_instance.until("test", msg_id)["status"] == "err - not yet"
    assert rq_instance.ask("test", "retry_message", {"msg_id": msg_id}) == "msg sent to run again"
    message = rq_instance.until("test", msg_id)
    assert message["status"] == "done - now"
    assert script_log(message) == "try 4\ntry 0\n"
    again = rq_instance.client("test").call("retry_message", {"msg_id": msg_id})
    assert again == ["fail", "message is in done; only one in err can be retried"]


def hand_made(folder: Path, fields: object = None) -> Path:
    """A complete message directory outside of any queue."""
    folder.mkdir(parents=True)
    fields = {"dest": "test", "param1": "by hand"} if fields is None else fields
    (folder / "msg").write_text(json.dumps(fields))
    return folder


def test_directories_moved_in_by_hand(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.queue("test", '#!/bin/sh\necho "$RQ_ORIG_MSG_ID"; echo "done $RQ_PARAM1" >&3\n')
    journal = Journal(rq)
    queue = rq.directory / "queue/test"
    made = [hand_made(rq.directory / "made" / name) for name in (
        "20250101.1200.00.000.1", "any name", "ünïcode", "20250101.1200.00.000.2", "later")]  # fmt: skip
    hand_made(queue / "que/before the start")
    hand_made(queue / "que/.being-copied")
    rq.start()
    journal.until("message_done")
    for path in made[:3]:
        path.rename(queue / "que" / path.name)
    journal.until("message_done", count=4)
    assert rq.message("test", made[0].name)["status"] == "done - by hand", "it keeps its id"
    done = rq.client("test").call("messages", {"state": "done"})
    assert len({item["msg_id"] for item in done}) == 4
    for item in done:
        message = rq.message("test", item["msg_id"])
        assert message["param1"] == "by hand"
        assert script_log(message) == message["full_id"] + "\n", "the first of its chain"
    # One whose id is in use gets another; nothing of the first is touched.
    again = hand_made(rq.directory / "again" / made[0].name, {"dest": "test", "param1": "second"})
    again.rename(queue / "que" / made[0].name)
    fact = journal.until("message_done", count=5)
    assert fact["msg_id"] != made[0].name
    assert rq.message("test", made[0].name)["param1"] == "by hand"
    assert rq.message("test", fact["msg_id"])["param1"] == "second"
    # Into prep: it can be committed, by its id or by the one it is given.
    for path in made[3:]:
        path.rename(queue / "prep" / path.name)
    prep = rq.client("test").call("messages", {"state": "prep"})
    while len(prep) < 2:  # as soon as the queue was told of it by the kernel: it asks no clock
        prep = rq.client("test").call("messages", {"state": "prep"})
    for item in prep:
        rq.ask("test", "commit_message", item)
        rq.until("test", item["msg_id"], "done")
    assert made[3].name in [item["msg_id"] for item in prep]
    assert os.listdir(queue / "que") == [".being-copied"]


def test_from_err_back_to_que_by_hand(rq_instance: RunningInstance) -> None:
    """The operator's oldest trick."""
    rq = rq_instance
    rq.queue("test", "#!/bin/sh\n[ -e ../../../fixed ] && echo done >&3 || echo 'err no' >&3\n")
    rq.start()
    msg_id = rq.send("test")
    rq.until("test", msg_id, "err")
    queue = rq.directory / "queue/test"
    (queue / "fixed").touch()
    (queue / "err" / msg_id).rename(queue / "que" / msg_id)
    rq.until("test", msg_id, "done")
    assert rq.client("test").call("num_messages")["err"] == 0


@pytest.mark.parametrize("content", [
    b"", b"\0\xff\0garbage", b"[]", b"{}", b'{"dest": 5}', b'{"dest": "x", "due": "soon"}',
    b"[" * 100_000, None, "directory", "loop",
])  # fmt: skip
def test_a_message_edited_into_garbage(
    rq_instance: RunningInstance, content: bytes | str | None
) -> None:
    rq = rq_instance
    rq.queue("test", DONE)
    paused = rq.directory / "config/test.pause"
    paused.touch()
    rq.start()
    first, spoiled, last = [rq.send("test", param1=str(number)) for number in range(3)]
    queue = rq.directory / "queue/test"
    file = queue / "que" / spoiled / "msg"
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "directory":
        file.mkdir()
    elif content == "loop":
        file.symlink_to("msg")
    paused.unlink()
    for msg_id in (first, last):
        rq.until("test", msg_id, "done")
    assert (queue / "corrupt" / spoiled).is_dir()
    reason = (queue / "corrupt" / f"{spoiled}.reason").read_text()
    assert "'msg'" in reason
    assert rq.client("test").call("get_message", {"msg_id": spoiled}) == ["fail", "msg not found"]
    counts = rq.client("test").call("num_messages")
    assert (counts["que"], counts["done"]) == (0, 2)
    # Repaired and moved back, it runs; the id is its own still.
    corrupt = queue / "corrupt" / spoiled
    if (corrupt / "msg").is_dir():
        (corrupt / "msg").rmdir()
    else:
        (corrupt / "msg").unlink(missing_ok=True)
    (corrupt / "msg").write_text('{"dest": "test"}')
    corrupt.rename(queue / "que" / spoiled)
    rq.until("test", spoiled, "done")


def test_garbage_that_lies_there_at_the_start(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.queue("test", DONE)
    queue = rq.directory / "queue/test"
    ids = {state: f"20260101.0000.00.000.{number}" for number, state in enumerate(
        ("que", "run", "prep", "err", "done"))}  # fmt: skip
    for state, msg_id in ids.items():
        folder = queue / state / ("20260101/00/00" if state == "done" else "") / msg_id
        folder.mkdir(parents=True)
        (folder / "msg").write_bytes(b"\xff garbage")
    (queue / "que/a file").write_text("?")
    (queue / "que/20260101.0000.00.000.9").write_text("a file again")
    rq.start()
    rq.until("test", rq.send("test"), "done")
    corrupt = os.listdir(queue / "corrupt")
    assert {ids["que"], ids["run"], f"{ids['que']}.reason"} <= set(corrupt)
    for state in ("prep", "err", "done"):
        word, reason = rq.client("test").call("get_message", {"msg_id": ids[state]})
        assert word == "fail"
        assert "'msg'" in reason
    listed = rq.ask("test", "list_messages", {"state": "err"})["items"]
    assert "unreadable" in listed[0]["status"]
    assert rq.client("test").call("messages", {"state": "que"}) == []
    assert rq.client("test").call("num_messages")["que"] == 0


def test_messages_removed_by_hand(rq_instance: RunningInstance, gate: Gate) -> None:
    rq = rq_instance
    rq.queue("test", WAITS)
    rq.queue("fail", "#!/bin/sh\necho err >&3\n")
    rq.start()
    run = waiting(rq, "test", gate)
    queued = [rq.send("test") for _ in range(3)]
    prep = rq.ask("test", "prep_message", {"dest": "test"}).rpartition("/")[2]
    failed = rq.until("fail", rq.send("fail"), "err")
    queue = rq.directory / "queue/test"
    for path in (queue / "que" / queued[0], queue / "prep" / prep, Path(failed["path"])):
        shutil.rmtree(path)
    (queue / "que" / queued[1]).rename(rq.directory / "taken away")
    # The running one too: its script ends, and nobody is harmed.
    shutil.rmtree(queue / "run" / run)
    gate.open()
    rq.until("test", queued[2], "done")
    expected = {"prep": 0, "que": 0, "run": 0, "done": 1, "relayed": 0, "err": 0}
    assert rq.client("test").call("num_messages") == expected
    assert rq.client("fail").call("num_messages")["err"] == 0
    assert rq.client("test").call("get_message", {"msg_id": run}) == ["fail", "msg not found"]
    # And back it comes.
    (rq.directory / "taken away").rename(queue / "que" / queued[1])
    rq.until("test", queued[1], "done")


# Whoever started it


def test_what_cannot_be_started_says_why(tmp_path: Path, rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.configure(port=0, tmpdir="/no/such/dir", host="")
    refused = run_again(rq)
    assert refused.returncode == 3
    for word in ("port", "host", "config.json"):
        assert word in refused.stderr
    assert "Traceback" not in refused.stderr
    rq.configure(port=3333, host="localhost")
    refused = run_again(rq)
    assert refused.returncode == 3
    assert "/no/such/dir" in refused.stderr
    assert "Traceback" not in refused.stderr
    command = [sys.executable, "-m", "rqcore", str(tmp_path / "nowhere")]
    nowhere = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert nowhere.returncode == 3
    assert "no such directory" in nowhere.stderr


# Plugins


def test_the_example_plugin(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    shutil.copy(ROOT / "examples/plugins/guard.py", rq.directory / "plugins")
    rq.queue("test", DONE)
    rq.start()
    word, reason = rq.client("test").call("create_message", {"dest": "test"})
    assert word == "fail"
    assert "param1 is empty: say what to do" in reason
    assert "guard" in reason
    assert rq.client("test").call("num_messages")["que"] == 0
    msg_id = rq.send("test", param1="work")
    rq.until("test", msg_id, "done")
    due = time()
    rq.until("test", rq.send("test", param1="later", due=due), "done")
    assert time() >= due + 2
    # A fact is told after the state can be seen; that of the first message is known by now.
    assert f"guard: test/{msg_id} is done: fine" in rq.log_text()
    report = rq.ask("test", "plugins")
    assert "guard" in json.dumps(report)


OPTION = """
from rqcore.hookspecs import Reject, hookimpl

@hookimpl
def rq_configure(options):
    global _reason
    if options.get("reason") == 0:
        raise ValueError("reason must be text")
    _reason = options.get("reason")

@hookimpl
def rq_check_message(message):
    return Reject(_reason) if _reason else None
"""


def test_a_reload_gives_plugins_their_new_options(rq_instance: RunningInstance) -> None:
    """In the queues' processes too, where their hooks are called."""
    rq = rq_instance
    rq.plugin("option", OPTION)
    rq.configure(plugins={"option": {"reason": "old reason"}})
    rq.queue("test", DONE)
    journal = Journal(rq)
    rq.start()
    assert "old reason" in rq.client("test").call("create_message", {"dest": "test"})[1]
    steps = (("new reason", "new reason"), (0, "new reason"), ("", ""))
    for count, (given, in_force) in enumerate(steps, 1):
        rq.configure(plugins={"option": {"reason": given}})
        problems = rq.manager.ask("reload")
        assert ("goes on with the options it has" in str(problems)) == (given == 0)
        journal.until("queue_config_reloaded", count=count)
        word, answer = rq.client("test").call("create_message", {"dest": "test"})
        assert (word == "fail") == bool(in_force)
        assert in_force in answer


def test_without_plugins(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    shutil.copy(ROOT / "examples/plugins/guard.py", rq.directory / "plugins")
    rq.plugin("broken", "raise RuntimeError('this plugin breaks')\n")
    rq.queue("test", DONE)
    rq.start("--no-plugins")
    rq.until("test", rq.send("test"), "done")
    assert "guard" not in rq.log_text()
    assert "breaks" not in rq.log_text()
    rq.stop()
    rq.start()
    assert "this plugin breaks" in rq.log_text(), "a broken plugin stops nobody, but is told of"
    rq.until("test", rq.send("test", param1="x"), "done")


def test_the_manager_names_the_queue_for_a_destination(rq_instance: RunningInstance) -> None:
    """So that no sender has to load plugins; and a dup asks the same plugin in its own process."""
    rq_instance.plugin("carrier", (
        "from rqcore.hookspecs import hookimpl\n\n\n@hookimpl\n"
        "def rq_resolve_destination(dest):\n"
        '    return "carries" if dest.startswith("http://far") else None\n'
    ))  # fmt: skip
    rq_instance.queue("carries", DONE)
    rq_instance.queue("asks", (
        "#!/bin/bash\necho 'dup 0-X-http://far.example.com:3333/q/x' >&3\nread -u 4 answer\n"
        'echo "done $answer" >&3\n'
    ))  # fmt: skip
    rq_instance.start()

    def resolved(dest: str) -> object:
        return rq_instance.manager.ask("resolve_destination", {"dest": dest})

    assert resolved("http://far.example.com:3333/q/x") == "carries"
    assert resolved("http://near.example.com:3333/q/x") is None
    message = rq_instance.until("asks", rq_instance.send("asks"))
    verdict, new_id = message["status"].removeprefix("done - ").split()
    assert (message["state"], verdict) == ("done", "ok")
    copy = rq_instance.until("carries", new_id.rpartition("/")[2])
    assert copy["dest"] == "http://far.example.com:3333/q/x"
