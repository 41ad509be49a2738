"""rqcore.durable: what a write leaves behind when it works, and when it does not.

That the disk really has what was promised is seen by tests/crash/test_durability_order.py; here the
system's sync calls are listened to, not replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import resource
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore import durable, unix
from rqcore.durable import ChangedError, Digest, Sync
from tests.limits import no_descriptor_left

DATA = b"content"


def digest(data: bytes) -> Digest:
    md5, sha256 = hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
    return Digest(len(data), md5, sha256)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is brought to the disk from now on, in order: paths, or "all"."""
    calls: list[str] = []
    fsync, syncfs = unix.fsync, unix.syncfs

    def listen(fd: int) -> None:
        calls.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    def listen_all(fd: int) -> None:
        calls.append("all")
        syncfs(fd)

    monkeypatch.setattr(unix, "fsync", listen)
    monkeypatch.setattr(unix, "syncfs", listen_all)
    return calls


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond this size fail, as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- one thing at a time --------------------------------------------------------------------------


@given(st.binary(max_size=5000))
def test_a_written_file_holds_what_was_given(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("write")
    durable.write_file(folder / "file", b"before")
    durable.write_file(folder / "file", data)
    assert (folder / "file").read_bytes() == data
    assert os.listdir(folder) == ["file"]


def test_a_file_is_synced_before_it_gets_its_name_and_its_directory_after(
    tmp_path: Path, synced: list[str]
) -> None:
    durable.write_file(tmp_path / "file", DATA, mode=0o600)
    assert synced == [f"{tmp_path}/.file.tmp", str(tmp_path)]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: durable.make_dir(folder / "new"),
        lambda folder: durable.touch_file(folder / "new"),
        lambda folder: durable.symlink("/target", folder / "new"),
        lambda folder: durable.remove_file(folder / "old"),
        lambda folder: durable.move_dir(folder / "old", folder / "new"),
    ],
    ids=["make_dir", "touch_file", "symlink", "remove_file", "move_dir"],
)
def test_an_entry_lasts_when_its_directory_is_synced(
    tmp_path: Path, synced: list[str], act: object
) -> None:
    (tmp_path / "old").touch()
    act(tmp_path)  # type: ignore[operator]
    assert synced[-1] == str(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write_file(path, DATA)
    with file_size_limit(3), pytest.raises(OSError, match="File too large"):
        durable.write_file(path, b"more than fits")
    assert path.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["file"]


def test_a_temporary_file_that_a_crash_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"half and long" * 100)
    durable.write_file(tmp_path / "file", DATA)
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / ".file.tmp").symlink_to(tmp_path / "victim")
    durable.write_file(tmp_path / "file", DATA)
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(
    "remove", [durable.remove_file, durable.remove_quietly, durable.remove_tree]
)
def test_removing_what_is_not_there_is_no_error(tmp_path: Path, remove: object) -> None:
    remove(tmp_path / "nothing")  # type: ignore[operator]


def test_a_tree_or_a_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").touch()
    (tmp_path / "file").touch()
    durable.remove_tree(tmp_path / "tree")
    durable.remove_tree(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_cleared_away_is_told_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    with no_descriptor_left():
        durable.clear_away(tmp_path / "tree")
    assert f"{tmp_path}/tree stays behind" in caplog.text


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("a longer text that somebody left here\n")
    lock = durable.lock_file(path, b"123\n")
    assert lock is not None
    assert path.read_bytes() == b"123\n"
    assert durable.lock_file(path, b"456\n") is None
    assert path.read_bytes() == b"123\n"
    os.close(lock)
    again = durable.lock_file(path, b"456\n")
    assert again is not None
    os.close(again)


def test_a_lock_is_taken_on_a_full_disk_too(tmp_path: Path) -> None:
    with file_size_limit(0):
        lock = durable.lock_file(tmp_path / "pid", b"123\n")
    assert lock is not None
    os.close(lock)


def test_a_log_is_only_ever_appended_to(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        fd = durable.append_log(tmp_path / "log")
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, text)
        os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


# --- attachments ----------------------------------------------------------------------------------


@pytest.fixture(params=["link", "copy"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A source, and a target that it reaches by a link, or, on another file system, by a copy."""
    source = tmp_path / "source"
    if request.param == "link":
        yield source, tmp_path / "target"
        return
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    target = shm / f"rq-test-{os.getpid()}"
    yield source, target
    durable.remove_quietly(target)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, (33 << 20) + 7])
def test_a_file_is_taken_whole_with_its_digests(way: tuple[Path, Path], size: int) -> None:
    source, target = way
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    source.write_bytes(data)
    assert durable.take_file(source, target) == digest(data) == durable.hash_file(target)
    assert target.read_bytes() == data


def test_a_taken_file_is_on_the_disk(way: tuple[Path, Path], synced: list[str]) -> None:
    source, target = way
    source.write_bytes(DATA)
    durable.take_file(source, target)
    assert set(synced) & {str(source), str(target)}
    assert synced[-1] == str(target.parent)


def test_a_link_is_followed_to_what_it_means(way: tuple[Path, Path], tmp_path: Path) -> None:
    source, target = way
    (tmp_path / "real").write_bytes(DATA)
    source.symlink_to("real")
    assert durable.take_file(source, target) == digest(DATA)
    assert not target.is_symlink()


@pytest.mark.parametrize("change", [lambda p: os.truncate(p, 3), lambda p: p.write_bytes(DATA * 2),
                                    lambda p: os.utime(p, (0, 0))])  # fmt: skip
def test_a_file_that_changes_while_it_is_read_is_refused(
    way: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, change: object
) -> None:
    source, target = way
    source.write_bytes(DATA)
    readv = os.readv

    def read_then_change(fd: int, buffers: list[bytearray]) -> int:
        count = readv(fd, buffers)
        if count:
            change(source)  # type: ignore[operator]
        return count

    monkeypatch.setattr(os, "readv", read_then_change)
    with pytest.raises(ChangedError, match="changed while it was read"):
        durable.take_file(source, target)
    assert not target.exists()


def test_what_is_no_file_is_not_taken(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("fifo", "dir", "/dev/null"):
        with pytest.raises(OSError, match="not a regular file"):
            durable.take_file(tmp_path / name, tmp_path / "target")
    for name in ("dangling", "nothing"):
        with pytest.raises(FileNotFoundError):
            durable.take_file(tmp_path / name, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_copy_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    (tmp_path / "source").write_bytes(DATA)
    target = shm / f"rq-test-{os.getpid()}"
    with file_size_limit(3), pytest.raises(OSError, match="File too large"):
        durable.take_file(tmp_path / "source", target)
    assert not target.exists()


def test_a_file_whose_digest_is_known_is_linked_and_not_read(
    tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)

    def never(fd: int, buffers: list[bytearray]) -> int:
        raise AssertionError("it was read")

    monkeypatch.setattr(os, "readv", never)
    assert durable.take_file(source, target, digest(DATA)) == digest(DATA)
    assert source.samefile(target)
    assert synced[-1] == str(tmp_path)


def test_a_known_digest_counts_only_for_a_file_of_its_size(way: tuple[Path, Path]) -> None:
    source, target = way
    source.write_bytes(DATA)
    if target.parent == source.parent:
        with pytest.raises(ChangedError, match="changed while it was read"):
            durable.take_file(source, target, digest(DATA + b"more"))
        assert not target.exists()
    else:  # the copy has read it: what that found counts
        assert durable.take_file(source, target, digest(b"other")) == digest(DATA)


# --- what comes in pieces -------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=3000), max_size=20))
def test_pieces_make_a_file_with_its_digests(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("incoming") / "file"
    incoming = durable.Incoming(path)
    for number, piece in enumerate(pieces):
        incoming.write(memoryview(piece) if number % 2 else piece)
    assert incoming.finish() == digest(b"".join(pieces))
    assert incoming.size == path.stat().st_size
    assert path.read_bytes() == b"".join(pieces)


def test_what_came_in_is_on_the_disk_when_it_is_finished(tmp_path: Path, synced: list[str]) -> None:
    path = tmp_path / "file"
    incoming = durable.Incoming(path)
    incoming.write(DATA)
    assert synced == []
    incoming.finish()
    assert synced == [str(path), str(tmp_path)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_long_file_is_pushed_to_the_disk_as_it_comes(tmp_path: Path, synced: list[str]) -> None:
    incoming = durable.Incoming(tmp_path / "file")
    for _ in range(33):
        incoming.write(bytes(2 << 20))
    assert synced == [str(tmp_path / "file")] * 2
    incoming.discard()


@pytest.mark.parametrize("finished", [True, False])
def test_what_is_discarded_is_gone(tmp_path: Path, finished: bool) -> None:
    incoming = durable.Incoming(tmp_path / "file")
    incoming.write(DATA)
    if finished:
        incoming.finish()
    incoming.discard()
    incoming.discard()
    assert os.listdir(tmp_path) == []


def test_what_came_in_may_have_been_taken_away(tmp_path: Path) -> None:
    incoming = durable.Incoming(tmp_path / "file")
    incoming.finish()
    (tmp_path / "file").rename(tmp_path / "attachment")
    incoming.discard()
    assert os.listdir(tmp_path) == ["attachment"]


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            durable.Incoming(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == DATA


def test_what_does_not_fit_is_told_and_can_be_discarded(tmp_path: Path) -> None:
    incoming = durable.Incoming(tmp_path / "file")
    with file_size_limit(3), pytest.raises(OSError, match="File too large"):
        incoming.write(b"more than fits")
    incoming.discard()
    assert os.listdir(tmp_path) == []


# --- group commit ---------------------------------------------------------------------------------


@pytest.fixture
def sync(tmp_path: Path) -> Iterator[Sync]:
    sync = Sync(tmp_path)
    yield sync
    sync.close()


def by_fsync(sync: Sync) -> None:
    sync._syncfs_cost = 1e9


def by_syncfs(sync: Sync) -> None:
    if not unix.HAVE_SYNCFS:
        pytest.skip("this system has no syncfs")
    sync._syncfs_cost = 0.0


def test_nothing_is_synced_before_the_commit(tmp_path: Path, sync: Sync, synced: list[str]) -> None:
    by_fsync(sync)
    for name in ("a", "b"):
        sync.new_dir(f"{tmp_path}/tmp-{name}")
        sync.new_file(f"{tmp_path}/tmp-{name}/msg", DATA)
        sync.rename(f"{tmp_path}/tmp-{name}", f"{tmp_path}/{name}", old_matters=False)
    assert sync.pending
    assert synced == []
    sync.commit()
    assert bool(sync.pending) is False
    # By the names they have now; each directory once.
    assert sorted(synced) == sorted(
        [f"{tmp_path}/a/msg", f"{tmp_path}/b/msg", f"{tmp_path}/a", f"{tmp_path}/b", str(tmp_path)]
    )


def test_many_things_are_synced_by_one_call(tmp_path: Path, sync: Sync, synced: list[str]) -> None:
    by_syncfs(sync)
    for number in range(20):
        sync.new_file(f"{tmp_path}/{number}", DATA)
    sync.commit()
    assert synced == ["all"]
    sync.commit()
    assert synced == ["all"]


def test_a_rename_syncs_where_it_came_from_too(
    tmp_path: Path, sync: Sync, synced: list[str]
) -> None:
    by_fsync(sync)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "old" / "x").mkdir()
    sync.rename(f"{tmp_path}/old/x", f"{tmp_path}/new/x")
    sync.commit()
    assert sorted(synced) == [f"{tmp_path}/new", f"{tmp_path}/old"]


def test_what_replaces_something_promised_is_on_the_disk_before_it_has_the_name(
    tmp_path: Path, sync: Sync, synced: list[str]
) -> None:
    by_fsync(sync)
    sync.replace(f"{tmp_path}/status", DATA)
    assert synced == []
    sync.replace(f"{tmp_path}/msg", DATA, promised=True)
    assert synced == [f"{tmp_path}/.msg.tmp"]
    sync.commit()
    assert str(tmp_path) in synced


def test_without_fsync_the_same_is_done_and_nothing_synced(
    tmp_path: Path, synced: list[str]
) -> None:
    sync = Sync(tmp_path, enabled=False)
    sync.ensure_dir(f"{tmp_path}/a/b", str(tmp_path))
    sync.new_file(f"{tmp_path}/a/b/file", DATA)
    sync.replace(f"{tmp_path}/a/b/file", DATA * 2, promised=True)
    sync.link(f"{tmp_path}/a/b/file", f"{tmp_path}/link")
    sync.unlink(f"{tmp_path}/a/b/file")
    sync.rename(f"{tmp_path}/link", f"{tmp_path}/file")
    sync.commit()
    sync.close()
    assert (tmp_path / "file").read_bytes() == DATA * 2
    assert synced == []


@pytest.mark.parametrize("have_syncfs", [True, False])
def test_any_number_of_things_fits_into_one_commit(
    tmp_path: Path,
    sync: Sync,
    synced: list[str],
    monkeypatch: pytest.MonkeyPatch,
    have_syncfs: bool,
) -> None:
    by_fsync(sync)
    if have_syncfs and not unix.HAVE_SYNCFS:
        pytest.skip("this system has no syncfs")
    monkeypatch.setattr(unix, "HAVE_SYNCFS", have_syncfs)
    open_before = len(os.listdir("/proc/self/fd"))
    for number in range(250):
        sync.new_dir(f"{tmp_path}/{number}")
        sync.new_file(f"{tmp_path}/{number}/file", DATA)
    assert len(os.listdir("/proc/self/fd")) < open_before + 100
    sync.commit()
    if have_syncfs:
        assert synced == ["all"]
    else:
        for number in range(250):
            assert {f"{tmp_path}/{number}/file", f"{tmp_path}/{number}"} <= set(synced)


def test_a_directory_made_by_a_process_that_was_killed_is_synced(
    tmp_path: Path, sync: Sync, synced: list[str]
) -> None:
    by_fsync(sync)
    os.makedirs(tmp_path / "day" / "hour")
    sync.ensure_dir(f"{tmp_path}/day/hour/minute", str(tmp_path))
    sync.commit()
    assert sorted(synced) == [str(tmp_path), f"{tmp_path}/day", f"{tmp_path}/day/hour"]
    synced.clear()
    sync.ensure_dir(f"{tmp_path}/day/hour/minute", str(tmp_path))
    sync.commit()
    assert synced == [], "once is enough"
    (tmp_path / "day" / "hour" / "minute").rmdir()
    sync.ensure_dir(f"{tmp_path}/day/hour/minute", str(tmp_path))
    sync.commit()
    assert synced == [f"{tmp_path}/day/hour"]


def test_a_directory_is_not_made_without_its_root(tmp_path: Path, sync: Sync) -> None:
    with pytest.raises(FileNotFoundError):
        sync.ensure_dir(f"{tmp_path}/gone/attach", f"{tmp_path}/gone")
    assert os.listdir(tmp_path) == []


def test_a_directory_that_is_gone_again_hinders_no_commit(tmp_path: Path, sync: Sync) -> None:
    by_fsync(sync)
    sync.new_dir(f"{tmp_path}/dir")
    sync.new_file(f"{tmp_path}/dir/file", DATA)
    durable.remove_tree(tmp_path / "dir")
    sync.commit()


def test_a_failed_commit_is_told_and_the_next_one_syncs_everything(
    tmp_path: Path, sync: Sync, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_fsync(sync)
    sync.new_file(f"{tmp_path}/file", DATA)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(unix, "fsync", fail)
        broken.setattr(unix, "syncfs", fail)
        with pytest.raises(OSError, match="Input/output error"):
            sync.commit()
    sync.new_file(f"{tmp_path}/other", DATA)
    sync.commit()
    assert synced[-1:] == (["all"] if unix.HAVE_SYNCFS else [str(tmp_path)])


@pytest.mark.skipif(not unix.HAVE_SYNCFS, reason="this system has no syncfs")
def test_a_commit_needs_no_descriptor(tmp_path: Path, sync: Sync, synced: list[str]) -> None:
    by_fsync(sync)
    sync.new_file(f"{tmp_path}/file", DATA)
    with no_descriptor_left():
        sync.commit()
    assert synced[-1] == "all"


def test_a_new_file_never_replaces_another(tmp_path: Path, sync: Sync) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        sync.new_file(f"{tmp_path}/file", DATA)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_replacement_that_fails_leaves_what_was_there(tmp_path: Path, sync: Sync) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with file_size_limit(3), pytest.raises(OSError, match="File too large"):
        sync.replace(f"{tmp_path}/file", b"more than fits")
    assert sorted(os.listdir(tmp_path)) == ["file"]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_directory_in_the_place_of_a_file_is_kept_under_another_name(
    tmp_path: Path, sync: Sync
) -> None:
    for name in ("file", ".file.tmp", "file.1"):
        (tmp_path / name / "in it").mkdir(parents=True)
    sync.replace(f"{tmp_path}/file", DATA)
    assert (tmp_path / "file").read_bytes() == DATA
    assert sorted(os.listdir(tmp_path)) == [".file.tmp.1", "file", "file.1", "file.2"]
    assert os.listdir(tmp_path / "file.2") == ["in it"]
    durable.replace_unsynced(tmp_path / "file.1", DATA)
    assert (tmp_path / "file.1").read_bytes() == DATA
    durable.remove_quietly(tmp_path / "file.2")
    assert not (tmp_path / "file.2").exists()
    assert (tmp_path / "file.2.1").is_dir()


def test_no_room_is_a_descriptor_short_afterwards(tmp_path: Path) -> None:
    """A `Sync` that is closed without a commit lets go of everything."""
    before = sorted(os.listdir("/proc/self/fd"))
    sync = Sync(tmp_path)
    sync.new_file(f"{tmp_path}/file", DATA)
    sync.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    durable.write_file(f"{tmp_path}/{name}", DATA)
    assert list(durable.children(tmp_path)) == [name]
    assert durable.exists(f"{tmp_path}/{name}")
    assert sys.getfilesystemencodeerrors() == "surrogateescape"


def test_a_directory_that_is_not_there_has_no_children(tmp_path: Path) -> None:
    assert list(durable.children(tmp_path / "none")) == []


def test_an_object_is_read_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_text('{"a": [1]}')
    assert durable.read_object(file, 100) == {"a": [1]}
    for text, told in (
        ("[1]", "holds no object"), ("5", "holds no object"), ("", "Expecting value"),
        ("{", "Expecting property name"), ("[" * 100_000, "nests too deeply"),
        ("\ud800", "Expecting value"),
    ):  # fmt: skip
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ValueError, match=told):
            durable.read_object(file, 1 << 20)
    file.write_text("{}  ")
    with pytest.raises(OSError, match="longer than 3 bytes"):
        durable.read_object(file, 3)
    with pytest.raises(FileNotFoundError):
        durable.read_object(tmp_path / "none", 100)


def test_one_at_a_time_changes_what_a_lock_stands_beside(tmp_path: Path) -> None:
    def is_free() -> bool:
        fd = os.open(tmp_path / "lock", os.O_RDONLY)
        try:
            return unix.try_lock(fd)
        finally:
            os.close(fd)

    with durable.alone(tmp_path / "lock"):
        assert not is_free()
    assert is_free()
    with pytest.raises(ZeroDivisionError), durable.alone(tmp_path / "lock"):
        raise ZeroDivisionError
    assert is_free()
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
    with pytest.raises(FileNotFoundError), durable.alone(tmp_path / "none" / "lock"):
        pass
