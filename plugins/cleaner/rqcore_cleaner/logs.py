"""Rotating the logs of an instance: ``log/X`` becomes ``log/X.1``; older ones move up, compressed.

    X    is written to
    X.1  was, until the last rotation; not compressed yet, for somebody may still be at it
    X.2.gz, X.3.gz …   older ones; beyond ``keep`` they go

After a rename the manager is sent SIGUSR1, upon which it and all it started open their log anew; what
was written in between is in X.1.  Each step is one rename or one removal, and whoever is killed in
between leaves at most a gap in the numbers, which the next rotation fills: no line is lost.  A former
log that some process still has open is not compressed before it is closed.

Only regular files are rotated whose names do not begin with a dot.  A file that cannot be rotated costs
only itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import re
import shutil
import signal
import stat
from collections.abc import Iterator

from rqcore import durable, unix
from rqcore.instance import Instance
from rqcore_cleaner.options import LogOptions

_FORMER = re.compile(r"(?P<base>.+)\.(?P<number>[1-9]\d{0,5})(?P<gz>\.gz)?")
_SIGCGT = re.compile(r"^SigCgt:\s*([0-9a-fA-F]+)$", re.MULTILINE)


def rotate(instance: Instance, options: LogOptions) -> tuple[list[str], list[str]]:
    """Rotate what is large enough; the names of what was, and troubles in words."""
    folder = str(instance.log_dir)
    rotated: list[str] = []
    troubles: list[str] = []
    if not options.size:
        return rotated, troubles
    with _alone(folder) as mine:
        if not mine:
            return rotated, troubles
        for name in sorted(_logs(folder)):
            try:
                if _is_due(f"{folder}/{name}", options.size):
                    _make_room(folder, name)
                    os.rename(f"{folder}/{name}", f"{folder}/{name}.1")
                    rotated.append(name)
            except OSError as error:
                troubles.append(f"{name} is not rotated: {error.strerror}")
        bases = {found["base"] for found in map(_FORMER.fullmatch, os.listdir(folder)) if found}
        if rotated or any(not os.path.lexists(f"{folder}/{base}") for base in bases):
            _have_them_opened(instance)
        busy = _open_files(folder)
        for base in sorted(bases):
            try:
                _tidy(folder, base, options.keep, busy)
            except OSError as error:
                troubles.append(f"the former ones of {base} are left: {error.strerror}")
    return rotated, troubles


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[bool]:
    """Is nobody else rotating these logs just now?"""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        yield unix.try_lock(fd)
    finally:
        os.close(fd)


def _logs(folder: str) -> Iterator[str]:
    for name in durable.children(folder):
        if not name.startswith(".") and _FORMER.fullmatch(name) is None:
            yield name


def _is_due(path: str, size: int) -> bool:
    info = os.stat(path, follow_symlinks=False)
    return stat.S_ISREG(info.st_mode) and info.st_size >= size


def _former(folder: str, base: str) -> dict[int, list[str]]:
    """The former logs by number; after a kill a number may have two names, the older one plain."""
    found: dict[int, list[str]] = {}
    for name in durable.children(folder):
        match = _FORMER.fullmatch(name)
        if match is not None and match["base"] == base:
            found.setdefault(int(match["number"]), []).append(name)
    return {number: sorted(names) for number, names in found.items()}


def _make_room(folder: str, base: str) -> None:
    """Move the former ones up as far as it takes for number 1 to be free."""
    former = _former(folder, base)
    free = 1
    while free in former:
        free += 1
    for number in range(free - 1, 0, -1):
        for name in former[number]:
            end = ".gz" if name.endswith(".gz") else ""
            os.rename(f"{folder}/{name}", f"{folder}/{base}.{number + 1}{end}")


def _tidy(folder: str, base: str, keep: int, busy: set[tuple[int, int]]) -> None:
    for number, names in _former(folder, base).items():
        plain, packed = f"{folder}/{base}.{number}", f"{folder}/{base}.{number}.gz"
        if number > keep:
            for name in names:
                os.unlink(f"{folder}/{name}")
        elif len(names) > 1:  # killed after the packed one was whole
            os.unlink(plain)
        elif number > 1 and os.path.lexists(plain):
            info = os.stat(plain, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) not in busy:
                _pack(plain, packed, info)


def _pack(plain: str, packed: str, info: os.stat_result) -> None:
    temporary = f"{os.path.dirname(packed)}/.{os.path.basename(packed)}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(plain, "rb") as source, open(fd, "wb") as target:
            with gzip.GzipFile("", "wb", 6, target, info.st_mtime) as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
            target.flush()
            os.fchmod(fd, stat.S_IMODE(info.st_mode))
            with contextlib.suppress(PermissionError):
                os.fchown(fd, info.st_uid, info.st_gid)
            os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
            unix.fsync(fd)
        os.rename(temporary, packed)
    except BaseException:
        durable.remove_quietly(temporary)
        raise
    os.unlink(plain)


def _open_files(folder: str) -> set[tuple[int, int]]:
    """Device and inode of each file of this directory that a process of this user has open."""
    found = set()
    prefix = os.path.realpath(folder)
    for pid in filter(str.isdigit, durable.children("/proc")):
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # ended, or somebody else's
            continue
        for name in names:
            with contextlib.suppress(OSError):
                link = f"/proc/{pid}/fd/{name}"
                if os.readlink(link).startswith(f"{prefix}/"):
                    info = os.stat(link)
                    found.add((info.st_dev, info.st_ino))
    return found


def _have_them_opened(instance: Instance) -> None:
    """Tell the manager that its log has another name, if it runs and has ears for that."""
    pid = _manager(instance)
    if pid and _catches(pid, signal.SIGUSR1):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGUSR1)


def _manager(instance: Instance) -> int:
    """The manager's pid; 0 when it does not run: whoever runs holds the lock on the file."""
    try:
        fd = os.open(instance.pid_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(fd, 32).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return 0


def _catches(pid: int, number: int) -> bool:
    """Does this process handle that signal?  By default it would die of it."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            found = _SIGCGT.search(file.read())
    except FileNotFoundError:
        return not os.path.isdir("/proc/self")  # no /proc: this manager is of the same release
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)
