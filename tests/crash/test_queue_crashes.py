"""A real queue process, killed before each of its steps on the file system.

Queue ``workN`` is killed (SIGKILL) just before its Nth step: a plugin file in the instance counts the
audit events of that process, from its first one.  A message goes through everything meanwhile:
prepare, attach, commit, run, a copy to another queue, a resend, and done.  Queue ``againN`` is killed
while its script runs, and a second time before its Nth step after that, while it recovers.  The
manager starts the process again, the client asks again where it was not answered.  In the end every
message that was acknowledged is done, in one place, with its attachment, its script never ran twice
at once, and nobody is left over.

All N are tried, a batch of queues in one instance.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rqcore.errors import RefusedError, UnreachableError
from rqcore.lifecycle import State
from rqcore.testing import RunningInstance
from tests.crash.helpers import until

pytestmark = [pytest.mark.crash, pytest.mark.process]

#: More than the whole journey takes, and as many as it takes to be through with a recovery.  How many
#: that is depends on how many of the status texts come apart, so there is room for all of them.
STEPS = {"work": 72, "again": 54}
BATCH = 18
DATA = b"precious\n" * 100

KILLER = """
import os, re, signal, sys
from rqcore.hookspecs import hookimpl

EVENTS = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir"}
MANAGER = os.getpid()
HERE = os.getcwd()

class Countdown:
    def __init__(self):
        self.name, self.kills, self.steps, self.inside = "", 0, 0, False

    def __call__(self, event, args):
        if self.inside or os.getpid() == MANAGER:
            return
        opened = event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT
        if not (opened or event in EVENTS or event == "subprocess.Popen"):
            return
        self.inside = True
        self.step(event, str(args[1] if event == "os.link" else args[0]), str(args[1]))
        self.inside = False

    def step(self, event, path, target):
        found = re.match(re.escape(HERE) + "/queue/((?:work|again)[0-9]+)/", path)
        if found and not self.name:
            self.name = found[1]
            if os.path.exists(self.file("killed")):
                self.kills = len(open(self.file("killed")).readlines())
        if not found and not (self.name and event == "subprocess.Popen"):
            return
        self.steps += 1
        if self.must_die(target):
            with open(self.file("killed"), "a") as file:
                file.write(f"before {event} {path}, step {self.steps}\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        with open(self.file("steps"), "w") as file:
            file.write(str(self.steps))

    def must_die(self, target):
        number = int(re.sub("[a-z]", "", self.name))
        if self.name.startswith("again"):
            if self.kills == 0:
                return target.endswith("/status")
            return self.kills == 1 and self.steps == number
        return self.kills == 0 and self.steps == number

    def file(self, what):
        return f"{HERE}/witness/{self.name}.{what}"

sys.addaudithook(Countdown())

@hookimpl
def rq_spool_ready(queue):
    pass
"""

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


class Sender:
    """A client that asks again when it was not answered."""

    def __init__(self, rq: RunningInstance, queue: str) -> None:
        self._rq = rq
        self._queue = queue

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
    kills = len(lines(witness / f"{name}.killed"))
    assert len(counts) <= 2 + kills, "a kill costs one run at most"
    # One that is killed after the last rename has to come back first.
    kept = Sender(rq, name).ask("num_messages", {})
    assert kept == {**dict.fromkeys(kept, 0), "done": 1, "prep": len(found)}


@pytest.mark.parametrize(
    "names",
    [
        [f"{kind}{number}" for number in range(first, first + BATCH)]
        for kind in ("work", "again")
        for first in range(1, STEPS[kind] + 1, BATCH)
    ],
    ids=lambda names: f"{names[0]}-{names[-1]}",
)
def test_a_kill_before_any_step_costs_no_message(
    rq_instance: RunningInstance, names: list[str]
) -> None:
    rq = rq_instance
    witness = rq.directory / "witness"
    witness.mkdir()
    (rq.directory / "data").write_bytes(DATA)
    rq.plugin("killer", KILLER)
    rq.configure(kill_grace=1)
    rq.queue("copies", "#!/bin/sh\necho done >&3\n", num_workers=4)
    for name in names:
        rq.queue(name, SCRIPT)
    rq.start()
    sent = {name: Sender(rq, name).send(rq.directory / "data") for name in names}
    for name, msg_id in sent.items():
        done = rq.directory / "queue" / name / "done"
        until(lambda done=done, msg_id=msg_id: any(done.glob(f"*/*/*/{msg_id}")), rq.log_text)  # type: ignore[misc]
    for name, msg_id in sent.items():
        try:
            check(rq, name, msg_id)
        except AssertionError as error:
            error.add_note(f"{name} was killed: {lines(witness / f'{name}.killed')}")
            error.add_note(rq.log_text())
            raise
    for copies in witness.glob("*.copies"):
        for full in lines(copies):
            rq.until("copies", full.rpartition("/")[2], "done")
    rq.stop()
    # No step was left out: whoever was not killed had come to the end of a shorter journey.
    kind = names[0].rstrip("0123456789")
    wanted = {"work": 1, "again": 2}[kind]
    killed = [len(lines(witness / f"{name}.killed")) == wanted for name in names]
    for name, was_killed in zip(names, killed, strict=True):
        steps = int((witness / f"{name}.steps").read_text())
        assert was_killed or steps < int(name.removeprefix(kind)), f"{name} went on to step {steps}"
    if names[-1] == f"{kind}{STEPS[kind]}":
        assert not killed[-1], "a journey has become longer: raise STEPS"
