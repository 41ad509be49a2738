"""How fast to remove, so that the disk is left to the work.

`Pace` is the decision alone: it is told how long the last batch took and whether anybody works, and
says how large the next one may be and how long to pause before it.  A queue's process removes a batch
in one go, and answers nobody else meanwhile; so while there is work a batch takes a few hundredths of a
second, and three quarters of the time are pauses.  While there is none the pauses are short.  A batch is
never very small: however few it holds, it costs one sync of the disk.

`busy_machine` asks the system whether somebody waits for the disk or a processor, `step_back` puts this
process behind all others at both.  Where the system cannot tell, or has no such order, they say no and
do nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_LEAST, _MOST = 16, 128
#: Seconds that a batch may take, and the pause after it as a multiple of that.
_BUSY, _IDLE = (0.02, 3.0), (0.05, 0.1)
_LONGEST_PAUSE = 1.0
#: Percent of the last ten seconds in which somebody waited for the disk.
_PRESSED = 20.0
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
#: "Only when nobody else has asked for the disk lately", of this process.
_IDLE_CLASS, _WHO_PROCESS = 3 << 13, 1


class Pace:
    """See the head of this module."""

    def __init__(self) -> None:
        #: How many messages the next batch may have.
        self.size = _LEAST

    def after(self, seconds: float, count: int, *, busy: bool) -> float:
        """A batch of so many took so long: sets `size`, and returns the seconds to pause."""
        target, share = _BUSY if busy else _IDLE
        if count:
            fitting = target * count / max(seconds, 1e-6)
            # Grown slowly, cut at once: one quick answer says little, one late answer hurts.
            self.size = max(_LEAST, min(_MOST, int(fitting), self.size * 2))
        return min(_LONGEST_PAUSE, seconds * share)


def busy_machine() -> bool:
    """Does anybody wait for the disk, or are there more that want to run than processors?"""
    try:
        with open("/proc/pressure/io", encoding="ascii") as file:
            pressure = float(file.readline().split("avg10=")[1].split()[0])
    except (OSError, IndexError, ValueError):
        pressure = 0.0
    try:
        crowded = os.getloadavg()[0] > (os.cpu_count() or 1)
    except OSError:
        crowded = False
    return pressure > _PRESSED or crowded


def step_back() -> bool:
    """Let everybody else have the processor and the disk first; was the disk's order changed?"""
    os.nice(19)
    number = _IOPRIO_SET.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(number, _WHO_PROCESS, 0, _IDLE_CLASS) == 0)
