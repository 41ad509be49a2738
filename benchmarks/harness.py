"""What the benchmarks share: figures, rounds, instances, and what the kernel says of a process.

Everything a benchmark makes lies under `Bench.folder`, which the runner removes at the very end;
every process it starts is ended when its ``with`` block is left, also by an error.

The machine is never quiet.  A figure is therefore measured in several rounds, in each of which the
raw limit that it is compared with is measured right beside it; what is told is the median of the
rounds, and the median of their ratios.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rqcore.testing import RunningInstance

SH_SCRIPT = "#!/bin/sh\necho done >&3\n"
#: The verdict as a compiled program says it: what a script costs without an interpreter.
C_SCRIPT = """
#include <unistd.h>
int main(void) { return write(3, "done\\n", 5) == 5 ? 0 : 1; }
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, in ``unit``, beside its raw ``limit``; ``ratio`` is value / limit.

    ``limit_name`` says what the limit is; ``note`` what else was seen.  Where there is no raw
    limit, both numbers are None.
    """

    name: str
    value: float
    unit: str
    limit_name: str = ""
    limit: float | None = None
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """How to measure: where, and whether a rough look is enough."""

    folder: Path
    quick: bool
    #: So many done messages, instead of what is usual; 0 for that.
    done: int = 0

    @property
    def rounds(self) -> int:
        """How often everything is measured."""
        return 1 if self.quick else 5

    def pick(self, full: int, quick: int) -> int:
        """A size: of a full run, or of a quick one."""
        return quick if self.quick else full

    @contextmanager
    def instance(self, name: str) -> Iterator[RunningInstance]:
        """An instance to configure and start; stopped, and no process left of it, at the end."""
        instance = RunningInstance(self.folder / name)
        try:
            yield instance
        finally:
            instance.close()

    def compiled(self, name: str, source: str) -> Path | None:
        """A program made of this C source; None where there is no compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return None
        program = self.folder / name
        for linking in (["-static"], []):
            made = subprocess.run(
                [compiler, "-O2", *linking, "-x", "c", "-", "-o", str(program)],
                input=source.encode(), capture_output=True, check=False,
            )  # fmt: skip
            if made.returncode == 0:
                return program
        return None


def beside(
    name: str, unit: str, limit_name: str, rounds: Sequence[tuple[float, float]], note: str = ""
) -> Figure:
    """The figure of several rounds of (value, raw limit)."""
    value = statistics.median(value for value, _ in rounds)
    limit = statistics.median(limit for _, limit in rounds)
    ratio = statistics.median(value / limit for value, limit in rounds)
    return Figure(name, value, unit, limit_name, limit, ratio, note)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share (0 to 1) of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# What the kernel says of a process


def cpu_seconds(pid: int) -> float:
    """The CPU time that the process's main thread has had; without its children."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def user_and_system_seconds(pid: int) -> tuple[float, float]:
    """The CPU time of a process in user and in kernel mode, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


def sleeps(pid: int) -> int:
    """How often the process has gone to sleep by itself: each is a wake-up later."""
    return _status(f"/proc/{pid}/status", "voluntary_ctxt_switches")


def pss_kib(pid: int) -> int:
    """The process's proportional share of memory, in KiB."""
    return _status(f"/proc/{pid}/smaps_rollup", "Pss")


def _status(file: str, key: str) -> int:
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    raise LookupError(f"no {key} in {file}")
