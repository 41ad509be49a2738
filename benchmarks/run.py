"""The figures of this system, each beside the raw limit of the same run: ``make bench``.

    python benchmarks/run.py [NAME...] [--quick] [--json FILE] [--dir DIR]

Without names everything is measured.  Needs the repository's virtual environment (`make bench`
makes it).  Linux only, since it asks /proc.  Everything it makes lies in a temporary directory
under --dir, whose file system is the one that is measured; nothing is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import (
    attach,
    backlog,
    enqueue,
    finish,
    idle,
    latency,
    limits,
    million,
    operators,
    relay,
    upload,
    web,
)
from benchmarks.harness import Bench, Figure

BENCHMARKS: dict[str, Callable[[Bench], list[Figure]]] = {
    "raw": limits.measure,
    "enqueue": enqueue.measure,
    "done": finish.measure,
    "latency": latency.measure,
    "backlog": backlog.measure,
    "idle": idle.measure,
    "attach": attach.measure,
    "web": web.measure,
    "million": million.measure,
    "upload": upload.measure,
    "relay": relay.measure,
    "operators": operators.measure,
}


def main() -> int:
    """Measure what was asked for; the exit status is 0 when all of it could be."""
    parser = argparse.ArgumentParser(description="Measure rqcore beside the machine's raw limits.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}; else all"
    )
    parser.add_argument("--quick", action="store_true", help="a rough look, in less than a minute")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too ('-': stdout)")
    parser.add_argument(
        "--done", type=int, default=0, metavar="N", help="done messages, for million"
    )
    parser.add_argument("--dir", default="build", help="where to measure (default: build)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    table = sys.stderr if options.json == "-" else sys.stdout
    os.makedirs(options.dir, exist_ok=True)
    machine = _machine(options.dir)
    print(", ".join(f"{key} {value}" for key, value in machine.items()), file=table)
    results: dict[str, list[Figure]] = {}
    # Removed at the very end: ext4 makes files several times more slowly where many were removed
    # in the last minutes, and the next benchmark would pay for it.
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=options.dir)).resolve()
    try:
        for name in options.names or BENCHMARKS:
            began = time.perf_counter()
            own = folder / name
            own.mkdir()
            results[name] = BENCHMARKS[name](Bench(own, options.quick, options.done))
            print(f"\n{name} ({time.perf_counter() - began:.0f} s)", file=table)
            for figure in results[name]:
                print(_line(figure), file=table, flush=True)
    finally:
        began = time.perf_counter()
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        print(f"\nremoved ({time.perf_counter() - began:.0f} s)", file=table)
    if options.json:
        report = {
            "machine": machine, "quick": options.quick,
            "figures": {name: [asdict(f) for f in found] for name, found in results.items()},
        }  # fmt: skip
        text = json.dumps(report, indent=1) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
        else:
            Path(options.json).write_text(text)
    return 0


def _line(figure: Figure) -> str:
    line = f"  {figure.name:<44}{_number(figure.value):>9} {figure.unit:<8}"
    if figure.limit is not None and figure.ratio is not None:
        line += f"{figure.ratio:>6.2f} x {_number(figure.limit)} ({figure.limit_name})"
    return f"{line}\n      {figure.note}" if figure.note else line.rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or not value else f"{value:.2f}"


def _machine(folder: str) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "file system": _file_system(folder),
        "Python": platform.python_version(),
    }


def _file_system(folder: str) -> str:
    """The type of the file system that a directory is on; of ext4 also whether it keeps a journal."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if place.split()[2] == wanted:
            name, source = kind.split()[:2]
            journals = Path("/proc/fs/jbd2").glob(f"{Path(source).name}-*")
            return f"{name} without a journal" if name == "ext4" and not any(journals) else name
    return "unknown"


if __name__ == "__main__":
    sys.exit(main())
