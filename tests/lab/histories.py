"""Messages between machines while everything goes wrong that can, and an account: ``make histories``.

Three machines on a network of ours (`tests.lab.network`): two are instances, one of which has its clock
hours ahead; the third speaks only the contract's plain protocol.  In each history a message with
attachments is sent from one to another, and at a phase of its transfer an accident happens
(`tests.lab.plans`).  When it is over, the message must arrive: between instances exactly once, at the
plain end at least once, intact by SHA-256, and at its sender it must be ``relayed`` and nothing else;
no upload, no temporary file and no prepared copy may be left at an instance.  Sometimes more messages go
to the same receiver, and sometimes one to the third machine, which must not wait for the end of the
accident.

    python -m tests.lab.histories [--count 1000] [--seed N] [--only N] [--lanes 2] [--dir DIR]

Needs root: each machine has a file system of its own, small enough to be filled.  All of it (networks,
file systems, processes) is gone when the command ends, however it ends (`tests.lab.capsule`).  A failed
history is told with its seed, its number, and what the machines logged.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import itertools
import os
import random
import select
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from rqcore.errors import RqError
from tests.lab import capsule
from tests.lab.clock import ahead
from tests.lab.machine import Machine, Plain, Rq
from tests.lab.network import Network
from tests.lab.plans import PHASES, SIZES, Plan, plan
from tests.lab.proxy import Exchange, Trap

_Seen = TypeVar("_Seen")
#: How long a message may take once nothing is wrong any more.
PATIENCE = 40.0
_DISK = 64 << 20
_LOOK = 0.02
#: How often a message that waits for its next try is told to try now.
_NUDGE = 0.3
#: Accidents that all messages of the sender have to wait for.
_AT_THE_SENDER = ("kill relay", "kill sender")
_CLOCK_APART = 2 * 3600 + 813


class Lab:
    """The three machines."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.files = {size: self._file(size) for size in SIZES}
        self._stack = contextlib.ExitStack()
        try:
            self.network = self._stack.enter_context(Network("a", "b", "c"))
            hosts = self.network.hosts
            disks = {name: self._disk(name) for name in hosts}
            self.a = Rq(hosts["a"], disks["a"] / "rq")
            self._stack.callback(self.a.close)
            self.b = Rq(hosts["b"], disks["b"] / "rq", ahead(self.folder, _CLOCK_APART))
            self._stack.callback(self.b.close)
            self.c = Plain(hosts["c"], disks["c"] / "plain")
            self._stack.callback(self.c.close)
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def machine(self, name: str) -> Machine:
        """The machine of this name."""
        found: Machine = getattr(self, name)
        return found

    def fill(self, name: str, left: int) -> None:
        """Fill the machine's disk, but for so many bytes."""
        disk = self.folder / name
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as file:
            about = os.statvfs(disk)
            os.posix_fallocate(file.fileno(), 0, max(1, about.f_bavail * about.f_frsize - left))

    def empty(self, name: str) -> None:
        """There is room again."""
        (self.folder / name / "filler").unlink(missing_ok=True)

    def _file(self, size: int) -> Path:
        place = self.folder / "files" / f"{size} bytes"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(random.Random(size).randbytes(size))
        return place

    def _disk(self, name: str) -> Path:
        disk = self.folder / name
        disk.mkdir()
        capsule.mount("tmpfs", disk, f"size={_DISK}")
        self._stack.callback(capsule.unmount, disk)
        return disk


class History:
    """One message, one accident, and the account."""

    def __init__(self, lab: Lab, what: Plan, run: str) -> None:
        self.lab, self.plan = lab, what
        self.token = f"{run}-{what.number}"
        sender = lab.machine(what.sender)
        assert isinstance(sender, Rq)
        self.sender = sender
        self.receiver = lab.machine(what.receiver)
        self.msg_id = ""
        self.sprung = False

    def run(self) -> None:
        """Play it; raises `AssertionError` when the account does not come out."""
        plan, lab = self.plan, self.lab
        lab.network.seed(plan.number)
        if plan.wire:
            lab.network.both_ways(plan.sender, plan.receiver, **plan.wire)
        proxy = self.receiver.proxy
        if plan.before:
            proxy.trap(*plan.before, Exchange.reset)
        trap = proxy.trap(plan.kind, plan.point, self._accident)
        bystander = self._send(self._third(), "other") if plan.bystander else None
        more = [self._send(self.receiver, f"more-{number}") for number in range(plan.more)]
        try:
            self.msg_id = self.sender.prepare(
                f"{self.receiver.url}q/sink", self.token, self._numbered()
            )
            self.sender.commit(self.msg_id)
            self._await_accident(trap)
            if bystander is not None and plan.accident not in _AT_THE_SENDER:
                self._see_through(bystander)  # it does not wait for the end of the accident
        finally:
            self._heal(trap)
        if trap.failed is not None:
            raise trap.failed
        self.sprung = trap.sprung.is_set()
        self._see_through(self.msg_id)
        self._account(self.receiver, self.msg_id, self.token, self._numbered())
        if bystander is not None:
            self._see_through(bystander)
            self._account(self._third(), bystander, f"{self.token}-other", [])
        for number, msg_id in enumerate(more):
            self._see_through(msg_id)
            self._account(self.receiver, msg_id, f"{self.token}-more-{number}", [])
        self._tidy()

    # The accident

    def _accident(self, exchange: Exchange) -> None:
        plan, network = self.plan, self.lab.network
        ends = plan.sender, plan.receiver
        acts: dict[str, Callable[[], None]] = {
            "reset": exchange.reset,
            "silence": exchange.silence,
            "cut": lambda: network.both_ways(*ends, cut=True),
            "cut there": lambda: network.one_way(*ends, cut=True),
            "cut back": lambda: network.one_way(*ends[::-1], cut=True),
            "kill service": self.receiver.kill_service,
            "kill receiver": self.receiver.kill_all,
            "kill sink": self.receiver.kill_sink,
            "kill script": lambda: self.sender.kill_script(self.msg_id),
            "kill relay": lambda: self.sender.kill_queue("relay"),
            "kill sender": self.sender.kill_all,
            "disk full": lambda: self.lab.fill(plan.receiver, plan.left),
        }
        acts[plan.accident]()

    def _await_accident(self, trap: Trap) -> None:
        """Wait until it has happened, or cannot happen any more; then for as long as it lasts."""
        deadline = time.monotonic() + PATIENCE
        nudged = 0.0
        while not trap.sprung.wait(_LOOK):
            state, _, count = self._look(self.msg_id)
            if state in ("relayed", "err"):
                return
            if state == "que" and count and time.monotonic() - nudged > _NUDGE:
                self._nudge(self.msg_id)
                nudged = time.monotonic()
            assert time.monotonic() < deadline, (
                f"it does not come so far: {self._look(self.msg_id)}"
            )
        over = time.monotonic() + self.plan.lasts
        while time.monotonic() < over and self._look(self.msg_id)[0] not in ("relayed", "err"):
            select.select([], [], [], _LOOK)

    def _heal(self, trap: Trap) -> None:
        """Nothing is wrong any more."""
        self.receiver.proxy.clear()
        if trap.begun.is_set():  # an exchange goes on while its accident happens: that may end last
            assert trap.sprung.wait(PATIENCE), "the accident does not end"
            self.receiver.proxy.clear()
        self.lab.network.mend()
        self.lab.empty(self.plan.receiver)
        for machine in (self.sender, self.receiver):
            machine.wait()

    # From there on it must arrive

    def _see_through(self, msg_id: str) -> None:
        deadline = time.monotonic() + PATIENCE
        nudged = 0.0
        while time.monotonic() < deadline:
            state, status, count = self._look(msg_id)
            if state == "relayed":
                return
            if state == "err":
                # By the contract a script that was killed leaves its message in err; that is for the
                # operator to see, and to retry.
                assert "PROCESS EXITED IMPROPERLY" in status, f"it was given up: {status}"
                assert "kill" in self.plan.accident, f"its script failed: {status}"
                with contextlib.suppress(RqError):
                    self.sender.rq.ask("relay", "retry_message", {"msg_id": msg_id})
            elif state == "que" and count and time.monotonic() - nudged > _NUDGE:
                self._nudge(msg_id)
                nudged = time.monotonic()
            select.select([], [], [], _LOOK)
        raise AssertionError(f"it does not arrive: {self._look(msg_id)}")

    def _look(self, msg_id: str) -> tuple[str, str, int]:
        """State, status and count; the state is "unknown" while the queue does not answer."""
        try:
            found = self.sender.rq.message("relay", msg_id)
        except (RqError, TimeoutError):
            return "unknown", "", 0
        return str(found["state"]), str(found["status"]), int(found["count"])

    def _nudge(self, msg_id: str) -> None:
        with contextlib.suppress(RqError, TimeoutError):
            self.sender.rq.ask("relay", "run_message", {"msg_id": msg_id})

    # The account

    def _account(self, receiver: Machine, msg_id: str, token: str, files: list[Path]) -> None:
        left = self.sender.departures(token)
        assert [state for state, _ in left] == ["relayed"], f"at its sender: {left}"
        full_id = self._look(msg_id)[1].rpartition(" ")[2]
        once = isinstance(receiver, Rq)
        came = _wait(  # the sink needs a moment
            lambda: receiver.arrivals(token), lambda came: any(s == "done" for s, _ in came)
        )
        done = [place for state, place in came if state == "done"]
        assert done, f"it has not arrived: {came}"
        if once:
            copies = [state for state, _ in came if state != "done"]
            assert len(done) == 1, f"it has arrived more than once: {came}"
            assert not copies, f"a copy is left: {came}"
        assert full_id.rpartition("/")[2] in [place.name for place in done], (
            f"the sender was told {full_id}, but: {came}"
        )
        wanted = sorted((file.name, _sha256(file)) for file in files)
        for place in done:
            have = sorted((file.name, _sha256(file)) for file in (place / "attach").glob("*"))
            assert have == wanted, f"{place} has {have}, not {wanted}"
        if isinstance(receiver, Rq):
            left_there = _wait(receiver.leftovers, lambda files: not files)
            assert not left_there, f"left at the receiver: {left_there}"

    def _send(self, receiver: Machine, name: str) -> str:
        """Another message, which has nothing attached."""
        sent = self.sender.prepare(f"{receiver.url}q/sink", f"{self.token}-{name}", [])
        self.sender.commit(sent)
        return sent

    def _third(self) -> Machine:
        (name,) = {"a", "b", "c"} - {self.plan.sender, self.plan.receiver}
        return self.lab.machine(name)

    def _numbered(self) -> list[Path]:
        """The files, each under a name of its own."""
        folder = self.lab.folder / "files" / self.token
        folder.mkdir(exist_ok=True)
        made = []
        for number, size in enumerate(self.plan.files):
            place = folder / f"file {number} of {size}"
            if not place.exists():
                os.link(self.lab.files[size], place)
            made.append(place)
        return made

    def _tidy(self) -> None:
        """Give back the room that the attachments take."""
        for _, place in [*self.receiver.arrivals(self.token), *self.sender.departures(self.token)]:
            for file in (place / "attach").glob("*"):
                file.unlink()

    def report(self) -> str:
        """What the machines have to say of a history that failed."""
        parts = []
        for name in dict.fromkeys((self.plan.sender, self.plan.receiver)):
            machine = self.lab.machine(name)
            parts.append(f"--- {name} logged last\n{machine.log_text()[-4000:]}")
        for state, place in self.sender.departures(self.token):
            for file in ("job/stdio.log", "status", "job/relay.json", "job/relay-result.json"):
                with contextlib.suppress(OSError):
                    parts.append(f"--- {state} {file}\n{(place / file).read_text()}")
        return "\n".join(parts)


def _wait(look: Callable[[], _Seen], enough: Callable[[_Seen], bool]) -> _Seen:
    """Look until it is enough, for a few seconds; returns what was seen last."""
    deadline = time.monotonic() + 5
    while not enough(seen := look()) and time.monotonic() < deadline:
        select.select([], [], [], _LOOK)
    return seen


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Play:
    """Histories of one seed, played side by side in several labs, and what came of them."""

    def __init__(self, seed: int, numbers: Iterable[int], folder: Path, most_failures: int) -> None:
        self.seed, self.folder = seed, folder
        self._todo = iter(numbers)
        self._most_failures = most_failures
        self._lock = threading.Lock()
        self._labs = itertools.count()
        self.played = 0
        self.phases: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self.accidents: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        #: How long each took, seconds, and which it was.
        self.times: list[tuple[float, int]] = []

    def run(self, lanes: int) -> None:
        """Play all of them, so many at a time."""
        threads = [threading.Thread(target=self._lane) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _lane(self) -> None:
        number = self._next()
        while number is not None:
            lab = Lab(self.folder, f"lab{next(self._labs)}")
            print(f"{lab.name} is up", flush=True)
            try:
                well = True
                while well and number is not None:
                    well, number = self._play(lab, number), self._next()
                # After a failure the machines are in no known state: the next gets new ones.
            finally:
                with contextlib.suppress(AssertionError):  # as it is after a failure
                    lab.close()

    def _next(self) -> int | None:
        with self._lock:
            return None if len(self.failures) >= self._most_failures else next(self._todo, None)

    def _play(self, lab: Lab, number: int) -> bool:
        began = time.monotonic()
        history = History(lab, plan(self.seed, number), f"h{self.seed}")
        try:
            history.run()
        except Exception as error:  # noqa: BLE001 - whatever it was, this history failed
            told = "".join(traceback.format_exception(error)[-3:])
            text = f"seed {self.seed}, {history.plan}\n{told}\n{history.report()}"
            print(f"FAILED {text.splitlines()[0]}: {error}", flush=True)
            with self._lock:
                self.failures.append(text)
            return False
        with self._lock:
            self.played += 1
            if self.played % 100 == 0:
                print(f"{self.played} histories came out", flush=True)
            self.times.append((time.monotonic() - began, number))
            if history.sprung:
                self.phases[history.plan.far, history.plan.kind, history.plan.point] += 1
                self.accidents[history.plan.accident] += 1
        return True


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Carry messages while everything goes wrong.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", type=int, default=None, help="one history of the seed")
    parser.add_argument("--lanes", type=int, default=2, help="how many are played side by side")
    parser.add_argument("--failures", type=int, default=3, help="give up after so many")
    parser.add_argument("--every-phase", action="store_true", help="fail if a phase was not met")
    parser.add_argument("--dir", type=Path, default=None, help="where to work")
    options = parser.parse_args()
    return capsule.run(lambda: _play(options))


def _play(options: argparse.Namespace) -> int:
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    numbers = list(range(options.count)) if options.only is None else [options.only]
    with tempfile.TemporaryDirectory(prefix="rq-lab-", dir=options.dir) as folder:
        tally = Play(options.seed, numbers, Path(folder), options.failures)
        tally.run(options.lanes)
    for failure in tally.failures:
        print(f"\n=== {failure}")
    missing = [phase for phase in PHASES if phase not in tally.phases]
    print(
        f"{tally.played} histories, {len(tally.failures)} failed, in {time.monotonic() - began:.0f} s; "
        f"{len(tally.phases)} of {len(PHASES)} phases met; accidents: {dict(tally.accidents)}"
    )
    if missing:
        print(f"not met: {missing}")
    if tally.times:
        print(f"the longest (seconds, number): {sorted(tally.times)[-5:]}")
    return 1 if tally.failures or (options.every_phase and missing) else 0


if __name__ == "__main__":
    sys.exit(main())
