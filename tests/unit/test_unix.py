"""rqcore.unix: what Linux gives and what any Unix gives, side by side."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqcore import unix
from rqcore.unix import ClockWatch, FileEvent, Inotify

linux_only = pytest.mark.skipif(not unix.LINUX, reason="only Linux has it")
#: This run's own: all processes of the machine are looked through, those of another run too.
MARK = f"RQ_TEST_{os.getpid()}_MARK"


@pytest.fixture(params=["linux", "portable"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "portable":
        monkeypatch.setattr(unix, "LINUX", False)
    elif not unix.LINUX:
        pytest.skip("only Linux has it")
    return name


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], env={**os.environ, MARK: "a b=c"})
    yield process
    process.kill()
    process.wait()


def ended(pid: int) -> None:
    """Wait until this child has ended, and leave it a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_rq_portable_switches_everything_of_linux_off() -> None:
    code = (
        "from rqcore import unix\n"
        "print(unix.LINUX, unix.HAVE_SYNCFS, unix.HAVE_PIDFD, unix.HAVE_INOTIFY, unix.HAVE_TIMERFD)"
    )
    environ = {**os.environ, "RQ_PORTABLE": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, check=True
    )
    assert set(found.stdout.split()) == {b"False"}


# --- processes ------------------------------------------------------------------------------------


def test_the_start_of_a_process_tells_it_from_others(
    system: str, child: subprocess.Popen[bytes]
) -> None:
    started = unix.process_start(child.pid)
    assert started
    assert unix.process_start(child.pid) == started
    assert unix.process_start(os.getpid())
    if system == "linux":
        assert unix.process_start(os.getpid()) != started


def test_a_zombie_is_no_process_any_more(system: str, child: subprocess.Popen[bytes]) -> None:
    child.kill()
    ended(child.pid)
    assert unix.process_start(child.pid) is None


def test_what_never_was_is_no_process(system: str) -> None:
    assert unix.process_start(2**22 + 1) is None


@linux_only
def test_a_name_with_brackets_and_spaces_confuses_nobody(tmp_path: Path) -> None:
    program = tmp_path / "a ) Z b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "1000"]) as process:
        assert unix.process_start(process.pid)
        process.kill()


@linux_only
def test_processes_are_found_by_their_environment(child: subprocess.Popen[bytes]) -> None:
    assert list(unix.processes_by_environment(MARK)) == [(child.pid, "a b=c")]
    assert list(unix.processes_by_environment(MARK.removeprefix("RQ_"))) == []
    assert list(unix.processes_by_environment(MARK.removesuffix("_MARK"))) == []
    child.kill()
    ended(child.pid)
    assert list(unix.processes_by_environment(MARK)) == []


def test_without_proc_none_are_found(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix, "LINUX", False)
    assert list(unix.processes_by_environment(MARK)) == []


@linux_only
def test_a_process_is_shown_by_its_name() -> None:
    code = (
        "from rqcore import unix; unix.name_process('rq-que a-name-too-long'); "
        "print(open('/proc/self/comm').read())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "rq-que a-name-too-long"[:15]


# --- files ----------------------------------------------------------------------------------------


def test_a_lock_is_taken_once(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as one, open(tmp_path / "lock", "w") as two:
        assert unix.try_lock(one.fileno())
        assert not unix.try_lock(two.fileno())


def test_syncing_what_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            unix.fsync(writing)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.skipif(not unix.HAVE_SYNCFS, reason="this system has no syncfs")
def test_syncfs(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    unix.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError, match="syncfs: Bad file descriptor"):
        unix.syncfs(fd)


def test_kinds_of_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    assert unix.is_regular((tmp_path / "file").stat().st_mode)
    assert not unix.is_regular((tmp_path / "fifo").stat().st_mode)
    assert not unix.is_regular(tmp_path.stat().st_mode)


# --- notifications --------------------------------------------------------------------------------


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    if not unix.HAVE_INOTIFY:
        pytest.skip("this system has no inotify")
    inotify = Inotify()
    yield inotify
    inotify.close()


def happens(inotify: Inotify, act: Callable[[], object]) -> list[FileEvent]:
    assert inotify.read() == []
    act()
    assert select.select([inotify.fd], [], [], 10)[0]
    return inotify.read()


def test_what_moves_into_a_directory_is_told(inotify: Inotify, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"x\xff")
    (tmp_path / name).mkdir()
    watch = inotify.add(str(tmp_path / "in"), Inotify.CREATE | Inotify.MOVED_TO)
    moved = happens(inotify, lambda: os.rename(tmp_path / name, tmp_path / "in" / name))
    assert moved == [FileEvent(watch, name, moved_in=True, is_dir=True)]
    created = happens(inotify, (tmp_path / "in" / "file").touch)
    assert created == [FileEvent(watch, "file", moved_in=False, is_dir=False)]


def test_several_events_come_together(inotify: Inotify, tmp_path: Path) -> None:
    inotify.add(str(tmp_path), Inotify.CREATE)

    def touch() -> None:
        for number in range(100):
            (tmp_path / str(number)).touch()

    events = happens(inotify, touch)
    assert [event.name for event in events] == [str(n) for n in range(100)]


def test_what_is_watched_no_more_is_silent(inotify: Inotify, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    watch = inotify.add(str(one), Inotify.CREATE)
    inotify.add(str(two), Inotify.CREATE)
    inotify.remove(watch)
    inotify.remove(watch)
    inotify.read()  # that the watch is gone is told too
    (one / "x").touch()
    events = happens(inotify, (two / "y").touch)
    assert [event.name for event in events] == ["y"]


def test_what_is_not_there_cannot_be_watched(inotify: Inotify, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        inotify.add(str(tmp_path / "gone"), Inotify.CREATE)


@pytest.mark.skipif(not unix.HAVE_TIMERFD, reason="this system has no timerfd")
def test_a_clock_that_is_left_alone_says_nothing() -> None:
    clock = ClockWatch()
    clock.rearm()
    try:
        assert select.select([clock.fd], [], [], 0)[0] == []
    finally:
        os.close(clock.fd)


@pytest.mark.skipif(not unix.HAVE_TIMERFD or os.geteuid() != 0, reason="needs root and timerfd")
def test_a_clock_that_is_set_says_so() -> None:
    """It is set to what it shows: a matter of microseconds."""
    clock = ClockWatch()
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
    except PermissionError:  # root in a container may be without the right
        os.close(clock.fd)
        return
    try:
        assert select.select([clock.fd], [], [], 10)[0] == [clock.fd]
        clock.rearm()
        assert select.select([clock.fd], [], [], 0)[0] == []
    finally:
        os.close(clock.fd)
