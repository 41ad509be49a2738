"""The raw limits: what this machine does without any queue, by the same system calls.

Each function works for about ``seconds`` and returns a rate per second.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import C_SCRIPT, SH_SCRIPT, Bench, Figure, percentile

#: As large as a message's file usually is.
MESSAGE = b'{"msg_id": "", "dest": "bench", "src": "", "param1": "one", "param2": "two"}'.ljust(280)
_GROUP = 32
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(command: list[str], seconds: float) -> float:
    """Start a program and wait for its end, one after another; it may write to descriptor 3."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, 3)]

    def once() -> None:
        pid = os.posix_spawn(command[0], command, {"PATH": "/usr/bin:/bin"}, file_actions=actions)
        if os.waitpid(pid, 0)[1] != 0:
            raise OSError(f"{command} failed")

    try:
        return _rate(once, seconds)
    finally:
        os.close(null)


class DurableDirectories:
    """Message directories as a durable queue must write them, without a queue."""

    def __init__(self, folder: Path) -> None:
        self._tmp, self._que = folder / "tmp", folder / "que"
        for made in (folder, self._tmp, self._que):
            made.mkdir(exist_ok=True)
        self._made = len(os.listdir(self._que))
        self._parent = os.open(self._que, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._parent)

    def fsynced(self) -> None:
        """One: mkdir, write, fsync the file and its directory, rename, fsync the parent."""
        staged = self._write(fsync=True)
        directory = os.open(staged, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
        self._publish(staged)
        os.fsync(self._parent)

    def synced(self) -> None:
        """One: mkdir, write, rename, one syncfs."""
        self._publish(self._write(fsync=False))
        self._syncfs()

    def group(self) -> None:
        """A group of 32, and one syncfs for all."""
        for _ in range(_GROUP):
            self._publish(self._write(fsync=False))
        self._syncfs()

    def _write(self, *, fsync: bool) -> str:
        self._made += 1
        staged = f"{self._tmp}/{self._made:09}"
        os.mkdir(staged)
        fd = os.open(f"{staged}/msg", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, MESSAGE)
        if fsync:
            os.fsync(fd)
        os.close(fd)
        return staged

    def _publish(self, staged: str) -> None:
        os.rename(staged, f"{self._que}/{self._made:09}")

    def _syncfs(self) -> None:
        if _libc.syncfs(self._parent) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")


def durable_one_by_one(folder: Path, seconds: float) -> float:
    """The better of the two ways to make one message directory durable, per second."""
    directories = DurableDirectories(folder)
    try:
        return max(_rate(directories.fsynced, seconds / 2), _rate(directories.synced, seconds / 2))
    finally:
        directories.close()


def measure(bench: Bench) -> list[Figure]:
    """All raw limits, each for itself."""
    seconds = 0.3 if bench.quick else 0.8
    script = bench.folder / "done.sh"
    script.write_text(SH_SCRIPT)
    script.chmod(0o755)
    figures = [
        Figure("spawn and reap /bin/true", spawn(["/bin/true"], seconds), "/s"),
        Figure("spawn and reap the sh script", spawn([str(script)], seconds), "/s"),
        Figure("spawn and reap bash -c :", spawn(["/bin/bash", "-c", ":"], seconds), "/s"),
    ]
    program = bench.compiled("done", C_SCRIPT)
    if program is not None:
        figures.append(Figure("spawn and reap the C program", spawn([str(program)], seconds), "/s"))
    directories = DurableDirectories(bench.folder / "raw")
    ways: list[tuple[str, Callable[[], None], int]] = [
        ("durable directory by fsync", directories.fsynced, 1),
        ("durable directory by syncfs", directories.synced, 1),
        (f"durable directories, {_GROUP} by one syncfs", directories.group, _GROUP),
    ]
    for name, way, many in ways:
        times: list[float] = []
        rate = many * _rate(way, seconds, times)
        note = f"p50 {percentile(times, 0.5) * 1e3:.2f} ms, p99 {percentile(times, 0.99) * 1e3:.2f}"
        figures.append(Figure(name, rate, "/s", note=note))
    directories.close()
    return figures


def _rate(once: Callable[[], None], seconds: float, times: list[float] | None = None) -> float:
    began = before = time.perf_counter()
    count = 0
    while before - began < seconds:
        once()
        count += 1
        now = time.perf_counter()
        if times is not None:
            times.append(now - before)
        before = now
    return count / (before - began)
