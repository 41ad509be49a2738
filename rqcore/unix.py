"""What differs between one Unix and another, chosen here and nowhere else.

Linux gives more than POSIX does (syncfs, pidfd, inotify, /proc); everything here has a way that
works on any Unix, taken where the better one is missing, or when ``RQ_PORTABLE=1`` is set, which is
how the tests try that way too.

Failures are `OSError`, as from the `os` module.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

LINUX = sys.platform.startswith("linux") and os.environ.get("RQ_PORTABLE") != "1"

_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None
HAVE_SYNCFS = _libc is not None and hasattr(_libc, "syncfs")
HAVE_PIDFD = LINUX and hasattr(os, "pidfd_open")
HAVE_INOTIFY = _libc is not None and hasattr(_libc, "inotify_init1")
HAVE_TIMERFD = _libc is not None and hasattr(_libc, "timerfd_create")
_FULLFSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
#: macOS alone: a descriptor's path.
_GETPATH: int | None = getattr(fcntl, "F_GETPATH", None)
_PR_SET_NAME = 15


def fsync(fd: int) -> None:
    """Bring a file or directory to the disk, through the disk's own cache too (macOS asks)."""
    if _FULLFSYNC is not None:
        fcntl.fcntl(fd, _FULLFSYNC)
    else:
        os.fsync(fd)


def syncfs(fd: int) -> None:
    """Bring everything on the file system of ``fd`` to the disk; only where HAVE_SYNCFS."""
    assert _libc is not None
    if _libc.syncfs(fd) != 0:
        _raise("syncfs")


def is_regular(mode: int) -> bool:
    """Is this the mode of a regular file?"""
    return stat.S_ISREG(mode)


def path_of(fd: int) -> str:
    """The absolute path of a regular file that is open; "" for anything else, or when nobody knows."""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return ""
        if _GETPATH is not None:
            path = os.fsdecode(fcntl.fcntl(fd, _GETPATH, bytes(1024)).partition(b"\0")[0])
        else:
            path = os.readlink(f"/proc/self/fd/{fd}")
        return path if os.path.samestat(os.stat(path), info) else ""
    except OSError:  # it was removed, or this system has no such place
        return ""


def try_lock(fd: int) -> bool:
    """Take the exclusive lock on an open file unless another process has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(fd: int) -> None:
    """Take the exclusive lock on an open file as soon as no other process has it."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def name_process(name: str) -> None:
    """Let ``ps`` and ``top`` show this name, where the system lets a process rename itself."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def waits_for_disk(pid: int) -> bool:
    """Is it in the midst of something that no signal can end, such as a sync?  Linux alone knows."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"D"
    except (OSError, IndexError):
        return False


def process_start(pid: int) -> str | None:
    """When this process began, as text to compare; None when there is no such process.

    With the pid it names one process for ever: a later one of the same pid began at another time.
    On Linux the boot is part of it, so a pid file that survived a reboot names nobody.  A zombie is
    no longer running and counts as none.
    """
    if LINUX:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        if fields[0] in (b"Z", b"X"):
            return None
        return f"{_boot_id()} {fields[19].decode()}"
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],  # noqa: S607 - POSIX has it in PATH
        capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    state, _, started = found.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def group_members(group: int) -> list[int]:
    """The living processes of a process group; zombies are not."""
    if LINUX:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat", "rb") as file:
                        fields = file.read().rpartition(b")")[2].split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
                    found.append(int(entry))
        return found
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,pgid=,stat="],  # noqa: S607 - POSIX has it in PATH
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = (line.split() for line in listing.splitlines())
    return [int(pid) for pid, of, state in rows if int(of) == group and not state.startswith("Z")]


def processes_by_environment(name: str) -> Iterator[tuple[int, str]]:
    """The living processes that were started with this variable, each with its value; by /proc.

    A script's processes are found by it even when the queue process died before it could write the
    script's pid down, or when the script itself is dead and only its children live.  Where there is
    no /proc it finds nothing.
    """
    if not LINUX:
        return
    wanted = f"{name}=".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                pairs = file.read().split(b"\0")
        except (
            OSError
        ):  # it ended meanwhile, or is not ours to look at: then it is no script of ours
            continue
        for pair in pairs:
            if pair.startswith(wanted) and process_start(int(entry)) is not None:
                yield int(entry), os.fsdecode(pair[len(wanted) :])


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


class FileEvent(NamedTuple):
    """Something happened to ``name`` in the watched directory ``watch`` (or to the watched file)."""

    watch: int
    name: str
    moved_in: bool
    is_dir: bool


class Inotify:
    """Linux's file notifications: a descriptor that is readable when something happened.

    `IN_*` masks are the kernel's (inotify(7)).
    """

    MODIFY = 0x002
    ATTRIB = 0x004
    CLOSE_WRITE = 0x008
    MOVED_FROM = 0x040
    MOVED_TO = 0x080
    CREATE = 0x100
    DELETE = 0x200
    MOVE_SELF = 0x800
    DELETE_SELF = 0x400
    _ISDIR = 0x40000000
    _OVERFLOW = 0x4000
    _ONLYDIR = 0x01000000

    def __init__(self) -> None:
        assert _libc is not None
        self.fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            _raise("inotify_init1")

    def add(self, path: str, mask: int) -> int:
        """Watch a path; returns the watch's number.  Raises `OSError`."""
        assert _libc is not None
        watch: int = _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask))
        if watch < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return watch

    def remove(self, watch: int) -> None:
        """Watch it no more; one that is gone already is no error."""
        assert _libc is not None
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[FileEvent]:
        """What happened since the last call; a lost event comes as watch -1."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return []
        events = []
        offset = 0
        while offset < len(data):
            watch, mask, _, length = struct.unpack_from("iIII", data, offset)
            offset += 16
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & self._OVERFLOW:
                watch = -1
            events.append(
                FileEvent(watch, name, bool(mask & self.MOVED_TO), bool(mask & self._ISDIR))
            )
        return events

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self.fd)


class ClockWatch:
    """A descriptor that is readable after somebody set the wall clock (Linux's timerfd)."""

    _REALTIME = 0
    _ABSTIME = 1
    _CANCEL_ON_SET = 2

    def __init__(self) -> None:
        assert _libc is not None
        self.fd: int = _libc.timerfd_create(self._REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            _raise("timerfd_create")
        self.rearm()

    def rearm(self) -> None:
        """Wait for the next time somebody sets the clock."""
        assert _libc is not None
        never = (ctypes.c_long * 4)(0, 0, (1 << 62) // 1_000_000_000, 0)
        flags = self._ABSTIME | self._CANCEL_ON_SET
        # After the clock was set this arms the timer, and says ECANCELED all the same.
        if (
            _libc.timerfd_settime(self.fd, flags, never, None) != 0
            and ctypes.get_errno() != errno.ECANCELED
        ):
            _raise("timerfd_settime")
