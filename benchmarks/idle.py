"""What twenty idle queues cost: memory and wake-ups.

Memory is the proportional share (PSS) that the kernel accounts to each process: pages shared by the
fork count in parts.  It is told after the start, and after every queue has processed some messages,
for work unshares pages.  Wake-ups are counted twice: by the kernel (voluntary context switches) and
by the event loop itself.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.harness import SH_SCRIPT, Bench, Figure, pss_kib, sleeps
from rqcore.testing import RunningInstance

_QUEUES = 20
_MESSAGES = 20


def measure(bench: Bench) -> list[Figure]:
    """Memory and wake-ups, fresh and after work."""
    seconds = bench.pick(10, 3)
    figures = []
    with bench.instance("idle") as instance:
        names = [f"idle{number:02}" for number in range(_QUEUES)]
        for name in names:
            instance.queue(name, SH_SCRIPT)
        instance.start()
        figures += _memory(instance, "after the start")
        figures += _wakeups(instance, names, seconds, "after the start")
        for name in names:
            client = instance.client(name)
            ids = [client.ask("create_message", {"dest": name}) for _ in range(_MESSAGES)]
            instance.until(name, str(ids[-1]).rpartition("/")[2])
            client.close()
        figures += _memory(instance, f"after {_MESSAGES} messages each")
        figures += _wakeups(instance, names, seconds, "after work")
    return figures


def _pids(instance: RunningInstance) -> tuple[int, list[int]]:
    described = instance.manager.ask("describe")
    return described["pid"], [c["pid"] for c in described["children"] if c["kind"] == "queue"]


def _memory(instance: RunningInstance, when: str) -> list[Figure]:
    manager, queues = _pids(instance)
    shares = [pss_kib(pid) / 1024 for pid in queues]
    total = sum(shares) + pss_kib(manager) / 1024
    note = f"largest {max(shares):.2f}, the manager {pss_kib(manager) / 1024:.1f}"
    return [
        Figure(f"memory of a queue {when}", statistics.median(shares), "MiB PSS", note=note),
        Figure(f"memory of {_QUEUES} queues and manager {when}", total, "MiB PSS"),
    ]


def _wakeups(
    instance: RunningInstance, names: list[str], seconds: float, when: str
) -> list[Figure]:
    manager, queues = _pids(instance)
    clients = [instance.client(name) for name in names]
    loops = [client.ask("describe")["wakeups"] for client in clients]
    time.sleep(1)  # what the questions themselves have caused is over
    before = {pid: sleeps(pid) for pid in (manager, *queues)}
    time.sleep(seconds)
    slept = {pid: sleeps(pid) - count for pid, count in before.items()}
    # The question wakes it up once, and is counted in its own answer.
    turns = [
        client.ask("describe")["wakeups"] - count - 1
        for client, count in zip(clients, loops, strict=True)
    ]
    for client in clients:
        client.close()
    note = f"manager {slept[manager]}; by the event loops' own count {sum(turns)}"
    woken = sum(slept[pid] for pid in queues)
    return [Figure(f"wake-ups of {_QUEUES} queues in {seconds:g} s {when}", woken, "", note=note)]
