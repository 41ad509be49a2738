"""What operators' plugins and tools cost, each beside what the machine does for the same without them.

    plugins      enqueue to done with webhook, cleaner and metrics loaded, beside without any of them
    webhooks     from the first message's end until a receiver has been told of all, beside starting
                 a bare Python that loads an HTTP client, which each attempt must do
    clean        what would go of many done messages; then removing it, beside removing such directories
    fsck, shape  looking at many messages, beside reading the same files and doing nothing with them
    export       a message with a large attachment into a file and back, beside hashing and copying it
    metrics      a scrape of an instance with 20 queues

Commands are run as a user runs them: the start of ``rq`` is in the figure.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import limits
from benchmarks.finish import run
from benchmarks.harness import C_SCRIPT, SH_SCRIPT, Bench, Figure, beside
from benchmarks.million import fill
from benchmarks.sites import site
from rqcore.testing import RunningInstance, free_port

_WORKERS = 4


def measure(bench: Bench) -> list[Figure]:
    """All of it."""
    return [
        *_plugins(bench), *_webhooks(bench), *_spool(bench), *_shape(bench), *_export(bench),
        *_scrape(bench),
    ]  # fmt: skip


def rq(instance: RunningInstance, *words: str) -> tuple[float, str]:
    """Run a command; returns how long it took, and what it printed.  Raises when it failed."""
    environ = {**instance.environ, "RQ_DIR": str(instance.directory)}
    command = [sys.executable, "-m", "rqcore_cli", *words]
    began = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{words} ended with {done.returncode}: {done.stderr}")
    return took, done.stdout


def _plugins(bench: Bench) -> list[Figure]:
    script = bench.compiled("done", C_SCRIPT)
    count = bench.pick(600, 200)
    rounds: list[tuple[float, float]] = []
    with bench.instance("bare") as bare, bench.instance("full") as full:
        full.use_plugins("cli", "webhook", "cleaner", "metrics")
        for instance in (bare, full):
            instance.queue("bench", script or SH_SCRIPT, num_workers=_WORKERS)
            instance.start()
        for _ in range(bench.rounds):
            # By turns, so that neither always comes first.
            order = (full, bare) if len(rounds) % 2 else (bare, full)
            rates = {instance.directory: run(instance, "bench", count)[0] for instance in order}
            rounds.append((rates[full.directory], rates[bare.directory]))
        inside = _in_hooks(full, "bench", count * bench.rounds)
    return [beside("enqueue to done, with three plugins", "/s", "without any", rounds, inside)]


def _in_hooks(instance: RunningInstance, queue: str, messages: int) -> str:
    """How long a queue's process was in each plugin's hooks, for each message."""
    client = instance.client(queue)
    spent: dict[str, float] = {}
    for one in client.ask("plugins")["hooks"]:
        spent[one["plugin"]] = spent.get(one["plugin"], 0.0) + one["seconds"]
    client.close()
    each = {name: seconds / messages * 1e6 for name, seconds in spent.items() if seconds}
    return "in hooks, us each: " + ", ".join(f"{name} {us:.0f}" for name, us in each.items())


class _Receiver(http.server.ThreadingHTTPServer):
    """Takes webhooks, and counts them."""

    def __init__(self, count: int) -> None:
        super().__init__(("127.0.0.1", free_port()), _Handler)
        self.wanted, self.all_came = count, threading.Event()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def came(self) -> None:
        """One more."""
        with self.lock:
            self.wanted -= 1
            if self.wanted == 0:
                self.all_came.set()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Any

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.server.came()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


def _webhooks(bench: Bench) -> list[Figure]:
    count = bench.pick(300, 60)
    python = [sys.executable, "-c", "import http.client, json, urllib.parse"]
    limit = limits.spawn(python, 2.0)
    receiver = _Receiver(count)
    with bench.instance("webhooks") as instance:
        instance.use_plugins("cli", "webhook")
        instance.queue("bench", SH_SCRIPT, num_workers=_WORKERS)
        instance.start()
        url = f"http://127.0.0.1:{receiver.server_address[1]}/"
        began = time.perf_counter()
        for _ in range(count):
            instance.send("bench", post_run_webhook=[url])
        if not receiver.all_came.wait(600):
            raise RuntimeError(f"{receiver.wanted} webhooks did not come:\n{instance.log_text()}")
        rate = count / (time.perf_counter() - began)
        receiver.shutdown()
        receiver.server_close()
    return [Figure("webhooks, message sent to receiver told", rate, "/s",
                   "start Python with an HTTP client, one by one", limit, rate / limit)]  # fmt: skip


@contextmanager
def _filled(bench: Bench, count: int) -> Iterator[RunningInstance]:
    with bench.instance("spool") as instance:
        instance.use_plugins("cli", "cleaner")
        instance.queue("bench", SH_SCRIPT)
        fill(instance.directory / "queue/bench", count)
        os.sync()
        instance.start()
        instance.serving("bench")
        yield instance


def _spool(bench: Bench) -> list[Figure]:
    count = bench.pick(100_000, 5000)
    gone = bench.pick(5000, 1000)
    with _filled(bench, count) as instance:
        done = instance.directory / "queue/bench/done"
        read = _read_all(done)
        fsck, _ = rq(instance, "fsck", "bench")
        plan, _ = rq(
            instance, "clean", "--dry-run", "--keep", str(count - gone), "--queue", "bench"
        )
        raw = _remove_copies(bench.folder / "raw", done, gone)
        began, _ = rq(
            instance, "clean", "--yes", "--keep", str(count - gone), "--queue", "bench",
            "--state", "done",
        )  # fmt: skip
        removal = began - plan
    return [
        Figure(f"rq fsck of {count:,} messages", count / fsck, "/s", "read their files",
               count / read, read / fsck, f"{fsck:.1f} s in all"),
        Figure(f"rq clean --dry-run, {gone:,} of {count:,} would go", plan, "s"),
        Figure(f"rq clean, {gone:,} messages", gone / max(removal, 1e-3), "/s",
               "remove such directories", gone / raw, raw / max(removal, 1e-3),
               "it leaves the disk to the work: see docs/cleaner.md"),
    ]  # fmt: skip


def _read_all(root: Path) -> float:
    began = time.perf_counter()
    for folder, _, names in os.walk(root):
        for name in names:
            with open(f"{folder}/{name}", "rb") as file:
                file.read()
    return time.perf_counter() - began


def _remove_copies(place: Path, source: Path, count: int) -> float:
    """How long it takes to remove so many directories like those of the messages."""
    place.mkdir()
    sample = next(Path(folder) for folder, _, names in os.walk(source) if "msg" in names)
    for number in range(count):
        one = place / str(number)
        one.mkdir()
        for name in ("msg", "status"):
            os.link(sample / name, one / name)
    os.sync()
    began = time.perf_counter()
    shutil.rmtree(place)
    return time.perf_counter() - began


def _shape(bench: Bench) -> list[Figure]:
    count = bench.pick(20_000, 2000)
    with bench.instance("shape") as instance:
        instance.queue("bench", SH_SCRIPT)
        (instance.directory / "config/bench.pause").touch()
        que = instance.directory / "queue/bench/que"
        que.mkdir(parents=True)
        now = time.gmtime(time.time() - 3600)
        fields = json.dumps({"dest": "bench", "due": 1, "count": 0, "param1": "x"})
        for number in range(count):
            one = que / f"{time.strftime('%Y%m%d.%H%M.%S', now)}.000.{number:05}17"
            one.mkdir()
            (one / "msg").write_text(fields)
        read = _read_all(que)
        took, _ = rq(instance, "shape", "bench")
    return [Figure(f"rq shape of {count:,} waiting messages", count / took, "/s", "read their files",
                   count / read, read / took, f"{took:.1f} s in all")]  # fmt: skip


def _export(bench: Bench) -> list[Figure]:
    size = bench.pick(1 << 30, 64 << 20)
    large = bench.folder / "large"
    with large.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    began = time.perf_counter()
    shell = 'sha256sum "$1" && cp "$1" "$1.copy" && sync "$1.copy"'
    subprocess.run(["sh", "-c", shell, "sh", large], check=True, stdout=subprocess.DEVNULL)
    copied = time.perf_counter() - began
    with bench.instance("export") as instance:
        instance.queue("bench", SH_SCRIPT)
        (instance.directory / "config/bench.pause").touch()
        instance.start()
        _, sent = rq(instance, "send", "bench", "--attach", str(large))
        ref = "/".join(sent.strip().split("/")[-2:])
        file_ = bench.folder / "m.rqmsg"
        out, _ = rq(instance, "export", ref, "-o", str(file_))
        into, _ = rq(instance, "import", str(file_), "--again")
    mega = size / 1e6
    return [
        Figure(f"rq export, {mega:,.0f} MB attached", mega / out, "MB/s", "sha256sum, cp, sync",
               mega / copied, copied / out),
        Figure(f"rq import, {mega:,.0f} MB attached", mega / into, "MB/s", "sha256sum, cp, sync",
               mega / copied, copied / into),
    ]  # fmt: skip


def _scrape(bench: Bench) -> list[Figure]:
    with bench.instance("scrape") as instance:
        port = site(instance)
        instance.use_plugins("cli", "web", "metrics")
        for number in range(20):
            instance.queue(f"q{number}", SH_SCRIPT)
        instance.start()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        took, size = [], 0
        for _ in range(bench.pick(20, 5) + 1):
            began = time.perf_counter()
            connection.request("GET", "/metrics")
            size = len(connection.getresponse().read())
            took.append(time.perf_counter() - began)
        connection.close()
    middle = sorted(took[1:])[len(took) // 2]
    return [Figure("a scrape of /metrics, 20 queues", middle * 1e3, "ms", note=f"{size:,} bytes")]
