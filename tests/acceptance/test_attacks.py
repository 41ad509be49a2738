"""What a spiteful user, script or directory may do without stopping a queue or losing a message."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any

import pytest

from rqcore import wire
from rqcore.client import QueueClient
from rqcore.errors import RefusedError
from rqcore.testing import PATIENCE, RunningInstance
from tests.acceptance.helpers import DONE, Journal, Raw, growth, queue_pid, running

pytestmark = pytest.mark.process

OLD_ID = "20200102.0304.05.006.00000123456"


def counts(rq: RunningInstance, name: str) -> dict[str, int]:
    with rq.client(name) as client:
        return dict(client.call("num_messages"))


def answers(rq: RunningInstance, name: str) -> None:
    with rq.client(name) as client:
        assert client.call("ping") == ["pong"]


def quiet(client: QueueClient) -> bool:
    """Does this connection's queue wake up for our questions only?"""
    before = client.ask("describe")["wakeups"]
    for _ in range(200):
        client.call("ping")
    return bool(client.ask("describe")["wakeups"] - before < 220)


# Turning in circles


def test_a_message_that_nothing_can_run_keeps_nobody_busy(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", "/there/is/no/such/script")
    rq_instance.start()
    rq_instance.send("test")
    with rq_instance.client("test") as client:
        assert client.call("status") == ["UP", "SCRIPTERROR"]
        assert quiet(client)


def test_a_hold_that_is_over_at_once_keeps_nobody_waiting(rq_instance: RunningInstance) -> None:
    rq_instance.plugin("hasty", """
from rqcore.hookspecs import Hold, hookimpl

@hookimpl
def rq_check_start(message, queue):
    return None if message.param1 == "go" else Hold("not yet", 1e-9)
""")  # fmt: skip
    rq_instance.queue("test", DONE)
    rq_instance.start()
    held = rq_instance.send("test")
    answers(rq_instance, "test")
    rq_instance.ask("test", "delete_message", {"msg_id": held})
    rq_instance.until("test", rq_instance.send("test", param1="go"), "done")


def test_a_script_that_floods_its_pipe_does_not_flood_the_log(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", '#!/bin/sh\nyes "" | head -n 5000 >&3\necho done >&3\n')
    rq_instance.start()
    rq_instance.until("test", rq_instance.send("test"), "done")
    assert rq_instance.log_text().count("on its pipe") == 20


def test_whoever_asks_and_never_reads_is_not_listened_to(rq_instance: RunningInstance) -> None:
    """His answers do not pile up in the queue's memory; when he reads, he gets them all."""
    rq_instance.queue("test", DONE)
    rq_instance.start()
    frame, far_more = wire.encode(b"ping"), 8 << 20
    many = frame * 4096
    with Raw(rq_instance, "test") as raw, rq_instance.client("test") as other:
        raw.sock.setblocking(False)
        sent, full = 0, False
        while not full and sent < far_more:
            try:
                sent += raw.sock.send(many[sent % len(frame) :])
            except BlockingIOError:
                for _ in range(3):  # it takes its turns, and would have read
                    assert other.call("ping") == ["pong"]
                full = not select.select([], [raw.sock], [], 0)[1]
        assert sent < far_more
        raw.sock.settimeout(PATIENCE)
        whole, begun = divmod(sent, len(frame))
        assert all(raw.answer() == ["pong"] for _ in range(whole))
        raw.sock.sendall(frame[begun:] if begun else frame)
        assert raw.answer() == ["pong"]


# Things that are not what they should be


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_huge_file(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


@pytest.mark.parametrize("make", [a_pipe, a_directory, a_huge_file])
@pytest.mark.parametrize("at_start", [True, False])
def test_a_message_that_is_no_file_is_set_aside(
    rq_instance: RunningInstance, tmp_path: Path, make: Callable[[Path], None], *, at_start: bool
) -> None:
    rq_instance.queue("test", DONE)
    (tmp_path / "odd").mkdir()
    make(tmp_path / "odd/msg")
    que = rq_instance.directory / "queue/test/que"
    if at_start:
        que.mkdir()
    else:
        rq_instance.start()
    (tmp_path / "odd").rename(que / OLD_ID)
    if at_start:
        rq_instance.start()
    rq_instance.until("test", rq_instance.send("test"), "done")
    assert (que.parent / "corrupt" / f"{OLD_ID}.reason").exists()
    assert counts(rq_instance, "test")["que"] == 0


@pytest.mark.parametrize("spoiled", ["pipe", "[" * 200_000, "null"])
def test_a_spoiled_status_hides_no_message(rq_instance: RunningInstance, spoiled: str) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    msg_id = rq_instance.send("test")
    status = Path(rq_instance.until("test", msg_id, "done")["path"]) / "status"
    status.unlink()
    if spoiled == "pipe":
        os.mkfifo(status)
    else:
        status.write_text(spoiled)
    assert rq_instance.message("test", msg_id)["status"] == "done"
    page = rq_instance.ask("test", "list_messages", {"state": "done"})
    assert [item["msg_id"] for item in page["items"]] == [msg_id]


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_a_script_that_is_a_pipe_keeps_nobody_waiting(
    rq_instance: RunningInstance, tmp_path: Path, mode: int
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "pipe").chmod(mode)
    rq_instance.queue("test", tmp_path / "pipe")
    rq_instance.start()
    rq_instance.send("test")
    with rq_instance.client("test") as client:
        assert client.call("status") == ["UP", "SCRIPTERROR"]


@pytest.mark.parametrize("spoil", ["mkdir", "mkfifo"])
def test_a_message_whose_log_cannot_be_written_stops_no_others(
    rq_instance: RunningInstance, spoil: str
) -> None:
    rq_instance.queue("test", f"""#!/bin/sh
[ -n "$RQ_PARAM1" ] || {{ echo done >&3; exit; }}
rm stdio.log; {spoil} stdio.log; echo "resend 0-spoiled" >&3
""")  # fmt: skip
    rq_instance.start()
    bad = rq_instance.send("test", param1="bad")
    with growth(rq_instance.log) as grown:
        while f"{bad} cannot be started" not in rq_instance.log_text():
            assert grown()
    rq_instance.until("test", rq_instance.send("test"), "done")
    assert rq_instance.message("test", bad)["state"] == "que"


@pytest.mark.parametrize("make", ["mkdir", "mkfifo", "ln -s /nowhere"])
def test_a_script_may_put_anything_in_the_place_of_our_files(
    rq_instance: RunningInstance, make: str
) -> None:
    rq_instance.queue("test", f"""#!/bin/sh
cd ..
[ "$RQ_COUNT" = 0 ] || {{ echo "done fine" >&3; exit; }}
for name in msg status pid .msg.tmp .status.tmp; do rm -f $name; {make} $name; done
[ ! -d status ] || touch status/kept
echo "run on" >&3
echo "resend 0-again" >&3
""")  # fmt: skip
    journal = Journal(rq_instance)
    rq_instance.start()
    msg_id = rq_instance.send("test", param1="one")
    journal.until("message_done")
    message = rq_instance.message("test", msg_id)
    assert (message["status"], message["param1"], message["count"]) == ("done - fine", "one", 1)
    folder = Path(message["path"])
    assert json.loads((folder / "msg").read_text())["count"] == 1
    if make == "mkdir":
        assert sorted(folder.glob("status*/kept")) == [folder / "status.1/kept"]
        assert (folder / "pid.1").is_dir()


@pytest.mark.parametrize(
    "intent", [{}, {"at": 1, "params": []}, {"at": 1, "params": ["refused"] * 4}]
)
def test_an_interrupted_scheduled_run_that_cannot_be_made_stops_no_queue(
    rq_instance: RunningInstance, intent: dict[str, Any]
) -> None:
    rq_instance.plugin("refuses", """
from rqcore.hookspecs import Reject, hookimpl

@hookimpl
def rq_check_message(message, queue):
    return Reject("never") if message.param1 == "refused" else None
""")  # fmt: skip
    rq_instance.queue("test", DONE)
    file = rq_instance.directory / "queue/test/cron.json"
    file.write_text(json.dumps({"last": {}, "intents": {OLD_ID: intent}}))
    rq_instance.start()
    rq_instance.until("test", rq_instance.send("test"), "done")
    assert json.loads(file.read_text())["intents"] == {}


def test_an_id_of_the_last_year_makes_no_ids_that_are_none(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    old = rq_instance.directory / "queue/test/que/99991231.2359.59.999.1"
    old.mkdir(parents=True)
    (old / "msg").write_text('{"dest": "test"}')
    rq_instance.start()
    rq_instance.until("test", "99991231.2359.59.999.1", "done")
    rq_instance.until("test", rq_instance.send("test"), "done")


# Nasty moments


def test_a_message_that_could_not_be_deleted_still_waits_for_its_turn(
    rq_instance: RunningInstance,
) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    msg_id = rq_instance.send("test", due=time() + 86_400)
    tmp = rq_instance.directory / "queue/test/tmp"
    tmp.rmdir()
    with pytest.raises(RefusedError, match="not accepted or changed"):
        rq_instance.ask("test", "delete_message", {"msg_id": msg_id})
    tmp.mkdir()
    rq_instance.ask("test", "run_message", {"msg_id": msg_id})
    rq_instance.until("test", msg_id, "done")


def test_a_message_that_is_destroyed_without_descriptors_leaves_run(
    rq_instance: RunningInstance,
) -> None:
    rq_instance.queue("test", '#!/bin/sh\necho "run ready" >&3\nexec sleep 1000\n')
    rq_instance.start()
    msg_id = rq_instance.send("test")
    rq_instance.until("test", msg_id, "run", matching=running)
    pid = queue_pid(rq_instance, "test")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with Raw(rq_instance, "test") as asker, growth(rq_instance.log) as grown:
        asker.send(b"ping")
        assert asker.answer() == ["pong"]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (5, before[1]))
        asker.send(f'destroy_message {{"msg_id": "{msg_id}"}}'.encode())
        assert asker.answer() == ["ok", "msg destroyed"]
        while "looking for its group" not in rq_instance.log_text():
            assert grown()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    rq_instance.serving("test")
    assert "destroyed" in rq_instance.until("test", msg_id, "err")["status"]


def test_a_queue_is_made_anew_where_one_was_removed_by_hand(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    former = queue_pid(rq_instance, "test")
    folder = rq_instance.directory / "queue/test"
    config = json.loads((folder / "config.json").read_text())
    shutil.rmtree(folder)
    rq_instance.manager.ask("create_queue", config)
    assert queue_pid(rq_instance, "test") != former
    rq_instance.until("test", rq_instance.send("test"), "done")


def test_what_hands_did_while_notifications_were_lost_is_seen(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    rq_instance.manager.ask("pause_queue", "test")
    stays, goes = rq_instance.send("test"), rq_instance.send("test")
    que = rq_instance.directory / "queue/test/que"
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    pid = queue_pid(rq_instance, "test")
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(most // 2 + 1):
            (que / ".one").mkdir()
            (que / ".one").rmdir()
        shutil.rmtree(que / goes)
    finally:
        os.kill(pid, signal.SIGCONT)
    with growth(rq_instance.log) as grown:
        while f"{goes} was taken out of que by hand" not in rq_instance.log_text():
            assert grown(), PATIENCE
    assert counts(rq_instance, "test")["que"] == 1
    rq_instance.manager.ask("resume_queue", "test")
    rq_instance.until("test", stays, "done")
