"""A real queue process, killed before each of its steps on the file system.

Queue ``workN`` is killed (SIGKILL) just before its Nth step: a plugin file in the instance counts the
audit events of that process.  A message goes through everything meanwhile: prepare, attach, commit,
run, a copy to another queue, a resend, and done.  The manager starts the process again, the client
asks again where it was not answered.  In the end every message that was acknowledged is done, in one
place, with its attachment, its script never ran twice at once, and nobody is left over.

All N are tried, a batch of queues in one instance.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rqcore.errors import RefusedError, UnreachableError
from rqcore.lifecycle import State
from rqcore.testing import PATIENCE, RunningInstance

pytestmark = [pytest.mark.crash, pytest.mark.process]

#: More than the whole journey takes; a test sees to it that this stays true.
STEPS = 96
BATCH = 24
DATA = b"precious\n" * 100

KILLER = '''
"""Kills the process of queue workN, once, before its Nth step on the file system."""
import os, re, signal, sys
from rqcore.hookspecs import hookimpl

EVENTS = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "subprocess.Popen"}
HERE = os.getcwd()

class Countdown:
    def __init__(self, folder, number):
        self.folder, self.left, self.taken, self.inside = folder, number, 0, False

    def __call__(self, event, args):
        opened = event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT
        if self.inside or not (opened or event in EVENTS):
            return
        if event != "subprocess.Popen" and not str(args[0]).startswith(self.folder):
            return
        self.left -= 1
        self.taken += 1
        self.inside = True
        with open(f"{self.folder}.steps", "w") as file:
            file.write(str(self.taken))
        if self.left == 0:
            with open(f"{self.folder}.killed", "w") as file:
                file.write(f"{event} {args[:2]}")
            os.kill(os.getpid(), signal.SIGKILL)
        self.inside = False

@hookimpl
def rq_spool_ready(queue):
    found = re.fullmatch("work([0-9]+)", queue.name)
    if found and not os.path.exists(f"{queue.path}.killed"):
        sys.addaudithook(Countdown(queue.path, int(found[1])))
'''

#: Holds a lock while it runs, and goes on for ever when the queue process that started it is gone.
SCRIPT = """#!/bin/bash
here=${RQ_MSG_DIR%/queue/*}/witness/$RQ_DEST_QUEUE
exec 9>"$here.lock"
flock -n 9 || echo "$RQ_MSG_ID" >>"$here.overlaps"
echo "$RQ_MSG_ID $RQ_COUNT" >>"$here.runs"
cmp ../attach/data "${RQ_MSG_DIR%/queue/*}/data" || echo "$RQ_MSG_ID" >>"$here.broken"
trap '' PIPE
gone() { exec sleep 1000; }
echo "run half" >&3 || gone
echo "dup 0-X-copies" >&3 || gone
read -r -u 4 word id || gone
[ "$word" = ok ] || { echo "err $word $id" >&3; exit; }
echo "$id" >>"$here.copies"
if [ "$RQ_COUNT" = 0 ]; then
    echo "resend 0-again" >&3 || gone
else
    echo "done well" >&3 || gone
fi
"""


def until(wanted: Callable[[], Any], why: Callable[[], str]) -> Any:
    """Look until it is so.  Nothing tells a client when a killed process is back."""
    for _ in range(int(PATIENCE / 0.02)):
        found = wanted()
        if found:
            return found
        select.select([], [], [], 0.02)
    raise AssertionError(why())


class Sender:
    """A client that asks again when it was not answered."""

    def __init__(self, rq: RunningInstance, queue: str) -> None:
        self._rq = rq
        self._queue = queue
        #: What was answered with ok, also if we asked again for want of an answer.
        self.acknowledged: list[str] = []

    def ask(self, command: str, args: dict[str, Any]) -> Any:
        def answered() -> list[Any]:
            try:
                return [self._rq.ask(self._queue, command, args)]
            except UnreachableError:
                return []

        return until(answered, self._rq.log_text)[0]

    def send(self, path: Path) -> str:
        """The whole way in, begun anew where nobody knows how far it had come."""
        fields = {"dest": self._queue, "due": 0}
        msg_id: str = self.ask("prep_message", fields).rpartition("/")[2]
        self.acknowledged.append(msg_id)
        attached = self.ask(
            "attach_message", {"msg_id": msg_id, "pathname": str(path), "name": "data"}
        )
        assert attached.startswith(hashlib.md5(DATA).hexdigest())
        try:
            self.ask("commit_message", {"msg_id": msg_id})
        except RefusedError:
            # The answer to the first commit was lost: it had been done.
            assert self.ask("get_message_state", {"msg_id": msg_id}) != "prep"
        return msg_id


def spool(queue: Path) -> dict[str, list[Path]]:
    """Every message of a queue and where it lies."""
    found: dict[str, list[Path]] = {}
    for state in State:
        depth = "*/*/*/*" if state in (State.DONE, State.RELAYED) else "*"
        for path in (queue / state).glob(depth):
            found.setdefault(path.name, []).append(path)
    return found


def lines(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


def check(rq: RunningInstance, name: str, msg_id: str) -> None:
    """Everything that was promised about the messages of this queue."""
    queue, witness = rq.directory / "queue" / name, rq.directory / "witness"
    found = spool(queue)
    places = found.pop(msg_id)
    # A prepare that was never answered may have left a message of which nobody knows.
    assert all([path.parent.name for path in paths] == ["prep"] for paths in found.values()), found
    assert len(found) <= 1
    assert [path.parts[len(queue.parts)] for path in places] == ["done"]
    assert json.loads((places[0] / "status").read_bytes()) == {"job_status": "well"}
    assert json.loads((places[0] / "msg").read_bytes())["count"] == 1
    assert (places[0] / "attach" / "data").read_bytes() == DATA
    assert not (places[0] / "pid").exists()
    assert os.listdir(queue / "tmp") == []
    assert os.listdir(queue / "corrupt") == []
    assert lines(witness / f"{name}.overlaps") == []
    assert lines(witness / f"{name}.broken") == []
    counts = [line.split()[1] for line in lines(witness / f"{name}.runs")]
    assert set(counts) == {"0", "1"}
    assert counts == sorted(counts)
    assert len(counts) <= 3, "one kill costs one run"
    kept = rq.ask(name, "num_messages")
    assert kept == {**dict.fromkeys(kept, 0), "done": 1, "prep": len(found)}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", range(1, STEPS + 1, BATCH))
def test_a_kill_before_any_step_costs_no_message(rq_instance: RunningInstance, first: int) -> None:
    rq = rq_instance
    numbers = range(first, first + BATCH)
    (rq.directory / "witness").mkdir()
    (rq.directory / "data").write_bytes(DATA)
    rq.plugin("killer", KILLER)
    rq.configure(kill_grace=1)
    rq.queue("copies", "#!/bin/sh\necho done >&3\n", num_workers=4)
    for number in numbers:
        rq.queue(f"work{number}", SCRIPT)
    rq.start()
    sent = {
        f"work{number}": Sender(rq, f"work{number}").send(rq.directory / "data")
        for number in numbers
    }
    for name, msg_id in sent.items():
        until(
            lambda name=name, msg_id=msg_id: list(  # type: ignore[misc]
                (rq.directory / "queue" / name / "done").glob(f"*/*/*/{msg_id}")
            ),
            rq.log_text,
        )
    for name, msg_id in sent.items():
        killed = rq.directory / "queue" / f"{name}.killed"
        try:
            check(rq, name, msg_id)
        except AssertionError as error:
            at = killed.read_text() if killed.exists() else "no kill"
            error.add_note(f"{name}: {at}\n{rq.log_text()}")
            raise
    for copy in (rq.directory / "witness").glob("*.copies"):
        for full in lines(copy):
            rq.until("copies", full.rpartition("/")[2], "done")
    # The journey has an end, and there was no step that nobody was killed before.
    steps = [int((rq.directory / "queue" / f"{name}.steps").read_text()) for name in sent]
    kills = [(rq.directory / "queue" / f"{name}.killed").exists() for name in sent]
    print(f"{sum(kills)} of {len(kills)} were killed, at {steps[:1]} and on")
    if numbers[-1] == STEPS:
        assert not kills[-1], f"a journey takes {steps[-1]} steps: raise STEPS"
    assert kills == sorted(kills, reverse=True) or numbers[-1] == STEPS
    rq.stop()
