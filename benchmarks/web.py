"""The web service: creating messages, idleness, and what it costs each message.

Creating is measured over HTTP (one request after another on each connection, which is kept open) and
through the queue's socket, side by side in each round; the queue is paused.  Idle is a service that
nobody asks for ten seconds, and then one that a browser's stream of events is open to.

What the plugin costs a message that nobody looks at, its note of each run and being followed, is
measured like `benchmarks.finish`, by an instance with the plugin and one without in turns.
"""

from __future__ import annotations

import statistics
import subprocess
import time

from benchmarks import finish
from benchmarks.clients import Http, Sent, send
from benchmarks.harness import (
    C_SCRIPT,
    SH_SCRIPT,
    Bench,
    Figure,
    beside,
    cpu_seconds,
    percentile,
    pss_kib,
    sleeps,
)
from benchmarks.sites import service_pid, site
from rqcore.testing import RunningInstance

_CLIENTS = (1, 32)
_SOCKET = "through the socket"
_INTERFACES = {"RQ's URL": "/q/bench/new_message", "/api/v1": "/api/v1/queues/bench/messages"}


def measure(bench: Bench) -> list[Figure]:
    """All of it."""
    figures = []
    with bench.instance("http") as instance:
        port = site(instance)
        instance.queue("bench", SH_SCRIPT)
        instance.start()
        instance.manager.ask("pause_queue", "bench")
        figures += _create(bench, instance, port)
        figures += _idle(bench, instance, port)
    return [*figures, *_cost(bench)]


def _create(bench: Bench, instance: RunningInstance, port: int) -> list[Figure]:
    path = str(instance.instance.queue_socket("bench"))
    pid = service_pid(instance)
    seconds = 0.5 if bench.quick else 1.5
    figures = []
    for clients in _CLIENTS:
        processes = min(2, clients)
        rounds: dict[str, list[tuple[Sent, float]]] = {name: [] for name in _INTERFACES}
        direct: list[Sent] = []
        cpu: dict[str, list[float]] = {name: [] for name in _INTERFACES}
        for _ in range(bench.rounds):
            limit = send(path, clients, processes, seconds=seconds)
            direct.append(limit)
            for name, url in _INTERFACES.items():
                before = cpu_seconds(pid)
                sent = send(Http(port, url), clients, processes, seconds=seconds)
                cpu[name].append((cpu_seconds(pid) - before) / len(sent.ids))
                rounds[name].append((sent, limit.rate))
        many = f"{clients} client{'s' if clients > 1 else ''}"
        figures.append(_direct(f"create {_SOCKET}, {many}", direct))
        for name, measured in rounds.items():
            spent = f"site CPU {statistics.median(cpu[name]) * 1e6:.0f} us each"
            note = f"{_latencies([sent for sent, _ in measured])}; {spent}"
            pairs = [(sent.rate, limit) for sent, limit in measured]
            figures.append(beside(f"create by {name}, {many}", "/s", _SOCKET, pairs, note))
    return figures


def _direct(name: str, sent: list[Sent]) -> Figure:
    return Figure(name, statistics.median(one.rate for one in sent), "/s", note=_latencies(sent))


def _latencies(sent: list[Sent]) -> str:
    all_ = [latency for one in sent for latency in one.latencies]
    return f"p50 {percentile(all_, 0.5) * 1e3:.2f} ms, p99 {percentile(all_, 0.99) * 1e3:.2f}"


def _idle(bench: Bench, instance: RunningInstance, port: int) -> list[Figure]:
    pid = service_pid(instance)
    seconds = bench.pick(10, 3)
    time.sleep(6)  # what came before is written to the history
    figures = [_woken(pid, seconds, "nobody asks")]
    figures.append(Figure("memory of the web service then", pss_kib(pid) / 1024, "MiB PSS"))
    url = f"http://127.0.0.1:{port}/api/v1/events"
    stream = subprocess.Popen(["curl", "-sN", url], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        figures.append(_woken(pid, seconds, "one stream of events is open"))
    finally:
        stream.terminate()
        stream.wait()
    return figures


def _woken(pid: int, seconds: float, when: str) -> Figure:
    before = sleeps(pid)
    time.sleep(seconds)
    return Figure(f"wake-ups of the web service in {seconds:g} s, {when}", sleeps(pid) - before, "")


def _cost(bench: Bench) -> list[Figure]:
    """From enqueue to done with the plugin, beside the same without it."""
    script = bench.compiled("done", C_SCRIPT) or SH_SCRIPT
    count = bench.pick(400, 150)
    pairs: list[tuple[float, float]] = []
    cpu: list[tuple[float, float]] = []
    own: list[float] = []
    with bench.instance("plain") as without, bench.instance("noted") as with_:
        site(with_)
        for instance in (without, with_):
            instance.queue("bench", script, num_workers=2)
            instance.start()
        pid = service_pid(with_)
        for _ in range(bench.rounds + 1):
            limit, limit_cpu = finish.run(without, "bench", count)
            before = cpu_seconds(pid)
            rate, rate_cpu = finish.run(with_, "bench", count)
            own.append((cpu_seconds(pid) - before) / count)
            pairs.append((rate, limit))
            cpu.append((rate_cpu * 1e6, limit_cpu * 1e6))
    note = f"site CPU {statistics.median(own[1:]) * 1e6:.0f} us each"
    return [
        beside("enqueue to done with the plugin", "/s", "without", pairs[1:], note),
        beside("queue CPU for each with the plugin", "us", "without", cpu[1:]),
    ]
