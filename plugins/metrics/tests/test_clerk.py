"""What is counted when, and that ends are counted exactly once, whatever is killed when."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

import pytest
from rqcore_metrics import book, clerk
from rqcore_metrics.clerk import Clerk

from rqcore.hookspecs import QueueInfo
from rqcore.lifecycle import State, Step
from rqcore.message import Message

ID = "20261124.1200.00.000.77"
DONE, ERR, RELAYED, QUE, RUN = State.DONE, State.ERR, State.RELAYED, State.QUE, State.RUN


@dataclass
class Ended:
    state: State
    status: str = "fine"
    timed_out: bool = False


class Spool:
    """An instance with one queue, and a clerk that can be killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.queue = QueueInfo("test", str(directory / "queue" / "test"), {})
        Path(self.queue.path, "que").mkdir(parents=True)
        #: An id as this queue makes them.
        self.own = f"20261124.1200.00.000.00000{os.stat(self.queue.path).st_ino}"
        self.clerk = self.begin()

    def begin(self) -> Clerk:
        self.clerk = Clerk(str(self.directory), self.queue)
        return self.clerk

    def lies(self, state: State, msg_id: str = ID) -> None:
        hashed = "20261124/12/00/" if state in (DONE, RELAYED) else ""
        place = Path(self.queue.path, state.value, f"{hashed}{msg_id}")
        place.parent.mkdir(parents=True, exist_ok=True)
        for before in ("que", "run"):
            if Path(self.queue.path, before, msg_id).exists():
                Path(self.queue.path, before, msg_id).rename(place)
                return
        place.mkdir()

    def counts(self) -> book.Counts:
        """What is counted when the turn is over."""
        self.clerk.settled()
        return book.read(f"{book.folder(str(self.directory))}/test")

    def count(self, name: str, label: str = "") -> int:
        return self.counts().counts[name, label]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@pytest.fixture(autouse=True)
def closed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> object:
    made: list[Clerk] = [spool.clerk]
    begin = spool.begin

    def noted() -> Clerk:
        made.append(begin())
        return made[-1]

    monkeypatch.setattr(spool, "begin", noted)
    yield
    for each in made:
        each.close()


def test_ways_in(spool: Spool) -> None:
    message = Message(msg_id=ID, due=time())
    spool.clerk.moved(message, None, QUE, Step.CREATE)
    spool.clerk.moved(replace(message, src="cron"), None, QUE, Step.CREATE)
    spool.clerk.moved(message, None, State.PREP, Step.PREPARE)
    spool.clerk.moved(message, State.PREP, QUE, Step.COMMIT)
    spool.clerk.moved(message, None, QUE, Step.ADOPT)
    spool.clerk.moved(message, None, State.PREP, Step.ADOPT)
    found = [spool.count("enqueued", via) for via in book.VIAS]
    assert dict(zip(book.VIAS, found, strict=True)) == {
        "create": 1, "commit": 1, "cron": 1, "adopt": 1,
    }  # fmt: skip


def test_ways_back_and_out(spool: Spool) -> None:
    message = Message(msg_id=ID, due=time())
    for step, old in (
        (Step.RESEND, RUN), (Step.RETRY, ERR), (Step.RECOVER, RUN), (Step.UNSTART, RUN),
    ):  # fmt: skip
        spool.clerk.moved(message, old, QUE, step)
    assert [spool.count("requeued", cause) for cause in book.CAUSES] == [1, 1, 1, 1]
    for state in (State.PREP, QUE, DONE, RELAYED, ERR):
        spool.clerk.moved(message, state, None, Step.DELETE)
    spool.clerk.moved(message, QUE, None, Step.QUARANTINE)
    assert [spool.count("removed", state) for state in book.REMOVED] == [1] * 5
    assert sum(spool.count("enqueued", via) for via in book.VIAS) == 0


def run(spool: Spool, message: Message, outcome: Ended) -> None:
    spool.clerk.starting(message)
    spool.clerk.moved(message, QUE, RUN, Step.START)
    spool.clerk.started(message)
    spool.clerk.finishing(message, outcome)


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(DONE), "done"), (Ended(ERR), "err"), (Ended(RELAYED), "relayed"),
        (Ended(ERR, timed_out=True), "timeout"),
    ],
)  # fmt: skip
def test_ends(spool: Spool, ended: Ended, outcome: str) -> None:
    message = Message(msg_id=ID, due=time() - 90)
    run(spool, message, ended)
    assert spool.count("finished", outcome) == 0
    spool.clerk.moved(message, RUN, ended.state, Step.FINISH)
    found = spool.counts()
    assert {key: count for key, count in found.counts.items() if count} == {
        ("started", ""): 1, ("finished", outcome): 1,
    }  # fmt: skip
    assert time() - found.numbers["last", outcome] < 60
    values, total = found.histograms["wait"]
    assert values[book.TIMES.index(120)] == sum(values) == 1
    assert 90 <= total < 120
    assert sum(found.histograms["run"][0]) == 1


def test_what_ends_without_a_run_of_its_own_is_a_duplicate(spool: Spool) -> None:
    message = Message(msg_id=ID, due=time())
    spool.clerk.finishing(message, Ended(DONE, "duplicate http://x/q/test/1"))
    spool.clerk.moved(message, QUE, DONE, Step.DUPLICATE)
    # And where nobody was told before, too.
    spool.clerk.moved(message, QUE, RELAYED, Step.DUPLICATE)
    found = spool.counts()
    assert {key: count for key, count in found.counts.items() if count} == {
        ("finished", "duplicate"): 2
    }
    assert sum(found.histograms["run"][0]) == 0


def test_a_script_that_says_duplicate_is_none(spool: Spool) -> None:
    message = Message(msg_id=ID, due=time())
    run(spool, message, Ended(DONE, "duplicate entries were removed"))
    spool.clerk.moved(message, RUN, DONE, Step.FINISH)
    assert spool.count("finished", "done") == 1


def test_a_run_that_is_resent_has_a_time_and_no_end(spool: Spool) -> None:
    message = Message(msg_id=ID, due=time())
    run(spool, message, Ended(QUE))
    spool.clerk.moved(message, RUN, QUE, Step.RESEND)
    found = spool.counts()
    assert sum(found.histograms["run"][0]) == 1
    assert sum(found.counts["finished", outcome] for outcome in book.OUTCOMES) == 0
    spool.clerk.close()
    assert not spool.begin()._ending


def test_one_that_could_not_be_started_has_no_run(spool: Spool) -> None:
    message = Message(msg_id=ID, due=time())
    spool.clerk.starting(message)
    spool.clerk.moved(message, QUE, RUN, Step.START)
    spool.clerk.finishing(message, Ended(ERR))
    spool.clerk.moved(message, RUN, ERR, Step.FINISH)
    assert spool.count("finished", "err") == 1
    assert sum(spool.counts().histograms["run"][0]) == 0


@pytest.mark.parametrize("step", [Step.COMMIT, Step.RETRY, Step.ADOPT, Step.RECOVER])
def test_waiting_begins_in_que(spool: Spool, step: Step) -> None:
    message = Message(msg_id=ID, due=1000)
    old = {Step.COMMIT: State.PREP, Step.RETRY: ERR, Step.ADOPT: None, Step.RECOVER: RUN}[step]
    spool.clerk.moved(message, old, QUE, step)
    run(spool, message, Ended(DONE))
    _, total = spool.counts().histograms["wait"]
    assert total < 60


def test_what_is_due_at_once_has_not_waited_since_the_full_second(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clerk, "time", lambda: 1_795_521_600.7)
    run(spool, Message(msg_id="20261124.1200.00.600.7", due=1_795_521_600), Ended(DONE))
    assert spool.counts().histograms["wait"][1] == pytest.approx(0.1, abs=1e-6)
    run(spool, Message(msg_id="moved.in", due=1_795_521_600), Ended(DONE))
    run(spool, Message(msg_id="20261124.1200.00.600.8", due=1_795_521_500), Ended(DONE))
    assert spool.counts().histograms["wait"][1] == pytest.approx(0.1 + 0.7 + 100.7, abs=1e-6)


def test_heartbeats(spool: Spool) -> None:
    def beat(**fields: str) -> float:
        message = Message(msg_id=ID, due=time(), **fields)  # type: ignore[arg-type]
        run(spool, message, Ended(DONE))
        spool.clerk.moved(message, RUN, DONE, Step.FINISH)
        return spool.counts().numbers["heartbeat", ""]

    assert beat(src="me", param1="heartbeat") == 0
    first = beat(src="heartbeat")
    assert time() - first < 60
    assert beat(src="cron", param1="heartbeat") > first
    message = Message(msg_id=ID, due=time(), src="heartbeat")
    last = spool.counts().numbers["heartbeat", ""]
    run(spool, message, Ended(ERR))
    spool.clerk.moved(message, RUN, ERR, Step.FINISH)
    assert spool.counts().numbers["heartbeat", ""] == last


def test_scripts_processor_time(spool: Spool) -> None:
    message = Message(msg_id=ID, due=time())
    spool.clerk.starting(message)
    spool.clerk.moved(message, QUE, RUN, Step.START)
    spool.clerk.started(message)
    pid = os.fork()
    if not pid:
        while os.times().user < 0.05:
            pass
        os._exit(0)
    os.waitpid(pid, 0)
    spool.clerk.finishing(message, Ended(DONE))
    assert 0.04 <= spool.counts().numbers["cpu", ""] < 5


def test_the_disk(spool: Spool) -> None:
    spool.clerk.synced(0.003)
    spool.clerk.moved(Message(msg_id=ID), None, QUE, Step.CREATE)
    values, total = spool.counts().histograms["sync"]
    assert (values[book.SYNCS.index(0.005)], total) == (1, 0.003)


# --- killed at every step


class Killed(BaseException):
    pass


def life(spool: Spool, step: Callable[[str], object]) -> None:
    """A message from its begin to its end, as a queue's process tells it."""
    message = Message(msg_id=spool.own, due=time())
    step("before it comes")
    spool.lies(QUE, spool.own)
    step("before its coming is told")
    spool.clerk.moved(message, None, QUE, Step.CREATE)
    step("before its coming is written")
    spool.clerk.settled()
    spool.clerk.starting(message)
    spool.lies(RUN, spool.own)
    spool.clerk.moved(message, QUE, RUN, Step.START)
    spool.clerk.started(message)
    spool.clerk.settled()
    step("before its end is told")
    spool.clerk.finishing(message, Ended(DONE))
    step("before the move")
    spool.lies(DONE, spool.own)
    step("before the fact")
    spool.clerk.moved(message, RUN, DONE, Step.FINISH)
    step("after the fact")
    spool.clerk.settled()
    step("after the turn")


@dataclass
class Fate:
    """When a process dies: before or, ``late``, after step number ``fatal``, writes included."""

    fatal: int
    late: bool
    trail: list[str]
    seen: int = 0

    def step(self, place: str, write: Callable[[], int] = lambda: 0) -> int:
        self.seen += 1
        self.trail.append(place)
        if self.seen == self.fatal and not self.late:
            raise Killed
        done = write()
        if self.seen == self.fatal:
            raise Killed
        return done


def died(spool: Spool, fate: Fate, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Live until then; True when it came to that.  What lay in run is back in que, as ever."""
    real = os.pwrite
    killed = False
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "pwrite", lambda fd, data, at: fate.step(f"write {at}", lambda: real(fd, data, at))
        )
        try:
            life(spool, fate.step)
        except Killed:
            killed = True
    folder = Path(spool.queue.path)
    for place in folder.glob("run/*"):
        place.rename(folder / "que" / place.name)
    return killed


@pytest.mark.parametrize("late", [False, True])
def test_what_comes_and_ends_is_counted_once_wherever_the_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    trail: list[str] = []
    for fatal in range(1, 100):
        spool = Spool(tmp_path / str(fatal))
        killed = died(spool, Fate(fatal, late, trail), monkeypatch)
        ended = Path(spool.queue.path, "done").exists()
        came = ended or Path(spool.queue.path, "que", spool.own).exists()
        for _ in range(2):  # the next process, and one more, which has nothing to settle
            spool.clerk.close()
            spool.begin()
            assert spool.count("finished", "done") == ended, (fatal, trail)
            assert spool.count("enqueued", "create") == came, (fatal, trail)
        spool.clerk.close()
        if not killed:
            break
    else:
        pytest.fail("it never gets to the end")
    assert {"before its coming is told", "before the move", "before the fact"} <= set(trail)
    assert len(set(trail)) > 6


def test_a_turn_of_many_messages_is_one_write_and_an_end_that_comes_one_more(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.pwrite, []

    def write(fd: int, data: bytes, at: int) -> int:
        written.append(at)
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", write)
    messages = [Message(msg_id=f"{ID}{number}", due=time()) for number in range(20)]
    for message in messages:
        spool.clerk.moved(message, None, QUE, Step.CREATE)
        spool.clerk.starting(message)
        spool.clerk.moved(message, QUE, RUN, Step.START)
        spool.clerk.started(message)
    spool.clerk.synced(0.001)
    assert not written
    spool.clerk.settled()
    spool.clerk.settled()
    assert len(written) == 1
    for message in messages:
        spool.clerk.finishing(message, Ended(DONE))
    assert len(written) == 1 + len(messages)
    for message in messages:
        spool.clerk.moved(message, RUN, DONE, Step.FINISH)
    spool.clerk.settled()
    assert len(written) == 2 + len(messages)


def test_what_lay_there_before_anybody_counted_and_what_was_moved_in_is_not_counted(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path / "rq")
    book.forget(str(spool.directory), "test")
    spool.clerk.close()
    later = spool.own.replace(".1200.", ".1300.")
    for msg_id in (spool.own, later, "20991124.1200.00.000.000001"):
        spool.lies(QUE, msg_id)
    spool.begin().close()
    assert spool.count("enqueued", "create") == 0
    spool.lies(QUE, spool.own.replace(".1200.", ".1400."))
    spool.begin().close()
    spool.begin().close()
    assert spool.count("enqueued", "create") == 1


def test_more_ends_at_once_than_there_are_slots_are_all_counted(spool: Spool) -> None:
    messages = [Message(msg_id=f"{ID}{number}", due=time()) for number in range(book.SLOTS + 50)]
    for message in messages:
        spool.clerk.finishing(message, Ended(DONE, "duplicate"))
    for message in messages:
        spool.clerk.moved(message, QUE, DONE, Step.DUPLICATE)
    assert spool.count("finished", "duplicate") == len(messages)
    assert spool.begin()._ending == {}
