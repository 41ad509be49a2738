"""What the processes write: renamed away under them, as text, as JSON, and for systemd's journal."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rqcore import unix
from rqcore.testing import PATIENCE, RunningInstance
from tests.acceptance.helpers import DONE, growth, logged, queue_pid

pytestmark = pytest.mark.process

#: Logs each message in its queue's process, and has a service that logs whatever its fifo is told.
SPEAKER = """
import logging, os, select
from rqcore.hookspecs import Service, hookimpl

log = logging.getLogger("speaker")

@hookimpl
def rq_message_starting(message, queue):
    log.warning("seen %s", message.msg_id)

@hookimpl
def rq_register_services(instance):
    return [Service("speaker", speak)]

def speak(context):
    fifo = os.open("tmp/fifo", os.O_RDWR)
    context.ready()
    while True:
        ready, _, _ = select.select([context.stop_fd, fifo], [], [])
        if context.stop_fd in ready:
            return
        log.warning("the service says %s", os.read(fifo, 100).decode().strip())
"""


@pytest.fixture
def rq(rq_instance: RunningInstance) -> Iterator[RunningInstance]:
    rq_instance.plugin("speaker", SPEAKER)
    os.mkfifo(rq_instance.directory / "tmp/fifo")
    rq_instance.queue("test", DONE, num_workers=4, fsync="no-fsync")
    rq_instance.queue("other", DONE)
    yield rq_instance
    rq_instance.close()


def rotated(rq: RunningInstance, to: str) -> None:
    """Rename the log and say so; back when all processes write to the new one."""
    assert rq.process is not None
    inotify = unix.Inotify()
    try:
        inotify.add(str(rq.log.parent), unix.Inotify.CREATE)
        rq.log.rename(rq.log.with_name(to))
        os.kill(rq.process.pid, signal.SIGUSR1)
        while not rq.log.exists():
            assert select.select([inotify.fd], [], [], PATIENCE)[0], "no new log"
            inotify.read()
    finally:
        inotify.close()
    rq.manager.ask("describe")  # in its next turn it has told the others
    for name in ("test", "other"):
        rq.ask(name, "describe")


def say(rq: RunningInstance, text: str, *, as_json: bool = False) -> None:
    (rq.directory / "tmp/fifo").write_text(f"{text}\n")
    logged(
        rq, json.dumps(f"the service says {text}")[1:-1] if as_json else f"the service says {text}"
    )


def test_a_renamed_log_is_begun_anew_by_all(rq: RunningInstance) -> None:
    rq.log.touch(mode=0o640)
    rq.start()
    rotated(rq, "test.log.1")
    assert rq.process is not None
    pids = [rq.process.pid, queue_pid(rq, "test"), queue_pid(rq, "other")]
    say(rq, "hello")
    for pid in pids:
        for fd in (1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{fd}") == str(rq.log)
    msg_id = rq.send("test")
    rq.until("test", msg_id)
    logged(rq, f"seen {msg_id}")
    assert "RQ is ready" in rq.log.with_name("test.log.1").read_text()
    assert "RQ is ready" not in rq.log_text()
    assert rq.log.stat().st_mode & 0o777 == 0o640
    # One that is started later writes to the new one, of course.
    rq.manager.ask("restart_queue", "test")
    assert os.readlink(f"/proc/{queue_pid(rq, 'test')}/fd/2") == str(rq.log)
    rq.stop()
    assert "RQ stops" in rq.log_text()


def test_it_may_happen_while_it_starts(rq: RunningInstance) -> None:
    """Whoever rotates does not know that."""
    early = "import os, signal\nos.rename('log/test.log', 'log/test.log.1')\n"
    rq.plugin("early", early + "os.kill(os.getpid(), signal.SIGUSR1)\n")
    rq.start()
    assert "RQ is ready" in rq.log_text()
    assert rq.log.with_name("test.log.1").exists()


def test_nothing_is_lost_meanwhile(rq: RunningInstance) -> None:
    rq.start()
    sent = []
    for number in range(1, 9):
        sent += [rq.send("test") for _ in range(25)]
        rotated(rq, f"test.log.{number}")
    for msg_id in sent:
        rq.until("test", msg_id)
    rq.stop()
    text = "".join(file.read_text() for file in rq.log.parent.glob("test.log*"))
    assert sorted(re.findall(r"speaker: seen (\S+)", text)) == sorted(sent)
    # Whole lines, each with its time.
    assert all(
        re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \d+ [A-Z]+ ", t) for t in text.splitlines()
    )


def test_a_log_that_cannot_be_made_is_told_in_the_old_one(rq: RunningInstance) -> None:
    rq.start()
    assert rq.process is not None
    folder = rq.log.parent
    away = folder.with_name("log.away")
    folder.rename(away)
    os.kill(rq.process.pid, signal.SIGUSR1)
    old = away / rq.log.name
    with growth(old) as grown:
        while (
            old.read_text().count("cannot be opened anew") < 4
        ):  # the manager, two queues, a service
            assert grown()
    away.rename(folder)
    say(rq, "still here")


def lines(rq: RunningInstance) -> list[dict[str, Any]]:
    """What was logged, each line an object; whole lines only."""
    found = rq.log_text().splitlines(keepends=True)
    return [json.loads(line) for line in found if line.endswith("\n")]


def test_as_json(rq: RunningInstance) -> None:
    rq.environ["RQ_LOG_FORMAT"] = "json"
    rq.start()
    msg_id = rq.send("test")
    rq.until("test", msg_id)
    say(rq, 'quotes \\" and ü', as_json=True)
    rq.stop()
    told = lines(rq)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", t["time"]) for t in told)
    (seen,) = [line for line in told if line["logger"] == "speaker" and "seen" in line["message"]]
    assert (seen["level"], seen["process"], seen["queue"]) == ("warning", "rq-que test", "test")
    assert (seen["msg_id"], seen["message"]) == (msg_id, f"seen {msg_id}")
    (said,) = [line for line in told if "the service says" in line["message"]]
    assert (said["process"], said["message"]) == ("rq-speaker", 'the service says quotes \\" and ü')
    assert not {"queue", "msg_id"} & set(said)
    (ready,) = [line for line in told if "RQ is ready" in line["message"]]
    assert (ready["process"], ready["level"]) == ("rq-mgr", "info")
    assert isinstance(ready["pid"], int)


def test_the_main_config_says_how_and_a_reload_counts(rq: RunningInstance) -> None:
    rq.start()
    rq.configure(log_format="json")
    assert rq.manager.ask("reload") == []
    rq.ask("test", "describe")
    before = len(rq.log_text())
    msg_id = rq.send("test")
    rq.until("test", msg_id)
    logged(rq, f'"msg_id": "{msg_id}"')
    assert json.loads(rq.log_text()[before:].splitlines()[0])
    rq.configure(log_format="xml")
    (problem,) = rq.manager.ask("reload")
    assert '"log_format" must be text or json, found "xml"' in problem


@pytest.mark.parametrize(("name", "value", "told"), [
    ("RQ_LOG_FORMAT", "xml", "RQ_LOG_FORMAT is 'xml'; it may be text or json"),
    ("RQ_LOG_LEVEL", "loud", "RQ_LOG_LEVEL is 'loud'; it may be DEBUG, INFO, "),
])  # fmt: skip
def test_what_is_no_format_or_level(
    rq_instance: RunningInstance, name: str, value: str, told: str
) -> None:
    environ = {**rq_instance.environ, name: value}
    ended = subprocess.run(
        rq_instance.command(), env=environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3
    assert told in ended.stderr


SPEAK = """
import logging, sys
from rqcore import logs
logs.start()
log = logging.getLogger("who")
log.warning("one\\ntwo %s", "20260301.0800.00.000.00000123")
try:
    raise ValueError("no")
except ValueError:
    log.exception("failed at http://h:1/q/test/20260301.0800.00.000.00000124")
log.info("fine")
"""


def spoken(stream: str | None, **environ: str) -> list[str]:
    """What comes out at the other end of a socket, as which journald gives stderr to services."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        info = os.fstat(theirs.fileno())
        journal = f"{info.st_dev}:{info.st_ino}" if stream is None else stream
        environment: dict[str, str] = {**os.environ, "JOURNAL_STREAM": journal, **environ}
        subprocess.run(
            [sys.executable, "-c", SPEAK], stderr=theirs.fileno(), check=True, env=environment
        )
        theirs.close()
        return b"".join(iter(lambda: ours.recv(1 << 16), b"")).decode().splitlines()


def test_for_the_journal_each_line_has_its_priority() -> None:
    told = spoken(None)
    assert told[:2] == ["<4>who: one", "<4>two 20260301.0800.00.000.00000123"]
    assert told[2].startswith("<3>who: failed at ")
    assert all(line.startswith("<3>") for line in told[2:-1])
    assert "<3>ValueError: no" in told
    assert told[-1] == "<6>who: fine"


def test_for_the_journal_as_json() -> None:
    one, two, three = spoken(None, RQ_LOG_FORMAT="json")
    assert one.startswith('<4>{"time": ')
    assert json.loads(one[3:])["msg_id"] == "20260301.0800.00.000.00000123"
    assert "ValueError: no" in json.loads(two[3:])["exception"]
    assert three.startswith("<6>{")


def test_a_stderr_that_is_not_the_journal_gets_plain_lines() -> None:
    told = spoken("1:2")
    assert re.match(r"\d{4}-\d\d-\d\dT", told[0])
    assert " WARNING who: one" in told[0]


def test_the_log_of_a_portable_system(tmp_path: Path) -> None:
    """Where a descriptor's path is asked for: a file's, and nothing else's."""
    file = tmp_path / "log"
    with file.open("w") as opened:
        assert unix.path_of(opened.fileno()) == str(file)
        shutil.move(file, tmp_path / "moved")
        assert unix.path_of(opened.fileno()) == str(tmp_path / "moved")
        (tmp_path / "moved").unlink()
        assert unix.path_of(opened.fileno()) == ""
    read, write = os.pipe()
    assert unix.path_of(read) == ""
    os.close(read)
    os.close(write)
    assert unix.path_of(read) == ""
