"""What ``rq top`` knows: every queue, what runs in it, and what ended lately.

Pure: no clock, no socket.  It is told descriptions (``describe``) and events (`rqcore.followers`).
Counts go on by events from the last description; that may or may not contain the events that come right
after it, so `Queue.doubtful` says since when another one is wanted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STATES = ("prep", "que", "run", "done", "relayed", "err")
#: Ends are counted in buckets of so many seconds, and so many of them are kept: two minutes.
STEP = 2
KEPT = 60
_ENDED = 200
_FINAL = ("done", "relayed", "err")


@dataclass(slots=True)
class Running:
    """A message that runs: since when, and what it says."""

    msg_id: str
    since: float
    status: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A message that came to an end."""

    at: float
    queue: str
    msg_id: str
    state: str
    status: str


@dataclass(slots=True)
class Queue:
    """A queue as it is shown; ``counts`` is empty until it has said how it is."""

    name: str
    status: str = "..."
    problem: str = ""
    workers: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    #: How many ended well and badly, by the number of the bucket.
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)
    doubtful: float | None = None

    def count(self, state: str) -> int:
        """How many are in this state."""
        return self.counts.get(state, 0)

    def per_minute(self, now: float) -> tuple[int, int]:
        """How many ended well, and badly, in the last minute."""
        since = int(now - 60) // STEP
        found = [ends for bucket, ends in self.ends.items() if bucket > since]
        return sum(good for good, _ in found), sum(bad for _, bad in found)

    def recent(self, now: float, buckets: int) -> list[int]:
        """How many ended in each of the last buckets, oldest first."""
        last = int(now) // STEP
        return [sum(self.ends.get(n, (0, 0))) for n in range(last - buckets + 1, last + 1)]


class Model:
    """See the head of this module; times are unix seconds."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.services: list[dict[str, Any]] = []
        #: What the manager said last; empty before, ``alive`` tells whether it still says anything.
        self.about: dict[str, Any] = {}
        self.alive = False
        self.ended: deque[Ended] = deque(maxlen=_ENDED)

    def on_manager(self, about: Mapping[str, Any], names: Iterable[str]) -> None:
        """The manager described itself; ``names`` are the queues that there are on disk."""
        self.about, self.alive = dict(about), True
        children = about["children"]
        self.services = [child for child in children if child["kind"] != "queue"]
        known = {child["name"]: child for child in children if child["kind"] == "queue"}
        for name in set(self.queues) - set(known) - set(names):
            del self.queues[name]
        for name in sorted({*known, *names}):
            queue = self.queues.setdefault(name, Queue(name))
            child = known.get(name, {"state": "not started", "problem": ""})
            if child["state"] != "running":
                self._silent(queue, child["state"], child["problem"])

    def on_manager_gone(self) -> None:
        """Nobody answers at the manager's socket."""
        self.alive = False
        for queue in self.queues.values():
            self._silent(queue, "?", "")

    def on_queue_gone(self, name: str) -> None:
        """A queue's process went away; the manager will say more."""
        if name in self.queues:
            self._silent(self.queues[name], "?", "")

    def _silent(self, queue: Queue, status: str, problem: str) -> None:
        queue.status, queue.problem, queue.doubtful = status, problem, None
        queue.running.clear()
        queue.counts = {}

    def on_described(self, name: str, about: Mapping[str, Any]) -> None:
        """A queue described itself."""
        queue = self.queues.setdefault(name, Queue(name))
        queue.status, queue.problem = about["status"], about["problem"]
        queue.workers, queue.counts = about["workers"], dict(about["counts"])
        queue.running = {
            one["msg_id"]: Running(one["msg_id"], one["started_at"], one["status"])
            for one in about["running"]
        }
        queue.doubtful = None

    def on_event(self, name: str, event: Mapping[str, Any], now: float) -> bool:
        """Something happened in a queue; True when it should describe itself again at once."""
        queue = self.queues.setdefault(name, Queue(name))
        match event["event"]:
            case "state":
                self._moved(queue, event, now)
            case "status":
                running = queue.running.get(event["msg_id"])
                if running is not None:
                    running.status = event["status"]
            case "queue":
                queue.status, queue.problem = event["status"], event["problem"]
                return True
            case _:  # of a later version
                pass
        return False

    def _moved(self, queue: Queue, event: Mapping[str, Any], now: float) -> None:
        old, new, msg_id = event["old"], event["new"], event["msg_id"]
        if queue.counts:
            for state, step in ((old, -1), (new, 1)):
                if state is not None:
                    queue.counts[state] = max(0, queue.counts.get(state, 0) + step)
        if queue.doubtful is None:
            queue.doubtful = now
        if new == "run":
            queue.running[msg_id] = Running(msg_id, event["at"])
        else:
            queue.running.pop(msg_id, None)
        if new in _FINAL:
            bucket = int(now) // STEP
            good, bad = queue.ends.get(bucket, (0, 0))
            queue.ends[bucket] = (good, bad + 1) if new == "err" else (good + 1, bad)
            for old_bucket in [n for n in queue.ends if n <= bucket - KEPT]:
                del queue.ends[old_bucket]
            self.ended.append(Ended(event["at"], queue.name, msg_id, new, event["status"]))
