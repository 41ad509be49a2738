"""A place that leaves nothing behind: processes and mounts of its own, which end when it ends.

`run` plays a function in a process of its own, in namespaces of mounts and of processes.  When that
function returns, raises, or is killed, or whoever called `run` is killed, the system ends every process
that was started in it and forgets every file system that was mounted in it.  It needs root.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

_NEWNS, _NEWPID = 0x00020000, 0x20000000
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14
_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None, use_errno=True)


def run(act: Callable[[], int]) -> int:
    """Play ``act`` there; returns its status, or 128 and the number of the signal that ended it."""
    sys.stdout.flush()
    _checked(_libc.unshare(_NEWNS | _NEWPID))
    first = os.fork()
    if first == 0:
        _guarded(lambda: _first(act))
    return _status(os.waitpid(first, 0)[1])


def mount(kind: str, place: Path, options: str = "") -> None:
    """Mount a file system without a device, such as tmpfs."""
    _checked(_libc.mount(b"lab", os.fsencode(place), kind.encode(), 0, options.encode()))


def unmount(place: Path) -> None:
    """Take it away, also while it is used."""
    _checked(_libc.umount2(os.fsencode(place), 2))


def _first(act: Callable[[], int]) -> int:
    """The first process there, with whose end all others end; orphans become its children."""
    _checked(_libc.prctl(_DEATH_SIGNAL, signal.SIGKILL))
    _checked(_libc.mount(b"none", b"/", None, _PRIVATE | _RECURSIVE, None))
    mount("proc", Path("/proc"))
    second = os.fork()
    if second == 0:
        _guarded(act)
    while True:
        pid, status = os.wait()
        if pid == second:
            return _status(status)


def _guarded(act: Callable[[], int]) -> None:
    """Leave this process with what ``act`` returns."""
    status = 1
    try:
        status = act()
    except BaseException:  # noqa: BLE001 - there is nobody above
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}; the lab needs root")
