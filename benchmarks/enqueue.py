"""Durable enqueue: from the request to the answer "ok", which is given once the disk has it.

The queue is paused, so that nothing else is measured.  One client is one connection of the ordinary
client library; many are 32 connections in two processes (`benchmarks.clients`).
"""

from __future__ import annotations

import time

from benchmarks import limits
from benchmarks.clients import Sent, send
from benchmarks.harness import SH_SCRIPT, Bench, Figure, beside, cpu_seconds, percentile
from rqcore.testing import RunningInstance

_CLIENTS = 32
_LIMIT = "durable directory"


def measure(bench: Bench) -> list[Figure]:
    """One client, then many."""
    seconds = 0.4 if bench.quick else 0.6
    one: list[tuple[Sent, float, float]] = []
    many: list[tuple[Sent, float, float]] = []
    with bench.instance("enqueue") as instance:
        instance.queue("bench", SH_SCRIPT)
        instance.start()
        instance.manager.ask("pause_queue", "bench")
        pid = instance.client("bench").ask("describe")["pid"]
        path = str(instance.instance.queue_socket("bench"))
        for _ in range(bench.rounds):
            limit = limits.durable_one_by_one(bench.folder / "raw", seconds)
            before = cpu_seconds(pid)
            sent = _one_by_one(instance, seconds)
            one.append((sent, limit, (cpu_seconds(pid) - before) / len(sent.ids)))
            before = cpu_seconds(pid)
            sent = send(path, _CLIENTS, processes=2, seconds=seconds)
            many.append((sent, limit, (cpu_seconds(pid) - before) / len(sent.ids)))
    return [
        _figure("enqueue, one client", one),
        _figure(f"enqueue, {_CLIENTS} clients", many),
    ]


def _one_by_one(instance: RunningInstance, seconds: float) -> Sent:
    client = instance.client("bench")
    message = {"dest": "bench", "param1": "one", "param2": "two", "due": 1}
    client.ask("ping")
    cpu, began = time.process_time(), time.perf_counter()
    now, ids, latencies = began, [], []
    while now - began < seconds:
        ids.append(str(client.ask("create_message", message)))
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    client.close()
    return Sent(now - began, ids, latencies, (time.process_time() - cpu) / (now - began))


def _figure(name: str, rounds: list[tuple[Sent, float, float]]) -> Figure:
    latencies = [latency for sent, _, _ in rounds for latency in sent.latencies]
    cpu = percentile([cpu for _, _, cpu in rounds], 0.5)
    share = max(sent.cpu_share for sent, _, _ in rounds)
    note = (
        f"p50 {percentile(latencies, 0.5) * 1e3:.2f} ms, "
        f"p99 {percentile(latencies, 0.99) * 1e3:.2f}; queue CPU "
        f"{cpu * 1e6:.0f} us each; clients' CPU {share:.0%}"
    )
    return beside(name, "/s", _LIMIT, [(sent.rate, limit) for sent, limit, _ in rounds], note)
