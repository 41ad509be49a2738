"""How fast to remove, so that the disk is left to the work.

`Pace` is the decision alone: it is told how long the last batch took and whether anybody works, and
says how large the next one may be and how long to pause before it.  A queue's process answers nobody
else while it removes the messages of a batch, and brings them to the disk together.  So what a batch
costs once, the sync, and what each message costs are told apart, by batches of two sizes in turn: a
batch is as large as the time allows that its messages take, a few hundredths of a second while
somebody works; and two thirds of the time are pauses then.  Else the pauses are short.

`busy_machine` asks the system whether somebody waits for the disk, or many more want to run than there
are processors.  `step_back` puts this process behind all others at both.  Where the system cannot
tell, or has no such order, they say no and do nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_FIRST, _MOST = 8, 64
#: How much of what is known by former batches still counts after the next one.
_REMEMBERED = 0.9
#: Seconds that the messages of a batch may take, and the pause after it as a multiple of all it took.
_BUSY, _IDLE = (0.03, 2.0), (0.1, 0.1)
_LONGEST_PAUSE = 1.0
#: Percent of the last ten seconds in which somebody waited for the disk.
_PRESSED = 20.0
#: So many for each processor that want to run.
_CROWD = 2
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
#: "Only when nobody else has asked for the disk lately", of this process.
_IDLE_CLASS, _WHO_PROCESS = 3 << 13, 1


class Pace:
    """See the head of this module."""

    def __init__(self) -> None:
        #: How many messages the next batch may have.
        self.size = _FIRST
        self._full = _FIRST
        # Weighted sums over the batches so far: 1, messages, seconds, and their products.
        self._sums: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def after(self, seconds: float, count: int, *, busy: bool) -> float:
        """A batch of so many took so long: sets `size`, and returns the seconds to pause."""
        target, share = _BUSY if busy else _IDLE
        if count:
            new = (1.0, count, seconds, count * count, count * seconds)
            self._sums = tuple(_REMEMBERED * a + b for a, b in zip(self._sums, new, strict=True))
            self._full = max(1, min(_MOST, int(target / self._each()), self._full * 2))
        # The other size, so that the two costs can be told apart.
        self.size = self._full if self.size != self._full else self._full // 2 or 2
        return min(_LONGEST_PAUSE, seconds * share)

    def _each(self) -> float:
        """Seconds that one message more costs."""
        weight, x, y, xx, xy = self._sums
        spread = weight * xx - x * x
        most = max(y / x, 1e-6)
        slope = (weight * xy - x * y) / spread if spread > 1e-6 * xx else most
        return min(most, max(slope, most / 100))


def busy_machine() -> bool:
    """Does anybody wait for the disk, or do many more want to run than there are processors?"""
    try:
        with open("/proc/pressure/io", encoding="ascii") as file:
            pressure = float(file.readline().split("avg10=")[1].split()[0])
    except (OSError, IndexError, ValueError):
        pressure = 0.0
    try:
        crowded = os.getloadavg()[0] > _CROWD * (os.cpu_count() or 1)
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
