"""``rq fsck``: a spool spoiled in every way, stopped and running, and one that only works hard."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_cli.fsck.check import Report, check_places, check_queue
from rqcore_cli.fsck.compare import compare
from rqcore_cli.fsck.finding import KINDS
from rqcore_cli.fsck.message import living
from rqcore_cli.fsck.repair import repair
from rqcore_cli.fsck.spool import Walk

from rqcore import recovery
from rqcore.durable import lock_file, take_file
from rqcore.errors import UnreachableError
from rqcore.lifecycle import State, Step
from rqcore.message import Message
from rqcore.stores.directory import DirectoryStore
from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq

PAGE = Path(__file__).parents[3] / "docs" / "fsck.md"
STEPS = {"done": Step.FINISH, "relayed": Step.FINISH, "err": Step.FINISH}


class Spool:
    """A queue's directory in an instance that does not run, with a message in each state."""

    def __init__(self, instance: RunningInstance) -> None:
        instance.queue("work", "/bin/true")
        self.instance = instance.instance
        self.path = instance.directory / "queue" / "work"
        self.store = DirectoryStore(str(self.path), fsync=False)
        self.store.open()
        self.ids = {state: self.add(state) for state in State}

    def add(self, state: State, attachment: bytes = b"some bytes") -> str:
        """A message as the queue leaves it; its attachment is called file."""
        msg_id = self.store.new_id()
        message = Message(msg_id=msg_id, dest="work", orig_msg_id="x")
        first = state if state in (State.PREP, State.QUE) else State.QUE
        self.store.add(message, State.PREP if attachment else first)
        if attachment:
            source = self.path.parent / "source"
            source.write_bytes(attachment)
            staged = self.store.staging()
            self.store.attach(msg_id, State.PREP, "file", staged, take_file(source, staged))
            source.unlink()
            if first is State.QUE:
                self.store.move(msg_id, Step.COMMIT, State.PREP, State.QUE)
        if first is not state:
            self.store.move(msg_id, Step.START, State.QUE, State.RUN)
            (self.dir(msg_id, State.RUN) / "job").mkdir()
            if state is not State.RUN:
                self.store.move(msg_id, Step.FINISH, State.RUN, state, status="ended")
        return msg_id

    def dir(self, msg_id: str, state: State) -> Path:
        return Path(self.store.directory(msg_id, state))

    def of(self, state: State) -> Path:
        """The directory of the message in this state."""
        return self.dir(self.ids[state], state)

    def check(self, *, deep: bool = False, mend: bool = False) -> Report:
        def nobody(order: str, args: Mapping[str, Any] | None) -> Any:
            raise UnreachableError("it does not run")

        report = check_queue(
            self.instance, "work", nobody, deep=deep, mend=mend, tell=lambda _: None
        )
        assert not report.problems
        return report

    def kinds(self, *, deep: bool = False, mend: bool = False) -> list[str]:
        """The kinds that are found, but for the message that waits in run to run again."""
        found = [f.kind for f in self.check(deep=deep, mend=mend).findings]
        if "unfinished" in found:
            found.remove("unfinished")
        return sorted(found)


@pytest.fixture
def spool(rq_instance: RunningInstance) -> Iterator[Spool]:
    made = Spool(rq_instance)
    yield made
    made.store.close()


def test_a_whole_spool_is_whole(spool: Spool) -> None:
    report = spool.check(deep=True)
    assert [f.kind for f in report.findings] == ["unfinished"]
    assert report.counts == dict.fromkeys(State, 1)
    assert (report.running, report.messages) == (False, 6)


def _replace(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def _directory(path: Path) -> None:
    path.mkdir()


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _move(path: Path, into: Path) -> None:
    into.mkdir(parents=True)
    path.rename(into / path.name)


def _copied(spool: Spool, state: State, place: str) -> None:
    """The message of a state a second time, at a place below the queue's directory."""
    target = spool.path / place
    target.mkdir(parents=True)
    (target / "msg").write_bytes((spool.of(state) / "msg").read_bytes())


def _cut_attachment(spool: Spool) -> None:
    os.truncate(spool.of(State.ERR) / "attach" / "file", 3)


def _write_over(spool: Spool) -> None:
    (spool.of(State.DONE) / "attach" / "file").write_bytes(b"other text")


#: Each way of spoiling: what is done, what is found, and where ("" for nowhere) the thing is after
#: a repair, below lost+found or, with a slash at its beginning, below the queue's directory.
WAYS: dict[str, tuple[Callable[[Spool], object], str]] = {
    "no msg in que": (lambda s: (s.of(State.QUE) / "msg").unlink(), "half-written"),
    "an empty directory in prep": (
        lambda s: _directory(s.path / "prep" / s.store.new_id()), "half-written"),
    "no msg, but a job": (lambda s: (s.of(State.DONE) / "msg").unlink(), "orphaned"),
    "no msg in run": (lambda s: (s.of(State.RUN) / "msg").unlink(), "orphaned"),
    "msg torn": (lambda s: _replace(s.of(State.QUE) / "msg", '{"dest": "wo'), "unreadable"),
    "msg empty": (lambda s: _replace(s.of(State.ERR) / "msg", ""), "unreadable"),
    "msg a list": (lambda s: _replace(s.of(State.RELAYED) / "msg", "[]"), "unreadable"),
    "msg a directory": (
        lambda s: _as_directory(s.of(State.PREP) / "msg"), "unreadable"),
    "attachment gone": (lambda s: (s.of(State.QUE) / "attach" / "file").unlink(), "missing-attachment"),
    "attach/ gone": (
        lambda s: (s.of(State.QUE) / "attach").rename(s.path / "elsewhere"), "missing-attachment"),
    "attachment cut": (_cut_attachment, "changed-attachment"),
    "attachment a directory": (
        lambda s: _as_directory(s.of(State.ERR) / "attach" / "file"), "changed-attachment"),
    "in que and done": (
        lambda s: _copied(s, State.DONE, f"que/{s.ids[State.DONE]}"), "doubled"),
    "in err and que": (lambda s: _copied(s, State.ERR, f"que/{s.ids[State.ERR]}"), "doubled"),
    "in done and run": (
        lambda s: _copied(s, State.RUN, os.path.relpath(
            s.dir(s.ids[State.RUN], State.DONE), s.path)), "doubled"),
    "twice in done": (
        lambda s: _copied(s, State.DONE, f"done/20200101/00/00/{s.ids[State.DONE]}"), "doubled"),
    "in another minute": (
        lambda s: _move(s.of(State.DONE), s.path / "done/20200101/00/00"), "misfiled"),
    "not in a minute": (
        lambda s: s.of(State.RELAYED).rename(s.path / "relayed" / s.ids[State.RELAYED]), "misfiled"),
    "named wrongly": (lambda s: s.of(State.ERR).rename(s.path / "err" / "mine"), "misnamed"),
    "named wrongly in done": (lambda s: _directory(s.of(State.DONE).parent / "mine"), "misnamed"),
    "no day in done": (lambda s: _directory(s.path / "done" / "2026112"), "misnamed"),
    "a file in que": (lambda s: (s.path / "que" / "notes.txt").write_text("x"), "stray"),
    "a file as a message": (lambda s: (s.path / "que" / s.store.new_id()).write_text("x"), "stray"),
    "a link as a message": (
        lambda s: (s.path / "que" / s.store.new_id()).symlink_to(s.of(State.DONE)), "stray"),
    "a file as a day": (lambda s: (s.path / "done" / "20260101").write_text("x"), "stray"),
    "a temporary msg": (lambda s: (s.of(State.QUE) / ".msg.tmp").write_text("x"), "leftover"),
    "a temporary cron.json": (lambda s: (s.path / ".cron.json.tmp").write_text("x"), "leftover"),
    "something in tmp": (lambda s: _directory(s.path / "tmp" / "deleted.1"), "leftover"),
    "a pid of the past": (lambda s: (s.of(State.DONE) / "pid").write_text("1\nbefore\n"), "stale-pid"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_spoiling_is_found_and_moved_aside(way: str, spool: Spool) -> None:
    spoil, kind = WAYS[way]
    spoil(spool)
    assert spool.kinds() == [kind]
    assert spool.kinds() == [kind], "without --repair nothing is changed"
    before = sorted(everything(spool.path))
    report = spool.check(mend=True)
    [finding] = [f for f in report.findings if f.kind != "unfinished"]
    if kind == "misfiled":
        state = State(finding.state)
        assert spool.of(state).is_dir()
        assert finding.done.startswith("moved to where it belongs, ")
    else:
        aside = spool.path / finding.done.removeprefix("moved to ")
        assert aside.parent == spool.path / "lost+found"
        assert os.path.lexists(aside)
        reason = Path(f"{aside}.reason").read_text()
        assert reason.startswith(f"{kind}: {finding.text}\nfrom: ")
        assert finding.path.removeprefix(f"{spool.path}/") in reason
    assert spool.kinds() == [], "what is mended is mended"
    after = everything(spool.path)
    lost = {name for name in after if not name.endswith(".reason")} - {"lost+found"}
    assert len(lost) >= len(before), "nothing was removed"


def everything(path: Path) -> set[str]:
    """All that is in a directory, but for the day directories that a move has made."""
    found = {str(p.relative_to(path)) for p in path.rglob("*")}
    return {name for name in found if not re.fullmatch(r"(done|relayed)/\d{8}(/\d\d){0,2}", name)}


NOTES: dict[str, tuple[Callable[[Spool], object], str]] = {
    "digests torn": (lambda s: _replace(s.of(State.QUE) / "digests.json", "{"), "bad-digests"),
    "status torn": (lambda s: _replace(s.of(State.DONE) / "status", "{"), "bad-status"),
    "touched": (lambda s: os.utime(s.of(State.QUE) / "attach" / "file", (1, 1)), "maybe-changed"),
    "half attached": (lambda s: (s.of(State.PREP) / "attach" / "file").unlink(), "leftover"),
    "copied into que": (lambda s: _directory(s.path / "que" / "mine"), "not-adopted"),
    "set aside": (lambda s: s.store.quarantine(s.ids[State.QUE], State.QUE, "odd"), "set-aside"),
}


@pytest.mark.parametrize("way", NOTES)
def test_what_harms_nobody_is_a_note_and_is_left_alone(way: str, spool: Spool) -> None:
    spoil, kind = NOTES[way]
    spoil(spool)
    for mend in (False, True, False):
        report = spool.check(mend=mend)
        assert [f.kind for f in report.findings if f.kind != "unfinished"] == [kind]
        assert not any(f.level == "fault" for f in report.findings)


def test_only_deep_reads_what_is_as_long_as_before(spool: Spool) -> None:
    path = spool.of(State.DONE) / "attach" / "file"
    when = path.stat().st_mtime_ns
    path.write_bytes(b"SOME bytes")
    os.utime(path, ns=(when, when))
    assert spool.kinds() == []
    [finding] = [f for f in spool.check(deep=True).findings if f.kind != "unfinished"]
    assert finding.kind == "changed-attachment"
    assert "'file' has the SHA-256 " in finding.text
    os.utime(spool.of(State.QUE) / "attach" / "file", (1, 1))
    assert spool.kinds(deep=True) == ["changed-attachment"], "a touched one is read, and is whole"


def test_old_things_with_a_dot_are_leftovers(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    (spool.path / "prep" / ".copying").mkdir()
    assert spool.kinds() == [], "somebody copies it there"
    monkeypatch.setattr("rqcore_cli.fsck.spool._OLD", -1)
    assert spool.kinds() == ["leftover"]


def test_a_long_copy_is_no_leftover(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    (spool.path / "prep" / ".copying" / "attach").mkdir(parents=True)
    file = spool.path / "prep" / ".copying" / "attach" / "file"
    file.write_text("x")
    ages = {str(file): 5.0}
    monkeypatch.setattr("rqcore_cli.fsck.spool._age", lambda path: ages.get(path, 9999.0))
    assert spool.kinds() == []
    ages[str(file)] = 4000.0
    assert spool.kinds() == ["leftover"]


def test_a_script_that_outlived_its_queue_is_told_of(spool: Spool) -> None:
    recovery.write_pid_file(str(spool.of(State.RUN)), os.getpid())
    recovery.write_pid_file(str(spool.of(State.ERR)), os.getpid())
    found = {f.state: f for f in spool.check(mend=True).findings}
    assert {f.kind for f in found.values()} == {"alive"}
    assert f"kill {os.getpid()}" in found["run"].remedy
    assert living(str(spool.of(State.ERR))) == os.getpid()
    (spool.of(State.ERR) / "pid").write_text(f"{os.getpid()}\n")
    assert living(str(spool.of(State.ERR))) == 0, "Ruby's RQ wrote no beginning: that is nobody"


def test_a_repair_that_comes_too_late_changes_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spool.of(State.QUE) / "msg").unlink()
    _move(spool.of(State.DONE), spool.path / "done/20200101/00/00")
    found = {f.kind: f for f in spool.check().findings}
    before = everything(spool.path)
    with monkeypatch.context() as patch:
        patch.setattr("os.rename", _refuse)
        with pytest.raises(OSError, match="Input/output error"):
            repair(str(spool.path), found["half-written"])
    spool.of(State.DONE).mkdir(parents=True)
    assert repair(str(spool.path), found["misfiled"]).done.startswith("left alone")
    spool.of(State.DONE).rmdir()
    for path in (found["half-written"].path, found["misfiled"].path):
        Path(path).rename(spool.path / "elsewhere")
        shutil.rmtree(spool.path / "elsewhere")
    assert repair(str(spool.path), found["half-written"]).done == "it is gone"
    assert repair(str(spool.path), found["misfiled"]).done == "it is gone"
    assert repair(str(spool.path), found["unfinished"]).done == ""
    assert everything(spool.path) - before == {"lost+found"}


def _refuse(old: str, new: str) -> None:
    raise OSError(5, "Input/output error", old)


def test_a_queue_that_just_starts_is_not_repaired(spool: Spool) -> None:
    (spool.of(State.QUE) / "msg").unlink()
    lock = lock_file(spool.path / "queue.pid", b"")
    assert lock is not None

    def nobody(order: str, args: Mapping[str, Any] | None) -> Any:
        raise UnreachableError("it does not answer yet")

    report = check_queue(spool.instance, "work", nobody, deep=False, mend=True, tell=lambda _: None)
    os.close(lock)
    assert report.problems == ["queue work has just been started; run rq fsck --repair once more"]
    assert not any(finding.done for finding in report.findings)


def test_what_is_gone_at_the_second_look_was_never_wrong(spool: Spool) -> None:
    spoiled = [State.QUE, State.DONE]
    for state in spoiled:
        (spool.of(state) / "msg").unlink()
    (spool.path / "tmp" / "x").mkdir()
    (spool.path / "done" / "20260101").write_text("x")
    walk = Walk("work", str(spool.path), running=False, deep=False)
    first = list(walk.look())
    assert len(first) == 5
    assert [f.same for f in walk.again(first)] == [f.same for f in first]
    spool.of(State.QUE).rename(spool.path / "elsewhere")
    assert len(walk.again(first)) == 4
    (spool.path / "tmp" / "x").rmdir()
    (spool.path / "done" / "20260101").unlink()
    assert [(f.kind, f.state) for f in walk.again(first)] == [
        ("unfinished", "run"), ("orphaned", "done"),
    ]  # fmt: skip


def test_one_that_moves_is_not_doubled(spool: Spool) -> None:
    """The same directory under two names: it was renamed between the two looks."""
    walk = Walk("work", str(spool.path), running=True, deep=False)
    que, done = spool.of(State.QUE), spool.dir(spool.ids[State.QUE], State.DONE)
    done.parent.mkdir(parents=True, exist_ok=True)
    que.rename(done)
    assert list(walk.look()) == []
    done.rename(que)
    assert list(walk.look()) == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "queue work does not answer; it may hang"),
        (UnreachableError("no permission to speak to queue work"), "no permission to speak"),
    ],
)
def test_a_queue_that_cannot_be_asked_is_taken_for_one_that_runs(
    error: Exception, told: str, spool: Spool
) -> None:
    def ask(order: str, args: Mapping[str, Any] | None) -> Any:
        raise error

    (spool.of(State.RUN) / "msg").unlink()
    report = check_queue(spool.instance, "work", ask, deep=False, mend=True, tell=lambda _: None)
    assert [problem.startswith(told) for problem in report.problems] == [True]
    [finding] = report.findings
    assert (finding.kind, finding.action, finding.done) == ("orphaned", "", "")
    assert "rq kill ends it" in finding.remedy


def test_places_beside_the_queues(spool: Spool) -> None:
    assert check_places(spool.instance) == ([], [])
    root = spool.path.parent
    spool.path.rename(root / "work.deleted.17")
    (root / "lonely" / "que" / spool.ids[State.QUE]).mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "notes.txt").write_text("x")
    found, problems = check_places(spool.instance)
    assert problems == []
    assert [(f.kind, f.level, f.text) for f in found] == [
        ("no-config", "fault",
         "it holds 1 message, and has no config.json: no process works for it"),
        ("deleted-queue", "note", "it holds 6 messages"),
    ]  # fmt: skip


# Compared with what a queue tells


class Told:
    """A queue that tells these counts, one after the other; the last one again and again."""

    def __init__(self, *que: int, listed: tuple[str, ...] = ()) -> None:
        self.que = list(que)
        self.listed = listed

    def __call__(self, order: str, args: Mapping[str, Any] | None) -> Any:
        if order == "num_messages":
            return Counts(self.que)
        assert args is not None
        at = self.listed.index(args["before"]) + 1 if args["before"] else 0
        items = [{"msg_id": msg_id} for msg_id in self.listed[at : at + 1]]
        return ["ok", {"items": items, "next": items[0]["msg_id"] if items else None}]


class Counts(dict[str, int]):
    """Nothing is in any state but que."""

    def __init__(self, que: list[int]) -> None:
        super().__init__(dict.fromkeys(map(str, State), 0))
        self.que = que

    def __getitem__(self, state: str) -> int:
        if state != "que":
            return super().__getitem__(state)
        return self.que.pop(0) if len(self.que) > 1 else self.que[0]


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Three messages that wait; nothing else is there."""
    ids = [f"20260101.0000.00.00{n}.1" for n in (1, 2, 3)]
    for msg_id in ids:
        (tmp_path / "que" / msg_id).mkdir(parents=True)
    return ids


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (Told(3), []),
        (Told(2, 4), []),  # it changed while it was counted
        (Told(2, 2, 3), []),  # it was in the midst of a step
        (Told(4), [("count", "the queue tells 4, there are 3")]),
        (Told(1, 1, 5, 5, 1, 1, 5, 5, 1, 1, 5), [("busy", "changes too quickly to be compared")]),
    ],
)
def test_counts_are_believed_only_when_they_stay(
    told: Told, found: list[tuple[str, str]], three: list[str], tmp_path: Path
) -> None:
    assert [(f.kind, f.text) for f in compare("work", str(tmp_path), told)] == found


def test_a_queue_is_told_which_messages_it_does_not_know(three: list[str], tmp_path: Path) -> None:
    [unknown] = compare("work", str(tmp_path), Told(2, listed=(three[2], three[0])))
    assert (unknown.kind, unknown.msg_id) == ("unknown", three[1])
    assert "never runs" in unknown.text


# The command, and queues that run


@pytest.mark.process
def test_it_tells_people_and_programs_and_the_exit_status(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    spool = Spool(rq_instance)
    spool.store.close()
    result = rq("fsck")
    assert result.out.splitlines()[0].split() == [
        "QUEUE", "PREP", "QUE", "RUN", "DONE", "RELAYED", "ERR", "FAULTS",
    ]  # fmt: skip
    assert result.out.splitlines()[1].split() == ["work", "stopped", *"111111", "0"]
    assert "6 messages in 1 queues" in result.err
    assert (rq("fsck", "-q").out, rq("fsck", "-q").err) == ("", "")
    assert "nothing is wrong, 1 note" in result.err
    (spool.of(State.QUE) / "msg").unlink()
    (spool.path / "done" / "\x1b[2J").write_text("x")
    shown = rq("fsck", "work", status=4)
    assert "fault half-written: queue/work/que/" in shown.out
    assert "queue/work/done/\\x1b[2J: neither a message nor a directory" in shown.out
    assert "rq fsck --repair moves it into lost+found" in shown.out
    quiet = rq("fsck", "-q", status=4)
    assert (len(quiet.out.splitlines()), quiet.err) == (4, "")
    told = rq("fsck", "--json", status=4).json()
    assert (told["faults"], told["left"], told["notes"], told["messages"]) == (2, 2, 1, 6)
    assert told["queues"][0]["counts"]["que"] == 1
    assert {f["kind"] for f in told["findings"]} == {"half-written", "stray", "unfinished"}
    mended = rq("fsck", "--repair", "--json", status=1).json()
    assert (mended["faults"], mended["left"]) == (2, 0)
    assert rq("fsck", "--json").json()["faults"] == 0
    assert "there is no queue none" in rq("fsck", "none", status=3).err
    config = json.loads((spool.path / "config.json").read_text())
    (spool.path / "config.json").write_text(json.dumps({**config, "store": "memory"}))
    assert "store memory: not looked at" in rq("fsck").out
    (spool.path / "config.json").write_text("{")
    assert "config.json" in rq("fsck", status=8).err, "not known how it is kept"


@pytest.mark.process
def test_a_running_queue_is_compared_and_repaired(rq: Rq, running: RunningInstance) -> None:
    ended = [rq.send("work", "--param1", "done", "--wait").split("/")[1] for _ in range(3)]
    queue = running.directory / "queue" / "work"
    rq("queue", "pause", "work")
    waiting = [running.send("work", param1=str(n)) for n in range(3)]
    told = rq("fsck", "--json").json()
    assert (told["faults"], told["notes"], told["queues"][0]["running"]) == (0, 0, True)
    assert told["queues"][0]["counts"] == told["queues"][0]["told"]
    # Taken away by a hand, which nobody notices in done; spoiled while it waits; brought in by cp -r.
    done = next(queue.glob(f"done/*/*/*/{ended[0]}"))
    done.rename(queue / "taken")
    (queue / "que" / waiting[0] / "msg").unlink()
    fresh = "20200101.0000.00.000.1"
    (queue / "que" / fresh).mkdir()
    (queue / "que" / fresh / "msg").write_text(json.dumps({"dest": "work"}))
    torn = "20200101.0000.00.000.2"
    (queue / "que" / torn).mkdir()
    (queue / "que" / torn / "msg").write_text('{"de')
    found = rq("fsck", "--json", status=4).json()["findings"]
    assert {(f["kind"], f["state"], f["msg_id"]) for f in found} == {
        ("count", "done", None), ("half-written", "que", waiting[0]), ("unknown", "que", fresh),
        ("unreadable", "que", torn),
    }  # fmt: skip
    assert "rq queue restart work" in next(f for f in found if f["kind"] == "count")["remedy"]
    mended = rq("fsck", "--repair", "--json", status=4).json()
    assert mended["left"] == 2, "the queue itself has to be told"
    rq("queue", "restart", "work")
    running.serving("work")
    assert rq("fsck", "--json").json()["faults"] == 0
    assert running.ask("work", "num_messages") == {
        "prep": 0, "que": 3, "run": 0, "done": 2, "relayed": 0, "err": 0,
    }  # fmt: skip


@pytest.mark.process
def test_a_queue_that_works_hard_gives_no_false_alarm(rq: Rq, rq_instance: RunningInstance) -> None:
    script = "#!/bin/sh\necho run 1 >&3\necho done >&3\n"
    rq_instance.queue("fast", script, num_workers=4, exec_prefix="")
    rq_instance.start()
    file = rq_instance.directory / "file"
    file.write_bytes(b"x" * 1000)
    ended = threading.Event()

    def work() -> None:
        with rq_instance.client("fast") as client:
            while not ended.is_set():
                full_id = client.ask("prep_message", {"dest": "fast"})
                args = {"msg_id": full_id, "pathname": str(file), "name": "file"}
                client.ask("attach_message", args)
                client.ask("commit_message", {"msg_id": full_id})
                client.ask("create_message", {"dest": "fast"})

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(4):
            told = rq("fsck", "--deep", "--json").json()
            assert [f for f in told["findings"] if f["kind"] != "busy"] == []
    finally:
        ended.set()
        worker.join()
    assert rq_instance.ask("fast", "num_messages")["done"] > 0


def test_the_page_has_every_kind_and_exit_status() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (fault|note) \| (.+) \|", text, re.MULTILINE)
    assert {kind: (level, meaning) for kind, level, meaning in rows} == KINDS
    assert re.findall(r"^\| (\d) \| ", text, re.MULTILINE) == ["0", "1", "2", "3", "4", "8"]
