"""The scheduling decision, against a model that looks at everything, and what it costs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rqcore.schedule import Entry, Schedule

NO_PARAMS = ("", "", "", "")


def entry(number: int, due: float = 0, *params: str) -> Entry:
    first, second, third, fourth = (*params, *NO_PARAMS)[:4]
    return Entry(f"20260101.0000.00.000.{number:06d}", due, (first, second, third, fourth))


def filled(schedule: Schedule, *entries: Entry) -> list[str]:
    for one in entries:
        schedule.add(one)
    return [one.msg_id for one in entries]


@dataclass
class Model:
    """The rules word for word, looking at every message for every question."""

    num_workers: int
    blocking: tuple[int, ...] = ()
    coalesce: tuple[int, ...] = ()
    queued: dict[str, Entry] = field(default_factory=dict)
    running: dict[str, Entry] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)
    fronts: list[str] = field(default_factory=list)
    holds: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def key(one: Entry, numbers: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(one.params[number - 1] for number in numbers)

    def drop(self, msg_id: str) -> None:
        del self.queued[msg_id]
        self.aside.pop(msg_id, None)
        self.holds.pop(msg_id, None)
        if msg_id in self.fronts:
            self.fronts.remove(msg_id)

    def could_start(self) -> list[Entry]:
        busy = {self.key(one, self.blocking) for one in self.running.values()}
        if len(self.running) >= self.num_workers:
            return []
        return [
            one
            for one in self.queued.values()
            if one.msg_id not in self.aside
            and not (self.blocking and self.key(one, self.blocking) in busy)
        ]

    def startable_at(self, one: Entry) -> float:
        due = -math.inf if one.msg_id in self.fronts else one.due
        return max(due, self.holds.get(one.msg_id, -math.inf))

    def order(self, one: Entry) -> tuple[float, float, str]:
        place = self.fronts.index(one.msg_id) if one.msg_id in self.fronts else -1
        return (-place if place >= 0 else 1, one.due if place < 0 else 0, one.msg_id)

    def candidate(self, now: float) -> str | None:
        ready = [one for one in self.could_start() if self.startable_at(one) <= now]
        return min(ready, key=self.order).msg_id if ready else None

    def next_wake(self, now: float) -> float | None:
        times = [self.startable_at(one) for one in self.could_start()]
        wake = min(times, default=math.inf)
        return None if wake == math.inf else max(wake, now)

    def earliest_due(self) -> float | None:
        waiting = [one for one in self.could_start() if one.msg_id not in self.holds]
        return min(waiting, key=self.order).due if waiting else None

    def start(self, msg_id: str) -> tuple[str, ...]:
        one = self.queued[msg_id]
        self.drop(msg_id)
        self.running[msg_id] = one
        if not self.coalesce:
            return ()
        dups = [
            other
            for other in self.queued.values()
            if other.msg_id not in self.aside
            and self.key(other, self.coalesce) == self.key(one, self.coalesce)
        ]
        dups.sort(key=lambda other: (other.due, other.msg_id))
        for other in dups:
            self.aside[other.msg_id] = msg_id
        return tuple(other.msg_id for other in dups)

    def dups_of(self, msg_id: str) -> tuple[str, ...]:
        dups = [self.queued[i] for i, by in self.aside.items() if by == msg_id]
        return tuple(one.msg_id for one in sorted(dups, key=lambda one: (one.due, one.msg_id)))

    def finished(self, msg_id: str, *, absorbed: bool) -> None:
        del self.running[msg_id]
        for dup in [i for i, by in self.aside.items() if by == msg_id]:
            del self.aside[dup]
            if absorbed:
                self.drop(dup)


RULES = st.sampled_from([(), (1,), (2,), (1, 2)])
TIMES = st.integers(0, 12)


class AgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model(2, (1,), ())
        self.schedule = Schedule(2, (1,), ())
        self.numbers = count()
        self.now = 0.0

    def any_queued(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.model.queued)))

    @rule(
        due=TIMES, first=st.sampled_from("ab"), second=st.sampled_from("xyz"), again=st.booleans()
    )
    def add(self, due: int, first: str, second: str, again: bool) -> None:
        for _ in range(8 if again else 1):
            one = entry(next(self.numbers), due, first, second)
            self.schedule.add(one)
            self.model.queued[one.msg_id] = one

    @precondition(lambda self: self.model.queued)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        msg_id = self.any_queued(data)
        assert self.schedule.discard(msg_id)
        self.model.drop(msg_id)

    @precondition(lambda self: self.model.queued)
    @rule(data=st.data())
    def front(self, data: st.DataObject) -> None:
        msg_id = self.any_queued(data)
        assert self.schedule.front(msg_id) is (msg_id not in self.model.aside)
        if msg_id in self.model.aside:
            return
        self.model.holds.pop(msg_id, None)
        if msg_id in self.model.fronts:
            self.model.fronts.remove(msg_id)
        self.model.fronts.append(msg_id)

    @precondition(lambda self: self.model.queued)
    @rule(data=st.data(), until=TIMES | st.just(math.inf))
    def hold(self, data: st.DataObject, until: float) -> None:
        msg_id = self.any_queued(data)
        self.schedule.hold(msg_id, until)
        self.model.holds[msg_id] = until

    @rule()
    def start_the_candidate(self) -> None:
        msg_id = self.schedule.candidate(self.now)
        if msg_id is not None:
            assert self.schedule.start(msg_id) == self.model.start(msg_id)

    @precondition(lambda self: len(self.model.queued) > len(self.model.aside))
    @rule(data=st.data())
    def start_any(self, data: st.DataObject) -> None:
        choice = sorted(set(self.model.queued) - set(self.model.aside))
        msg_id = data.draw(st.sampled_from(choice))
        assert self.schedule.start(msg_id) == self.model.start(msg_id)

    @precondition(lambda self: self.model.running)
    @rule(data=st.data(), absorbed=st.booleans(), again=st.booleans(), due=TIMES)
    def finish(self, data: st.DataObject, absorbed: bool, again: bool, due: int) -> None:
        msg_id = data.draw(st.sampled_from(sorted(self.model.running)))
        one = self.model.running[msg_id]
        dups = self.model.dups_of(msg_id)
        assert self.schedule.finished(msg_id, absorbed=absorbed) == dups
        self.model.finished(msg_id, absorbed=absorbed)
        if again:
            self.schedule.add(Entry(msg_id, due, one.params))
            self.model.queued[msg_id] = Entry(msg_id, due, one.params)

    @rule(workers=st.integers(1, 4), blocking=RULES, coalesce=RULES)
    def reconfigure(
        self, workers: int, blocking: tuple[int, ...], coalesce: tuple[int, ...]
    ) -> None:
        self.schedule.reconfigure(workers, blocking, coalesce)
        self.model.num_workers = workers
        self.model.blocking = blocking
        self.model.coalesce = coalesce

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def the_same_answers(self) -> None:
        assert self.schedule.next_wake(self.now) == self.model.next_wake(self.now)
        assert self.schedule.candidate(self.now) == self.model.candidate(self.now)
        assert self.schedule.candidate(self.now) == self.model.candidate(self.now)
        if len(self.model.running) < self.model.num_workers:  # else no hold ends before it matters
            for one in self.model.could_start():
                if self.model.startable_at(one) <= self.now:  # a hold lasts until the due time, too
                    self.model.holds.pop(one.msg_id, None)
            assert self.schedule.earliest_due() == self.model.earliest_due()

    @invariant()
    def the_same_messages(self) -> None:
        assert self.schedule.queued_count == len(self.model.queued)
        assert self.schedule.running_count == len(self.model.running)
        for msg_id in self.model.queued:
            assert msg_id in self.schedule
            assert self.schedule.set_aside_by(msg_id) == self.model.aside.get(msg_id)
        for msg_id in self.model.running:
            assert msg_id not in self.schedule
            assert self.schedule.dups_of(msg_id) == self.model.dups_of(msg_id)


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_equal_dues_start_as_they_were_made() -> None:
    schedule = Schedule(3)
    filled(schedule, entry(2, 5), entry(1, 5), entry(3, 4))
    order = []
    for _ in range(3):
        candidate = schedule.candidate(5)
        assert candidate is not None
        schedule.start(candidate)
        order.append(candidate[-1])
    assert order == ["3", "1", "2"]


def test_the_earliest_due_is_known_while_all_workers_are_busy() -> None:
    schedule = Schedule(1)
    assert schedule.earliest_due() is None
    first, _, third = filled(schedule, entry(1, 3), entry(2, 7), entry(3, 5))
    schedule.start(first)
    assert schedule.earliest_due() == 5
    schedule.hold(third, 100)
    assert schedule.earliest_due() == 7


def test_a_full_queue_waits_for_an_event_not_for_a_time() -> None:
    schedule = Schedule(1)
    first, _ = filled(schedule, entry(1), entry(2))
    schedule.start(first)
    assert schedule.candidate(9) is None
    assert schedule.next_wake(9) is None


def test_what_is_blocked_or_held_for_good_waits_for_an_event() -> None:
    schedule = Schedule(5, blocking=(1,))
    first, _, third = filled(schedule, entry(1, 0, "a"), entry(2, 0, "a"), entry(3, 0, "b"))
    schedule.start(first)
    schedule.hold(third, math.inf)
    assert schedule.next_wake(1) is None
    schedule.finished(first, absorbed=False)
    assert schedule.next_wake(1) == 1


def test_the_end_of_a_hold_of_a_blocked_message_wakes_nobody() -> None:
    schedule = Schedule(5, blocking=(1,))
    first, second = filled(schedule, entry(1, 0, "a"), entry(2, 0, "a"))
    schedule.start(first)
    schedule.hold(second, 7)
    assert schedule.next_wake(1) is None
    schedule.finished(first, absorbed=False)
    assert schedule.next_wake(1) == 7


def test_a_hold_that_is_over_stays_over_when_the_clock_steps_back() -> None:
    schedule = Schedule(1)
    (only,) = filled(schedule, entry(1))
    schedule.hold(only, 100)
    assert schedule.candidate(99) is None
    assert schedule.candidate(100) == only
    assert schedule.candidate(50) == only


def test_a_clock_that_steps_back_offers_nothing_before_its_due() -> None:
    schedule = Schedule(1)
    (only,) = filled(schedule, entry(1, 100))
    assert schedule.candidate(100) == only
    assert schedule.candidate(99) is None
    assert schedule.next_wake(99) == 100


def test_dups_are_taken_whether_due_or_not_and_come_back_as_they_were() -> None:
    schedule = Schedule(5, coalesce=(1,))
    main, later, held, front = filled(
        schedule, entry(1, 0, "a"), entry(2, 500, "a"), entry(3, 0, "a"), entry(4, 900, "a")
    )
    schedule.hold(held, 50)
    schedule.front(front)
    assert schedule.start(main) == (held, later, front)
    assert schedule.queued_count == 3
    assert schedule.next_wake(10) is None
    assert schedule.finished(main, absorbed=False) == (held, later, front)
    assert schedule.candidate(10) == front
    schedule.discard(front)
    assert schedule.next_wake(10) == 50
    schedule.discard(held)
    assert schedule.next_wake(10) == 500


def test_a_dup_can_be_deleted_and_not_be_run_or_started() -> None:
    schedule = Schedule(5, coalesce=(1,))
    main, dup = filled(schedule, entry(1, 0, "a"), entry(2, 0, "a"))
    schedule.start(main)
    assert not schedule.front(dup)
    with pytest.raises(LookupError, match="set aside"):
        schedule.start(dup)
    assert schedule.discard(dup)
    assert schedule.dups_of(main) == ()
    assert schedule.finished(main, absorbed=True) == ()


def test_misuse_is_refused() -> None:
    schedule = Schedule(2)
    queued, running = filled(schedule, entry(1), entry(2))
    schedule.start(running)
    for known in (entry(1), entry(2)):
        with pytest.raises(ValueError, match="already"):
            schedule.add(known)
    assert not schedule.discard(running)
    assert not schedule.front(running)
    for call in (schedule.start, schedule.dups_of):
        with pytest.raises(LookupError):
            call("nobody")
    with pytest.raises(LookupError):
        schedule.finished(queued, absorbed=True)
    with pytest.raises(LookupError):
        schedule.hold("nobody", 1)
    with pytest.raises(ValueError, match="nan"):
        schedule.hold(queued, math.nan)


def test_a_schedule_has_no_length_to_be_mistaken_for_a_truth_value() -> None:
    assert not hasattr(Schedule, "__len__")
    assert not hasattr(Schedule, "__bool__")


class Steps:
    """Counts the calls that Python makes and the comparisons of due times."""

    def __init__(self) -> None:
        self.calls = 0
        self.comparisons = 0

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        self.calls = self.comparisons = 0
        before = sys.getprofile()

        def profile(frame: FrameType, event: str, arg: Any) -> None:
            self.calls += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(before)
        return self.calls, self.comparisons

    def due(self, value: float) -> float:
        steps = self

        class Due(float):
            __slots__ = ()

            def __lt__(self, other: float) -> bool:
                steps.comparisons += 1
                return float.__lt__(self, other)

        return Due(value)


Params = tuple[str, str, str, str]
Rule = tuple[int, ...]

SHAPES: dict[str, tuple[Rule, Rule, Callable[[int], Params]]] = {
    "plain": ((), (), lambda i: NO_PARAMS),
    "every key its own": ((1,), (2,), lambda i: (f"b{i}", f"c{i}", "", "")),
    "few keys": ((1,), (), lambda i: (f"b{i % 8}", "", "", "")),
    "one key": ((1,), (), lambda i: ("b", "", "", "")),
    "small groups": ((1,), (2,), lambda i: (f"b{i % 8}", f"c{i // 4}", "", "")),
}


def steps_per_message(shape: str, backlog: int) -> tuple[float, float]:
    """Calls and comparisons per message that starts and ends, with this many queued."""
    blocking, coalesce, params = SHAPES[shape]
    schedule = Schedule(4, blocking, coalesce)
    steps = Steps()
    for i in range(backlog):
        schedule.add(Entry(f"{i:08d}", steps.due(i % 97), params(i)))
    held = [f"{i:08d}" for i in range(0, backlog, 10)]
    for msg_id in held:
        schedule.hold(msg_id, 10_000.0)
    rounds = 40
    numbers = count(backlog)
    running: list[str] = []

    def work() -> None:
        for _ in range(rounds):
            schedule.next_wake(1000)
            candidate = schedule.candidate(1000)
            if candidate is not None:
                schedule.start(candidate)
                running.append(candidate)
            if candidate is None or len(running) == 4:
                schedule.finished(running.pop(0), absorbed=True)
            i = next(numbers)
            schedule.add(Entry(f"{i:08d}", float(i % 97), params(i)))
            schedule.front(f"{i:08d}")
            schedule.hold(f"{i:08d}", 20_000.0)
            schedule.discard(f"{i:08d}")

    calls, comparisons = steps.of(work)
    return calls / rounds, comparisons / rounds


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_per_message_does_not_grow_with_the_backlog(shape: str) -> None:
    few_calls, few_comparisons = steps_per_message(shape, 400)
    many_calls, many_comparisons = steps_per_message(shape, 20_000)
    assert many_calls <= few_calls * 1.25 + 5
    # A heap of 20 000 is 6 levels deeper than one of 400; a round moves a handful of items.
    assert 0 < many_comparisons <= few_comparisons + 6 * 10


def test_stale_items_do_not_pile_up() -> None:
    schedule = Schedule(1, blocking=(1,))
    (stays,) = filled(schedule, entry(0, 0, "a"))
    for i in range(1, 5000):
        (msg_id,) = filled(schedule, entry(i, 1000 + i, "a"))
        schedule.hold(msg_id, 10**9 - i)
        schedule.discard(msg_id)
        schedule.hold(stays, 10**9 - i)
        schedule.front(stays)
    assert schedule._waiting.size < 200
    assert schedule._held.size < 200


def test_a_backlog_is_kept_in_little_memory() -> None:
    import tracemalloc

    entries = [entry(i, float(i), "a") for i in range(20_000)]
    tracemalloc.start()
    schedule = Schedule(1)
    filled(schedule, *entries)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert schedule.queued_count == 20_000
    assert size / 20_000 < 200
