"""An instance under load while its processes are killed at random: ``make soak``.

Clients send messages to three queues all the time; scripts end them in every way there is (done, err,
resend, a copy to another queue); and one process of the instance after another is killed with SIGKILL:
the manager, queue processes, scripts.  In the end every message that was answered ``ok`` must be in
exactly one state, a final one, must have run at least once, and never twice at the same time.

    python tests/soak/soak.py --kills 1000 [--seed N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rqcore.client import QueueClient
from rqcore.errors import RqError
from rqcore.message import is_msg_id
from rqcore.testing import RunningInstance

QUEUES = ("one", "two", "three")
STATES = ("prep", "que", "run", "err", "done", "relayed")
# A run holds the lock of its message while it lives; whoever finds it taken has met another run of it.
SCRIPT = """#!/bin/sh
witness="$WITNESS/$RQ_DEST_QUEUE.$RQ_MSG_ID"
exec 9>>"$witness.lock"
flock -n -E 75 9
if [ $? = 75 ]; then  # any other status: it was itself killed
    echo "$RQ_FULL_MSG_ID runs twice at once" >>"$WITNESS/overlaps"
    for held in /proc/[0-9]*/fd/9; do
        [ "$held" -ef "$witness.lock" ] && echo "  held: $(cat "${held%fd/9}stat")" >>"$WITNESS/overlaps"
    done
fi
echo "$$ $RQ_COUNT" >>"$witness.ran"
echo "run working" >&3
case $RQ_PARAM1 in
    err) echo "err by design" >&3 ;;
    resend) if [ "$RQ_COUNT" -lt 2 ]; then echo "resend 0-again" >&3; else echo "done again" >&3; fi ;;
    dup)
        if [ "$RQ_ORIG_MSG_ID" = "$RQ_FULL_MSG_ID" ]; then  # a copy makes no further copies
            echo "dup 0-X-$RQ_PARAM2" >&3; read -r answer <&4
        fi
        echo "done $answer" >&3 ;;
    slow) sleep 0.2; echo "done slowly" >&3 ;;
    *) echo "done at once" >&3 ;;
esac
"""
#: So many messages may wait in a queue: a machine with other work is not buried under them.
BACKLOG = 40
KINDS = ("plain", "plain", "err", "resend", "dup", "slow")


@dataclass
class Tally:
    """What the clients were told, and what was killed."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    uncertain: int = 0
    killed: collections.Counter[str] = field(default_factory=collections.Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sender(threading.Thread):
    """Sends messages until it is told to stop; an unanswered one is forgotten, not sent again."""

    def __init__(self, directory: Path, tally: Tally, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._directory, self._tally, self._stop_event = directory, tally, stop
        self._random = random.Random(seed)

    def run(self) -> None:
        while not self._stop_event.is_set():
            queue = self._random.choice(QUEUES)
            other = self._random.choice([name for name in QUEUES if name != queue])
            fields = {"dest": queue, "param1": self._random.choice(KINDS), "param2": other}
            try:
                with QueueClient(self._directory, queue, timeout=30) as client:
                    if client.call("num_messages")["que"] >= BACKLOG:
                        self._stop_event.wait(0.1)
                        continue
                    full_id = client.ask("create_message", fields)
            except (RqError, TimeoutError):
                self._tally.uncertain += 1
            else:
                with self._tally.lock:
                    self._tally.acknowledged[full_id.rpartition("/")[2]] = queue
            self._stop_event.wait(0.03)  # the load, not a wait for anything


def soak(directory: Path, kills: int, seed: int, say: bool = True) -> Tally:
    """Run it all; raises `AssertionError` with what was found wrong."""
    chance = random.Random(seed)
    witness = directory / "witness"
    witness.mkdir(parents=True)
    instance = RunningInstance(directory / "rq", {"WITNESS": str(witness)})
    instance.configure(kill_grace=1, stop_grace=20)
    for name in QUEUES:
        instance.queue(name, SCRIPT, num_workers=3, env_vars={"WITNESS": str(witness)})
    tally, stop = Tally(), threading.Event()
    senders = [Sender(instance.directory, tally, seed + n, stop) for n in range(2)]
    instance.start()
    try:
        for sender in senders:
            sender.start()
        for number in range(1, kills + 1):
            _kill_one(instance, chance, tally)
            if say and number % 50 == 0:
                print(f"{number} kills, {len(tally.acknowledged)} messages: {dict(tally.killed)}")
            time.sleep(chance.uniform(0, 0.15))  # the pace of the accidents
        stop.set()
        for sender in senders:
            sender.join()
        _drain(instance)
        instance.stop()
    finally:
        stop.set()
        if instance.process is not None:
            instance.process.kill()
            instance.process.wait()
    _account(instance.directory, witness, tally)
    return tally


def _kill_one(instance: RunningInstance, chance: random.Random, tally: Tally) -> None:
    assert instance.process is not None
    if instance.process.poll() is not None:
        raise AssertionError(f"the manager ended by itself:\n{instance.log_text()[-5000:]}")
    processes = instance.processes()
    if not processes:
        return
    pid = chance.choice(sorted(processes))
    manager = pid == instance.process.pid
    kind = "manager" if manager else "queue" if "-m rqcore" in processes[pid] else "script"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        tally.killed[kind] += 1
    if manager:
        instance.process.wait()
        instance.start()


def _drain(instance: RunningInstance) -> None:
    """Wait until nothing waits and nothing runs in any queue; as long as anything moves."""
    seen: list[dict[str, int]] = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now: list[dict[str, int]] = []
        for name in QUEUES:
            with contextlib.suppress(RqError), QueueClient(instance.directory, name) as client:
                now.append(client.call("num_messages"))
        if len(now) == len(QUEUES) and not any(n["que"] + n["run"] for n in now):
            return
        if now != seen:
            seen, deadline = now, time.monotonic() + 60
        time.sleep(0.2)
    raise AssertionError(f"the queues do not drain:\n{instance.log_text()[-5000:]}")


def _account(directory: Path, witness: Path, tally: Tally) -> None:
    found = collections.defaultdict(list)
    for queue in QUEUES:
        for state in STATES:
            for msg_id in _messages(directory / "queue" / queue / state):
                found[msg_id].append((queue, state))
    problems = []
    overlaps = witness / "overlaps"
    if overlaps.exists():
        problems += overlaps.read_text().splitlines()
        log = (directory / "log" / "test.log").read_text().splitlines()
        for met in {line.split("/")[-1].split()[0] for line in problems if "twice" in line}:
            problems += [line for line in log if met in line]
    problems += [f"{m} is in {places}" for m, places in found.items() if len(places) != 1]
    for msg_id, queue in tally.acknowledged.items():
        states = [state for _, state in found.get(msg_id, [])]
        if not states or not set(states) <= {"done", "err", "relayed"}:
            problems.append(f"{queue}/{msg_id} was acknowledged and is in {states or 'no state'}")
        if not (witness / f"{queue}.{msg_id}.ran").exists() and not _killed(
            directory, queue, msg_id
        ):
            problems.append(f"{queue}/{msg_id} was acknowledged and never ran")
    problems += [f"{queue} has {list(aside.iterdir())} in corrupt"
                 for queue in QUEUES
                 if any((aside := directory / "queue" / queue / "corrupt").iterdir())]  # fmt: skip
    assert not problems, "\n".join(problems[:50])


def _killed(directory: Path, queue: str, msg_id: str) -> bool:
    """Was its script killed before it could do anything?"""
    status = directory / "queue" / queue / "err" / msg_id / "status"
    return status.exists() and "SIGKILL" in status.read_text()


def _messages(root: Path) -> Iterator[str]:
    for folder, names, _ in os.walk(root):
        ids = [name for name in names if is_msg_id(name)]
        yield from ids
        names[:] = [name for name in names if not is_msg_id(name)]
        del folder


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Kill processes of a loaded instance at random.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument(
        "--dir", type=Path, default=None, help="where to work (default: a temporary one)"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rq-soak-", dir=options.dir) as folder:
        tally = soak(Path(folder), options.kills, options.seed)
    print(
        f"{sum(tally.killed.values())} processes killed {dict(tally.killed)}, "
        f"{len(tally.acknowledged)} messages acknowledged, {tally.uncertain} unanswered, "
        f"all accounted for, in {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
