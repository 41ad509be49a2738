"""The directory store, killed before each of its steps on the file system.

`HISTORIES` are the things that can happen to messages.  A forked child does one of them and dies just
before its Nth step (a rename, a link, a file opened for writing, half a write, ...), for every N until
it gets through.  Then the store is opened again, and compared with `rqcore.lifecycle.TRANSITIONS`:
every message is whole, in one state, and that is the one before the step or the one after it.

Below, hypothesis makes random histories with restarts in between, on both stores, against a model
that is a dictionary.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from rqcore import durable
from rqcore.errors import NotFoundError
from rqcore.lifecycle import TRANSITIONS, State, Step, Transition
from rqcore.message import Message, is_msg_id
from rqcore.store import SpoolStore
from rqcore.stores.directory import DirectoryStore
from rqcore.stores.memory import MemoryStore

pytestmark = pytest.mark.crash

ONE = "20260101.1200.00.000.000001"
OTHER = "20260101.1201.00.000.000002"
BYSTANDER = "20251231.2359.59.999.000001"
BIG = b"0123456789" * 1000
_DIED = 77
_EVENTS = {"os.rename", "os.mkdir", "os.link", "os.remove", "os.rmdir", "os.symlink", "os.truncate"}


# --- dying at a chosen step -----------------------------------------------------------------------


class Countdown:
    """Ends this process just before its Nth step on the file system."""

    def __init__(self, number: int) -> None:
        self._left = number

    def step(self) -> bool:
        """One more; True when it is the last one."""
        self._left -= 1
        return self._left == 0

    def on_event(self, event: str, args: tuple[Any, ...]) -> None:
        opened = (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_CREAT | os.O_TRUNC)
        )
        if (event in _EVENTS or opened) and self.step():
            os._exit(_DIED)

    def install(self) -> None:
        sys.addaudithook(self.on_event)
        write = os.write

        def half_write(fd: int, data: Any) -> int:
            if self.step():
                write(fd, memoryview(data)[: len(data) // 2])
                os._exit(_DIED)
            return write(fd, data)

        os.write = half_write


def dies_at(number: int, act: Callable[[], object]) -> bool:
    """Do it in a child that dies at its Nth step; False when it came to its end before."""
    pid = os.fork()
    if pid == 0:
        _child(number, act)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, _DIED), "see the traceback above"
    return code == _DIED


def _child(number: int, act: Callable[[], object]) -> NoReturn:
    try:
        Countdown(number).install()
        act()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - the child must not run the rest of the tests
        traceback.print_exc()
        os._exit(1)


# --- what can happen ------------------------------------------------------------------------------

Where = State | None
Act = Callable[[SpoolStore], object]


def each(*acts: Act) -> Callable[[SpoolStore], None]:
    """One after another, then a sync."""

    def act(store: SpoolStore) -> None:
        for one in acts:
            one(store)
        store.sync()

    return act


@dataclass(frozen=True)
class History:
    """``before`` leads up to it, ``act`` is what a crash interrupts.

    ``ways`` says for each message in which order it passes through which states meanwhile.
    """

    name: str
    before: Act
    act: Act
    ways: dict[str, tuple[Where, ...]]


def message(msg_id: str = ONE, **fields: Any) -> Message:
    return replace(Message(msg_id=msg_id, dest="test", param1="one", max_count=3), **fields)


def staged(store: SpoolStore, data: bytes) -> tuple[str, durable.Digest]:
    source = store.staging()
    Path(source).write_bytes(data)
    target = store.staging()
    digest = durable.take_file(source, target)
    os.unlink(source)
    return target, digest


def attach(store: SpoolStore, name: str, data: bytes) -> None:
    target, digest = staged(store, data)
    store.attach(ONE, State.PREP, name, target, digest)
    store.sync()


def put(store: SpoolStore, state: State, msg_id: str = ONE) -> None:
    """A message of that state, with an attachment, and with a past if it has run."""
    store.add(message(msg_id), State.PREP)
    target, digest = staged(store, BIG)
    store.attach(msg_id, State.PREP, "kept", target, digest)
    if state is State.PREP:
        return
    store.move(msg_id, Step.COMMIT, State.PREP, State.QUE)
    if state is State.QUE:
        return
    store.move(msg_id, Step.START, State.QUE, State.RUN)
    job = Path(store.directory(msg_id, State.RUN)) / "job"
    job.mkdir()
    (job / "stdio.log").write_text("output\n")
    durable.replace_unsynced(f"{job.parent}/pid", b"1\n2\n")
    if state is not State.RUN:
        store.move(msg_id, Step.FINISH, State.RUN, state, status="as it was")


def move(
    step: Step, old: State, new: State, msg_id: str = ONE, **changes: Any
) -> Callable[[SpoolStore], None]:
    def act(store: SpoolStore) -> None:
        store.move(msg_id, step, old, new, **changes)
        store.sync()

    return act


def one_step(step: Step, old: State, new: State, **changes: Any) -> History:
    return History(
        f"{step} {old} to {new}", putting(old),
        move(step, old, new, **changes), {ONE: (old, new)},
    )  # fmt: skip


def copy(store: SpoolStore) -> None:
    store.add(message(OTHER), State.QUE, store.attached(ONE, State.RUN))
    store.sync()


def absorb(store: SpoolStore) -> None:
    store.move(OTHER, Step.DUPLICATE, State.QUE, State.DONE, status="duplicate")
    store.move(ONE, Step.FINISH, State.RUN, State.DONE, status="done")
    store.sync()


def whole_life(store: SpoolStore) -> None:
    store.add(message(), State.PREP)
    store.sync()
    attach(store, "data", BIG)
    move(Step.COMMIT, State.PREP, State.QUE)(store)
    move(Step.START, State.QUE, State.RUN)(store)
    store.set_status(ONE, "working")
    again = message(count=1, due=5)
    move(Step.RESEND, State.RUN, State.QUE, message=again, status="later")(store)
    move(Step.START, State.QUE, State.RUN)(store)
    move(Step.FINISH, State.RUN, State.ERR, status="failed")(store)
    move(Step.RETRY, State.ERR, State.QUE, message=message())(store)
    move(Step.START, State.QUE, State.RUN)(store)
    move(Step.FINISH, State.RUN, State.DONE, status="fine")(store)


P, Q, R, D, E = State.PREP, State.QUE, State.RUN, State.DONE, State.ERR


def putting(state: State, msg_id: str = ONE) -> Act:
    return lambda store: put(store, state, msg_id)


def removing(state: State) -> Act:
    return each(lambda store: store.remove(ONE, state))


def setting_aside(state: State) -> Act:
    return each(lambda store: store.quarantine(ONE, state, "bad"))


HISTORIES = [
    History("prepare", each(), each(lambda s: s.add(message(), P)), {ONE: (None, P)}),
    History("create", each(), each(lambda s: s.add(message(), Q)), {ONE: (None, Q)}),
    History("attach", putting(P), lambda s: attach(s, "data", BIG), {ONE: (P,)}),
    History("attach again", putting(P), lambda s: attach(s, "kept", b"new"), {ONE: (P,)}),
    History("detach", putting(P), each(lambda s: s.detach(ONE, P, "kept")), {ONE: (P,)}),
    *(one_step(row.step, row.old, row.new) for row in TRANSITIONS if row.old and row.new),
    one_step(Step.FINISH, R, D, status="new status"),
    one_step(Step.RESEND, R, Q, message=message(count=1, due=9), status="later"),
    one_step(Step.START, Q, R, message=message(dups=("x",))),
    one_step(Step.RETRY, E, Q, message=message(due=1)),
    History("copy to another", putting(R), copy, {ONE: (R,), OTHER: (None, Q)}),
    History("absorb a duplicate", each(putting(R), putting(Q, OTHER)), absorb,
            {ONE: (R, D), OTHER: (Q, D)}),
    *(History(f"delete from {state}", putting(state), removing(state), {ONE: (state, None)})
      for state in State if state is not R),
    *(History(f"quarantine from {state}", putting(state), setting_aside(state), {ONE: (state, None)})
      for state in (P, Q, R)),
    History("a whole life", each(), whole_life, {ONE: (None, P, Q, R, Q, R, E, Q, R, D)}),
]  # fmt: skip


# --- what must hold afterwards --------------------------------------------------------------------


def walk(queue: Path) -> dict[str, list[State]]:
    """Every message directory of the spool and the states it is in, by the files alone."""
    found: dict[str, list[State]] = {}
    for state in State:
        depth = "*/*/*/*" if state in (State.DONE, State.RELAYED) else "*"
        for path in (queue / state).glob(depth):
            found.setdefault(path.name, []).append(state)
    return found


def opened(queue: Path) -> DirectoryStore:
    store = DirectoryStore(str(queue), fsync=True)
    store.open()
    return store


def check_whole(store: SpoolStore, queue: Path) -> dict[str, State]:
    """What holds of every spool at rest; returns the messages and their states."""
    found = walk(queue)
    assert all(is_msg_id(name) for name in found)
    assert all(len(states) == 1 for states in found.values()), found
    states = {msg_id: states[0] for msg_id, states in found.items()}
    assert dict(store.counts()) == {
        state: sum(one is state for one in states.values()) for state in State
    }
    assert os.listdir(queue / "tmp") == []
    for msg_id, state in states.items():
        assert store.find(msg_id) is state
        loaded = store.load(msg_id, state)
        assert (loaded.msg_id, loaded.param1, loaded.max_count) == (msg_id, "one", 3)
        for item in store.attached(msg_id, state):
            data = Path(item.path).read_bytes()
            assert data in (BIG, b"new")
            assert item.digest in (None, durable.hash_file(item.path))
    for msg_id in {ONE, OTHER} - states.keys():
        assert store.find(msg_id) is None
    return states


def check_attachments(store: SpoolStore, history: History, states: dict[str, State]) -> None:
    """None is half there, and none is lost that was not being removed."""
    if ONE not in states:
        return
    found = {item.name: item for item in store.attached(ONE, states[ONE])}
    names = {
        "attach": [{"kept"}, {"kept", "data"}],
        "detach": [{"kept"}, set()],
        "a whole life": [set(), {"data"}],
    }.get(history.name, [{"kept"}] if history.name not in ("prepare", "create") else [set()])
    assert set(found) in names
    if history.name == "a whole life" and states[ONE] is not P:
        assert set(found) == {"data"}
    if OTHER in states:
        assert [item.name for item in store.attached(OTHER, states[OTHER])] == ["kept"]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history.name)
def test_a_crash_before_any_step_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, history: History
) -> None:
    steps = 0
    died = True
    reached: dict[str, set[Where]] = {msg_id: set() for msg_id in history.ways}
    while died:
        steps += 1
        queue = tmp_path / str(steps)
        queue.mkdir()
        store = opened(queue)
        put(store, State.QUE, BYSTANDER)
        history.before(store)
        store.sync()
        died = dies_at(steps, lambda store=store: history.act(store))  # type: ignore[misc]
        store.close()

        store = opened(queue)
        states = check_whole(store, queue)
        assert states.pop(BYSTANDER) is State.QUE
        assert set(states) <= set(history.ways)
        for msg_id, way in history.ways.items():
            assert states.get(msg_id) in way
            reached[msg_id].add(states.get(msg_id))
        check_attachments(store, history, states)
        if not died:
            assert [states.get(msg_id) for msg_id in history.ways] == [
                way[-1] for way in history.ways.values()
            ]
        store.close()
    # It began where it was said to begin, and no state of the way was jumped over.
    assert reached == {msg_id: set(way) for msg_id, way in history.ways.items()}
    assert steps > 1


def test_a_crash_while_the_store_is_opened_costs_nothing(tmp_path: Path) -> None:
    steps, died = 0, True
    while died:
        steps += 1
        queue = tmp_path / str(steps)
        queue.mkdir()
        if steps % 2:  # a spool that was left in the middle of something; else a new one
            store = opened(queue)
            put(store, State.RUN)
            store.sync()
            for number in range(3):
                (queue / "tmp" / f"left.{number}" / "attach").mkdir(parents=True)
                (queue / "tmp" / f"left.{number}" / "attach" / "file").write_text("x")
            store.close()
        died = dies_at(steps // 2 + 1, lambda queue=queue: opened(queue).close())  # type: ignore[misc]
        if steps % 2 and not died:
            died = True  # this spool is through; the other kind may need more steps
            if steps > 40:
                break
        store = opened(queue)
        assert check_whole(store, queue) == ({ONE: State.RUN} if steps % 2 else {})
        store.close()
    assert steps > 8


# --- random histories -----------------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Random histories with restarts, against a dictionary."""

    messages = Bundle("messages")
    persistent = True

    def make(self) -> SpoolStore:
        return DirectoryStore(self.path, fsync=False)

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory(prefix="rq-histories-")
        self.path = self.folder.name
        self.store = self.make()
        self.store.open()
        self.states: dict[str, State] = {}
        self.fields: dict[str, Message] = {}
        self.notes: dict[str, str] = {}
        self.files: dict[str, dict[str, bytes]] = {}

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(target=messages, state=st.sampled_from([P, Q]), text=st.text(max_size=20))
    def add(self, state: State, text: str) -> str:
        msg_id = self.store.new_id()
        assert all(msg_id > known for known in self.fields)
        self._added(Message(msg_id=msg_id, dest="test", param1=text), state, [])
        return msg_id

    @rule(target=messages, source=messages, text=st.text(max_size=20))
    def copy(self, source: str, text: str) -> str:
        msg_id = self.store.new_id()
        self._added(Message(msg_id=msg_id, dest="test", param2=text), Q, [source])
        return msg_id

    def _added(self, one: Message, state: State, sources: list[str]) -> None:
        known = [source for source in sources if source in self.states]
        attached = [a for s in known for a in self.store.attached(s, self.states[s])]
        self.store.add(one, state, attached)
        self.states[one.msg_id], self.fields[one.msg_id] = state, one
        self.notes[one.msg_id] = ""
        self.files[one.msg_id] = {k: v for s in known for k, v in self.files[s].items()}

    @rule(
        msg_id=messages, row=st.sampled_from([row for row in TRANSITIONS if row.old and row.new]),
        count=st.none() | st.integers(0, 9), status=st.none() | st.text(max_size=9),
    )  # fmt: skip
    def move(self, msg_id: str, row: Transition, count: int | None, status: str | None) -> None:
        assert row.old is not None
        assert row.new is not None
        changed = None if count is None else replace(self.fields[msg_id], count=count)
        if self.states.get(msg_id) != row.old:
            with pytest.raises(NotFoundError):
                self.store.move(msg_id, row.step, row.old, row.new, message=changed, status=status)
            return
        self.store.move(msg_id, row.step, row.old, row.new, message=changed, status=status)
        self.states[msg_id] = row.new
        self.fields[msg_id] = changed or self.fields[msg_id]
        self.notes[msg_id] = self.notes[msg_id] if status is None else status

    @rule(msg_id=consumes(messages))
    def remove(self, msg_id: str) -> None:
        state = self.states.get(msg_id)
        if state is None or state is R:
            return
        self.store.remove(msg_id, state)
        del self.states[msg_id]

    @rule(msg_id=messages, name=st.sampled_from(["a", "b c", "ü"]), data=st.binary(max_size=99))
    def attach(self, msg_id: str, name: str, data: bytes) -> None:
        if self.states.get(msg_id) is P:
            target, digest = staged(self.store, data)
            self.store.attach(msg_id, P, name, target, digest)
            self.files[msg_id][name] = data

    @rule(msg_id=messages, name=st.sampled_from(["a", "b c", "ü"]))
    def detach(self, msg_id: str, name: str) -> None:
        if self.states.get(msg_id) is not P:
            return
        if self.files[msg_id].pop(name, None) is not None:
            self.store.detach(msg_id, P, name)
        else:
            with pytest.raises(NotFoundError):
                self.store.detach(msg_id, P, name)

    @rule(msg_id=messages, text=st.text(max_size=9))
    def tell(self, msg_id: str, text: str) -> None:
        if self.states.get(msg_id) is R:
            self.store.set_status(msg_id, text)
            self.notes[msg_id] = text

    @rule()
    def sync(self) -> None:
        self.store.sync()

    @rule()
    def restart(self) -> None:
        if self.persistent:
            self.store.close()
            self.store = self.make()
            self.store.open()

    @invariant()
    def is_as_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        for state in State:
            ids = sorted((i for i, at in self.states.items() if at is state), reverse=True)
            assert self.store.counts()[state] == len(ids)
            assert self.store.newest(state, 1000) == ids
            assert self.store.newest(state, 2, ids[0] if ids else "") == ids[1:3]
        for msg_id in self.fields.keys() - self.states.keys():
            assert self.store.find(msg_id) is None
        for msg_id, state in self.states.items():
            assert self.store.find(msg_id) is state
            assert self.store.load(msg_id, state) == self.fields[msg_id]
            assert self.store.status(msg_id, state) == self.notes[msg_id]
            attached = self.store.attached(msg_id, state)
            assert {a.name: Path(a.path).read_bytes() for a in attached} == self.files[msg_id]
            assert all(a.digest == durable.hash_file(a.path) for a in attached)


class MemoryHistories(Histories):
    persistent = False

    def make(self) -> SpoolStore:
        return MemoryStore(self.path, fsync=False)


TestDirectoryHistories = Histories.TestCase
TestMemoryHistories = MemoryHistories.TestCase
TestDirectoryHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMemoryHistories.settings = TestDirectoryHistories.settings
