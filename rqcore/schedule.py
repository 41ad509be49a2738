"""What starts now, and else when to look again: the decision alone.

Pure: no clock, no process.  The queue process tells what happened (`add`, `start`, `finished`, ...)
and asks for the `candidate` and the `next_wake`; times are unix seconds.

The rules: the earliest due starts first (the message id decides between equals), while fewer than
``num_workers`` run; two messages with equal ``blocking`` parameters never run at once; when a
message starts, all queued ones with equal ``coalesce`` parameters, due or not, are set aside as its
dups.  `front` puts a message before all others, also before one that was put there earlier.

No operation looks at the backlog.  Each costs O(log n), amortised; `start` and `finished` also
O(dups).  How:

- `_Lanes` is a heap of those who could be next.  With blocking, the messages of one key wait in a
  lane of their own, whose first one alone stands in the common heap, and only while none of its key
  runs: what is blocked is not looked at until its lane opens.
- There are two `_Lanes`: for those that wait for their due time, and for those that a hook holds.
- What leaves the middle of a heap stays there as a stale item until it comes up.  When there are
  more of these than others, the heaps are built anew.
- Messages of equal coalesce parameters are indexed by them.

Nothing here has a length or a truth value: ask `running_count`, `queued_count`, ``in``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

#: Before every due time; each `Schedule.front` goes one further.
_FRONT = -(10**15)
#: So many stale items are not worth a rebuild.
_SLACK = 64

_Item = tuple[float, str]  # the order (a time, or a place at the front), the message id
_Key = str | tuple[str, ...]  # the parameters of a rule: one alone, or several


@dataclass(frozen=True, slots=True)
class Entry:
    """A queued message, as far as scheduling knows it; ``params`` are its four parameters."""

    msg_id: str
    due: float
    params: tuple[str, str, str, str]


@dataclass(slots=True)
class _Running:
    entry: Entry
    #: Those set aside, earliest first; a dictionary for its order and for quick removal.
    dups: dict[str, Entry] = field(default_factory=dict)


class Schedule:
    """The queued and running messages of one queue.

    ``blocking`` and ``coalesce`` are parameter numbers (1 to 4); empty ones turn the rule off.
    A method that is given the id of a message raises `LookupError` if that is not queued (or not
    running), unless its description says otherwise.
    """

    def __init__(
        self, num_workers: int, blocking: tuple[int, ...] = (), coalesce: tuple[int, ...] = ()
    ) -> None:
        self._num_workers = num_workers
        self._blocking = blocking
        self._coalesce = coalesce
        #: All that are queued, those set aside too.
        self._queued: dict[str, Entry] = {}
        self._running: dict[str, _Running] = {}
        #: By the id of the one set aside: with whom.
        self._aside: dict[str, str] = {}
        self._fronts: dict[str, int] = {}
        self._last_front = _FRONT
        #: When a held one can start: after its hold, and not before its due time.
        self._holds: dict[str, float] = {}
        #: How many run, by blocking key; more than one only after `reconfigure`.
        self._busy: dict[_Key, int] = {}
        #: Who is to be set aside with whom: one id, or several as a dictionary's keys.
        self._alike: dict[_Key, str | dict[str, None]] = {}
        self._waiting = _Lanes(self._is_waiting, self._blocking_key, self._busy)
        self._held = _Lanes(self._is_held, self._blocking_key, self._busy)

    def __contains__(self, msg_id: object) -> bool:
        """Is this message queued, set aside or not?"""
        return msg_id in self._queued

    @property
    def queued_count(self) -> int:
        """How many are queued, those set aside included."""
        return len(self._queued)

    @property
    def running_count(self) -> int:
        """How many run."""
        return len(self._running)

    def add(self, entry: Entry) -> None:
        """A message is queued.  Raises `ValueError` if it is queued or running already."""
        if entry.msg_id in self._queued or entry.msg_id in self._running:
            raise ValueError(f"message {entry.msg_id} is scheduled already")
        self._queued[entry.msg_id] = entry
        self._enter(entry)
        self._tidy()

    def discard(self, msg_id: str) -> bool:
        """A queued message is gone (deleted); False if it was not queued."""
        entry = self._queued.get(msg_id)
        if entry is None:
            return False
        by = self._aside.pop(msg_id, None)
        if by is None:
            self._unindex(entry)
            self._forget(entry)
        else:
            del self._running[by].dups[msg_id]
            self._forget(entry)
        self._tidy()
        return True

    def front(self, msg_id: str) -> bool:
        """Run it before all others, due and hold or not; workers and blocking still count.

        False if it is not queued, or set aside: then it shares the fate of the one that runs.
        """
        entry = self._queued.get(msg_id)
        if entry is None or msg_id in self._aside:
            return False
        self._holds.pop(msg_id, None)
        self._last_front -= 1
        self._fronts[msg_id] = self._last_front
        self._push(entry)
        self._settle(entry)
        self._tidy()
        return True

    def hold(self, msg_id: str, until: float) -> None:
        """Do not offer this message before ``until`` (infinity: before `front` or another hold).

        A hold that is over stays over, also when the clock steps back.
        """
        if math.isnan(until):
            raise ValueError(f"message {msg_id} cannot be held until nan; give a unix time")
        entry = self._queued[msg_id]
        self._holds[msg_id] = max(until, self._order(entry))
        if msg_id not in self._aside:
            self._push(entry)
            self._settle(entry)
            self._tidy()

    def candidate(self, now: float) -> str | None:
        """The message to start now, or None; the same again until something happens."""
        if len(self._running) >= self._num_workers:
            return None
        self._release(now)
        first = self._waiting.first()
        return None if first is None or first[0] > now else first[1]

    def start(self, msg_id: str) -> tuple[str, ...]:
        """It runs from now on.  Gives the queued ones that are set aside with it, earliest first.

        Any queued message can be started, also beyond ``num_workers``: so the queue process takes
        up what it finds running.
        """
        if msg_id in self._aside:
            raise LookupError(f"message {msg_id} is set aside with {self._aside[msg_id]}")
        entry = self._queued[msg_id]
        if self._blocking:
            self._block(entry)
        self._unindex(entry)
        self._forget(entry)
        running = self._running[msg_id] = _Running(entry)
        if self._coalesce:
            alike = self._alike.pop(_key(entry, self._coalesce), ())
            ids: Iterable[str] = (alike,) if isinstance(alike, str) else alike
            dups = sorted((self._queued[i] for i in ids), key=lambda dup: (dup.due, dup.msg_id))
            running.dups = {dup.msg_id: dup for dup in dups}
            self._aside |= dict.fromkeys(running.dups, msg_id)
            for dup in dups:
                self._settle(dup)
        self._tidy()
        return tuple(running.dups)

    def finished(self, msg_id: str, *, absorbed: bool) -> tuple[str, ...]:
        """It runs no more, and is gone; to run again it is added again.

        Gives those that were set aside with it, earliest first.  ``absorbed``: they are gone too;
        otherwise they are queued as they were.
        """
        running = self._running.pop(msg_id)
        if self._blocking:
            self._unblock(running.entry)
        for dup in running.dups.values():
            del self._aside[dup.msg_id]
            if absorbed:
                self._forget(dup)
            else:
                self._enter(dup)
        self._tidy()
        return tuple(running.dups)

    def set_aside_by(self, msg_id: str) -> str | None:
        """The running message that this one is set aside with; None if it is not set aside."""
        return self._aside.get(msg_id)

    def dups_of(self, msg_id: str) -> tuple[str, ...]:
        """The queued ones that are set aside with this running one, earliest first."""
        return tuple(self._running[msg_id].dups)

    def earliest_due(self) -> float | None:
        """The due time of the first of those that wait and are not blocked or held; None for none."""
        first = self._waiting.first()
        return None if first is None else self._queued[first[1]].due

    def next_wake(self, now: float) -> float | None:
        """When `candidate` has something to say though nothing else happens.

        ``now`` if it has already; None if only an event (`add`, `finished`, ...) can bring it on.
        """
        if len(self._running) >= self._num_workers:
            return None
        self._release(now)
        firsts = (self._waiting.first(), self._held.first())
        wake = min((first[0] for first in firsts if first is not None), default=math.inf)
        return None if wake == math.inf else max(wake, now)

    def reconfigure(
        self, num_workers: int, blocking: tuple[int, ...] = (), coalesce: tuple[int, ...] = ()
    ) -> None:
        """Go by other rules from now on; what runs and what is set aside stays so."""
        self._num_workers = num_workers
        if (blocking, coalesce) == (self._blocking, self._coalesce):
            return
        self._blocking, self._coalesce = blocking, coalesce
        self._busy.clear()
        if blocking:
            for running in self._running.values():
                self._block(running.entry)
        self._alike.clear()
        for entry in self._queued.values():
            if entry.msg_id not in self._aside:
                self._index(entry)
        self._rebuild_waiting()
        self._rebuild_held()

    def _order(self, entry: Entry) -> float:
        return self._fronts.get(entry.msg_id, entry.due)

    def _blocking_key(self, entry: Entry) -> _Key | None:
        return _key(entry, self._blocking) if self._blocking else None

    def _is_waiting(self, item: _Item) -> Entry | None:
        """The message that waits, if that is what this item stands for, in its present place."""
        order, msg_id = item
        entry = self._queued.get(msg_id)
        if entry is None or msg_id in self._holds or msg_id in self._aside:
            return None
        return entry if self._order(entry) == order else None

    def _is_held(self, item: _Item) -> Entry | None:
        until, msg_id = item
        if self._holds.get(msg_id) != until or msg_id in self._aside:
            return None
        return self._queued[msg_id]

    def _block(self, entry: Entry) -> None:
        key = _key(entry, self._blocking)
        self._busy[key] = self._busy.get(key, 0) + 1

    def _unblock(self, entry: Entry) -> None:
        key = _key(entry, self._blocking)
        self._busy[key] -= 1
        if self._busy[key] == 0:
            del self._busy[key]
            self._waiting.opened(key)
            self._held.opened(key)

    def _enter(self, entry: Entry) -> None:
        """It can be chosen, or set aside, from now on."""
        self._index(entry)
        self._push(entry)

    def _push(self, entry: Entry) -> None:
        """Put it into the heap where it belongs now."""
        until = self._holds.get(entry.msg_id)
        if until is None:
            self._waiting.push((self._order(entry), entry.msg_id), entry)
        else:
            self._held.push((until, entry.msg_id), entry)

    def _settle(self, entry: Entry) -> None:
        """Its place is another one, or nowhere: let those behind the old one move up."""
        if self._blocking:
            key = _key(entry, self._blocking)
            self._waiting.settle(key)
            self._held.settle(key)

    def _forget(self, entry: Entry) -> None:
        """It is no longer queued."""
        del self._queued[entry.msg_id]
        self._fronts.pop(entry.msg_id, None)
        self._holds.pop(entry.msg_id, None)
        self._settle(entry)

    def _release(self, now: float) -> None:
        """End the holds that are over."""
        while (first := self._held.first()) is not None and first[0] <= now:
            entry = self._queued[first[1]]
            del self._holds[entry.msg_id]
            self._push(entry)
            self._settle(entry)

    def _index(self, entry: Entry) -> None:
        if not self._coalesce:
            return
        key = _key(entry, self._coalesce)
        alike = self._alike.get(key)
        if alike is None:
            self._alike[key] = entry.msg_id
        elif isinstance(alike, str):
            self._alike[key] = {alike: None, entry.msg_id: None}
        else:
            alike[entry.msg_id] = None

    def _unindex(self, entry: Entry) -> None:
        if not self._coalesce:
            return
        key = _key(entry, self._coalesce)
        alike = self._alike[key]
        if isinstance(alike, dict):
            del alike[entry.msg_id]
        if isinstance(alike, str) or not alike:
            del self._alike[key]

    def _tidy(self) -> None:
        if self._waiting.size > 2 * len(self._queued) + _SLACK:
            self._rebuild_waiting()
        if self._held.size > 2 * len(self._holds) + _SLACK:
            self._rebuild_held()

    def _rebuild_waiting(self) -> None:
        self._waiting.rebuild(
            ((self._order(entry), msg_id), entry)
            for msg_id, entry in self._queued.items()
            if msg_id not in self._holds and msg_id not in self._aside
        )

    def _rebuild_held(self) -> None:
        self._held.rebuild(
            ((until, msg_id), self._queued[msg_id])
            for msg_id, until in self._holds.items()
            if msg_id not in self._aside
        )


class _Lanes:
    """Items in order, without those whose key is busy; see the head of this module.

    ``present`` gives the entry that an item stands for, or None for a stale item; ``key_of`` its
    key, None while there is no blocking.  Between two calls from `Schedule` the first item of
    every lane is not stale, and stands in ``_first`` unless its key is busy.
    """

    def __init__(
        self,
        present: Callable[[_Item], Entry | None],
        key_of: Callable[[Entry], _Key | None],
        busy: dict[_Key, int],
    ) -> None:
        self._present = present
        self._key_of = key_of
        self._busy = busy
        self._first: list[_Item] = []
        #: Most lanes hold one message: they are that item, not a list of it.
        self._lanes: dict[_Key, _Item | list[_Item]] = {}
        self._laned = 0

    @property
    def size(self) -> int:
        """How many items there are at most, stale ones too."""
        return max(len(self._first), self._laned)

    def push(self, item: _Item, entry: Entry) -> None:
        key = self._key_of(entry)
        if key is None:
            heappush(self._first, item)
            return
        self._laned += 1
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = item
        else:
            if isinstance(lane, tuple):
                lane = self._lanes[key] = [lane]
            heappush(lane, item)
            if lane[0] is not item:
                return
        if key not in self._busy:
            heappush(self._first, item)

    def settle(self, key: _Key) -> None:
        """Something of this key may have become stale."""
        lane = self._lanes.get(key)
        if lane is None:
            return
        items = [lane] if isinstance(lane, tuple) else lane
        before = len(items)
        while items and self._present(items[0]) is None:
            heappop(items)
        self._laned -= before - len(items)
        if not items:
            del self._lanes[key]
        elif len(items) < before and key not in self._busy:
            heappush(self._first, items[0])

    def opened(self, key: _Key) -> None:
        """Nobody of this key runs any more."""
        lane = self._lanes.get(key)
        if lane is not None:
            heappush(self._first, lane if isinstance(lane, tuple) else lane[0])

    def first(self) -> _Item | None:
        """The first item whose key is not busy."""
        while self._first:
            item = self._first[0]
            entry = self._present(item)
            if entry is not None:
                key = self._key_of(entry)
                # One that is not the first of its lane comes back when it is.
                if key is None or (key not in self._busy and self._leads(item, key)):
                    return item
            heappop(self._first)
        return None

    def rebuild(self, items: Iterable[tuple[_Item, Entry]]) -> None:
        """Begin anew with these."""
        self._first, self._lanes, self._laned = [], {}, 0
        for item, entry in items:
            key = self._key_of(entry)
            if key is None:
                self._first.append(item)
                continue
            self._laned += 1
            lane = self._lanes.get(key)
            if lane is None:
                self._lanes[key] = item
            elif isinstance(lane, tuple):
                self._lanes[key] = [lane, item]
            else:
                lane.append(item)
        self._first += self._heads()
        heapify(self._first)

    def _heads(self) -> Iterator[_Item]:
        for key, lane in self._lanes.items():
            if isinstance(lane, list):
                heapify(lane)
            if key not in self._busy:
                yield lane if isinstance(lane, tuple) else lane[0]

    def _leads(self, item: _Item, key: _Key) -> bool:
        lane = self._lanes[key]
        return item == (lane if isinstance(lane, tuple) else lane[0])


def _key(entry: Entry, numbers: tuple[int, ...]) -> _Key:
    if len(numbers) == 1:
        return entry.params[numbers[0] - 1]
    return tuple(entry.params[number - 1] for number in numbers)
