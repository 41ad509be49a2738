"""How messages end besides by their own script's word: too late, as a duplicate, not startable.

And that whoever must not miss an end is told of every one, while the message still lies where it was.
"""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqcore.errors import RefusedError
from rqcore.testing import RunningInstance
from tests.acceptance.helpers import Gate, Journal, full, queue_pid, script_log
from tests.crash.helpers import until

pytestmark = pytest.mark.process

SAY = '#!/bin/bash\neval "$RQ_PARAM1"\n'
TIMEOUT = "err - TIMEOUT - ran longer than 0.2 s - MOVING TO ERR"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: What the hook was told while the message lay where it was: `seen` is that it did.
WITNESS = """
import json, os
from rqcore.hookspecs import hookimpl

@hookimpl
def rq_spool_synced(queue, seconds):
    with open("log/synced", "a") as file:
        file.write(f"{queue.name} {seconds}\\n")

@hookimpl
def rq_message_finishing(message, queue, outcome):
    places = [s for s in ("que", "run") if os.path.isdir(f"{queue.path}/{s}/{message.msg_id}")]
    with open("log/witness", "a") as file:
        file.write(json.dumps([message.msg_id, places, outcome.state, outcome.status]) + "\\n")
"""


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("ends") / "rq") as instance:
        instance.configure(kill_grace=0.1)
        instance.queue("say", SAY, num_workers=4)
        instance.queue("hasty", SAY, timeout=0.2, num_workers=4)
        instance.queue("same", SAY, coalesce_params=[1])
        instance.queue("sink", SAY)
        instance.plugin("witness", WITNESS)
        instance.use_plugins("cli")
        Journal(instance)
        yield instance.start()


@pytest.fixture
def rq(_shared: RunningInstance) -> Iterator[RunningInstance]:
    yield _shared
    _shared.disconnect()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def journal(rq: RunningInstance) -> Journal:
    found = Journal.__new__(Journal)
    found.file = rq.directory / "log" / "journal.jsonl"
    return found


def witnessed(rq: RunningInstance, msg_id: str) -> list[list[object]]:
    lines = (rq.directory / "log/witness").read_text().splitlines()
    return [fact[1:] for fact in map(json.loads, lines) if fact[0] == msg_id]


@pytest.mark.parametrize("script", [
    "sleep 1000",
    "trap '' TERM; sleep 1000 & wait; wait",
    "trap 'echo err I was told to stop >&3; exit 0' TERM; sleep 1000 & wait",
    "trap 'echo done >&3; exit 1' TERM; sleep 1000 & wait",
    "echo done too early >&3; sleep 1000",
])  # fmt: skip
def test_what_runs_too_long_is_ended(rq: RunningInstance, script: str) -> None:
    msg_id = rq.send("hasty", param1=f'echo "run $$" >&3; {script}')
    message = rq.until("hasty", msg_id)
    assert (message["state"], message["status"]) == ("err", TIMEOUT)
    fact = journal(rq).until("message_finishing", msg_id=msg_id)
    assert (fact["state"], fact["status"], fact["timed_out"]) == ("err", TIMEOUT[6:], True)
    journal(rq).until("message_err", msg_id=msg_id)


@pytest.mark.parametrize(
    ("word", "state"), [("done after all", "done"), ("resend 5000-later", "que")]
)
def test_a_script_may_still_say_how_it_ended(rq: RunningInstance, word: str, state: str) -> None:
    script = f"trap 'echo {word} >&3; exit 0' TERM; echo run ready >&3; sleep 1000 & wait"
    msg_id = rq.send("hasty", param1=script)
    message = rq.until("hasty", msg_id, state, matching=lambda m: word[-5:] in m["status"])
    assert message["state"] == state
    assert journal(rq).until("message_finishing", msg_id=msg_id)["timed_out"] is False


def test_nothing_of_it_goes_on(rq: RunningInstance, gate: Gate) -> None:
    """Half a minute is what the child would read for; the message waits for the end of its group."""
    note = gate.path.with_name("pid")
    script = f'( trap "" TERM; read x < "{gate.path}" ) & echo $! > {note}; wait'
    message = rq.until("hasty", rq.send("hasty", param1=script))
    assert message["status"] == TIMEOUT
    pid = int(note.read_text())
    command = Path(f"/proc/{pid}/cmdline")  # empty for what is dead and was not yet waited for
    assert not command.exists() or command.read_bytes() == b""


@pytest.mark.parametrize("trap", ["", "trap 'echo done >&3; exit 0' TERM"])
def test_copies_that_it_asks_for_without_end_keep_it_no_longer(
    rq: RunningInstance, trap: str
) -> None:
    """They are made as long as it has its grace; then it is told how many were not, and no "done"."""
    before = rq.ask("sink", "num_messages")["que"]
    msg_id = rq.send("hasty", param1=f"{trap}\nwhile :; do echo 'dup 50000-X-sink'; done >&3")
    message = rq.until("hasty", msg_id)
    found = re.fullmatch(
        re.escape(TIMEOUT) + r"; of the copies that it asked for, the last (\d+) were not made",
        message["status"],
    )
    assert found is not None, message["status"]
    assert int(found[1]) > 100
    fact = journal(rq).until("message_finishing", msg_id=msg_id)
    assert (fact["state"], fact["timed_out"]) == ("err", True)
    told = journal(rq).facts("message_dup", msg_id=msg_id)
    made = rq.ask("sink", "num_messages")["que"] - before
    assert made == len(told) > 0, "each that was made was told, and none comes after the end"


def test_who_is_in_time_is_not_disturbed(rq: RunningInstance) -> None:
    message = rq.until("hasty", rq.send("hasty", param1="echo done in time >&3"))
    assert message["status"] == "done - in time"
    assert journal(rq).until("message_finishing", msg_id=message["msg_id"])["timed_out"] is False


def test_the_end_of_a_duplicate_is_told_before_it_moves(rq: RunningInstance, gate: Gate) -> None:
    pause = rq.directory / "config/same.pause"
    pause.touch()
    script = f"cat {gate.path}; echo done fine >&3"
    first, second, third = [rq.send("same", param1=script) for _ in range(3)]
    pause.unlink()
    rq.until("same", first, "run")
    gate.open()
    for msg_id in (second, third):
        rq.until("same", msg_id, "done")
    rq.until("same", first, "done")
    for msg_id in (second, third):
        status = f"duplicate {full('same', first)}"
        assert witnessed(rq, msg_id) == [[["que"], "done", status]]
    assert witnessed(rq, first) == [[["run"], "done", "fine"]]


def test_the_end_of_what_no_script_can_be_given_is_told(rq: RunningInstance) -> None:
    pid = queue_pid(rq, "same")
    before = resource.prlimit(pid, resource.RLIMIT_STACK)
    resource.prlimit(pid, resource.RLIMIT_STACK, (1 << 20, before[1]))
    try:
        params = {f"param{n}": "y" * 130_000 for n in (1, 2, 3, 4)}
        message = rq.until("same", rq.send("same", **params))
    finally:
        resource.prlimit(pid, resource.RLIMIT_STACK, before)
    assert "more than the system lets a process have" in message["status"]
    ((places, state, status),) = witnessed(rq, message["msg_id"])
    assert (places, state, f"err - {status}") == (["run"], "err", message["status"])


def test_the_trace_reaches_the_script_and_its_copies(rq: RunningInstance) -> None:
    show = 'echo "$TRACEPARENT|$TRACESTATE"; echo dup 0-X-say >&3; read -r -u 4 a; echo done >&3'
    copy = "env | grep ^TRACE; echo done >&3"
    only = f'if [ "$RQ_ORIG_MSG_ID" != "$RQ_FULL_MSG_ID" ]; then {copy}; else {show}; fi'
    msg_id = rq.send("say", param1=only, traceparent=PARENT, tracestate="a=1, b=2")
    message = rq.until("say", msg_id)
    assert script_log(message) == f"{PARENT}|a=1,b=2\n"
    copy = journal(rq).until("message_dup", msg_id=msg_id)["new_msg_id"].rpartition("/")[2]
    copied = rq.until("say", copy)
    told = sorted(script_log(copied).split())
    assert told == [f"TRACEPARENT={PARENT}", "TRACESTATE=a=1,b=2"]
    clone = rq.ask("say", "clone_message", {"msg_id": msg_id}).rpartition("/")[2]
    cloned = rq.until("say", clone)
    assert (cloned["traceparent"], cloned["tracestate"]) == (PARENT, "a=1,b=2")


def test_a_message_without_a_trace_has_none(rq: RunningInstance) -> None:
    message = rq.until("say", rq.send("say", param1="env | grep ^TRACE; echo done >&3"))
    assert "traceparent" not in message
    assert script_log(message) == ""


def test_the_time_of_each_sync_is_told(rq: RunningInstance) -> None:
    def times(name: str) -> list[float]:
        lines = (rq.directory / "log/synced").read_text().splitlines()
        return [float(line.split()[1]) for line in lines if line.startswith(f"{name} ")]

    before = len(times("say"))
    rq.until("say", rq.send("say", param1="echo done >&3"))
    assert len(times("say")) > before
    assert all(0 <= seconds < 60 for seconds in times("say"))


def test_one_is_deleted_only_where_it_was_seen(rq: RunningInstance) -> None:
    msg_id = rq.ask("say", "prep_message", {"dest": "say"}).rpartition("/")[2]
    with pytest.raises(RefusedError, match="message is in prep, no longer in done"):
        rq.ask("say", "delete_message", {"msg_id": msg_id, "state": "done"})
    assert rq.ask("say", "delete_message", {"msg_id": msg_id, "state": "prep"}) == "msg deleted"


def test_what_takes_long_to_remove_is_removed_beside_the_work(rq: RunningInstance) -> None:
    msg_id = rq.send("say", param1="truncate -s 100M large; echo done >&3")
    message = rq.until("say", msg_id, "done")
    assert (Path(message["path"]) / "job" / "large").stat().st_size == 100 << 20
    folder = rq.directory / "queue" / "say" / "tmp"
    rq.ask("say", "delete_message", {"msg_id": msg_id})
    assert not Path(message["path"]).exists()
    until(lambda: not any(folder.iterdir()), lambda: list(folder.iterdir()))
