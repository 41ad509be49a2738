"""When the machine runs out of something: disk, inodes, descriptors, the right to write.

Nothing that was promised is lost, nothing half-written stays, whoever asks is told in words, and work
goes on by itself when there is room again.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqcore.__main__ import main
from rqcore.client import QueueClient
from rqcore.errors import RefusedError
from rqcore.lifecycle import State
from rqcore.testing import PATIENCE, RunningInstance
from tests.acceptance.helpers import logged
from tests.crash.helpers import until

pytestmark = [pytest.mark.crash, pytest.mark.process]

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a file system"
)

#: Runs until its ``go`` file (a fifo beside the instance) is opened for writing.
WAITS = """#!/bin/sh
echo "run waiting" >&3
read -r line <"$RQ_PARAM1"
echo "done went on" >&3
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own: 2 MB, 300 inodes."""
    place = tmp_path / "small"
    place.mkdir()
    options = "size=2m,nr_inodes=300,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "rq-test", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def rq(small: Path) -> Iterator[RunningInstance]:
    instance = RunningInstance(small / "rq")
    # What the test itself writes has room of its own.
    instance.log = small.parent / "log"
    instance.queue("test", WAITS, num_workers=2)
    yield instance
    free(small)
    instance.close()


def fill(place: Path) -> None:
    """Leave not one byte."""
    with open(place / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def use_up_inodes(place: Path) -> None:
    (place / "fillers").mkdir()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (place / "fillers" / str(number)).touch()


def free(place: Path) -> None:
    (place / "filler").unlink(missing_ok=True)
    shutil.rmtree(place / "fillers", ignore_errors=True)


def spool(rq: RunningInstance) -> dict[str, list[str]]:
    """The names in each directory of the queue that holds messages."""
    queue = rq.directory / "queue" / "test"
    names = (*(s for s in State if s not in (State.DONE, State.RELAYED)), "tmp", "corrupt")
    return {str(name): sorted(os.listdir(queue / name)) for name in names}


def refused(rq: RunningInstance, command: str, args: dict[str, Any]) -> str:
    with pytest.raises(RefusedError) as caught:
        rq.ask("test", command, args)
    return str(caught.value)


def go_file(place: Path, name: str = "go") -> Path:
    path = place / name
    os.mkfifo(path)
    return path


def let_go(path: Path) -> None:
    path.write_text("go\n")


# --- no room on the disk --------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("use_up", [fill, use_up_inodes], ids=["bytes", "inodes"])
def test_a_full_disk_refuses_in_words_and_keeps_nothing_half(
    rq: RunningInstance, small: Path, use_up: Callable[[Path], None]
) -> None:
    (rq.directory / "config" / "test.pause").touch()
    rq.start()
    prepared = rq.ask("test", "prep_message", {"dest": "test"}).rpartition("/")[2]
    attachment = small.parent / "attachment"
    attachment.write_bytes(b"x" * 300_000)
    before = spool(rq)
    use_up(small)
    for command, args in (
        ("create_message", {"dest": "test", "param1": "x" * 10_000}),
        ("prep_message", {"dest": "test"}),
        ("attach_message", {"msg_id": prepared, "pathname": str(attachment)}),
    ):
        text = refused(rq, command, args)
        assert "No space left on device" in text
        assert "the message was not accepted or changed" in text
        assert spool(rq) == before
    counts = rq.ask("test", "num_messages")
    assert (counts["prep"], counts["que"]) == (1, 0)
    free(small)
    rq.ask("test", "attach_message", {"msg_id": prepared, "pathname": str(attachment)})
    rq.ask("test", "commit_message", {"msg_id": prepared})
    assert rq.message("test", prepared)["_attachments"]["attachment"]["size"] == 300_000
    rq.stop()


@needs_root
@pytest.mark.parametrize("use_up", [fill, use_up_inodes], ids=["bytes", "inodes"])
def test_a_message_that_cannot_leave_run_leaves_it_when_there_is_room(
    rq: RunningInstance, small: Path, use_up: Callable[[Path], None]
) -> None:
    go = go_file(small.parent)
    rq.start()
    msg_id = rq.send("test", param1=str(go))
    rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    use_up(small)
    let_go(go)
    logged(rq, f"{msg_id} has ended but cannot leave run")
    assert rq.message("test", msg_id)["state"] == "run"
    assert rq.ask("test", "ping") == ["pong"]
    free(small)
    assert rq.until("test", msg_id)["status"] == "done - went on"
    rq.stop()


@needs_root
@pytest.mark.parametrize("use_up", [fill, use_up_inodes], ids=["bytes", "inodes"])
def test_what_cannot_start_waits_in_que_and_starts_when_there_is_room(
    rq: RunningInstance, small: Path, use_up: Callable[[Path], None]
) -> None:
    pause = rq.directory / "config" / "test.pause"
    pause.touch()
    rq.queue("test", "#!/bin/sh\necho out; echo done fine >&3\n")
    rq.start()
    ids = [rq.send("test", param2="p" * 150_000) for _ in range(3)]
    use_up(small)
    pause.unlink()
    # Between two tries there is no problem for a moment.
    until(lambda: "No space left on device" in rq.ask("test", "describe")["problem"], rq.log_text)
    states = {rq.message("test", msg_id)["state"] for msg_id in ids}
    assert states <= {"que", "run"}
    free(small)
    for msg_id in ids:
        assert rq.until("test", msg_id)["status"] == "done - fine"
    assert spool(rq)["corrupt"] == []
    rq.stop()


@needs_root
def test_a_full_disk_stops_no_restart(rq: RunningInstance, small: Path) -> None:
    go = go_file(small.parent)
    rq.start()
    msg_id = rq.send("test", param1=str(go))
    rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    fill(small)
    rq.kill(rq.ask("test", "describe")["pid"])

    def restarted() -> bool:
        child = rq.manager.ask("describe")["children"][0]
        rq.disconnect()
        return bool(child["state"] == "running" and child["restarts"])

    until(restarted, rq.log_text)
    assert rq.message("test", msg_id)["state"] in ("que", "run")
    free(small)
    rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    let_go(go)
    assert rq.until("test", msg_id)["status"] == "done - went on"
    rq.stop()


@needs_root
def test_a_full_disk_stops_no_stop(rq: RunningInstance, small: Path) -> None:
    rq.configure(stop_grace=0, kill_grace=1)
    go = go_file(small.parent)
    rq.start()
    msg_id = rq.send("test", param1=str(go))
    rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    fill(small)
    assert rq.process is not None
    rq.process.terminate()
    rq.wait()
    assert rq.processes() == {}
    free(small)
    rq.start()
    rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    let_go(go)
    assert rq.until("test", msg_id)["status"] == "done - went on"
    rq.stop()


# --- a disk that fails ----------------------------------------------------------------------------

BROKEN = """
import errno, os
from rqcore import unix
from rqcore.hookspecs import hookimpl

@hookimpl
def rq_spool_ready(queue):
    flag = os.path.join(os.getcwd(), "broken")
    for name in ("fsync", "syncfs"):
        real = getattr(unix, name)
        def broken(fd, real=real):
            if os.path.exists(flag):
                raise OSError(errno.EIO, "Input/output error")
            real(fd)
        setattr(unix, name, broken)
"""


@pytest.fixture
def breakable(rq_instance: RunningInstance) -> RunningInstance:
    """An instance whose disk does not take anything while there is a file ``broken``."""
    rq_instance.plugin("broken", BROKEN)
    return rq_instance


def test_a_disk_that_takes_nothing_is_told_to_whoever_asks(breakable: RunningInstance) -> None:
    rq = breakable
    rq.queue("test", "#!/bin/sh\necho done fine >&3\n")
    (rq.directory / "config" / "test.pause").touch()
    rq.start()
    before = spool(rq)
    (rq.directory / "broken").touch()
    for command in ("create_message", "prep_message"):
        assert "Input/output error" in refused(rq, command, {"dest": "test"})
    (rq.directory / "broken").unlink()
    assert spool(rq) == before, "what was refused does not run later"
    counts = rq.ask("test", "num_messages")
    assert (counts["prep"], counts["que"]) == (0, 0)
    rq.stop()


def test_no_message_is_forgotten_while_the_disk_takes_nothing(breakable: RunningInstance) -> None:
    """Each comes to its end without a restart, whatever could be told meanwhile."""
    rq = breakable
    go = go_file(rq.directory.parent)
    again = '[ $RQ_COUNT = 1 ] || { echo "resend 0-x" >&3; exit; }'
    script = WAITS.replace('echo "done', f'{again}\necho "done')
    rq.queue("test", script, num_workers=2)
    rq.start()
    resent = rq.send("test", param1=str(go))
    rq.until("test", resent, "run", matching=lambda m: m["status"] == "run - waiting")
    prepared = rq.ask("test", "prep_message", {"dest": "test", "param1": "/dev/null"})
    prepared = prepared.rpartition("/")[2]
    (rq.directory / "broken").touch()
    assert "Input/output error" in refused(rq, "commit_message", {"msg_id": prepared})
    let_go(go)
    logged(rq, f"{resent} has ended but cannot leave run")
    (rq.directory / "broken").unlink()
    let_go(go)
    assert rq.until("test", resent)["status"] == "done - went on"
    assert rq.until("test", prepared)["status"] == "done - went on"
    rq.stop()


def test_whoever_follows_a_message_is_told_though_the_disk_takes_nothing(
    breakable: RunningInstance,
) -> None:
    rq = breakable
    go = go_file(rq.directory.parent)
    rq.queue("test", WAITS)
    rq.start()
    msg_id = rq.send("test", param1=str(go))
    rq.until("test", msg_id, "run", matching=lambda m: m["status"] == "run - waiting")
    with rq.client("test") as follower:
        events = follower.subscribe({}, timeout=PATIENCE)
        (rq.directory / "broken").touch()
        refused(rq, "create_message", {"dest": "test"})  # taken back: nobody hears of it
        let_go(go)
        moved = next(event for event in events if event["event"] == "state")
    assert (moved["msg_id"], moved["new"], moved["status"]) == (msg_id, "done", "went on")
    assert rq.message("test", msg_id)["status"] == "done - went on"
    (rq.directory / "broken").unlink()
    rq.stop()


def test_a_queue_stops_though_the_disk_takes_nothing(breakable: RunningInstance) -> None:
    rq = breakable
    rq.queue("test", "#!/bin/sh\n")
    rq.start()
    (rq.directory / "broken").touch()
    refused(rq, "create_message", {"dest": "test"})
    rq.stop()


# --- no descriptors -------------------------------------------------------------------------------


@contextlib.contextmanager
def few_descriptors(pid: int, spare: int) -> Iterator[None]:
    """That process can open so many more; Linux looks at the limit at each call."""
    used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + spare, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("spare", range(14))
def test_a_queue_without_descriptors_loses_nothing(
    rq_instance: RunningInstance, spare: int
) -> None:
    """With ``spare`` more than it has: creating, starting, ending and answering each run dry."""
    rq = rq_instance
    rq.queue(
        "test",
        "#!/bin/sh\nhere=${RQ_MSG_DIR%/queue/*}\nexec 9>>$here/lock\n"
        "flock -n 9 || echo x >>$here/overlap\necho run a bit >&3\necho done fine >&3\n",
    )
    rq.start()
    client = rq.client("test")
    pid = client.ask("describe")["pid"]
    accepted: list[str] = []
    with few_descriptors(pid, spare):
        for number in range(6):
            answer = client.call("create_message", {"dest": "test", "param1": str(number)})
            if answer[0] == "ok":
                accepted.append(answer[1].rpartition("/")[2])
            else:
                assert "Too many open files" in answer[1]
        assert client.call("ping") == ["pong"]
    for msg_id in accepted:
        assert rq.until("test", msg_id)["status"] == "done - fine"
    assert spool(rq) == {"prep": [], "que": [], "run": [], "err": [], "tmp": [], "corrupt": []}
    assert rq.ask("test", "num_messages")["done"] == len(accepted)
    assert not (rq.directory / "overlap").exists()
    assert "Traceback" not in rq.log_text(), rq.log_text()
    rq.stop()


def test_connections_that_cannot_be_accepted_wait(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.queue("test", "#!/bin/sh\necho done fine >&3\n")
    rq.start()
    pid = rq.ask("test", "describe")["pid"]
    with contextlib.ExitStack() as stack:
        with few_descriptors(pid, 3):
            clients = [
                stack.enter_context(QueueClient(rq.directory, "test", PATIENCE)) for _ in range(8)
            ]
            socks: list[socket.socket] = []
            for client in clients:
                client._send(b"rq1 00000005 ping ")
                assert client._sock is not None
                socks.append(client._sock)
            logged(rq, "no connection can be accepted")
        for client in clients:
            assert client._receive(PATIENCE) == b'["pong"]'
    assert rq.until("test", rq.send("test"))["status"] == "done - fine"
    rq.stop()


# --- no right to write ----------------------------------------------------------------------------


def refusal_to_start(directory: Path) -> str:
    command = [sys.executable, "-m", "rqcore", str(directory)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert found.returncode == 3, found.stderr
    assert "Traceback" not in found.stderr
    return found.stderr


@needs_root
def test_a_read_only_instance_does_not_start_and_says_why(rq_instance: RunningInstance) -> None:
    rq_instance.queue("test", "#!/bin/sh\n")
    place = str(rq_instance.directory)
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        text = refusal_to_start(rq_instance.directory)
        assert "Read-only file system" in text or "not writable" in text
        assert "read-only" in text or "tmpdir" in text
    finally:
        subprocess.run(["umount", place], check=True)


@needs_root
def test_somebody_elses_instance_does_not_start_and_says_why() -> None:
    """In a forked child, since nobody may be able to read this Python."""
    import rqcore.manager
    import rqcore.orders
    import rqcore.plugins

    del rqcore
    with tempfile.TemporaryDirectory(prefix="rq-test-") as place, tempfile.TemporaryFile() as said:
        os.chmod(place, 0o755)
        rq = RunningInstance(Path(place) / "rq")
        rq.queue("test", "#!/bin/sh\n")
        (rq.directory / "config" / "config.json").chmod(0o644)
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                os.dup2(said.fileno(), 2)
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - as long as this child lives
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                status = main([str(rq.directory)])
                sys.stderr.flush()
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        text = said.read().decode()
    assert os.waitstatus_to_exitcode(status) == 3, text
    assert "not writable" in text or "Permission denied" in text


@needs_root
def test_a_queue_whose_directory_cannot_be_written_costs_only_itself(
    rq_instance: RunningInstance,
) -> None:
    rq = rq_instance
    for name in ("good", "bad"):
        rq.queue(name, "#!/bin/sh\necho done fine >&3\n")
    place = str(rq.directory / "queue" / "bad")
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        rq.start()
        assert rq.until("good", rq.send("good"))["status"] == "done - fine"
        manager = rq.manager
        restarts = 0
        while restarts < 3:  # the reason stands there all the time, also while it is tried again
            [bad] = [c for c in manager.ask("describe")["children"] if c["name"] == "bad"]
            assert bad["state"] != "running"
            assert "Read-only file system" in bad["problem"]
            restarts = bad["restarts"]
        rq.stop()
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@needs_root
def test_a_message_that_cannot_be_moved_stops_no_others(rq_instance: RunningInstance) -> None:
    """As when root moved one into que of a queue that runs as somebody else."""
    rq = rq_instance
    pause = rq.directory / "config" / "test.pause"
    pause.touch()
    rq.queue("test", "#!/bin/sh\necho done fine >&3\n")
    rq.start()
    stuck, other = rq.send("test"), rq.send("test")
    place = str(rq.directory / "queue" / "test" / "que" / stuck)
    subprocess.run(["mount", "--bind", place, place], check=True)  # it cannot be renamed so
    try:
        pause.unlink()
        assert rq.until("test", other)["status"] == "done - fine"
        assert rq.message("test", stuck)["state"] == "que"
        assert f"{stuck} cannot be started" in rq.log_text()
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert rq.ask("test", "run_message", {"msg_id": stuck}) == "msg sent to front of run queue"
    assert rq.until("test", stuck)["status"] == "done - fine"
    rq.stop()


@needs_root
def test_garbage_that_cannot_be_set_aside_stops_no_start(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.queue("test", "#!/bin/sh\necho done fine >&3\n")
    place = rq.directory / "queue" / "test" / "que" / "20260101.1200.00.000.000001"
    place.mkdir(parents=True)
    (place / "msg").write_text("garbage")
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    try:
        rq.start()
        assert rq.until("test", rq.send("test"))["status"] == "done - fine"
        assert "cannot be set aside, and is left alone" in rq.log_text()
        rq.stop()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
