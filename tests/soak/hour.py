"""An hour of ordinary work, as fast as it goes, with webhooks and cleaner: ``make hour``.

Clients send messages to three queues, whose scripts end them in every way (done, err, done after a
resend, done as a duplicate); every message has a webhook in RQ's form, and an endpoint is told of every
end in the standard form, signed.  The receivers are moody (`tests.soak.receiver`).  All the while the
cleaner works by a policy that leaves little, and beside all that processes are killed, if so asked.  In
the end there is an account, to the last message:

- every message that was answered ``ok`` lies in one final state, or was removed by the cleaner; without
  kills, exactly as many as it says;
- for each the receivers were told its end: of the very state, at least once, and by one id only in the
  standard form; nothing else was told;
- no webhook waits, none failed, the outbox is empty.

    python -m tests.soak.hour [--messages 3600] [--kills 0] [--seed N] [--dir DIR]
"""

from __future__ import annotations

import argparse
import base64
import collections
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rqcore.client import QueueClient
from rqcore.errors import RqError
from rqcore.message import is_msg_id
from rqcore.testing import RunningInstance
from tests.soak.receiver import SECRET, Account, Receiver

QUEUES = ("one", "two", "three")
STATES = ("prep", "que", "run", "err", "done", "relayed")
KINDS = ("plain", "plain", "plain", "err", "resend", "same")
SCRIPT = """#!/bin/sh
case $RQ_PARAM1 in
    err) echo "err by design" >&3 ;;
    resend) if [ "$RQ_COUNT" -lt 1 ]; then echo "resend 0-again" >&3; else echo "done again" >&3; fi ;;
    *) echo "done" >&3 ;;
esac
"""
#: So many messages may wait in a queue: a machine with other work is not buried under them.
BACKLOG = 60
PATIENCE = 120.0


class Sender(threading.Thread):
    """Sends its share of the messages; an unanswered one is forgotten, not sent again."""

    def __init__(self, rq: Path, account: Account, seed: int, count: int, webhook: str) -> None:
        super().__init__()
        self._rq, self._account, self._count, self._webhook = rq, account, count, webhook
        self._random = random.Random(seed)
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(self._count):
                self._send(number)
        except BaseException as error:  # noqa: BLE001 - raised where the thread is joined
            self.failure = error

    def _send(self, number: int) -> None:
        queue = self._random.choice(QUEUES)
        kind = self._random.choice(KINDS)
        same = kind == "same"
        fields = {
            "dest": queue, "param1": kind, "param2": "" if same else f"{id(self)}-{number}",
            "post_run_webhook": [self._webhook],
        }  # fmt: skip
        try:
            with QueueClient(self._rq, queue, timeout=30) as client:
                while client.call("num_messages")["que"] >= BACKLOG:
                    time.sleep(0.05)  # the load, not a wait for anything
                full_id = client.ask("create_message", fields)
        except (RqError, TimeoutError):
            self._account.unanswered += 1
            time.sleep(0.2)  # the load, as above: whoever was killed comes back
        else:
            with self._account.lock:
                self._account.accepted[full_id.rpartition("/")[2]] = queue


class Cleaning(threading.Thread):
    """Has the cleaner work, again and again, until told to stop; and once more then."""

    def __init__(self, rq: RunningInstance, stop: threading.Event, seed: int) -> None:
        super().__init__()
        self._rq, self._stop_event = rq, stop
        self.chance = random.Random(seed)
        #: By queue: how many messages the runs that came to their end say that they removed.
        self.removed: collections.Counter[str] = collections.Counter()
        self.runs = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stop_event.wait(self.chance.uniform(0.5, 3)):  # its pace
                self.once()
        except BaseException as error:  # noqa: BLE001 - raised where the thread is joined
            self.failure = error

    def once(self) -> None:
        """One run; what it says of itself is added up."""
        with contextlib.suppress(RqError, TimeoutError, AssertionError):
            msg_id = self._rq.send("cleaner", param1="ALLQUEUES")
            message = _ended(self._rq.directory, "cleaner", msg_id)
            log = Path(message["path"]) / "job" / "stdio.log"
            for line in log.read_text().splitlines():
                queue, _, words = line.partition(": removed ")
                if words.split()[1:2] and words.split()[1].startswith("message"):
                    self.removed[queue] += int(words.split()[0].replace(",", ""))
            self.runs += 1


def hour(
    directory: Path, messages: int, kills: int, seed: int, *, kept: int = 40, moody: bool = True,
    say: bool = True,
) -> Account:  # fmt: skip
    """Run it all; the cleaner leaves the newest ``kept`` done messages of each queue.

    Raises `AssertionError` with what was found wrong.
    """
    account, stop = Account(), threading.Event()
    receiver = Receiver(account, seed, moody=moody)
    rq = _instance(directory, receiver, kept)
    chance = random.Random(seed)
    senders = [
        Sender(rq.directory, account, seed + n, share, f"{receiver.url}/form")
        for n, share in enumerate((messages // 2, messages - messages // 2))
    ]
    cleaning = Cleaning(rq, stop, seed)
    rq.start()
    try:
        for thread in (*senders, cleaning):
            thread.start()
        for number in range(1, kills + 1):
            _kill_one(rq, chance, account)
            if say and number % 20 == 0:
                print(f"{number} kills, {len(account.accepted)} messages", flush=True)
            stop.wait(chance.uniform(0.2, 1.5))  # the pace of the accidents
        _join(senders)
        _drain(rq, (*QUEUES, "webhook"), say=say)
        stop.set()
        _join([cleaning])
        _audit(rq, account, cleaning, exact=not kills)
        cleaning.once()
        left = {name: _counts(rq.directory, name) for name in (*QUEUES, "webhook")}
        assert kills or all(found["done"] <= kept for found in left.values()), left
        rq.stop()
    finally:
        stop.set()
        if rq.process is not None:
            rq.process.kill()
            rq.process.wait()
        rq.disconnect()
        receiver.close()
    return account


def _instance(directory: Path, receiver: Receiver, kept: int) -> RunningInstance:
    rq = RunningInstance(directory / "rq")
    rq.use_plugins("cli", "cleaner", "webhook")
    secret = "whsec_" + base64.b64encode(SECRET).decode("ascii")
    endpoint = {
        "url": f"{receiver.url}/standard", "format": "standard", "secrets": [secret],
        "events": ["message.done", "message.err"], "queues": list(QUEUES),
    }  # fmt: skip
    retention = {"*": {"done": {"number": kept}}, "cleaner": {"done": "keep"}}
    rq.configure(
        kill_grace=1, stop_grace=20,
        plugins={"webhook": {"endpoints": {"all": endpoint}}, "cleaner": {"retention": retention}},
    )  # fmt: skip
    for name in QUEUES:
        rq.queue(name, SCRIPT, num_workers=2, coalesce_params=[1, 2])
    return rq


def _kill_one(rq: RunningInstance, chance: random.Random, account: Account) -> None:
    """The manager, a queue's process or the service: whoever has scripts that may be run again."""
    assert rq.process is not None
    assert rq.process.poll() is None, f"the manager ended by itself:\n{rq.log_text()[-5000:]}"
    found = {
        pid: line for pid, line in rq.processes().items() if "-m rqcore" in line or "rq-" in line
    }
    kinds = {pid: _kind(rq, pid, line) for pid, line in found.items()}
    pids = sorted(pid for pid, kind in kinds.items() if kind)
    if not pids:
        return
    pid = chance.choice(pids)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        account.killed[kinds[pid]] += 1
    if pid == rq.process.pid:
        rq.process.wait()
        rq.start()


def _kind(rq: RunningInstance, pid: int, line: str) -> str:
    """What it is; empty for a script, whose death is its message's failure by contract.

    A script that is just being started is still its queue by its command line: a child of one that is
    no child of the manager.
    """
    assert rq.process is not None
    if pid == rq.process.pid:
        return "manager"
    if "-m rqcore" not in line:
        return ""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return ""
    a_queues = parent != rq.process.pid and "-m rqcore" in rq.processes().get(parent, "")
    return "" if a_queues else "queue or service"


def _join(threads: Sequence[Sender | Cleaning]) -> None:
    for thread in threads:
        thread.join()
        if thread.failure is not None:
            raise thread.failure


def _counts(directory: Path, queue: str) -> dict[str, int]:
    with QueueClient(directory, queue, timeout=30) as client:
        found: dict[str, int] = client.call("num_messages")
    return found


def _ended(directory: Path, queue: str, msg_id: str) -> dict[str, Any]:
    """Wait until a message has ended; its queue may be killed meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(RqError, TimeoutError):
            with QueueClient(directory, queue, timeout=30) as client:
                message: dict[str, Any] = client.ask("get_message", {"msg_id": msg_id})
            if message["state"] in {"done", "err", "relayed"}:
                return message
        time.sleep(0.05)  # nobody can be followed whose process is killed now and then
    raise AssertionError(f"{queue}/{msg_id} does not end")


def _drain(rq: RunningInstance, queues: Sequence[str], *, say: bool) -> None:
    """Wait until nothing waits, nothing runs and the outbox is empty; as long as anything moves."""
    seen: list[object] = []
    deadline = time.monotonic() + PATIENCE
    outbox = rq.directory / "var" / "webhook" / "outbox"
    while time.monotonic() < deadline:
        now: list[object] = []
        busy = 0
        for name in queues:
            with contextlib.suppress(RqError, TimeoutError):
                found = _counts(rq.directory, name)
                busy += found["que"] + found["run"]
                now.append(found)
        entries = [name for name in os.listdir(outbox) if name.endswith((".go", ".wait"))]
        now.append(sorted(entries))
        if len(now) == len(queues) + 1 and not busy and not entries:
            return
        if now != seen:
            seen, deadline = now, time.monotonic() + PATIENCE
            if say:
                print(f"  {busy} to go", flush=True)
        time.sleep(1)
    raise AssertionError(f"it does not come to an end: {seen}\n{rq.log_text()[-5000:]}")


Places = dict[str, list[tuple[str, str]]]


def _audit(rq: RunningInstance, account: Account, cleaning: Cleaning, *, exact: bool) -> None:
    found: Places = collections.defaultdict(list)
    for queue in (*QUEUES, "webhook"):
        for state in STATES:
            for msg_id in _messages(rq.directory / "queue" / queue / state):
                found[msg_id].append((queue, state))
    problems = [f"{m} is in {places}" for m, places in found.items() if len(places) != 1]
    failed = rq.directory / "queue" / "webhook" / "err"
    problems += [
        f"webhook/{m} failed: {(failed / m / 'status').read_text()}" for m in _messages(failed)
    ]
    for msg_id, queue in account.accepted.items():
        problem = _followed(account, msg_id, found.get(msg_id, []))
        problems += [f"{queue}/{msg_id} {problem}"] if problem else []
    problems += [
        f"{msg_id} {state} was told by {len(ids)} ids: {sorted(ids)}"
        for (msg_id, state), ids in account.signed.items()
        if len(ids) != 1
    ]
    problems += _counted(account, cleaning, found) if exact else []
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:50])


def _followed(account: Account, msg_id: str, places: list[tuple[str, str]]) -> str:
    """What is wrong with the end of a message, and what was told of it; empty for nothing."""
    told = {state for state in ("done", "err") if account.forms[msg_id, state]}
    signed = {state for state in ("done", "err") if account.signed.get((msg_id, state))}
    if len(told) != 1 or told != signed:
        return f"was told as {told} by form, and as {signed} in the standard form"
    if not places:
        account.removed += 1
        return "failed, and was removed" if told == {"err"} else ""
    (state,) = {state for _, state in places} or {""}
    return "" if {state} == told else f"was told to be {told} and is {state}"


def _counted(account: Account, cleaning: Cleaning, found: Places) -> list[str]:
    """What does not come out to the last message, where nobody was killed."""
    strangers = {m for m, _ in (*account.forms, *account.signed)} - set(account.accepted)
    problems = [f"{m} was told, and never accepted" for m in sorted(strangers)]
    said = sum(cleaning.removed[name] for name in QUEUES)
    if said != account.removed:
        problems.append(f"the cleaner says that it removed {said}; {account.removed} are gone")
    webhooks = sum(queue == "webhook" for places in found.values() for queue, _ in places)
    removed = cleaning.removed["webhook"]
    if webhooks + removed != 2 * len(account.accepted):
        accepted = len(account.accepted)
        problems.append(f"{webhooks} webhooks, and {removed} removed, for {accepted} messages")
    return problems


def _messages(root: Path) -> Iterator[str]:
    for _, names, _ in os.walk(root):
        ids = [name for name in names if is_msg_id(name)]
        yield from ids
        names[:] = [name for name in names if not is_msg_id(name)]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="An hour of work with webhooks and cleaner.")
    parser.add_argument("--messages", type=int, default=3600)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--dir", type=Path, default=None, help="where to work")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rq-hour-", dir=options.dir) as folder:
        account = hour(Path(folder), options.messages, options.kills, options.seed)
    print(
        f"{len(account.accepted)} messages, {account.unanswered} unanswered, {account.removed} cleaned "
        f"away; {sum(account.forms.values())} forms and {len(account.signed)} signed webhooks received, "
        f"{account.refused} refused first; {dict(account.killed) or 'nobody'} killed; "
        f"all accounted for, in {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
