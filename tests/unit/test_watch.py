"""rqcore.watch: being told of changes, by the kernel and by looking."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqcore import unix, watch
from rqcore.loop import Loop
from rqcore.watch import Change, InotifyWatcher, PollingWatcher, Watcher, watcher

DEADLINE = 10.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(params=["inotify", "polling"])
def files(
    request: pytest.FixtureRequest, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watcher]:
    if request.param == "polling":
        monkeypatch.setattr(watch, "_LOOK_EVERY", 0.01)
        yield PollingWatcher(loop)
        return
    if not unix.HAVE_INOTIFY:
        pytest.skip("this system has no inotify")
    files = InotifyWatcher(loop, lambda: pytest.fail("nothing was lost"))
    yield files
    loop.forget_reader(files._inotify.fd)
    files._inotify.close()


class Told:
    """What a watcher says; `until` runs the loop for it."""

    def __init__(self, loop: Loop) -> None:
        self.changes: list[Change] = []
        self._loop = loop
        self._wanted: Callable[[], bool] = lambda: False

    def __call__(self, change: Change) -> None:
        self.changes.append(change)
        if self._wanted():
            self._loop.stop()

    @property
    def names(self) -> set[str]:
        return {change.name for change in self.changes}

    def until(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        timer = self._loop.after(DEADLINE, self._loop.stop)
        if not wanted():
            self._loop.run()
        timer.cancel()
        assert wanted(), f"told so far: {self.changes}"


@pytest.fixture
def told(loop: Loop) -> Told:
    return Told(loop)


def test_what_comes_and_goes_is_told(files: Watcher, told: Told, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "msg").mkdir()
    (tmp_path / "in" / "old").touch()
    files.members(str(tmp_path / "in"), told)
    (tmp_path / "msg").rename(tmp_path / "in" / "msg")
    told.until(lambda: "msg" in told.names)
    assert told.changes == [Change("msg", arrived=True, is_dir=True)]
    told.changes.clear()
    (tmp_path / "in" / "old").unlink()
    told.until(lambda: "old" in told.names)
    assert not told.changes[-1].arrived


def test_a_changed_mode_or_content_is_told(files: Watcher, told: Told, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text("")
    files.entries(str(tmp_path), told)
    path.write_text("#!/bin/sh\n")
    told.until(lambda: "script" in told.names)


@pytest.mark.skipif(not unix.HAVE_INOTIFY, reason="looking once a second sees no change of mode")
def test_a_file_that_becomes_executable_is_told(loop: Loop, told: Told, tmp_path: Path) -> None:
    (tmp_path / "script").touch()
    files = watcher(loop, lambda: None)
    assert isinstance(files, InotifyWatcher)
    files.entries(str(tmp_path), told)
    (tmp_path / "script").chmod(0o755)
    told.until(lambda: "script" in told.names)
    loop.forget_reader(files._inotify.fd)
    files._inotify.close()


def test_growth_of_a_file_is_told(files: Watcher, told: Told, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    files.growth(str(path), told)
    with path.open("ab") as log:
        log.write(b"line\n")
    told.until(lambda: bool(told.changes))
    assert path.stat().st_size == 5


def test_two_may_watch_one_path_and_one_may_leave(
    files: Watcher, told: Told, loop: Loop, tmp_path: Path
) -> None:
    other = Told(loop)
    first = files.entries(str(tmp_path), other)
    files.entries(str(tmp_path), told)
    (tmp_path / "a").mkdir()
    told.until(lambda: "a" in told.names and "a" in other.names)
    files.forget(first)
    other.changes.clear()
    (tmp_path / "b").mkdir()
    told.until(lambda: "b" in told.names)
    assert other.changes == []


def test_a_watch_that_is_forgotten_by_its_own_callback(
    files: Watcher, told: Told, loop: Loop, tmp_path: Path
) -> None:
    handles: list[int] = []

    def once(change: Change) -> None:
        files.forget(handles.pop())
        told(change)

    handles.append(files.entries(str(tmp_path), once))
    (tmp_path / "a").mkdir()
    told.until(lambda: bool(told.changes))
    (tmp_path / "b").mkdir()
    other = Told(loop)
    files.entries(str(tmp_path), other)
    (tmp_path / "c").mkdir()
    other.until(lambda: "c" in other.names)
    assert told.names == {"a"}


def test_a_watched_directory_that_disappears_falls_silent(
    files: Watcher, told: Told, loop: Loop, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    handle = files.entries(str(tmp_path / "one"), lambda _: None)
    files.entries(str(tmp_path / "two"), told)
    (tmp_path / "one").rmdir()
    (tmp_path / "two" / "x").mkdir()
    told.until(lambda: "x" in told.names)
    files.forget(handle)
    (tmp_path / "one").mkdir()
    again = Told(loop)
    files.entries(str(tmp_path / "one"), again)
    (tmp_path / "one" / "y").mkdir()
    again.until(lambda: "y" in again.names)


def test_what_is_not_there_cannot_be_watched(files: Watcher, tmp_path: Path) -> None:
    for method in (files.entries, files.members, files.growth):
        with pytest.raises(OSError, match="nothing"):
            method(str(tmp_path / "nothing"), lambda _: None)


def test_a_name_of_any_bytes_is_told(files: Watcher, told: Told, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\n")
    files.members(str(tmp_path), told)
    (tmp_path / name).mkdir()
    told.until(lambda: name in told.names)


def test_looking_stops_when_nothing_is_watched(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_LOOK_EVERY", 0.001)
    files = PollingWatcher(loop)
    files.forget(files.entries(str(tmp_path), lambda _: None))
    before = loop.wakeups
    loop.after(0.1, loop.stop)
    loop.run()
    assert loop.wakeups - before <= 2


def test_without_an_inotify_instance_left_it_is_looked(
    loop: Loop, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(unix, "HAVE_INOTIFY", True)
    monkeypatch.setattr(unix, "Inotify", none_left)
    monkeypatch.setattr(watch, "_LOOK_EVERY", 0.01)
    files = watcher(loop, lambda: None)
    assert "fs.inotify.max_user_instances" in caplog.text
    files.members(str(tmp_path), told)
    (tmp_path / "new").mkdir()
    told.until(lambda: "new" in told.names)


@pytest.mark.skipif(not unix.HAVE_INOTIFY, reason="this system has no inotify")
def test_lost_notifications_are_told(
    loop: Loop, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []

    def on_lost() -> None:
        lost.append("lost")
        loop.stop()

    files = InotifyWatcher(loop, on_lost)
    files.members(str(tmp_path), told)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"it takes more than {limit} events")
    for number in range(limit // 2 + 10):
        os.close(os.open(tmp_path / "x", os.O_CREAT | os.O_WRONLY))
        os.unlink(tmp_path / "x")
        del number
    timer = loop.after(DEADLINE, loop.stop)
    loop.run()
    timer.cancel()
    assert lost == ["lost"]
    loop.forget_reader(files._inotify.fd)
    files._inotify.close()
