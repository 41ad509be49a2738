"""From enqueue to done: durable messages, one process for each, by 1, 2 and 8 workers.

The clock runs from the first client's first request until the last message is durably done; eight
clients send meanwhile.  The script says ``done`` and nothing else: once as a shell script, once as
a compiled program, so that the shell's own start can be told from what RQ costs.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import limits
from benchmarks.clients import send
from benchmarks.harness import C_SCRIPT, SH_SCRIPT, Bench, Figure, beside, cpu_seconds, percentile
from rqcore.testing import RunningInstance

_WORKERS = (1, 2, 8)
_CLIENTS = 8


def measure(bench: Bench) -> list[Figure]:
    """Each kind of script with each number of workers."""
    shell = bench.folder / "done.sh"
    shell.write_text(SH_SCRIPT)
    shell.chmod(0o755)
    scripts: dict[str, tuple[Path, list[str], str]] = {
        "sh": (shell, [str(shell)], "spawn the script")
    }
    program = bench.compiled("done", C_SCRIPT)
    if program is not None:
        scripts["C"] = (program, ["/bin/true"], "spawn /bin/true")
    count, seconds = bench.pick(600, 200), bench.pick(50, 30) / 100
    rounds: dict[tuple[str, int], list[tuple[float, float]]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    with bench.instance("finish") as instance:
        for kind, (script, _, _) in scripts.items():
            for workers in _WORKERS:
                instance.queue(f"{kind}{workers}", script, num_workers=workers)
        instance.start()
        for _ in range(bench.rounds):
            for kind, (_, command, _) in scripts.items():
                limit = limits.spawn(command, seconds)
                for workers in _WORKERS:
                    rate, each = run(instance, f"{kind}{workers}", count)
                    rounds.setdefault((kind, workers), []).append((rate, limit))
                    cpu.setdefault((kind, workers), []).append(each)
    return [
        beside(
            f"enqueue to done, {kind} script, {workers} workers", "/s", scripts[kind][2], measured,
            f"queue CPU {percentile(cpu[kind, workers], 0.5) * 1e6:.0f} us each",
        )
        for (kind, workers), measured in rounds.items()
    ]  # fmt: skip


def run(instance: RunningInstance, name: str, count: int) -> tuple[float, float]:
    """Messages per second, and the queue process's CPU seconds for each."""
    client = instance.client(name)
    pid = client.ask("describe")["pid"]
    before, began = cpu_seconds(pid), time.perf_counter()
    sent = send(str(instance.instance.queue_socket(name)), _CLIENTS, count=count)
    # The last one starts last; what the other workers still do then is awaited as well.
    instance.until(name, sent.ids[-1])
    for state in ("run", "que"):
        for item in client.call("messages", {"state": state}):
            instance.until(name, item["msg_id"])
    took, cpu = time.perf_counter() - began, cpu_seconds(pid) - before
    counts = client.call("num_messages")
    if counts["que"] or counts["run"] or counts["err"]:
        raise RuntimeError(f"not all messages are done: {counts}")
    client.close()
    return count / took, cpu / count
