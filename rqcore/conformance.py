"""The conformance suite of the SpoolStore protocol: what every store driver must do.

For authors of drivers, and run here on ``directory`` and ``memory``.  A driver's test file says how
to make its store, and pytest does the rest:

    from rqcore.conformance import StoreConformance

    class TestMine(StoreConformance):
        def make_store(self, path):
            return MyStore(path, fsync=True)

`make_store` is called with the same path again to see what a restart finds; a store that keeps
nothing over a restart says ``persistent = False``.  It needs pytest, which the kernel does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from rqcore import durable
from rqcore.errors import NotFoundError
from rqcore.lifecycle import FINAL, TRANSITIONS, State, Step
from rqcore.message import Message, is_msg_id
from rqcore.store import Attached, SpoolStore

_BINARY = bytes(range(256)) * 9
_STRANGE = "line\nbreak \udcff \x00 \u2028 \U0001f600 " + "x" * 5000
_NO_SUCH = "20200101.0000.00.000.000001"


class StoreConformance:
    """See the head of this module."""

    #: Are the messages still there when the store is closed and opened again?
    persistent: ClassVar[bool] = True

    def make_store(self, path: str) -> SpoolStore:
        """A store for the queue whose (existing) directory this is, not yet opened."""
        raise NotImplementedError

    # What the tests work with

    @pytest.fixture
    def queue_path(self, tmp_path: Path) -> str:
        """The directory of a queue."""
        path = tmp_path / "queue" / "test"
        path.mkdir(parents=True)
        return str(path)

    @pytest.fixture
    def store(self, queue_path: str) -> Iterator[SpoolStore]:
        """A new store, open."""
        store = self.make_store(queue_path)
        store.open()
        yield store
        store.close()

    def add(self, store: SpoolStore, state: State = State.QUE, **fields: object) -> Message:
        """A new message in ``prep``, ``que``, or, by the steps on the way, any other state."""
        message = replace(Message(dest="test", param1="one"), msg_id=store.new_id(), **fields)  # type: ignore[arg-type]
        store.add(message, State.PREP if state is State.PREP else State.QUE)
        if state in FINAL:
            store.move(message.msg_id, Step.START, State.QUE, State.RUN)
            store.move(message.msg_id, Step.FINISH, State.RUN, state, status="as wanted")
        elif state is State.RUN:
            store.move(message.msg_id, Step.START, State.QUE, State.RUN)
        store.sync()
        return message

    def attach(self, store: SpoolStore, message: Message, name: str, data: bytes) -> None:
        """Give a message in ``prep`` an attachment."""
        source = Path(store.staging())
        source.write_bytes(data)
        staged = store.staging()
        digest = durable.take_file(source, staged)
        source.unlink()
        store.attach(message.msg_id, State.PREP, name, staged, digest)
        store.sync()

    # Ids

    def test_new_ids_are_ids_and_sort_as_they_were_made(self, store: SpoolStore) -> None:
        ids = [store.new_id() for _ in range(1000)]
        assert all(map(is_msg_id, ids))
        assert ids == sorted(set(ids))

    def test_new_ids_sort_after_all_that_is_there(self, queue_path: str) -> None:
        store = self.make_store(queue_path)
        store.open()
        ahead = "29991231.2359.59.999.000001"
        store.add(Message(msg_id=ahead, dest="test"), State.QUE)
        store.sync()
        if self.persistent:
            store.close()
            store = self.make_store(queue_path)
            store.open()
            assert store.new_id() > ahead
        store.close()

    # Every step of the table

    @pytest.mark.parametrize(
        ("step", "old", "new"),
        [(row.step, row.old, row.new) for row in TRANSITIONS if row.old and row.new],
    )
    def test_a_message_can_take_every_step_of_the_table(
        self, store: SpoolStore, step: Step, old: State, new: State
    ) -> None:
        message = self.add(store, old, param2=_STRANGE)
        bystander = self.add(store, old)
        store.move(message.msg_id, step, old, new)
        store.sync()
        assert store.find(message.msg_id) is new
        assert store.load(message.msg_id, new) == message
        assert store.find(bystander.msg_id) is old
        counts = dict.fromkeys(State, 0)
        counts[old] += 1
        counts[new] += 1
        assert dict(store.counts()) == counts
        assert store.newest(new, 10) == [message.msg_id]
        assert store.newest(old, 10) == [bystander.msg_id]
        with pytest.raises(NotFoundError):
            store.load(message.msg_id, old)

    @pytest.mark.parametrize(
        ("step", "old", "new"),
        [
            (Step.FINISH, State.QUE, State.DONE),
            (Step.START, State.PREP, State.RUN),
            (Step.RETRY, State.DONE, State.QUE),
            (Step.COMMIT, State.QUE, State.PREP),
        ],
    )
    def test_a_step_that_is_not_in_the_table_is_a_defect(
        self, store: SpoolStore, step: Step, old: State, new: State
    ) -> None:
        message = self.add(store, old)
        with pytest.raises(LookupError):
            store.move(message.msg_id, step, old, new)
        assert store.find(message.msg_id) is old

    @pytest.mark.parametrize("state", [State.RUN, *FINAL])
    def test_a_message_begins_in_prep_or_que(self, store: SpoolStore, state: State) -> None:
        with pytest.raises(LookupError):
            store.add(Message(msg_id=store.new_id(), dest="test"), state)
        assert sum(store.counts().values()) == 0

    def test_a_step_takes_fields_and_status_with_it(self, store: SpoolStore) -> None:
        message = self.add(store, State.RUN)
        changed = replace(message, count=7, due=12.5, dups=("a", "b"))
        store.move(
            message.msg_id, Step.RESEND, State.RUN, State.QUE, message=changed, status="later"
        )
        assert store.load(message.msg_id, State.QUE) == changed
        assert store.status(message.msg_id, State.QUE) == "later"

    def test_a_step_without_a_status_keeps_the_one_before(self, store: SpoolStore) -> None:
        message = self.add(store, State.RUN)
        store.set_status(message.msg_id, "half")
        store.move(message.msg_id, Step.RECOVER, State.RUN, State.QUE)
        assert store.status(message.msg_id, State.QUE) == "half"

    def test_what_is_not_there_is_not_found_and_changes_no_count(self, store: SpoolStore) -> None:
        message = self.add(store, State.QUE)
        with pytest.raises(NotFoundError):
            store.move(message.msg_id, Step.FINISH, State.RUN, State.DONE, status="no")
        with pytest.raises(NotFoundError):
            store.move(_NO_SUCH, Step.START, State.QUE, State.RUN)
        with pytest.raises(NotFoundError):
            store.load(_NO_SUCH, State.QUE)
        with pytest.raises(NotFoundError):
            store.remove(_NO_SUCH, State.DONE)
        with pytest.raises(NotFoundError):
            store.set_status(_NO_SUCH, "text")
        assert store.find(_NO_SUCH) is None
        assert store.find("no id at all") is None
        assert store.find("../test") is None
        assert store.counts()[State.QUE] == sum(store.counts().values()) == 1

    def test_the_status_of_a_running_message(self, store: SpoolStore) -> None:
        message = self.add(store, State.RUN)
        assert store.status(message.msg_id, State.RUN) == ""
        store.set_status(message.msg_id, _STRANGE)
        assert store.status(message.msg_id, State.RUN) == _STRANGE

    # Removing

    @pytest.mark.parametrize("state", [s for s in State if s is not State.RUN])
    def test_a_removed_message_is_gone(self, store: SpoolStore, state: State) -> None:
        message, bystander = self.add(store, state), self.add(store, state)
        store.remove(message.msg_id, state)
        store.sync()
        assert store.find(message.msg_id) is None
        assert store.take_trash() == []
        assert store.newest(state, 10) == [bystander.msg_id]
        assert store.counts()[state] == 1

    def test_a_running_message_cannot_be_removed(self, store: SpoolStore) -> None:
        message = self.add(store, State.RUN)
        with pytest.raises(LookupError):
            store.remove(message.msg_id, State.RUN)
        assert store.find(message.msg_id) is State.RUN

    @pytest.mark.parametrize("state", [State.PREP, State.QUE, State.RUN])
    def test_what_is_quarantined_is_no_message_any_more(
        self, store: SpoolStore, state: State
    ) -> None:
        message = self.add(store, state)
        assert store.set_aside() == 0
        store.quarantine(message.msg_id, state, f"because {_STRANGE}")
        store.sync()
        assert store.set_aside() == 1
        assert store.find(message.msg_id) is None
        assert store.counts()[state] == 0
        assert list(store.present(state)) == []

    def test_adopting_what_is_known_or_not_there_does_nothing(self, store: SpoolStore) -> None:
        message = self.add(store, State.QUE)
        assert store.adopt(message.msg_id, State.QUE) is None
        assert store.adopt("nothing of that name", State.PREP) is None
        assert store.vanished(message.msg_id, State.QUE) is False
        assert store.counts()[State.QUE] == 1

    # Listing

    @pytest.mark.parametrize("state", State)
    def test_lists_are_newest_first_and_paged_by_id(self, store: SpoolStore, state: State) -> None:
        ids = [self.add(store, state).msg_id for _ in range(7)][::-1]
        assert store.newest(state, 100) == ids
        assert store.newest(state, 3) == ids[:3]
        assert store.newest(state, 3, ids[2]) == ids[3:6]
        assert store.newest(state, 3, ids[5]) == ids[6:]
        assert store.newest(state, 3, ids[6]) == []
        assert store.newest(state, 3, "99999999") == ids[:3]
        assert sorted(store.present(state), reverse=True) == ids

    def test_a_page_goes_on_behind_a_message_that_is_gone(self, store: SpoolStore) -> None:
        ids = [self.add(store, State.ERR).msg_id for _ in range(5)][::-1]
        store.remove(ids[1], State.ERR)
        assert store.newest(State.ERR, 2, ids[1]) == ids[2:4]

    @pytest.mark.parametrize("state", [State.QUE, State.DONE])
    def test_messages_of_many_days_are_listed_in_order(
        self, store: SpoolStore, state: State
    ) -> None:
        ids = [
            f"20{year}{month}.{hour}{minute}.00.000.000001"
            for year in ("09", "26")
            for month in ("0101", "1231")
            for hour in ("00", "13")
            for minute in ("00", "07", "59")
        ]
        for msg_id in sorted(ids, key=lambda text: text[::-1]):
            store.add(Message(msg_id=msg_id, dest="test"), State.QUE)
            if state is State.DONE:
                store.move(msg_id, Step.DUPLICATE, State.QUE, State.DONE)
        newest = sorted(ids, reverse=True)
        pages: list[str] = []
        while page := store.newest(state, 5, pages[-1] if pages else ""):
            pages += page
        assert pages == newest
        assert store.counts()[state] == len(ids)

    # Directories and attachments

    @pytest.mark.parametrize("state", State)
    def test_a_message_has_a_directory_of_its_own(self, store: SpoolStore, state: State) -> None:
        one, two = self.add(store, state), self.add(store, state)
        paths = [Path(store.directory(m.msg_id, state)) for m in (one, two)]
        assert paths[0] != paths[1]
        assert all(path.is_dir() and path.is_absolute() for path in paths)

    def test_what_a_script_leaves_in_its_directory_stays_with_the_message(
        self, store: SpoolStore
    ) -> None:
        message = self.add(store, State.RUN)
        job = Path(store.directory(message.msg_id, State.RUN)) / "job"
        job.mkdir()
        (job / "stdio.log").write_bytes(_BINARY)
        store.move(message.msg_id, Step.FINISH, State.RUN, State.DONE, status="")
        found = Path(store.directory(message.msg_id, State.DONE)) / "job" / "stdio.log"
        assert found.read_bytes() == _BINARY

    def test_staged_names_are_free_and_never_the_same(self, store: SpoolStore) -> None:
        names = [store.staging() for _ in range(10)]
        assert len(set(names)) == len(names)
        assert not any(Path(name).exists() for name in names)

    def test_an_attachment_goes_along_with_its_digest(self, store: SpoolStore) -> None:
        message = self.add(store, State.PREP)
        self.attach(store, message, "data.bin", _BINARY)
        self.attach(store, message, "empty", b"")
        store.move(message.msg_id, Step.COMMIT, State.PREP, State.QUE)
        store.move(message.msg_id, Step.START, State.QUE, State.RUN)
        store.move(message.msg_id, Step.FINISH, State.RUN, State.DONE, status="")
        binary, empty = store.attached(message.msg_id, State.DONE)
        assert (binary.name, empty.name) == ("data.bin", "empty")
        for item, data in ((binary, _BINARY), (empty, b"")):
            assert Path(item.path).read_bytes() == data
            assert Path(item.path).parent.name == "attach"
            assert item.digest == durable.hash_file(item.path)

    @pytest.mark.parametrize("name", ["a" * 255, "\u00e4 \udcff", "-rf", "a b.c..d"])
    def test_attachments_of_any_name(self, store: SpoolStore, name: str) -> None:
        message = self.add(store, State.PREP)
        self.attach(store, message, name, b"x")
        assert [item.name for item in store.attached(message.msg_id, State.PREP)] == [name]

    def test_attaching_again_replaces(self, store: SpoolStore) -> None:
        message = self.add(store, State.PREP)
        for data in (b"one", b"other", b"other"):
            self.attach(store, message, "name", data)
            [item] = store.attached(message.msg_id, State.PREP)
            assert Path(item.path).read_bytes() == data
            assert item.digest == durable.hash_file(item.path)

    def test_attaching_the_very_file_that_is_attached_leaves_nothing_staged(
        self, store: SpoolStore
    ) -> None:
        message = self.add(store, State.PREP)
        self.attach(store, message, "name", b"content")
        [item] = store.attached(message.msg_id, State.PREP)
        staged = store.staging()
        digest = durable.take_file(item.path, staged)
        store.attach(message.msg_id, State.PREP, "name", staged, digest)
        [again] = store.attached(message.msg_id, State.PREP)
        assert Path(again.path).read_bytes() == b"content"
        assert not Path(staged).exists()

    def test_a_detached_file_is_gone(self, store: SpoolStore) -> None:
        message = self.add(store, State.PREP)
        self.attach(store, message, "keep", b"k")
        self.attach(store, message, "drop", b"d")
        store.detach(message.msg_id, State.PREP, "drop")
        store.sync()
        assert [item.name for item in store.attached(message.msg_id, State.PREP)] == ["keep"]
        with pytest.raises(NotFoundError, match="drop"):
            store.detach(message.msg_id, State.PREP, "drop")

    def test_attaching_to_a_message_that_is_gone(self, store: SpoolStore) -> None:
        message = self.add(store, State.PREP)
        staged = Path(store.staging())
        staged.write_bytes(b"x")
        digest = durable.hash_file(staged)
        store.remove(message.msg_id, State.PREP)
        with pytest.raises(NotFoundError):
            store.attach(message.msg_id, State.PREP, "name", str(staged), digest)
        assert staged.exists(), "the caller clears up what was not taken"
        staged.unlink()

    def test_a_new_message_shares_attachments_with_another(self, store: SpoolStore) -> None:
        source = self.add(store, State.PREP)
        self.attach(store, source, "data.bin", _BINARY)
        shared = store.attached(source.msg_id, State.PREP)
        copy = Message(msg_id=store.new_id(), dest="test")
        store.add(copy, State.QUE, shared)
        store.sync()
        store.remove(source.msg_id, State.PREP)
        [item] = store.attached(copy.msg_id, State.QUE)
        assert Path(item.path).read_bytes() == _BINARY
        assert item.digest == shared[0].digest

    def test_a_file_placed_by_hand_has_no_digest_until_one_is_noted(
        self, store: SpoolStore
    ) -> None:
        message = self.add(store, State.QUE)
        folder = Path(store.directory(message.msg_id, State.QUE)) / "attach"
        folder.mkdir()
        path = folder / "by hand"
        path.write_bytes(_BINARY)
        assert store.attached(message.msg_id, State.QUE) == [Attached("by hand", str(path), None)]
        digest = durable.hash_file(path)
        store.note_digest(message.msg_id, State.QUE, "by hand", digest)
        assert store.attached(message.msg_id, State.QUE)[0].digest == digest

    def test_a_message_that_cannot_be_written_leaves_nothing(self, store: SpoolStore) -> None:
        message = Message(msg_id=store.new_id(), dest="test")
        missing = Attached("gone", "/nowhere/gone", None)
        with pytest.raises(OSError, match="/nowhere/gone"):
            store.add(message, State.QUE, [missing])
        assert store.find(message.msg_id) is None
        assert sum(store.counts().values()) == 0
        store.add(message, State.QUE)
        store.sync()
        assert store.load(message.msg_id, State.QUE) == message

    # Starting again

    def test_everything_is_there_after_a_restart(self, queue_path: str) -> None:
        if not self.persistent:
            return
        store = self.make_store(queue_path)
        store.open()
        messages = {state: self.add(store, state, param2=_STRANGE, due=1.25) for state in State}
        self.attach(store, messages[State.PREP], "data.bin", _BINARY)
        Path(store.staging()).write_bytes(b"promised to nobody")
        store.sync()
        counts = dict(store.counts())
        store.close()

        again = self.make_store(queue_path)
        again.open()
        assert dict(again.counts()) == counts == dict.fromkeys(State, 1)
        for state, message in messages.items():
            assert again.find(message.msg_id) is state
            assert again.load(message.msg_id, state) == message
            assert again.newest(state, 10) == [message.msg_id]
            assert again.status(message.msg_id, state) == ("as wanted" if state in FINAL else "")
        [item] = again.attached(messages[State.PREP].msg_id, State.PREP)
        assert item.digest == durable.hash_file(item.path)
        assert again.new_id() > max(message.msg_id for message in messages.values())
        again.close()

    def test_a_planned_id_can_be_used_after_a_restart(self, queue_path: str) -> None:
        store = self.make_store(queue_path)
        store.open()
        planned = store.new_id()
        store.close()
        again = self.make_store(queue_path)
        again.open()
        assert again.find(planned) is None
        again.add(Message(msg_id=planned, dest="test"), State.QUE)
        again.sync()
        assert again.find(planned) is State.QUE
        again.close()
