"""What outlives a process that was killed: found, ended, and never a stranger.

Each test is run twice: with everything that Linux gives, and with ``RQ_PORTABLE=1`` as on any Unix.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqcore import recovery, unix
from rqcore.testing import PATIENCE, RunningInstance
from tests.crash.helpers import until

pytestmark = [pytest.mark.crash, pytest.mark.process]

#: Its first run waits for ever, whatever it is told; the next ones are done at once.
SCRIPT = """#!/bin/bash
here=${RQ_MSG_DIR%%/queue/*}/witness
exec 9>"$here/lock"
flock -n 9 || echo "$$" >>"$here/overlaps"
echo "$$" >>"$here/runs"
[ "$(wc -l <"$here/runs")" = 1 ] || { echo "done again" >&3; exit; }
%s
sleep 1000 &
echo "run waiting" >&3
while :; do wait; sleep 1000 & done
"""


@pytest.fixture(params=["linux", "portable"])
def portable(request: pytest.FixtureRequest) -> bool:
    if request.param == "linux" and not unix.LINUX:
        pytest.skip("only Linux has it")
    return bool(request.param == "portable")


@pytest.fixture
def rq(rq_instance: RunningInstance, portable: bool) -> RunningInstance:
    (rq_instance.directory / "witness").mkdir()
    rq_instance.configure(kill_grace=1)
    if portable:
        rq_instance.environ["RQ_PORTABLE"] = "1"
    return rq_instance


def runs(rq: RunningInstance) -> list[int]:
    path = rq.directory / "witness" / "runs"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def queue_pid(rq: RunningInstance) -> int:
    pid: int = rq.ask("test", "describe")["pid"]
    return pid


def waiting(rq: RunningInstance, trap: str = "") -> str:
    """A message whose script waits for ever."""
    rq.queue("test", SCRIPT % trap)
    rq.start()
    msg_id = rq.send("test")
    rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    return msg_id


def finished(rq: RunningInstance, msg_id: str) -> None:
    """It ran again, after the first run had ended, and nobody else runs."""
    done = rq.directory / "queue" / "test" / "done"
    until(lambda: any(done.glob(f"*/*/*/{msg_id}")), rq.log_text)
    assert rq.message("test", msg_id)["status"] == "done - again"
    assert not (rq.directory / "witness" / "overlaps").exists(), rq.log_text()
    first, second = runs(rq)
    assert first != second
    assert unix.process_start(first) is None
    rq.stop()


@pytest.mark.parametrize("how", ["", "deaf", "stopped"])
def test_a_script_ends_before_its_message_runs_again(rq: RunningInstance, how: str) -> None:
    msg_id = waiting(rq, "trap '' TERM" if how == "deaf" else "")
    if how == "stopped":
        os.kill(runs(rq)[0], signal.SIGSTOP)
    rq.kill(queue_pid(rq))
    finished(rq, msg_id)


def test_children_of_a_script_that_is_dead_itself_are_ended_too(rq: RunningInstance) -> None:
    if rq.environ.get("RQ_PORTABLE"):
        return  # nothing tells of them there
    msg_id = waiting(rq)
    queue, [script] = queue_pid(rq), runs(rq)
    os.kill(queue, signal.SIGSTOP)
    rq.kill(script)
    assert unix.group_members(script)
    rq.kill(queue)
    finished(rq, msg_id)
    assert unix.group_members(script) == []


@pytest.mark.parametrize(
    "content",
    [None, b"", b"garbage\n", b"-1\n\n", b"99999999999999999999\nx\n", os.mkdir, os.mkfifo],
)
def test_a_script_without_a_usable_pid_file_is_found_by_its_environment(
    rq: RunningInstance, content: bytes | Callable[[Path], None] | None
) -> None:
    if rq.environ.get("RQ_PORTABLE"):
        return  # nothing tells of it there
    msg_id = waiting(rq)
    queue, [script] = queue_pid(rq), runs(rq)
    os.kill(queue, signal.SIGSTOP)
    pid_file = rq.directory / "queue" / "test" / "run" / msg_id / "pid"
    assert pid_file.read_text().split()[0] == str(script)
    pid_file.unlink()
    if isinstance(content, bytes):
        pid_file.write_bytes(content)
    elif content is not None:
        content(pid_file)
    rq.kill(queue)
    finished(rq, msg_id)


@pytest.mark.parametrize("started", ["", "Mon Jan  1 00:00:00 2001", "0-0-0 12345"])
def test_a_stranger_with_the_pid_of_a_stale_file_is_left_alone(
    rq: RunningInstance, started: str
) -> None:
    """The first run has ended long ago, and its number was given to somebody else."""
    rq.queue("test", "#!/bin/sh\necho done fine >&3\n")
    folder = rq.directory / "queue" / "test" / "run" / "20260101.1200.00.000.000001"
    folder.mkdir(parents=True)
    (folder / "msg").write_text('{"dest": "test"}')
    with subprocess.Popen(["sleep", "1000"], process_group=0) as stranger:
        (folder / "pid").write_text(f"{stranger.pid}\n{started}\n")
        rq.start()
        assert rq.until("test", folder.name)["status"] == "done - fine"
        assert stranger.poll() is None
        stranger.kill()
    rq.stop()


def test_a_manager_that_is_killed_leaves_nobody(rq: RunningInstance) -> None:
    rq.queue("idle", "#!/bin/sh\n")
    msg_id = waiting(rq)
    assert rq.process is not None
    with contextlib.ExitStack() as ends:
        watched = [ends.enter_context(end_of(pid)) for pid in rq.processes()]
        assert len(watched) >= 4
        rq.process.kill()
        rq.wait()
        for fd in watched:
            assert select.select([fd], [], [], PATIENCE)[0], rq.processes()
    assert rq.processes() == {}
    rq.start()
    finished(rq, msg_id)


def test_a_new_manager_needs_not_wait_for_the_children_of_the_old_one(rq: RunningInstance) -> None:
    msg_id = waiting(rq)
    queue = queue_pid(rq)
    os.kill(queue, signal.SIGSTOP)  # it cannot notice that its manager is gone
    assert rq.process is not None
    rq.process.kill()
    rq.wait()
    rq.start()
    child = rq.manager.ask("describe")["children"][0]
    assert child["state"] != "running", "the old process still has the queue"
    assert runs(rq) == runs(rq)[:1]
    os.kill(queue, signal.SIGCONT)
    finished(rq, msg_id)


def test_a_queue_that_is_killed_again_and_again_comes_back(rq: RunningInstance) -> None:
    rq.queue("test", "#!/bin/sh\necho done fine >&3\n")
    rq.start()
    ids = []
    for _ in range(4):
        pid = until(lambda: pid_or_none(rq), rq.log_text)
        ids.append(rq.send("test"))
        rq.kill(pid)
    until(lambda: pid_or_none(rq), rq.log_text)
    for msg_id in ids:
        assert rq.until("test", msg_id)["status"] == "done - fine"
    rq.stop()


def pid_or_none(rq: RunningInstance) -> int | None:
    from rqcore.errors import UnreachableError

    try:
        return queue_pid(rq)
    except UnreachableError:
        return None


@contextlib.contextmanager
def end_of(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


# --- the rooms themselves -------------------------------------------------------------------------


def test_a_pid_file_names_its_process_for_ever(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], process_group=0) as process:
        recovery.write_pid_file(str(tmp_path), process.pid)
        assert list(recovery.leftovers([str(tmp_path)])) == [process.pid]
        process.kill()
    assert recovery.leftovers([str(tmp_path)]) == {}
    assert recovery.end_scripts([str(tmp_path)], 0.1) == 0


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert recovery.end_scripts([], 1) == 0
    assert recovery.end_scripts([str(tmp_path), str(tmp_path / "gone")], 1) == 0


def test_a_process_that_does_not_hear_is_killed_after_the_grace(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    script = "trap '' TERM; echo; while :; do sleep 1000 & wait; done"
    with subprocess.Popen(["bash", "-c", script], process_group=0, stdout=writing) as process:
        os.close(writing)
        assert os.read(reading, 1) == b"\n"  # the trap is set
        recovery.write_pid_file(str(tmp_path), process.pid)
        assert recovery.end_scripts([str(tmp_path)], 0.1) == 1
        assert process.wait(PATIENCE) == -signal.SIGKILL
    os.close(reading)


def test_our_own_process_group_is_never_signalled(tmp_path: Path) -> None:
    """A pid file may name a process that was put into our group, by hand or by a debugger."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        recovery.write_pid_file(str(tmp_path), process.pid)
        recovery.end_scripts([str(tmp_path)], 0.1)
        assert process.poll() is None
        process.kill()
