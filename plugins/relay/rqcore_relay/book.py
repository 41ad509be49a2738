"""Which message may start now, and which wait for what: the decision alone.

Pure: no clock, no file, no process.  The queue's process tells what happened (`arrived`, `started`,
`reported`, `ended`, `left`) and asks for each message that is about to start (`ask`); times are unix
seconds.

The rules, for each peer by itself, so that none delays another's messages:

- So many transfers at a time.  The others are held, and called when one ends, earliest due first.
- A peer that did not answer is down until a transfer reaches it.  While it is, one message at a time
  tries: at once after the first failure, then when a pause is over (10, 40, 90 s …, 10 minutes at
  most), or a probe had an answer.  The others are held, and called when one got through; so are those
  that rest after a try of their own.
- A few transfers at a time, over all peers, may be such tries: what hangs until its time is up must
  not take all the workers.

Held means: hardly asked again (`_REST`), but *called* (`calls`), which the queue's process does by
sending the message to the front.  A call that gets lost costs a delay, never a message.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any

#: Seconds after which a held message is asked about even if nobody calls it: spread, so that
#: thousands that were held together do not come back together.
_REST = (1800.0, 5400.0)
_BUSY = (1.0, 3.0)
_MAX_PAUSE = 600.0
#: No peer is left alone for longer, whatever it asks for.
_LONGEST = 3600.0
#: So many stale items of a heap are not worth a rebuild.
_SLACK = 64
#: Bytes from which on a transfer says how fast a peer takes them; less is gone before it is measured.
_TELLING = 1_000_000


@dataclass(frozen=True, slots=True)
class Wait:
    """Not before ``until``, and why."""

    until: float
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a transfer's script said at its end; see docs/relay.md, ``relay-result.json``."""

    #: None: it never came so far as to try.
    reached: bool | None
    success: bool = False
    kind: str = ""
    sent: int = 0
    seconds: float = 0.0
    error: str = ""
    retry_after: float = 0.0


@dataclass(slots=True)
class Line:
    """One destination: the messages that wait for it."""

    dest: str
    ids: set[str] = field(default_factory=set)
    _heap: list[str] = field(default_factory=list)

    def add(self, msg_id: str) -> None:
        """One more."""
        if msg_id not in self.ids:
            self.ids.add(msg_id)
            heappush(self._heap, msg_id)

    def oldest(self) -> str:
        """The id of the oldest, "" when none waits."""
        while self._heap and self._heap[0] not in self.ids:
            heappop(self._heap)
        return self._heap[0] if self._heap else ""


@dataclass(slots=True)
class Peer:
    """What is known of a peer, and who runs and waits for it."""

    name: str
    #: None: nobody knows, or it answers again and no transfer has reached it yet.
    reachable: bool | None = None
    since: float | None = None
    kind: str = ""
    last_success: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    #: How often in a row it was not reached; above 0 it is down.
    failures: int = 0
    next_try: float = 0.0
    bytes: int = 0
    messages: int = 0
    rate: float | None = None
    lines: dict[str, Line] = field(default_factory=dict)
    #: How often it had not been reached when each of its transfers began.
    running: dict[str, int] = field(default_factory=dict)
    #: The same until now, and the last answer to a probe that was taken note of.
    silences: int = 0
    answered: float = 0.0
    #: Held ones by id, and the same as a heap that may hold more: (due, id).
    held: dict[str, float] = field(default_factory=dict)
    heap: list[tuple[float, str]] = field(default_factory=list)
    #: Called, and not asked about yet.
    called: set[str] = field(default_factory=set)
    #: The one that is asked about when the pause is over.
    timed: str = ""
    #: Those that did not reach it, as keys in their order; each is due again at a time of its own.
    resting: dict[str, None] = field(default_factory=dict)

    def turn(self) -> str:
        """The message that would try next, "" when none waits."""
        if self.timed:
            return self.timed
        for group in (self.called, self.held, self.resting):
            if group:
                return min(group)
        return ""


class Book:
    """See the head of this module.

    ``limit`` gives how many transfers a peer gets at a time, ``tries`` how many of those to peers
    that are down there may be at a time in all; ``known`` is what `Peer`'s public facts were.
    """

    def __init__(
        self, limit: Callable[[str], int], tries: Callable[[], int],
        known: Iterable[Mapping[str, Any]] = (),
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:  # fmt: skip
        self.peers: dict[str, Peer] = {facts["name"]: Peer(**facts) for facts in known}
        self._limit = limit
        self._tries = tries
        self._chance = chance
        #: Of each message that waits: its peer and its line.
        self._where: dict[str, tuple[Peer, Line]] = {}
        self._calls: list[str] = []

    def peer(self, name: str) -> Peer:
        """The peer of this name, a new one if need be."""
        return self.peers.get(name) or self.peers.setdefault(name, Peer(name))

    def calls(self) -> list[str]:
        """The messages that are to be sent to the front now; each is given once."""
        calls, self._calls = self._calls, []
        return calls

    # What happens in the queue

    def arrived(self, msg_id: str, name: str, dest: str) -> Peer:
        """It waits, from now on."""
        peer = self.peer(name)
        line = peer.lines.get(dest) or peer.lines.setdefault(dest, Line(dest))
        self._where[msg_id] = (peer, line)
        line.add(msg_id)
        return peer

    def left(self, msg_id: str) -> Peer | None:
        """It waits no more, for whatever reason."""
        found = self._where.pop(msg_id, None)
        if found is None:
            return None
        peer, line = found
        line.ids.discard(msg_id)
        if not line.ids:
            peer.lines.pop(line.dest, None)
        self._unhold(peer, msg_id)
        self._call(peer)
        return peer

    def started(self, msg_id: str, name: str) -> Peer:
        """Its transfer runs."""
        peer = self.peer(name)
        peer.running[msg_id] = peer.silences
        self.left(msg_id)
        return peer

    def reported(self, msg_id: str, name: str, report: Report, now: float) -> Peer:
        """What a transfer had to say of its peer, at its end."""
        peer = self.peer(name)
        peer.kind = report.kind or peer.kind
        peer.bytes += report.sent
        if report.success:
            peer.last_success = now
            peer.messages += 1
        if report.sent >= _TELLING and report.seconds > 0:
            peer.rate = report.sent / report.seconds
        if report.error:
            peer.last_error, peer.last_error_at = report.error, now
        if report.reached:
            self._reached(peer, now)
        elif report.reached is False and peer.running.get(msg_id) == peer.silences:
            # (What began before it was known to be silent says nothing new.)
            self._silent(peer, now, report.retry_after)
        return peer

    def _reached(self, peer: Peer, now: float) -> None:
        if peer.reachable is not True:
            peer.reachable, peer.since = True, now
        peer.failures, peer.next_try = 0, 0.0
        for waiting in peer.resting:
            self._keep(peer, waiting, 0.0)
        peer.resting.clear()

    def _silent(self, peer: Peer, now: float, retry_after: float) -> None:
        if peer.reachable is not False:
            peer.reachable, peer.since = False, now
        peer.failures += 1
        peer.silences += 1
        pause = min(_MAX_PAUSE, 10.0 * (peer.failures - 1) ** 2)
        peer.next_try = now + max(pause, min(_LONGEST, retry_after))

    def answered(self, name: str, at: float) -> Peer | None:
        """A probe had an answer; the peer, if that is news.

        ``at`` is only compared with that of the last answer: clocks may be set.
        """
        peer = self.peers.get(name)
        if peer is None or not peer.failures or at in (0.0, peer.answered):
            return None
        peer.answered = at
        peer.reachable, peer.since, peer.next_try = None, at, 0.0
        if peer.timed:
            peer.called.add(peer.timed)
            self._calls.append(peer.timed)
            peer.timed = ""
        elif not peer.held and peer.resting:
            self._keep(peer, min(peer.resting), 0.0)
        self._call(peer)
        return peer

    def rests(self, msg_id: str, name: str, dest: str) -> Peer:
        """It waits because it did not reach its peer; when another does, it need not wait longer."""
        peer = self.arrived(msg_id, name, dest)
        if peer.failures:
            peer.resting[msg_id] = None
        else:
            self._keep(peer, msg_id, 0.0)
            self._call(peer)
        return peer

    def ended(self, msg_id: str, name: str) -> Peer:
        """Its transfer runs no more."""
        peer = self.peer(name)
        peer.running.pop(msg_id, None)
        self._call(peer)
        return peer

    def wake(self) -> None:
        """Ask about everybody again who might start: calls may have been lost."""
        for peer in self.peers.values():
            for msg_id in peer.called:
                self._calls.append(msg_id)
            self._call(peer)

    # Who may start

    def ask(self, msg_id: str, name: str, dest: str, due: float, now: float) -> Wait | None:
        """May it start?"""
        peer = self.arrived(msg_id, name, dest)
        self._unhold(peer, msg_id)
        if not peer.failures:
            limit = self._limit(name)
            if len(peer.running) < limit:
                return None
            return self._hold(peer, msg_id, due, now, _run(limit, name))
        if peer.running:
            return self._hold(peer, msg_id, due, now, f"another message tries {name}")
        if now < peer.next_try <= now + _LONGEST:  # one that is later: the clock was set back
            if not peer.timed:
                peer.timed = msg_id
                return Wait(peer.next_try, f"{name} does not answer; it tries next")
            return self._hold(peer, msg_id, due, now, f"{name} does not answer")
        trying = sum(len(p.running) for p in self.peers.values() if p.failures)
        if trying >= self._tries():
            peer.timed = msg_id
            return Wait(now + self._chance(*_BUSY), _try(trying))
        return None

    def _hold(self, peer: Peer, msg_id: str, due: float, now: float, reason: str) -> Wait:
        self._keep(peer, msg_id, due)
        return Wait(now + self._chance(*_REST), reason)

    def _keep(self, peer: Peer, msg_id: str, due: float) -> None:
        peer.held[msg_id] = due
        heappush(peer.heap, (due, msg_id))
        if len(peer.heap) > 2 * len(peer.held) + _SLACK:
            peer.heap = [(due, msg_id) for msg_id, due in peer.held.items()]
            heapify(peer.heap)

    def _unhold(self, peer: Peer, msg_id: str) -> None:
        peer.held.pop(msg_id, None)
        peer.called.discard(msg_id)
        peer.resting.pop(msg_id, None)
        if peer.timed == msg_id:
            peer.timed = ""

    def _call(self, peer: Peer) -> None:
        """Call as many of the held ones as can start, or the one that tries next."""
        if peer.failures:
            free = 0 if peer.running or peer.timed or peer.called else 1
        else:
            free = self._limit(peer.name) - len(peer.running) - len(peer.called)
        while free > 0 and peer.heap:
            due, msg_id = heappop(peer.heap)
            if peer.held.get(msg_id) == due:
                del peer.held[msg_id]
                peer.called.add(msg_id)
                self._calls.append(msg_id)
                free -= 1


def _run(count: int, name: str) -> str:
    runs = f"1 transfer to {name} runs" if count == 1 else f"{count} transfers to {name} run"
    return f"{runs} already"


def _try(count: int) -> str:
    return "1 message tries another peer" if count == 1 else f"{count} messages try other peers"
