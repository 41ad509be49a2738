"""From the send to the script's first line, on an idle queue.

The script's first act is to take the time; it then gives it to us through a named pipe, so nobody
asks the queue for anything.  A compiled program reads CLOCK_MONOTONIC, the very clock that the
sender has read; bash reads the wall clock ($EPOCHREALTIME).  The raw limit is the same script
started by us with nothing in between, plus one durable message directory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Bench, Figure, percentile
from benchmarks.limits import DurableDirectories
from rqcore.testing import RunningInstance

_C = """
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(void) {
    struct timespec t;
    char line[32];
    clock_gettime(CLOCK_MONOTONIC, &t);
    int size = snprintf(line, sizeof line, "%lld\\n", t.tv_sec * 1000000000LL + t.tv_nsec);
    int fd = open(getenv("RQ_PARAM1"), O_WRONLY);
    if (fd < 0 || write(fd, line, size) != size) return 1;
    return write(3, "done\\n", 5) == 5 ? 0 : 1;
}
"""
_BASH = """#!/bin/bash
now=$EPOCHREALTIME
echo "${now/[.,]/}000" >"$RQ_PARAM1"
echo done >&3
"""
#: So long the machine is left alone before each message.
_IDLE = 0.005


def measure(bench: Bench) -> list[Figure]:
    """The bash script and the compiled program."""
    fifo = bench.folder / "first-line"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    scripts: dict[str, tuple[Path, Callable[[], int]]] = {}
    bash = bench.folder / "first.bash"
    bash.write_text(_BASH)
    bash.chmod(0o755)
    scripts["bash"] = (bash, time.time_ns)
    program = bench.compiled("first", _C)
    if program is not None:
        scripts["C"] = (program, time.monotonic_ns)
    figures = []
    try:
        with bench.instance("latency") as instance:
            for kind, (script, _) in scripts.items():
                instance.queue(kind, script)
            instance.start()
            for kind, (script, clock) in scripts.items():
                figures.append(_measure(bench, instance, kind, script, clock, reader))
    finally:
        os.close(reader)
    return figures


def _measure(
    bench: Bench, instance: RunningInstance, kind: str, script: Path,
    clock: Callable[[], int], reader: int,
) -> Figure:  # fmt: skip
    client = instance.client(kind)
    fifo = str(bench.folder / "first-line")
    directories = DurableDirectories(bench.folder / "raw")
    through, accepted, raw = [], [], []
    for _ in range(bench.pick(300, 60)):
        time.sleep(_IDLE)
        began, sent = time.perf_counter(), clock()
        answer = client.ask("create_message", {"dest": kind, "param1": fifo})
        accepted.append(time.perf_counter() - began)
        through.append((int(os.read(reader, 64)) - sent) / 1e9)
        instance.until(kind, str(answer).rpartition("/")[2])
        time.sleep(_IDLE)
        sent = clock()
        directories.fsynced()
        raw.append((_bare(script, fifo, reader) - sent) / 1e9)
    directories.close()
    median, limit = percentile(through, 0.5) * 1e3, percentile(raw, 0.5) * 1e3
    note = (
        f"p95 {percentile(through, 0.95) * 1e3:.2f} ms "
        f"(raw p95 {percentile(raw, 0.95) * 1e3:.2f}); the answer ok comes "
        f"after {percentile(accepted, 0.5) * 1e3:.2f} ms"
    )
    name = f"send to first line, {kind}"
    return Figure(name, median, "ms", "directory + spawn", limit, median / limit, note)


def _bare(script: Path, fifo: str, reader: int) -> int:
    """When the script, started by us, took its time."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, 3)]
    environment = {"PATH": "/usr/bin:/bin", "RQ_PARAM1": fifo}
    pid = os.posix_spawn(script, [str(script)], environment, file_actions=actions)
    taken = int(os.read(reader, 64))
    os.waitpid(pid, 0)
    os.close(null)
    return taken
