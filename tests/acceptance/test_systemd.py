"""What a service manager is told, by a real notification socket, and what its watchdog brings about."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import CLOCK_MONOTONIC, clock_gettime_ns

import pytest

from rqcore import unix
from rqcore.child import Child
from rqcore.health import Health, status_text
from rqcore.loop import Loop
from rqcore.testing import PATIENCE, RunningInstance
from tests.acceptance.helpers import DONE, Ended, Gate, logged, queue_pid, running

pytestmark = pytest.mark.process

WAITS = "#!/bin/bash\necho run ready >&3\ncat $RQ_PARAM1\necho done $RQ_PARAM2 >&3\n"


class Systemd:
    """Stands in for systemd: starts the manager, and hears what it says."""

    def __init__(self, rq: RunningInstance, address: str) -> None:
        self.rq = rq
        self.told: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(address.replace("@", "\0"))
        self._address = address

    def start(self, **environ: str) -> None:
        """Start it; back when it is ready."""
        environment = {**self.rq.environ, "NOTIFY_SOCKET": self._address, **environ}
        with self.rq.log.open("ab") as log:
            self.rq.process = subprocess.Popen(
                self.rq.command(), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.until("READY")

    def next(self) -> dict[str, str]:
        """The next that is said."""
        text = self._socket.recv(1 << 16).decode()
        said = dict(line.split("=", 1) for line in text.split("\n"))
        self.told.append(said)
        return said

    def until(self, key: str, part: str = "") -> dict[str, str]:
        """Hear it until it says this."""
        while True:
            said = self.next()
            if part in said.get(key, "\0"):
                return said

    def rest(self) -> list[dict[str, str]]:
        """What was said and not heard yet."""
        self._socket.setblocking(False)
        try:
            while True:
                self.next()
        except BlockingIOError:
            return self.told
        finally:
            self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path"])
def systemd(
    rq_instance: RunningInstance, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Systemd]:
    rq_instance.queue("test", WAITS, num_workers=3)
    rq_instance.queue("other", DONE)
    address = (
        f"{tmp_path}/notify" if request.param == "path" else f"@rq-{os.getpid()}-{id(request)}"
    )
    manager = Systemd(rq_instance, address)
    yield manager
    rq_instance.close()
    manager.close()


@pytest.mark.parametrize("systemd", ["path", "abstract"], indirect=True)
def test_from_ready_to_stopping(systemd: Systemd) -> None:
    rq = systemd.rq
    rq.configure(stop_grace=7, kill_grace=3)
    systemd.start()
    assert rq.process is not None
    ready = systemd.told[-1]
    assert (ready["STATUS"], ready["MAINPID"]) == ("2 queues, 2 running", str(rq.process.pid))
    assert rq.manager.call("ping") == ["pong"]
    rq.queue("third", DONE)
    before = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
    os.kill(rq.process.pid, signal.SIGHUP)
    reloading = systemd.until("RELOADING")
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= clock_gettime_ns(CLOCK_MONOTONIC) // 1000
    assert systemd.until("READY")["STATUS"] == "3 queues, 3 running"
    rq.process.send_signal(signal.SIGTERM)
    stopping = systemd.until("STOPPING")
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 10_000_000
    assert systemd.until("STATUS", "stopping, ")["STATUS"] == "stopping, 3 processes are left"
    assert rq.wait() == 0
    assert not any("WATCHDOG" in said for said in systemd.rest())


def test_who_listens_and_does_not_read_holds_nothing_up(systemd: Systemd) -> None:
    rq = systemd.rq
    systemd.start()
    for _ in range(8):  # several words each, and a socket takes only a few
        rq.manager.ask("restart_queue", "test")
    msg_id = rq.send("other")
    rq.until("other", msg_id, "done")
    assert rq.process is not None
    rq.process.send_signal(signal.SIGTERM)
    assert rq.wait() == 0
    assert len(systemd.rest()) > 1


def test_it_is_told_what_does_not_run(systemd: Systemd) -> None:
    rq = systemd.rq
    rq.queue("bad", DONE, num_workers="many")
    systemd.start()
    status = systemd.told[-1]["STATUS"]
    assert status.startswith("3 queues, 2 running; queue bad is failed: ")
    assert "num_workers" in status
    rq.queue("bad", DONE)
    assert rq.manager.ask("reload") == []
    systemd.until("STATUS", "3 queues, 3 running")
    rq.kill(queue_pid(rq, "test"))
    systemd.until("STATUS", "3 queues, 2 running; queue test is waiting: was killed by signal 9")
    systemd.until("STATUS", "3 queues, 3 running")


def test_a_reload_is_over_when_all_go_by_the_new_configuration(systemd: Systemd) -> None:
    """A queue's process that is stopped has not read it: then it is not over."""
    rq = systemd.rq
    systemd.start()
    assert rq.process is not None
    pid = queue_pid(rq, "test")
    os.kill(pid, signal.SIGSTOP)
    os.kill(rq.process.pid, signal.SIGHUP)
    systemd.until("RELOADING")
    rq.manager.ask("describe")
    assert "READY" not in systemd.rest()[-1]
    os.kill(pid, signal.SIGCONT)
    systemd.until("READY")


def test_a_queue_that_hangs_is_noticed_and_started_again(systemd: Systemd, tmp_path: Path) -> None:
    """Its messages run again, the others do not notice, and the watchdog is fed all the time."""
    rq, gate = systemd.rq, Gate(tmp_path / "gate")
    systemd.start(WATCHDOG_USEC="1000000")
    hung, other = queue_pid(rq, "test"), queue_pid(rq, "other")
    msg_id = rq.send("test", param1=str(gate.path), param2="again")
    rq.until("test", msg_id, "run", matching=running)
    rq.disconnect()
    systemd.until("WATCHDOG")
    with Ended(hung) as ended:
        os.kill(hung, signal.SIGSTOP)
        heard = len(systemd.told)
        systemd.until("STATUS", "2 queues, 1 running")
        ended.wait()
    assert sum("WATCHDOG" in said for said in systemd.told[heard:]) >= 2
    assert f"; its process {hung} is killed and started again" in rq.log_text()
    systemd.until("STATUS", "2 queues, 2 running")
    rq.serving("test")
    assert queue_pid(rq, "other") == other
    rq.until("test", msg_id, "run", matching=running)
    gate.open()
    assert rq.until("test", msg_id)["status"] == "done - again"
    # Those that answer are left alone, however long.
    pid = queue_pid(rq, "test")
    for _ in range(4):
        systemd.until("WATCHDOG")
    assert queue_pid(rq, "test") == pid


@pytest.mark.parametrize("environ", [
    {"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}
])  # fmt: skip
def test_a_watchdog_that_is_not_for_it(systemd: Systemd, environ: dict[str, str]) -> None:
    systemd.start(**environ)
    if environ["WATCHDOG_USEC"] == "soon":
        logged(systemd.rq, "WATCHDOG_USEC is 'soon', which is no time; nothing is watched")
    systemd.rq.stop()
    assert not any("WATCHDOG" in said for said in systemd.rest())


def test_scripts_do_not_hear_of_it(systemd: Systemd) -> None:
    rq = systemd.rq
    rq.queue("env", "#!/bin/sh\nenv\necho done >&3\n")
    systemd.start(WATCHDOG_USEC="60000000", JOURNAL_STREAM="1:2")
    message = rq.until("env", rq.send("env"))
    found = (Path(message["path"]) / "job/stdio.log").read_text()
    assert "RQ_MSG_ID=" in found
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"):
        assert f"{name}=" not in found


# The words, and the one who must not be killed


def child(name: str, kind: str = "queue", state: str = "running", problem: str = "") -> Child:
    return Child(name, kind, lambda _: 0, state=state, problem=problem)


def test_the_status_in_words() -> None:
    children = {name: child(name) for name in ("a", "b")}
    assert status_text(children) == "2 queues, 2 running"
    children["web"] = child("web", "service", "waiting", "port 1 is taken")
    assert status_text(children) == (
        "2 queues, 2 running; 1 service, 0 running; service web is waiting: port 1 is taken"
    )
    more = {f"q{n}": child(f"q{n}", state="failed", problem="x\n" * 1000) for n in range(5)}
    text = status_text(more)
    assert text.endswith("; and 2 more")
    assert "\n" not in text
    assert len(text) < 1000
    assert status_text({}) == "0 queues, 0 running"


def test_whoever_was_held_up_himself_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    ended: list[int] = []
    monkeypatch.setattr("rqcore.health.os.kill", lambda pid, _: ended.append(pid))
    silent = child("silent")
    loop = Loop()
    health = Health(loop, {"silent": silent})
    clock = [1000.0]
    monkeypatch.setattr("rqcore.health.monotonic", lambda: clock[0])
    health.ready()
    silent.pinged = clock[0]
    for seconds in (5, 60, 5):  # its answer lay unread in between
        clock[0] += seconds
        health._beat()
    assert ended == []
    clock[0] += 5
    health._beat()
    assert ended == [silent.pid], "it was given all of its time once more, and no more"
    loop.close()


def test_what_waits_for_the_disk_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert not unix.waits_for_disk(os.getpid())
    assert not unix.waits_for_disk(1 << 22)
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setattr(unix, "waits_for_disk", lambda _: True)
    slow = child("slow")
    slow.pinged = 0.001
    with subprocess.Popen(["sleep", "1000"]) as process:
        slow.pid = process.pid
        loop = Loop()
        Health(loop, {"slow": slow}).ready()
        loop.close()
        assert "queue slow has not answered" in caplog.text
        assert "it waits for the disk" in caplog.text
        assert process.poll() is None
        process.kill()
