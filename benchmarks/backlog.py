"""Does a message cost more when many wait?  Drain by one worker at backlogs of 100 to 100,000.

The backlogs are written into ``que/`` before the start, as an operator could: the spool is plain
directories.  All queues belong to one instance and are paused; in each round one after another is
resumed for some messages, so that whatever else the machine does meanwhile falls on all sizes
alike.  The small backlogs are filled up again after each round.

Told for each size: the time for a message and the queue process's CPU time for it, both beside
those of the smallest backlog; the time to stop and reopen the queue; its memory.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.clients import send
from benchmarks.harness import C_SCRIPT, SH_SCRIPT, Bench, Figure, cpu_seconds, pss_kib
from rqcore.errors import UnreachableError
from rqcore.testing import PATIENCE, RunningInstance

_WARM, _WINDOW = 15, 60
#: So many messages share a file: the disk has half as much to write and to remove.
_LINKS = 10_000
#: All are due, and at the same time, so that nothing but the id decides who is first.
_DUE = 1


class _Backlog:
    """One queue with its backlog."""

    def __init__(self, instance: RunningInstance, size: int) -> None:
        self.name = f"backlog{size}"
        self.size = size
        self.ids: list[str] = []
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.reopen = 0.0
        self.memory = 0
        self._instance = instance

    def fill(self) -> None:
        """Write the messages before anything runs."""
        folder = self._instance.directory / "queue" / self.name
        (folder / "que").mkdir()
        first = int(time.time()) - 3600
        unique = folder.stat().st_ino
        for number in range(self.size):
            stamp = time.strftime("%Y%m%d.%H%M.%S", time.gmtime(first + number // 1000))
            msg_id = f"{stamp}.{number % 1000:03}.00000{unique}"
            if number % _LINKS == 0:
                _write(folder / f"msg.{number}")
            path = folder / "que" / msg_id
            path.mkdir()
            (path / "msg").hardlink_to(folder / f"msg.{number // _LINKS * _LINKS}")
            self.ids.append(msg_id)

    def run(self) -> None:
        """Process one window of messages, and note what each of them took."""
        client = self._instance.client(self.name)
        described = client.ask("describe")
        done, pid = described["counts"]["done"], described["pid"]
        marks = [self._follow(self.ids[done + n]) for n in (_WARM, _WARM + _WINDOW)]
        self._instance.manager.ask("resume_queue", self.name)
        times, cpu = [], []
        for mark in marks:
            while next(mark).get("new") != "done":
                pass
            times.append(time.perf_counter())
            cpu.append(cpu_seconds(pid))
        self._instance.manager.ask("pause_queue", self.name)
        self.seconds.append((times[1] - times[0]) / _WINDOW)
        self.cpu.append((cpu[1] - cpu[0]) / _WINDOW)
        while running := client.call("messages", {"state": "run"}):
            self._instance.until(self.name, running[0]["msg_id"])
        missing = self.size - client.call("num_messages")["que"]
        if self.size <= 1000:
            path = str(self._instance.instance.queue_socket(self.name))
            self.ids += send(path, 1, count=missing).ids
        client.close()

    def _follow(self, msg_id: str) -> Iterator[Any]:
        return self._instance.client(self.name).subscribe({"msg_id": msg_id}, timeout=PATIENCE)

    def look(self) -> None:
        """Reopen the queue, and see how large its process is then."""
        manager = self._instance.manager
        began = time.perf_counter()
        manager.ask("restart_queue", self.name)
        client = self._instance.client(self.name)
        while True:
            try:
                self.memory = pss_kib(client.ask("describe")["pid"])
                break
            except UnreachableError:
                time.sleep(0.005)
        self.reopen = time.perf_counter() - began


def _write(path: Path) -> None:
    fields = {
        "dest": "bench", "src": "", "param1": "one", "param2": "two", "param3": "", "param4": "",
        "due": _DUE, "count": 0, "max_count": 15, "orig_msg_id": "http://localhost:3333/q/bench/0",
    }  # fmt: skip
    path.write_text(json.dumps(fields))


def measure(bench: Bench) -> list[Figure]:
    """Every size, in rounds."""
    sizes = (100, 1000, 10_000) if bench.quick else (100, 1000, 10_000, 100_000)
    script = bench.compiled("drain", C_SCRIPT) or SH_SCRIPT
    with bench.instance("backlog") as instance:
        backlogs = [_Backlog(instance, size) for size in sizes]
        for backlog in backlogs:
            instance.queue(backlog.name, script)
            instance.instance.pause_file(backlog.name).touch()
            backlog.fill()
        os.sync()  # the fill itself is no part of what is measured
        began = time.perf_counter()
        instance.start()
        start = time.perf_counter() - began
        for _ in range(bench.pick(7, 3)):
            for backlog in backlogs:
                backlog.run()
        for backlog in backlogs:
            backlog.look()
    return [
        *(_drain(backlog, backlogs[0]) for backlog in backlogs),
        *(_reopen(backlog) for backlog in backlogs),
        Figure("start of the instance with all of these", start, "s"),
    ]


def _drain(backlog: _Backlog, smallest: _Backlog) -> Figure:
    value, limit = (statistics.median(b.seconds) * 1e3 for b in (backlog, smallest))
    ratio = statistics.median(_ratios(backlog.seconds, smallest.seconds))
    cpu = statistics.median(backlog.cpu) * 1e6
    cpu_ratio = statistics.median(_ratios(backlog.cpu, smallest.cpu))
    note = f"queue CPU {cpu:.0f} us each, {cpu_ratio:.2f} x that at {smallest.size}"
    name, limit_name = f"a message at a backlog of {backlog.size:,}", f"at {smallest.size}"
    return Figure(name, value, "ms", limit_name, limit, ratio, note)


def _ratios(values: list[float], limits: list[float]) -> list[float]:
    return [value / limit for value, limit in zip(values, limits, strict=True)]


def _reopen(backlog: _Backlog) -> Figure:
    note = f"{backlog.memory / 1024:.1f} MiB PSS then"
    return Figure(f"reopen a queue of {backlog.size:,}", backlog.reopen * 1e3, "ms", note=note)
