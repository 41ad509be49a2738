"""``rq init up start stop restart reload status``."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rqcore import unix
from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Gate, Rq

PICKY = """
from rqcore.hookspecs import hookimpl

@hookimpl
def rq_configure(options):
    if not isinstance(options["limit"], int):
        raise ValueError("limit must be a number")
"""


def config_of(directory: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((directory / "config" / "config.json").read_text())
    return found


def test_init_makes_an_instance_and_says_how_to_go_on(rq: Rq, tmp_path: Path) -> None:
    place = tmp_path / "new" / "rq"
    done = rq("init", str(place), "--host", "mq1.example.com", "--port", "4444", "--env", "test")
    assert done.out == ""
    assert done.err == f"made {place}; start it with: rq start --dir {place}\n"
    wanted = {"host": "mq1.example.com", "port": 4444, "env": "test", "addr": "127.0.0.1"}
    assert config_of(place) == wanted
    again = rq("init", str(place), status=1)
    assert "is an instance already" in again.err
    assert config_of(place) == wanted


def test_init_refuses_a_directory_with_something_in_it(rq: Rq, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letters").touch()
    assert "is not empty, it holds 'letters'" in rq("init", str(tmp_path / "full"), status=1).err


def test_without_an_instance_every_command_says_how_to_name_one(rq: Rq) -> None:
    del rq.environ["RQ_DIR"]
    for words in (["status"], ["ls"], ["start"], ["queue", "ls"], ["send", "work"]):
        error = rq(*words, status=3).err
        assert "name one with --dir or RQ_DIR, or make one with `rq init DIR`" in error
    assert "--dir names" in rq("status", "--dir", str(rq.cwd), status=3).err


@pytest.mark.process
def test_start_and_stop(stopped_after: Rq, tmp_path: Path) -> None:
    rq = stopped_after
    place = tmp_path / "rq"
    rq("init", str(place))
    assert "RQ does not run in" in rq("status", status=5).err
    assert rq("stop").err == f"RQ does not run in {place}\n"
    started = rq("start").err
    pid = int((place / "config" / "queuemgr.pid").read_text())
    assert started == f"RQ runs in {place} (pid {pid})\n"
    # It is nobody's child in this terminal, and gives nobody's terminal output.
    assert os.getsid(pid) == pid
    assert rq("start").err == f"RQ runs already in {place} (pid {pid})\n"
    assert f"in {place}, pid {pid}, " in rq("status").out
    assert "RQ is ready" in (place / "log" / "rqcore.log").read_text()
    rq("restart")
    second = int((place / "config" / "queuemgr.pid").read_text())
    assert second != pid
    assert unix.process_start(pid) is None
    assert rq("stop").err == "RQ is stopped\n"
    assert unix.process_start(second) is None
    rq("status", status=5)


@pytest.mark.process
def test_the_instance_is_found_from_inside_it(stopped_after: Rq, tmp_path: Path) -> None:
    rq = stopped_after
    rq("init", str(tmp_path / "rq"))
    rq("start")
    del rq.environ["RQ_DIR"]
    rq.cwd = tmp_path / "rq" / "queue"
    assert str(tmp_path / "rq") in rq("status").out
    assert f"instance: {tmp_path / 'rq'}" in rq("status", "-v").err


def test_start_tells_why_it_cannot(rq: Rq, tmp_path: Path) -> None:
    rq("init", str(tmp_path / "rq"))
    log = tmp_path / "rq" / "log" / "rqcore.log"
    log.write_text("an old line\n")
    (tmp_path / "rq" / "config" / "config.json").write_text('{"host": "a", "port": "x"}')
    error = rq("start", status=1).err
    assert error.startswith(f"rq: RQ did not start; {log} says:\n")
    assert '"port" must be a whole number from 1 to 65535' in error
    assert "an old line" not in error


@pytest.mark.process
def test_start_tells_of_a_queue_that_cannot(stopped_after: Rq, tmp_path: Path) -> None:
    rq = stopped_after
    rq("init", str(tmp_path / "rq"))
    (tmp_path / "rq" / "queue" / "bad").mkdir()
    (tmp_path / "rq" / "queue" / "bad" / "config.json").write_text('{"num_workers": 0}')
    error = rq("start").err
    assert "rq: queue bad is failed: " in error
    assert '"script" is missing' in error
    row = rq("status", "--json").json()["queues"][0]
    assert row["status"] == "failed"
    assert "num_workers" in row["problem"]
    assert "queue bad does not run, it is failed" in rq("send", "bad", status=5).err


@pytest.mark.process
def test_up_is_the_manager_in_the_foreground(rq: Rq, tmp_path: Path) -> None:
    rq("init", str(tmp_path / "rq"))
    manager = rq.begin("up")
    assert manager.stderr is not None
    seen = b""
    while b"RQ is ready" not in seen:
        line = manager.stderr.readline()
        assert line, seen
        seen = line
    assert int((tmp_path / "rq" / "config" / "queuemgr.pid").read_text()) == manager.pid
    manager.send_signal(signal.SIGINT)
    manager.communicate(timeout=30)
    assert manager.returncode == 0
    (tmp_path / "rq" / "config" / "config.json").write_text("{}")
    assert '"host" is missing' in rq("up", status=3).err


@pytest.mark.process
def test_stop_says_what_it_waits_for_and_can_be_hurried(
    rq: Rq, running: RunningInstance, gate: Gate
) -> None:
    name = rq.send("work", "--param1", "wait", "--param3", gate.path)
    running.until("work", name.partition("/")[2], "run")
    stopping = rq.begin("stop")
    assert stopping.stderr is not None
    assert stopping.stderr.readline().decode() == (
        f"waiting 10 s at most for {name}; end at once with: rq stop --now\n"
    )
    # The hurried one may come when all is over already.
    rq("stop", "--now")
    _, err = stopping.communicate(timeout=30)
    assert err == b"RQ is stopped\n"
    assert running.wait() == 0
    assert not running.processes()
    assert (running.directory / "queue" / "work" / "que" / name.partition("/")[2]).is_dir()


@pytest.mark.process
def test_reload_starts_what_is_new_and_tells_what_is_wrong(
    rq: Rq, running: RunningInstance
) -> None:
    assert rq("reload").err == "the configuration is loaded\n"
    running.queue("more", "#!/bin/sh\necho done >&3\n", num_wrkers=2)
    warned = rq("reload")
    assert '"num_wrkers" is not a key that rqcore knows; did you mean "num_workers"?' in warned.err
    assert warned.err.endswith("the configuration is loaded\n")
    # It was waited for.
    assert running.client("more").call("ping") == ["pong"]
    rq("send", "more", "--wait")
    running.configure(port="x")
    wrong = rq("reload", status=1)
    assert wrong.err.count('"port" must be a whole number') == 1
    rq("status")


@pytest.mark.process
def test_reload_tells_which_plugin_goes_on_with_the_options_it_has(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    rq_instance.plugin("picky", PICKY)
    rq_instance.configure(plugins={"picky": {"limit": 1}})
    rq_instance.start()
    assert rq("reload").err == "the configuration is loaded\n"
    rq_instance.configure(plugins={"picky": {"limit": "x"}})
    told = rq("reload", status=1).err
    assert "plugin picky goes on with the options it has: ValueError: limit must be" in told
    assert told.endswith("all the rest of the configuration is loaded\n")


@pytest.mark.process
def test_status_is_a_table_with_reasons(rq: Rq, rq_instance: RunningInstance) -> None:
    rq_instance.queue("good", "#!/bin/sh\necho done >&3\n")
    rq_instance.queue("lost", "/nowhere/script")
    rq_instance.queue("shut", "#!/bin/sh\necho done >&3\n", num_workers=3)
    rq_instance.queue("torn", "#!/bin/sh\necho done >&3\n")
    torn = rq_instance.directory / "queue/torn/que/20260101.1200.00.000.1"
    torn.mkdir(parents=True)
    rq_instance.start()
    rq("queue", "down", "shut")
    rq("send", "good", "--wait")
    rq("send", "lost")
    lines = rq("status").out.splitlines()
    assert lines[0].startswith(f"RQ 0.1.0 in {rq_instance.directory}, pid ")
    assert lines[2].split() == (
        "QUEUE STATUS PREP QUE RUN DONE RELAYED ERR WORKERS UP".split()  # noqa: SIM905
    )
    good, lost, shut, torn_one = (line.split(maxsplit=10) for line in lines[3:])
    assert good[:9] == ["good", "UP", "0", "0", "0", "1", "0", "0", "0/1"]
    assert lost[:5] == ["lost", "SCRIPTERROR", "0", "1", "0"]
    assert "/nowhere/script" in lost[10]
    assert shut[1] == "DOWN"
    assert shut[10] == "refuses messages; rq queue up shut"
    assert torn_one[10] == "1 in corrupt/; rq queue show torn"
    place = rq_instance.directory / "queue/torn/corrupt"
    assert f"corrupt    1 in {place}, each with its NAME.reason" in rq("queue", "show", "torn").out
    told = rq("status", "--json").json()
    assert [row["name"] for row in told["queues"]] == ["good", "lost", "shut", "torn"]
    assert told["services"] == []
    lines_told = rq("status", "--jsonl").json_lines()
    assert [row["counts"] for row in lines_told] == [row["counts"] for row in told["queues"]]
