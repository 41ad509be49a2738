"""A large attachment, by link from the same file system and by copy from another.

Attaching computes MD5 and SHA-256 in one read and is durable when answered, so the raw limits are
md5sum of the same file, and for the copy: cp, then sync of the copy.  Another client goes on
enqueueing meanwhile; what its messages wait is told too.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.harness import SH_SCRIPT, Bench, Figure, percentile
from rqcore.client import QueueClient
from rqcore.testing import RunningInstance

_ELSEWHERE = "/dev/shm"
_BLOCK = 1 << 20


def measure(bench: Bench) -> list[Figure]:
    """By link, and by copy where there is another file system."""
    size = bench.pick(1024, 64) * _BLOCK
    near = bench.folder / "large"
    _make(near, size)
    figures = [_raw("md5sum", ["md5sum", str(near)], size)]
    figures.append(_raw("sha256sum", ["sha256sum", str(near)], size))
    with bench.instance("attach") as instance:
        instance.queue("bench", SH_SCRIPT)
        instance.start()
        instance.manager.ask("pause_queue", "bench")
        figures.append(_attach(instance, "link", near, size, figures[0]))
        near.unlink()
        if os.path.isdir(_ELSEWHERE) and os.stat(_ELSEWHERE).st_dev != os.stat(near.parent).st_dev:
            with tempfile.TemporaryDirectory(prefix="rq-bench-", dir=_ELSEWHERE) as folder:
                far = Path(folder) / "large"
                _make(far, size)
                copy = near.with_name("copy")
                shell = ["sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh", str(far), str(copy)]
                figures.append(_raw("cp and sync", shell, size))
                copy.unlink()
                figures.append(_attach(instance, "copy", far, size, figures[-1]))
    return figures


def _make(path: Path, size: int) -> None:
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(block)
        os.fsync(file.fileno())


def _raw(name: str, command: list[str], size: int) -> Figure:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Figure(f"{name} of {size >> 20} MiB", _rate(size, began), "MB/s")


def _attach(instance: RunningInstance, how: str, path: Path, size: int, raw: Figure) -> Figure:
    client = QueueClient(instance.directory, "bench")
    msg_id = str(client.ask("prep_message", {"dest": "bench"})).rpartition("/")[2]
    neighbour = _Neighbour(instance)
    neighbour.start()
    began = time.perf_counter()
    client.ask("attach_message", {"msg_id": msg_id, "pathname": str(path)})
    rate = _rate(size, began)
    neighbour.stop.set()
    neighbour.join()
    client.ask("delete_message", {"msg_id": msg_id})
    client.close()
    waits = neighbour.waits
    note = (
        f"another client's enqueue meanwhile: p50 {percentile(waits, 0.5) * 1e3:.1f} ms, "
        f"slowest {max(waits) * 1e3:.0f}"
    )
    name = f"attach {size >> 20} MiB by {how}"
    return Figure(name, rate, "MB/s", raw.name, raw.value, rate / raw.value, note)


class _Neighbour(threading.Thread):
    """A client that enqueues small messages until told to stop."""

    def __init__(self, instance: RunningInstance) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.waits: list[float] = []
        self._client = QueueClient(instance.directory, "bench")

    def run(self) -> None:
        while not self.waits or not self.stop.wait(0.01):
            began = time.perf_counter()
            self._client.ask("create_message", {"dest": "bench"})
            self.waits.append(time.perf_counter() - began)
        self._client.close()


def _rate(size: int, began: float) -> float:
    return size / 1e6 / (time.perf_counter() - began)
