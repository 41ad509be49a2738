"""What runs, when, and beside what: order, workers, rules of parameters, the clock, and states."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any

import pytest

from rqcore.testing import RunningInstance
from tests.acceptance.helpers import (
    DONE,
    Ended,
    Gate,
    Journal,
    full,
    queue_pid,
    running,
    script_log,
)

pytestmark = pytest.mark.process

#: Notes its first parameter, in the order of the runs, then waits at the gate of that name, if any.
ORDER = """#!/bin/bash
echo "$RQ_PARAM1" >> "$RQ_MSG_DIR/../../../order"
echo "run ready" >&3
[ -p "$RQ_PARAM2" ] && read x < "$RQ_PARAM2"
echo "${RQ_PARAM3:-done fine}" >&3
"""
Gates = Callable[[str], Gate]


@pytest.fixture
def gates(tmp_path: Path) -> Gates:
    return lambda name: Gate(tmp_path / name)


def pause(rq: RunningInstance, name: str) -> Path:
    """The file that pauses a queue, made."""
    path = rq.directory / "config" / f"{name}.pause"
    path.touch()
    return path


def order(rq: RunningInstance, name: str) -> list[str]:
    """In which order the scripts of `ORDER` ran."""
    return (rq.directory / "queue" / name / "order").read_text().split()


def states(rq: RunningInstance, name: str, ids: list[str]) -> list[str]:
    return [rq.message(name, msg_id)["state"] for msg_id in ids]


# Order


def test_the_earliest_due_runs_first(rq_instance: RunningInstance) -> None:
    rq_instance.queue("order", ORDER)
    paused = pause(rq_instance, "order")
    rq_instance.start()
    now = time()
    late = [-10, -500, -30.5, -30.25, -1000, -10]
    ids = [rq_instance.send("order", param1=str(i), due=now + s) for i, s in enumerate(late)]
    later = rq_instance.send("order", param1="later", due=now + 5000)
    first = rq_instance.send("order", param1="first")
    assert rq_instance.ask("order", "run_message", {"msg_id": first})
    assert rq_instance.ask("order", "num_messages")["run"] == 0, "run now does not lift the pause"
    paused.unlink()
    for msg_id in [*ids, first]:
        rq_instance.until("order", msg_id)
    assert order(rq_instance, "order") == ["first", "4", "1", "2", "3", "0", "5"]
    assert rq_instance.message("order", later)["state"] == "que"
    rq_instance.ask("order", "run_message", {"msg_id": later})
    assert rq_instance.until("order", later)["due"] == pytest.approx(now + 5000)


def test_a_message_runs_when_its_time_has_come_and_not_before(rq_instance: RunningInstance) -> None:
    rq_instance.queue("soon", "#!/bin/sh\ndate +%s.%N; echo done >&3\n")
    rq_instance.start()
    due = time() + 0.7
    message = rq_instance.until("soon", rq_instance.send("soon", due=due))
    started = float((Path(message["path"]) / "job/stdio.log").read_text())
    assert started >= due
    far = [rq_instance.send("soon", due=due + delay) for delay in (3e6, 3e9)]
    nearer = rq_instance.send("soon", due=time() + 0.3)
    rq_instance.until("soon", nearer)
    assert states(rq_instance, "soon", far) == ["que", "que"]


def test_so_many_run_as_there_are_workers(rq_instance: RunningInstance, gates: Gates) -> None:
    rq_instance.queue("wide", ORDER, num_workers="3")
    rq_instance.start()
    opened = [gates(str(number)) for number in range(5)]
    ids = [
        rq_instance.send("wide", param1=str(i), param2=str(g.path)) for i, g in enumerate(opened)
    ]
    for msg_id in ids[:3]:
        rq_instance.until("wide", msg_id, "run", matching=running)
    assert states(rq_instance, "wide", ids) == ["run"] * 3 + ["que"] * 2
    front = rq_instance.ask("wide", "run_message", {"msg_id": ids[4]})
    assert front == "msg sent to front of run queue"
    assert states(rq_instance, "wide", ids[3:]) == ["que"] * 2
    opened[1].open()
    rq_instance.until("wide", ids[4], "run", matching=running)
    assert states(rq_instance, "wide", ids) == ["run", "done", "run", "que", "run"]
    for number in (0, 2, 4, 3):
        opened[number].open()
    for msg_id in ids:
        rq_instance.until("wide", msg_id)


def test_equal_blocking_params_never_run_at_once(
    rq_instance: RunningInstance, gates: Gates
) -> None:
    rq_instance.queue("block", ORDER, num_workers=4, blocking_params=["1", 4])
    rq_instance.start()
    a1, a2, b, c = (gates(name) for name in ("a1", "a2", "b", "c"))

    def send(param1: str, gate: Gate, param4: str = "") -> str:
        return rq_instance.send("block", param1=param1, param2=str(gate.path), param4=param4)

    first, second = send("a", a1), send("a", a2)
    other, differs = send("b", b), send("a", c, "x")
    for msg_id in (first, other, differs):
        rq_instance.until("block", msg_id, "run", matching=running)
    assert rq_instance.message("block", second)["state"] == "que"
    b.open()
    rq_instance.until("block", other)
    assert rq_instance.message("block", second)["state"] == "que"
    a1.open()
    rq_instance.until("block", second, "run", matching=running)
    for gate in (a2, c):
        gate.open()
    for msg_id in (second, differs):
        rq_instance.until("block", msg_id)


# Duplicates


@pytest.mark.parametrize("config", [
    {"coalesce_params": [1]}, {"coalesce": "yes", "coalesce_param1": 1}
])  # fmt: skip
def test_equal_ones_are_done_with_the_first(
    rq_instance: RunningInstance, gates: Gates, config: dict[str, Any]
) -> None:
    rq_instance.queue("same", ORDER, num_workers=2, **config)
    paused = pause(rq_instance, "same")
    rq_instance.start()
    gate, ungated = gates("gate"), gates("late")
    first, *dups = [
        rq_instance.send("same", param1="x", param2=str(gate.path), param4=str(number), due=due)
        for number, due in enumerate((1, 2, 3, time() + 5000))
    ]
    other = rq_instance.send("same", param1="y")
    paused.unlink()
    message = rq_instance.until("same", first, "run", matching=running)
    rq_instance.until("same", other)
    assert message["dups"] == [full("same", msg_id) for msg_id in dups]
    assert states(rq_instance, "same", dups) == ["que"] * 3
    for msg_id in dups:
        status = rq_instance.message("same", msg_id)["status"]
        assert status == f"que - set aside as duplicate of {first}"
    not_now = rq_instance.client("same").call("run_message", {"msg_id": dups[0]})
    assert not_now == ["fail", "msg not in runnable state"]
    # One that comes after the start is no duplicate: the script may have looked already.
    late = rq_instance.send("same", param1="x", param2=str(ungated.path))
    rq_instance.until("same", late, "run", matching=running)
    gate.open()
    message = rq_instance.until("same", first)
    assert message["dups"] == [full("same", msg_id) for msg_id in dups]
    for msg_id in dups:
        assert rq_instance.message("same", msg_id)["status"] == (
            f"done - duplicate {full('same', first)}"
        )
    ungated.open()
    rq_instance.until("same", late)
    assert order(rq_instance, "same").count("x") == 2
    assert rq_instance.ask("same", "num_messages")["done"] == 6


@pytest.mark.parametrize(("verdict", "state"), [
    ("err broken", "err"), ("resend 5000-later", "que"), ("relayed there/1", "relayed"), ("", "err")
])  # fmt: skip
def test_duplicates_of_what_is_not_done(
    rq_instance: RunningInstance, verdict: str, state: str
) -> None:
    """They share a ``relayed``; after anything else they run as if nothing had been."""
    rq_instance.queue("same", ORDER, coalesce_params=[1])
    paused = pause(rq_instance, "same")
    rq_instance.start()
    script = verdict or "nonsense"
    first = rq_instance.send("same", param1="x", param3=script, due=1)
    second, third = [rq_instance.send("same", param1="x", due=due) for due in (2, 3)]
    gone = rq_instance.send("same", param1="x", due=4)
    paused.unlink()
    message = rq_instance.until("same", third)
    if state == "relayed":
        for msg_id in (second, third, gone):
            status = rq_instance.message("same", msg_id)["status"]
            assert status == f"relayed - duplicate {full('same', first)}"
        assert order(rq_instance, "same") == ["x"]
    else:
        assert message["status"] == f"done - duplicate {full('same', second)}"
        assert rq_instance.message("same", second)["dups"] == [
            full("same", third), full("same", gone)
        ]  # fmt: skip
        assert order(rq_instance, "same") == ["x", "x"]
    final = rq_instance.message("same", first)
    assert final["state"] == state
    assert ("dups" in final) == (state == "relayed")


def test_a_duplicate_can_be_deleted(rq_instance: RunningInstance, gates: Gates) -> None:
    rq_instance.queue("same", ORDER, coalesce_params=[1])
    paused = pause(rq_instance, "same")
    rq_instance.start()
    gate = gates("gate")
    first, second, third = [
        rq_instance.send("same", param1="x", param2=str(gate.path)) for _ in range(3)
    ]
    paused.unlink()
    rq_instance.until("same", first, "run", matching=running)
    assert rq_instance.ask("same", "delete_message", {"msg_id": second}) == "msg deleted"
    gate.open()
    rq_instance.until("same", third, "done")
    counts = rq_instance.ask("same", "num_messages")
    assert (counts["que"], counts["done"]) == (0, 2)


# The clock


YEARLY = {"cron": "@yearly", "tz": "UTC", "param1": "one", "param3": "drei"}
YEAR = 365.25 * 24 * 3600


def remember(rq: RunningInstance, name: str, years: float, *lines: dict[str, str]) -> None:
    """As if each line had last been dealt with so many years ago."""
    params = [f"param{number}" for number in range(1, 5)]
    keys = [
        json.dumps([line["cron"], line.get("tz", ""), *(line.get(p, "") for p in params)])
        for line in lines
    ]
    state = {"last": dict.fromkeys(keys, time() - years * YEAR), "intents": {}}
    (rq.directory / "queue" / name / "cron.json").write_text(json.dumps(state))


def new_year(years_ago: int = 0) -> float:
    year = dt.datetime.now(dt.UTC).year - years_ago
    return dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp()


def fired(rq: RunningInstance, name: str) -> list[dict[str, Any]]:
    """The messages that are done, oldest first."""
    items = rq.client(name).call("messages", {"state": "done"})
    return [rq.message(name, item["msg_id"]) for item in items[::-1]]


def test_a_missed_scheduled_run_is_made_up_once(rq_instance: RunningInstance) -> None:
    rq_instance.queue("clock", DONE, schedule=[
        {"cron": "61 * * * *"}, YEARLY, {"cron": "every day"}, {"cron": ""}, "nonsense",
        {"cron": "0 0 30 2 *"}, {"cron": "@yearly", "tz": "Mars/Olympus"},
    ])  # fmt: skip
    remember(rq_instance, "clock", 3, YEARLY)
    journal = Journal(rq_instance)
    rq_instance.start()
    journal.until("message_done", queue="clock")
    for cron in ("61 * * * *", "every day", "0 0 30 2 *", "Mars/Olympus"):
        assert cron in rq_instance.log_text()
    (message,) = fired(rq_instance, "clock")
    assert message["src"] == "cron"
    assert message["due"] == new_year()
    assert [message[f"param{number}"] for number in range(1, 5)] == ["one", "", "drei", ""]
    assert message["dest"] == "http://localhost:3333/q/clock"
    assert message["orig_msg_id"] == full("clock", message["msg_id"])
    # Neither a restart nor a sudden death of the queue makes it run again.
    rq_instance.stop()
    rq_instance.start()
    rq_instance.kill(queue_pid(rq_instance, "clock"))
    rq_instance.serving("clock")
    rq_instance.until("clock", rq_instance.send("clock", param1="mine"))
    assert [message["src"] for message in fired(rq_instance, "clock")] == ["cron", ""]


def test_all_missed_runs_or_none_are_made_up(rq_instance: RunningInstance) -> None:
    every, none = {**YEARLY, "catchup": "all"}, {**YEARLY, "param1": "none", "catchup": "none"}
    rq_instance.queue("clock", DONE, schedule=[none, every])
    remember(rq_instance, "clock", 3, every, none)
    journal = Journal(rq_instance)
    rq_instance.start()
    journal.until("message_done", queue="clock", count=3)
    messages = fired(rq_instance, "clock")
    assert [message["due"] for message in messages] == [new_year(2), new_year(1), new_year()]
    assert {message["param1"] for message in messages} == {"one"}


@pytest.mark.parametrize("suffix", ["pause", "down"])
def test_what_comes_due_while_the_queue_is_not_up_never_runs(
    rq_instance: RunningInstance, suffix: str
) -> None:
    rq_instance.queue("clock", DONE, schedule=[YEARLY])
    remember(rq_instance, "clock", 3, YEARLY)
    file = rq_instance.directory / "config" / f"clock.{suffix}"
    file.touch()
    journal = Journal(rq_instance)
    rq_instance.start()
    file.unlink()
    journal.until("admin_state_changed", new="UP")
    rq_instance.until("clock", rq_instance.send("clock"))
    assert [message["src"] for message in fired(rq_instance, "clock")] == [""]
    remembered = json.loads((rq_instance.directory / "queue/clock/cron.json").read_text())
    assert min(remembered["last"].values()) > time() - 3600


def test_a_damaged_memory_of_the_schedule_stops_nobody(rq_instance: RunningInstance) -> None:
    rq_instance.queue("clock", DONE, schedule=[YEARLY])
    (rq_instance.directory / "queue/clock/cron.json").write_bytes(b"\0garbage")
    rq_instance.start()
    rq_instance.until("clock", rq_instance.send("clock"))
    assert "cron.json is damaged" in rq_instance.log_text()


def test_a_scheduled_run_that_a_crash_interrupted_is_made(rq_instance: RunningInstance) -> None:
    """The intent was written, the message was not."""
    rq_instance.queue("clock", DONE, schedule=[YEARLY])
    planned = "20250101.0000.00.000.77"
    intents = {planned: {"at": 1735689600, "params": ["a", "b", "c", "d"]}}
    memory = json.dumps({"last": {}, "intents": intents})
    (rq_instance.directory / "queue/clock/cron.json").write_text(memory)
    rq_instance.start()
    message = rq_instance.until("clock", planned)
    assert (message["due"], message["param4"], message["src"]) == (1735689600, "d", "cron")
    rq_instance.stop()
    rq_instance.start()
    assert rq_instance.ask("clock", "num_messages")["done"] == 1


# Admin state


def test_admin_state_by_hand_is_noticed_at_once(rq_instance: RunningInstance, gates: Gates) -> None:
    """Nobody asks the queue anything in between: the files alone tell it."""
    rq_instance.queue("hand", ORDER)
    journal = Journal(rq_instance)
    rq_instance.start()
    gate = gates("gate")
    msg_id = rq_instance.send("hand", param2=str(gate.path))
    rq_instance.until("hand", msg_id, "run", matching=running)
    waiting = rq_instance.send("hand", param1="waiting")
    pause_file, down_file = (rq_instance.directory / f"config/hand.{s}" for s in ("pause", "down"))
    told = journal.until
    pause_file.touch()
    told("admin_state_changed", old="UP", new="PAUSE")
    down_file.write_text("for maintenance\n")
    told("admin_state_changed", old="PAUSE", new="DOWN")
    assert rq_instance.client("hand").call("status") == ["DOWN", "UP"]
    # What runs is not disturbed.
    gate.open()
    told("message_done", msg_id=msg_id)
    pause_file.unlink()
    down_file.rename(pause_file)
    told("admin_state_changed", old="DOWN", new="PAUSE")
    refused = rq_instance.send("hand", param1="later")
    assert states(rq_instance, "hand", [waiting, refused]) == ["que", "que"]
    pause_file.unlink()
    told("message_done", msg_id=waiting)
    told("message_done", msg_id=refused)
    assert not journal.facts("message_started", msg_id="")


def test_admin_state_survives_a_restart(rq_instance: RunningInstance) -> None:
    rq_instance.queue("hand", DONE)
    rq_instance.start()
    rq_instance.manager.ask("pause_queue", "hand")
    msg_id = rq_instance.send("hand")
    rq_instance.stop()
    rq_instance.start()
    assert rq_instance.client("hand").call("status") == ["PAUSE", "UP"]
    assert rq_instance.message("hand", msg_id)["state"] == "que"
    rq_instance.manager.ask("resume_queue", "hand")
    rq_instance.until("hand", msg_id, "done")


# Oper state


def status(rq: RunningInstance, name: str) -> list[str]:
    answer: list[str] = rq.client(name).call("status")
    return answer


def test_a_script_that_comes_late(rq_instance: RunningInstance) -> None:
    """Missing with all its directories; each step on the way is noticed, none is enough but the last."""
    code = rq_instance.directory / "code"
    rq_instance.queue("late", "code/a/b/run")
    journal = Journal(rq_instance)
    rq_instance.start()
    assert status(rq_instance, "late") == ["UP", "SCRIPTERROR"]
    described = rq_instance.ask("late", "describe")
    assert described["status"] == "SCRIPTERROR"
    assert "code/a/b/run is missing" in described["problem"]
    msg_id = rq_instance.send("late")
    (code / "a/b").mkdir(parents=True)
    assert status(rq_instance, "late") == ["UP", "SCRIPTERROR"]
    (code / "a/b/run").write_text(DONE)
    assert status(rq_instance, "late") == ["UP", "SCRIPTERROR"]
    assert "chmod +x" in rq_instance.ask("late", "describe")["problem"]
    assert rq_instance.message("late", msg_id)["state"] == "que"
    (code / "a/b/run").chmod(0o755)
    journal.until("oper_state_changed", new="UP")
    assert rq_instance.until("late", msg_id)["state"] == "done"
    assert status(rq_instance, "late") == ["UP", "UP"]
    told = [(fact["old"], fact["new"]) for fact in journal.facts("oper_state_changed")]
    assert told == [("UP", "SCRIPTERROR"), ("SCRIPTERROR", "UP")]


def test_a_script_that_is_made_not_executable_and_back(rq_instance: RunningInstance) -> None:
    rq_instance.queue("mode", DONE)
    journal = Journal(rq_instance)
    rq_instance.start()
    rq_instance.until("mode", rq_instance.send("mode"))
    script = rq_instance.directory / "code/mode.script"
    script.chmod(0o644)
    msg_id = rq_instance.send("mode")
    journal.until("oper_state_changed", new="SCRIPTERROR")
    assert rq_instance.message("mode", msg_id)["state"] == "que"
    script.chmod(0o755)
    rq_instance.until("mode", msg_id, "done")
    # Removed, and put back by a rename, as deployments do.
    script.rename(script.with_name("away"))
    msg_id = rq_instance.send("mode")
    journal.until("oper_state_changed", new="SCRIPTERROR", count=2)
    script.with_name("away").rename(script)
    rq_instance.until("mode", msg_id, "done")


def test_recovery_through_a_linked_directory(rq_instance: RunningInstance, tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    for release in ("empty", "full"):
        (releases / release / "bin").mkdir(parents=True)
    script = rq_instance.script("run", DONE)
    script.rename(releases / "full/bin/run")
    (releases / "full/bin/link").symlink_to("run")
    (tmp_path / "current").symlink_to(releases / "empty")
    rq_instance.queue("links", tmp_path / "current/bin/link")
    rq_instance.start()
    msg_id = rq_instance.send("links")
    assert status(rq_instance, "links") == ["UP", "SCRIPTERROR"]
    (tmp_path / "next").symlink_to(releases / "full")
    (tmp_path / "next").rename(tmp_path / "current")
    rq_instance.until("links", msg_id, "done")
    # The same where the change is in a directory that a link leads to.
    (releases / "full/bin/run").rename(releases / "full/bin/gone")
    msg_id = rq_instance.send("links")
    assert status(rq_instance, "links") == ["UP", "SCRIPTERROR"]
    (releases / "full/bin/gone").rename(releases / "full/bin/run")
    rq_instance.until("links", msg_id, "done")


@pytest.mark.parametrize("content", [
    b"#!/no/such/interpreter\n", b"#!\n", b"\x7fELF garbage", b"#!/etc/passwd\n"
])  # fmt: skip
def test_a_script_that_cannot_be_executed(rq_instance: RunningInstance, content: bytes) -> None:
    script = rq_instance.script("broken", "")
    script.write_bytes(content)
    rq_instance.queue("broken", script)
    journal = Journal(rq_instance)
    rq_instance.start()
    msg_id = rq_instance.send("broken")
    if content.startswith(b"#!/"):
        journal.until("oper_state_changed", new="SCRIPTERROR")
        for _ in range(3):
            assert status(rq_instance, "broken") == ["UP", "SCRIPTERROR"]
        assert "#!" in rq_instance.ask("broken", "describe")["problem"]
        assert rq_instance.message("broken", msg_id)["state"] == "que"
        assert len(journal.facts("oper_state_changed")) == 1, "it is not tried in circles"
        rq_instance.script("broken", DONE)
        rq_instance.until("broken", msg_id, "done")
    else:
        # What has no usable first line is for a shell, which says what it thinks of it.
        assert rq_instance.until("broken", msg_id)["state"] == "err"


def test_a_directory_is_no_script(rq_instance: RunningInstance) -> None:
    (rq_instance.directory / "code").mkdir()
    rq_instance.queue("folder", "code")
    rq_instance.queue("fine", DONE)
    rq_instance.start()
    assert status(rq_instance, "folder") == ["UP", "SCRIPTERROR"]
    rq_instance.until("fine", rq_instance.send("fine"), "done")


# Restarts


TWICE = """#!/bin/bash
trap "$RQ_PARAM1" TERM
[ -f last ] && grep -s "^State:.[^ZX]" "/proc/$(cat last)/status" && echo OVERLAP
echo $$ > last; echo "run $$"
echo "run ready $$" >&3
read x < "$RQ_PARAM2"
echo done >&3
"""


@pytest.mark.parametrize("trap", ["exit 1", ""])
@pytest.mark.parametrize("killed", ["queue", "manager"])
def test_nothing_runs_twice_at_once(
    rq_instance: RunningInstance, tmp_path: Path, killed: str, trap: str
) -> None:
    """A script that outlives its queue is ended, by force if need be, before its message runs again."""
    rq_instance.configure(kill_grace=0.1)
    rq_instance.queue("twice", TWICE)
    gate = Gate(tmp_path / "gate")
    rq_instance.start()
    msg_id = rq_instance.send("twice", param1=trap, param2=str(gate.path))
    message = rq_instance.until("twice", msg_id, "run", matching=running)
    pid = int(message["status"].split()[-1])
    queue = queue_pid(rq_instance, "twice")
    with Ended(pid, queue) as ended:
        if killed == "queue":
            rq_instance.kill(queue)
        else:
            assert rq_instance.process is not None
            rq_instance.kill(rq_instance.process.pid)
            assert rq_instance.wait() == -9
            rq_instance.start()
        ended.wait()
    rq_instance.serving("twice")
    former = f"run - ready {pid}"
    rq_instance.until("twice", msg_id, "run", matching=lambda m: m["status"] != former)
    gate.open()
    message = rq_instance.until("twice", msg_id, "done")
    log = script_log(message)
    assert "OVERLAP" not in log
    assert log.count("run ") == 2
    assert message["count"] == 0, "it was not the script that asked for another run"


def test_a_graceful_stop_puts_back_what_it_ends(rq_instance: RunningInstance, gates: Gates) -> None:
    rq_instance.configure(stop_grace=0)
    rq_instance.queue("back", ORDER)
    rq_instance.start()
    gate = gates("gate")
    msg_id = rq_instance.send("back", param1="x", param2=str(gate.path))
    rq_instance.until("back", msg_id, "run", matching=running)
    rq_instance.stop()
    assert os.listdir(rq_instance.directory / "queue/back/que") == [msg_id]
    gate.path.unlink()
    rq_instance.start()
    assert rq_instance.until("back", msg_id)["state"] == "done"
    assert order(rq_instance, "back") == ["x", "x"]
