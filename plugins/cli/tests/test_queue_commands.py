"""``rq queue …``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq


def config_of(running: RunningInstance, name: str) -> dict[str, Any]:
    file = running.directory / "queue" / name / "config.json"
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\necho done >&3\n")
    path.chmod(0o755)
    return path


@pytest.mark.process
def test_create_show_and_delete(rq: Rq, running: RunningInstance) -> None:
    script = executable(rq.cwd / "s.sh")
    made = rq("queue", "create", "new", "--script", "./s.sh", "--workers", "3",
              "--set", "coalesce_params=[1, 2]", "--set", "fsync=no-fsync")  # fmt: skip
    assert made.err == "queue new is made; send it a message with: rq send new\n"
    assert config_of(running, "new") == {
        "name": "new", "script": str(script), "num_workers": 3, "coalesce_params": [1, 2],
        "fsync": "no-fsync",
    }  # fmt: skip
    rq("send", "new", "--wait")
    shown = rq("queue", "show", "new").out
    assert "status     UP\n" in shown
    assert "messages   1 done\n" in shown
    assert "workers    0 of 3 busy\n" in shown
    assert rq("queue", "show", "new", "--json").json()["counts"]["done"] == 1
    assert [row["name"] for row in rq("queue", "ls", "--jsonl").json_lines()] == ["new", "work"]
    assert rq("queue", "ls").out.splitlines()[1].split() == ["new", "UP", "3", str(script)]
    asked = rq("queue", "delete", "new", status=2).err
    assert "Delete queue new with its messages (1 done)? Nobody can be asked here" in asked
    rq("queue", "delete", "new", "--yes")
    assert [row["name"] for row in rq("queue", "ls", "--json").json()] == ["work"]
    assert len(list((running.directory / "queue").glob("new.deleted.*"))) == 1
    assert "there is no queue new" in rq("queue", "delete", "new", status=3).err


@pytest.mark.process
def test_what_cannot_be_made_is_told(rq: Rq, running: RunningInstance) -> None:
    script = str(executable(rq.cwd / "s.sh"))
    bad = rq("queue", "create", "a.b", "--script", script, status=4).err
    assert bad == "rq: a.b: queue name has invalid characters; use letters, digits, - and _\n"
    again = rq("queue", "create", "work", "--script", script, status=4).err
    assert "there is a queue work already" in again
    refused = rq(
        "queue", "create", "x", "--script", script, "--set", "coalesce_params=[9]", status=4
    )
    assert "coalesce_params" in refused.err
    assert "give NAME and --script FILE" in rq("queue", "create", "x", status=2).err
    assert "--from takes everything" in rq("queue", "create", "x", "--from", "f", status=2).err
    assert "write KEY=VALUE" in rq(
        "queue", "create", "x", "--script", script, "--set", "what", status=2
    ).err  # fmt: skip
    for words in (["create", "x", "--script", script], ["config", "work"]):
        misspelt = rq("queue", *words, "--set", "num_wrkers=5", status=2).err
        assert '--set num_wrkers: rqcore knows no such key; did you mean "num_workers"?' in misspelt
    assert not (running.directory / "queue/x").exists()
    foreign = rq("queue", "create", "foreign", "--script", script, "--set", "colour=red").err
    assert '"colour" is not a key that rqcore knows' in foreign
    assert config_of(running, "foreign")["colour"] == "red"
    late = rq("queue", "create", "late", "--script", "./gone")
    assert f"{rq.cwd / 'gone'}: No such file or directory; the queue starts no message" in late.err
    (rq.cwd / "plain").touch()
    assert "make it so with: chmod +x" in rq("queue", "create", "p", "--script", "plain").err


@pytest.mark.process
def test_a_script_in_the_instance_is_named_as_it_is(rq: Rq, running: RunningInstance) -> None:
    running.script("inside", "#!/bin/sh\necho done >&3\n")
    assert rq("queue", "create", "new", "--script", "code/inside").err.count("\n") == 1
    assert config_of(running, "new")["script"] == "code/inside"
    rq("send", "new", "--wait")


@pytest.mark.process
def test_a_config_elsewhere_is_linked(rq: Rq, running: RunningInstance) -> None:
    script = str(executable(rq.cwd / "s.sh"))
    file = rq.cwd / "linked.json"
    file.write_text(json.dumps({"name": "linked", "script": script}))
    rq("queue", "create", "--from", "linked.json")
    rq("send", "linked", "--wait")
    rq("queue", "config", "linked", "--set", "num_workers=2")
    assert (running.directory / "queue" / "linked" / "config.json").is_symlink()
    assert json.loads(file.read_text())["num_workers"] == 2
    assert "cannot be read" in rq("queue", "create", "--from", "gone.json", status=4).err


@pytest.mark.process
def test_admin_states(rq: Rq, running: RunningInstance) -> None:
    def state() -> str:
        found: str = rq("queue", "show", "work", "--json").json()["status"]
        return found

    assert rq("queue", "pause", "work").err == "queue work is paused\n"
    assert state() == "PAUSE"
    assert rq("queue", "down", "work").err == "queue work is down\n"
    assert state() == "DOWN"
    assert rq("queue", "resume", "work").err == (
        "queue work is resumed, but it is down: rq queue up work\n"
    )
    rq("queue", "pause", "work")
    assert rq("queue", "up", "work").err == ("queue work is up, but paused: rq queue resume work\n")
    rq("queue", "resume", "work")
    assert state() == "UP"
    before = rq("queue", "show", "work", "--json").json()["pid"]
    assert rq("queue", "restart", "work").err == "queue work is restarted\n"
    rq("send", "work", "--param1", "done", "--wait")
    assert rq("queue", "show", "work", "--json").json()["pid"] != before
    assert "there is no queue wrk" in rq("queue", "down", "work", "wrk", status=3).err
    assert state() == "UP"


@pytest.mark.process
def test_why_a_queue_is_down_stands_in_the_file_that_takes_it_down(
    rq: Rq, running: RunningInstance
) -> None:
    def problem() -> str:
        (queue,) = (q for q in rq("status", "--json").json()["queues"] if q["name"] == "work")
        found: str = queue["problem"]
        return found

    down, pause = (running.directory / "config" / f"work.{state}" for state in ("down", "pause"))
    pause.write_text("the other disk is full\nsince noon\n")
    assert problem() == "the other disk is full; starts no message; rq queue resume work"
    down.write_text("")
    assert problem() == "refuses messages; rq queue up work"
    down.write_bytes(b"\n  \xff disk changed" + b"." * 1000)
    assert problem().startswith("\ufffd disk changed...")
    assert problem().endswith("; refuses messages; put that right, then rq queue up work")
    assert len(problem()) < 400
    down.write_bytes(b"a \x1b[1m new disk\n")
    assert rq("send", "work", status=4).err == (
        "rq: queue work is DOWN and refuses messages: a \\x1b[1m new disk; "
        "put that right, then: rq queue up work\n"
    )
    assert "but it is down (a \\x1b[1m new disk): rq queue up work" in (
        rq("queue", "resume", "work").err
    )
    pause.write_text("")
    down.unlink()
    os.mkfifo(down)
    assert problem() == "refuses messages; rq queue up work"
    down.unlink()
    pause.unlink()
    assert problem() == ""


@pytest.mark.process
def test_why_a_queue_is_down_or_paused_can_be_said(rq: Rq, running: RunningInstance) -> None:
    def shown() -> tuple[str, str]:
        (queue,) = (q for q in rq("status", "--json").json()["queues"] if q["name"] == "work")
        return queue["status"], queue["problem"].partition(";")[0]

    rq("queue", "pause", "work", "-m", "the disk is\nbeing replaced")
    assert shown() == ("PAUSE", "the disk is being replaced")
    rq("queue", "down", "work", "--reason", "gone for lunch")
    assert shown() == ("DOWN", "gone for lunch")
    rq("queue", "down", "work")  # once more, and the reason stays
    assert shown() == ("DOWN", "gone for lunch")
    rq("queue", "up", "work")
    rq("queue", "resume", "work")
    assert shown() == ("UP", "")
    assert "No such option" in rq("queue", "up", "work", "-m", "x", status=2).err


def test_admin_states_can_be_set_while_rq_does_not_run(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    rq_instance.queue("work", "/bin/true")
    file = rq_instance.directory / "config" / "work.down"
    assert "counts from its next start" in rq("queue", "down", "work").err
    assert file.exists()
    rq("queue", "up", "work")
    assert not file.exists()
    rq("queue", "restart", "work", status=5)


@pytest.mark.process
def test_config_is_shown_checked_and_changed(rq: Rq, running: RunningInstance) -> None:
    assert rq("queue", "config", "work", "--raw").json() == config_of(running, "work")
    whole = rq("queue", "config", "work").json()
    assert whole["num_workers"] == 2
    assert whole["fsync"] is True
    changed = rq("queue", "config", "work", "--set", "num_workers=5", "--set", "exec_prefix=nice ")
    assert changed.err.endswith("config.json is written and loaded\n")
    assert config_of(running, "work")["exec_prefix"] == "nice "
    assert rq("queue", "show", "work", "--json").json()["workers"] == 5
    before = config_of(running, "work")
    wrong = rq("queue", "config", "work", "--set", "num_workers=500", status=1)
    assert '"num_workers" must be a whole number from 1 to 128, found 500' in wrong.err
    assert config_of(running, "work") == before
    rq("queue", "config", "work", "--unset", "exec_prefix")
    assert "exec_prefix" not in config_of(running, "work")
    assert "has no key" in rq("queue", "config", "work", "--unset", "exec_prefix", status=3).err


@pytest.mark.process
def test_a_schedule_is_shown_as_json(rq: Rq, running: RunningInstance) -> None:
    line = '[{"cron": "0 4 * * *", "param1": "x"}]'
    rq("queue", "config", "work", "--set", f"schedule={line}", "--set", 'env_vars={"A": "b"}')
    whole = rq("queue", "config", "work").json()
    assert whole["schedule"][0]["cron"] == "0 4 * * *"
    assert whole["env_vars"] == {"A": "b"}
