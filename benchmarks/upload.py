"""A large attachment over HTTP, sent with ``curl -F`` and fetched again, and what memory that takes.

The raw limit of an upload is ``dd conv=fsync`` of the same file to the same disk, in the same round; it
only writes, while the upload is parsed, hashed twice (MD5, SHA-256), and durable when answered.  The
peak memory of the web service is told after uploads of 1 KB and after those of the large file: it is the
same for any size.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchmarks.harness import SH_SCRIPT, Bench, Figure, beside
from rqcore.testing import RunningInstance, free_port

_BLOCK = 1 << 20


def measure(bench: Bench) -> list[Figure]:
    """Up, down, and the memory."""
    size = bench.pick(2048, 64) * _BLOCK
    large, small, copy = (bench.folder / name for name in ("large", "small", "copy"))
    _make(large, size)
    small.write_bytes(os.urandom(1024))
    with bench.instance("upload") as instance:
        web = _Web(instance)
        for _ in range(5):
            web.send(small)
        peak = web.peak_kib()
        rounds = []
        for _ in range(min(3, bench.rounds)):
            os.sync()
            raw = _rate(
                size, ["dd", f"if={large}", f"of={copy}", "bs=1M", "conv=fsync", "status=none"]
            )
            copy.unlink()
            os.sync()
            rounds.append((web.send(large), raw))
        grown = web.peak_kib() - peak
        note = f"peak memory of the web service {peak / 1024:.1f} MiB, and {grown / 1024:.1f} more"
        up = beside(f"curl -F of {size >> 20} MiB", "MB/s", "dd conv=fsync", rounds, note)
        down = Figure(f"curl of {size >> 20} MiB", web.fetch(large), "MB/s")
    return [up, down]


class _Web:
    """The web service of an instance, and curl."""

    def __init__(self, instance: RunningInstance) -> None:
        port = free_port()
        instance.use_plugins("cli", "web")
        instance.configure(port=port)
        instance.queue("bench", SH_SCRIPT)
        instance.start()
        self._instance = instance
        self._url = f"http://127.0.0.1:{port}/q/bench"
        children = instance.manager.ask("describe")["children"]
        self._pid = next(child["pid"] for child in children if child["kind"] == "service")

    def send(self, path: Path) -> float:
        """Attach a file to a new message; the rate in MB/s."""
        url = self._prepared()
        file = f"filedata=@{path};filename=file"
        command = ["curl", "-sSf", "-F", file, "-F", "x_format=json", f"{url}/attach/new"]
        rate = _rate(path.stat().st_size, command)
        self._instance.ask("bench", "delete_message", {"msg_id": url.rpartition("/")[2]})
        return rate

    def fetch(self, path: Path) -> float:
        """Attach a file and fetch it; the rate of that in MB/s."""
        url = self._prepared()
        args = {"msg_id": url.rpartition("/")[2], "pathname": str(path), "name": "file"}
        self._instance.ask("bench", "attach_message", args)
        command = ["curl", "-sSf", "-o", "/dev/null", f"{url}/attach/file"]
        return _rate(path.stat().st_size, command)

    def _prepared(self) -> str:
        full = str(self._instance.ask("bench", "prep_message", {"dest": "bench"}))
        return f"{self._url}/{full.rpartition('/')[2]}"

    def peak_kib(self) -> int:
        """The most memory that the service has ever had, in KiB."""
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
        raise LookupError("the kernel tells no peak of memory")


def _make(path: Path, size: int) -> None:
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(block)
        os.fsync(file.fileno())


def _rate(size: int, command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return size / 1e6 / (time.perf_counter() - began)
