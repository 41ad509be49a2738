"""The stores: the conformance suite on both, how they are chosen, and what hands do to directories."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqcore import durable
from rqcore.conformance import StoreConformance
from rqcore.errors import NotFoundError, StoreLoadError
from rqcore.lifecycle import State, Step
from rqcore.message import Message
from rqcore.store import SpoolStore, UnreadableError, open_store
from rqcore.stores.directory import DirectoryStore
from rqcore.stores.memory import MemoryStore
from tests.limits import no_descriptor_left

ID = "20260101.1200.00.000.00000123"


class TestDirectory(StoreConformance):
    def make_store(self, path: str) -> SpoolStore:
        return DirectoryStore(path, fsync=True)


class TestDirectoryWithoutFsync(StoreConformance):
    def make_store(self, path: str) -> SpoolStore:
        return DirectoryStore(path, fsync=False)


class TestMemory(StoreConformance):
    persistent = False

    def make_store(self, path: str) -> SpoolStore:
        return MemoryStore(path, fsync=True)


# --- chosen by name -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


@pytest.mark.parametrize(("name", "kind"), [("directory", DirectoryStore), ("memory", MemoryStore)])
def test_a_store_is_chosen_by_name_and_comes_open(tmp_path: Path, name: str, kind: type) -> None:
    store = open_store(name, str(tmp_path), fsync=True)
    assert isinstance(store, kind)
    assert sum(store.counts().values()) == 0
    store.close()


def distribution(site: Path, name: str, entry_point: str, module: str = "") -> None:
    """Put a distribution with one store driver into a directory, as pip would."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rqcore.store]\n{entry_point}\n")
    if module:
        (site / f"{name}_module.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    return path


def refusal(driver: str, path: Path) -> str:
    with pytest.raises(StoreLoadError) as caught:
        open_store(driver, str(path), fsync=True)
    return str(caught.value)


def test_a_strangers_driver_is_found_by_its_entry_point(site: Path, tmp_path: Path) -> None:
    module = "from rqcore.stores.memory import MemoryStore as Base\nclass Cloud(Base): pass\n"
    distribution(site, "rqcloud", "cloud = rqcloud_module:Cloud", module)
    store = open_store("cloud", str(tmp_path), fsync=True)
    assert type(store).__name__ == "Cloud"
    store.close()


def test_an_unknown_driver_is_refused_with_those_there_are(tmp_path: Path) -> None:
    assert refusal("postgress", tmp_path) == (
        'no store driver "postgress" is installed; there are: directory, memory. '
        'Correct "store" in the configuration, or install the package that brings it'
    )


@pytest.mark.parametrize(
    ("target", "module", "why"),
    [
        ("rqbroken_absent:Store", "", "ModuleNotFoundError: No module named 'rqbroken_absent'"),
        ("rqbroken_module:Absent", "", "AttributeError: "),
        ("rqbroken_module:Store", "1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_driver_is_refused_with_the_reason(
    site: Path, tmp_path: Path, target: str, module: str, why: str
) -> None:
    distribution(site, "rqbroken", f"broken = {target}", module or "pass\n")
    text = refusal("broken", tmp_path)
    assert text.startswith(f'the store driver "broken" cannot be loaded: {why}')
    assert text.endswith("; reinstall the package that brings it")


def test_a_driver_that_two_distributions_bring_is_refused_with_both(
    site: Path, tmp_path: Path
) -> None:
    for name in ("rqone", "rqtwo"):
        distribution(site, name, f"same = {name}_module:Store")
    assert refusal("same", tmp_path) == (
        'more than one store driver is named "same": rqone 1.0, rqtwo 1.0; uninstall one'
    )


# --- directories, and the hands that change them --------------------------------------------------


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    path = tmp_path / "queue"
    path.mkdir()
    return path


@pytest.fixture
def store(queue: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore(str(queue), fsync=True)
    store.open()
    yield store
    store.close()


def add(store: DirectoryStore, state: State = State.QUE) -> str:
    message = Message(msg_id=store.new_id(), dest="test", param1="one")
    store.add(message, State.PREP if state is State.PREP else State.QUE)
    if state is State.ERR:
        store.move(message.msg_id, Step.START, State.QUE, State.RUN)
        store.move(message.msg_id, Step.FINISH, State.RUN, State.ERR)
    store.sync()
    return message.msg_id


def test_a_message_is_one_directory_with_readable_files(store: DirectoryStore, queue: Path) -> None:
    msg_id = add(store)
    folder = queue / "que" / msg_id
    assert json.loads((folder / "msg").read_bytes())["param1"] == "one"
    store.move(msg_id, Step.START, State.QUE, State.RUN)
    store.move(msg_id, Step.FINISH, State.RUN, State.DONE, status="fine")
    day, minute = msg_id[:8], (msg_id[9:11], msg_id[11:13])
    folder = queue / "done" / day / minute[0] / minute[1] / msg_id
    assert json.loads((folder / "status").read_bytes()) == {"job_status": "fine"}
    assert sorted(os.listdir(folder)) == ["msg", "status"]
    assert os.listdir(queue / "tmp") == []


@pytest.mark.parametrize("state", [State.PREP, State.QUE])
def test_a_directory_moved_in_by_hand_is_adopted(
    store: DirectoryStore, queue: Path, state: State
) -> None:
    msg_id = add(store, State.ERR)
    (queue / "err" / msg_id).rename(queue / state / msg_id)
    assert store.vanished(msg_id, State.ERR)
    assert store.adopt(msg_id, state) == msg_id
    assert store.adopt(msg_id, state) is None
    assert (store.counts()[state], store.counts()[State.ERR]) == (1, 0)
    assert store.newest(state, 5) == [msg_id]


def test_a_name_that_is_no_id_becomes_one(store: DirectoryStore, queue: Path) -> None:
    folder = queue / "prep" / "my message"
    folder.mkdir()
    (folder / "msg").write_text('{"dest": "test", "param4": "by hand"}')
    msg_id = store.adopt("my message", State.PREP)
    assert msg_id is not None
    assert store.load(msg_id, State.PREP).param4 == "by hand"
    assert not folder.exists()


def test_an_id_that_is_in_use_elsewhere_becomes_another(store: DirectoryStore, queue: Path) -> None:
    msg_id = add(store, State.ERR)
    copy = queue / "que" / msg_id
    copy.mkdir()
    (copy / "msg").write_bytes((queue / "err" / msg_id / "msg").read_bytes())
    adopted = store.adopt(msg_id, State.QUE)
    assert adopted not in (None, msg_id)
    assert store.find(msg_id) is State.ERR
    assert store.find(str(adopted)) is State.QUE


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/tmp")])
def test_what_is_no_directory_is_not_adopted(
    store: DirectoryStore, queue: Path, make: Callable[[Path], None]
) -> None:
    make(queue / "que" / ID)
    assert store.adopt(ID, State.QUE) is None


def test_a_message_taken_away_by_hand_is_not_found_and_not_counted(
    store: DirectoryStore, queue: Path
) -> None:
    taken, left = add(store), add(store)
    os.rename(queue / "que" / taken, queue / "elsewhere")
    with pytest.raises(NotFoundError):
        store.move(taken, Step.START, State.QUE, State.RUN)
    assert store.counts()[State.QUE] == 1
    assert store.newest(State.QUE, 5) == [left]
    os.rename(queue / "que" / left, queue / "elsewhere too")
    assert store.vanished(left, State.QUE)
    assert store.counts()[State.QUE] == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its file 'msg' is not JSON"),
        (b"\0\0\0", "its file 'msg' is not JSON"),
        (b"[]", "its file 'msg' is not a JSON object but a list"),
        (b'{"param1": "x"}', 'missing required "dest"'),
        (None, "it has no file 'msg'"),
    ],
)
def test_what_cannot_be_read_says_why_and_can_be_set_aside(
    store: DirectoryStore, queue: Path, content: bytes | None, reason: str
) -> None:
    msg_id = add(store)
    file = queue / "que" / msg_id / "msg"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UnreadableError, match=reason):
        store.load(msg_id, State.QUE)
    store.quarantine(msg_id, State.QUE, reason)
    store.sync()
    assert (queue / "corrupt" / msg_id).is_dir()
    assert (queue / "corrupt" / f"{msg_id}.reason").read_text() == f"{reason}\n"


def test_a_file_in_the_place_of_a_message_can_be_set_aside(
    store: DirectoryStore, queue: Path
) -> None:
    (queue / "que" / ID).write_text("what?")
    store.close()
    store.open()
    with pytest.raises(UnreadableError):
        store.load(ID, State.QUE)
    store.quarantine(ID, State.QUE, "no directory")
    assert (queue / "corrupt" / ID).read_text() == "what?"
    assert store.counts()[State.QUE] == 0


def test_things_set_aside_under_one_name_are_all_kept(store: DirectoryStore, queue: Path) -> None:
    for number in range(3):
        store.add(Message(msg_id=ID, dest="test", param1=str(number)), State.QUE)
        store.quarantine(ID, State.QUE, f"reason {number}")
    kept = sorted(path for path in (queue / "corrupt").iterdir() if path.is_dir())
    assert [json.loads((path / "msg").read_bytes())["param1"] for path in kept] == ["0", "1", "2"]
    assert [Path(f"{path}.reason").read_text() for path in kept] == [
        "reason 0\n", "reason 1\n", "reason 2\n",
    ]  # fmt: skip


def test_what_is_set_aside_is_counted_again_only_when_it_changed(
    store: DirectoryStore, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def aged() -> None:
        """Two changes at once would bear the same time."""
        long_ago = os.stat(queue / "corrupt").st_mtime_ns - 5_000_000_000
        os.utime(queue / "corrupt", ns=(long_ago, long_ago))

    assert store.set_aside() == 0
    store.quarantine(add(store), State.QUE, "spoiled")
    assert store.set_aside() == 1
    aged()
    assert store.set_aside() == 1
    with monkeypatch.context() as patch:
        patch.setattr(durable, "children", lambda _: pytest.fail("it was looked at again"))
        assert store.set_aside() == 1
    for path in (queue / "corrupt").iterdir():  # by hand, the reason too
        path.rename(queue / path.name)
    assert store.set_aside() == 0
    (queue / "corrupt").rmdir()
    assert store.set_aside() == 0


def test_running_out_of_descriptors_makes_no_message_unreadable(
    store: DirectoryStore,
) -> None:
    msg_id = add(store)
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        store.load(msg_id, State.QUE)
    assert store.load(msg_id, State.QUE).param1 == "one"


def test_a_finished_message_that_is_there_already_is_set_aside(
    store: DirectoryStore, queue: Path
) -> None:
    for text in ("first", "second"):
        store.add(Message(msg_id=ID, dest="test", param1=text), State.QUE)
        store.move(ID, Step.START, State.QUE, State.RUN)
        store.move(ID, Step.FINISH, State.RUN, State.DONE, status=text)
    assert store.load(ID, State.DONE).param1 == "second"
    assert json.loads((queue / "corrupt" / ID / "msg").read_bytes())["param1"] == "first"
    assert "second time" in (queue / "corrupt" / f"{ID}.reason").read_text()
    assert store.counts()[State.DONE] == 1


def test_a_digest_counts_only_for_the_file_it_was_taken_of(
    store: DirectoryStore, queue: Path
) -> None:
    message = Message(msg_id=store.new_id(), dest="test")
    store.add(message, State.PREP)
    TestDirectory().attach(store, message, "name", b"content")
    path = queue / "prep" / message.msg_id / "attach" / "name"
    path.unlink()
    path.write_bytes(b"changed by hand")
    [item] = store.attached(message.msg_id, State.PREP)
    assert item.digest is None


@pytest.mark.parametrize(
    "name", ["99999999.9999.99.999.1", "20260231.0000.00.000.1", "00000000.0000.00.000"]
)
def test_an_id_of_no_time_at_all_does_not_stop_the_store(queue: Path, name: str) -> None:
    (queue / "que" / name).mkdir(parents=True)
    (queue / "que" / name / "msg").write_text('{"dest": "test"}')
    store = DirectoryStore(str(queue), fsync=True)
    store.open()
    assert store.load(name, State.QUE).dest == "test"
    store.new_id()
    store.close()


def test_counts_of_many_minutes_are_right_after_a_restart(
    queue: Path, store: DirectoryStore
) -> None:
    for hour in range(3):
        for minute in range(4):
            for number in range(hour + minute):
                msg_id = f"20260101.{hour:02}{minute:02}.00.000.{number:06}"
                store.add(Message(msg_id=msg_id, dest="test"), State.QUE)
                store.move(msg_id, Step.DUPLICATE, State.QUE, State.DONE)
    (queue / "done" / "20260101" / "no hour").touch()
    counts = dict(store.counts())
    store.close()
    store.open()
    assert dict(store.counts()) == counts
    assert counts[State.DONE] == 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user here")
def test_what_cannot_be_cleared_away_harms_nobody() -> None:
    """A script, or a container it ran, left something in job/ that we may not remove."""
    with tempfile.TemporaryDirectory(prefix="rq-test-") as place:
        os.chown(place, _NOBODY, _NOBODY)
        os.seteuid(_NOBODY)
        try:
            store = DirectoryStore(place, fsync=True)
            store.open()
            msg_id = add(store)
            with _as_root():
                stubborn = Path(place) / "que" / msg_id / "job"
                stubborn.mkdir()
                (stubborn / "file").touch()
            store.remove(msg_id, State.QUE)
            assert store.find(msg_id) is None
            assert store.counts()[State.QUE] == 0
            store.close()
            store.open()
            assert add(store) > msg_id
            store.close()
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("folder", ["attach", "job"])
def test_what_takes_long_to_remove_is_left_to_whoever_has_time(tmp_path: Path, folder: str) -> None:
    store = DirectoryStore(str(tmp_path), fsync=True)
    store.open()
    heavy, linked, light = add(store), add(store), add(store)
    for msg_id, size in ((heavy, 64 << 20), (linked, 64 << 20), (light, (64 << 20) - 1)):
        place = tmp_path / "que" / msg_id / folder
        place.mkdir()
        with (place / "file").open("wb") as file:
            file.truncate(size)
        if msg_id == linked:
            (tmp_path / "elsewhere").hardlink_to(place / "file")
    for msg_id in (heavy, linked, light):
        store.remove(msg_id, State.QUE)
        assert store.find(msg_id) is None
    (path,) = store.take_trash()
    assert store.take_trash() == []
    assert [str(left) for left in (tmp_path / "tmp").iterdir()] == [path]
    assert (Path(path) / folder / "file").exists()
    store.close()
    store.open()
    assert not any((tmp_path / "tmp").iterdir())
    store.close()


_NOBODY = 65534


@contextlib.contextmanager
def _as_root() -> Iterator[None]:
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(_NOBODY)
