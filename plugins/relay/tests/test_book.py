"""The book: its rules one by one, and together with the kernel's own schedule under any history."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from rqcore_relay.book import Book, Report, Wait

from rqcore.schedule import Entry, Schedule

A, B = "http://a:1/", "http://b:1/"
DOWN = Report(reached=False, error="Connection refused")
GOOD = Report(reached=True, success=True, kind="rqcore", sent=2_000_000, seconds=2.0)


def book(limit: int = 2, tries: int = 4) -> Book:
    return Book(lambda _: limit, lambda: tries, chance=lambda low, _: low)


def ask(book: Book, msg_id: str, now: float, name: str = A) -> Wait | None:
    return book.ask(msg_id, name, f"{name}q/test", 0, now)


def test_so_many_transfers_at_a_time_and_the_earliest_due_is_called() -> None:
    it = book()
    for msg_id in ("1", "2"):
        assert ask(it, msg_id, 10) is None
        it.started(msg_id, A)
    it.ask("4", A, "x", 7, 10)
    wait = it.ask("3", A, "x", 6, 10)
    assert wait == Wait(1810, f"2 transfers to {A} run already")
    assert ask(it, "5", 10, B) is None
    assert it.calls() == []
    it.ended("1", A)
    assert it.calls() == ["3"]
    it.left("3")  # it was deleted
    assert it.calls() == ["4"]
    assert ask(it, "4", 11) is None


def test_while_a_peer_is_down_one_tries_and_the_others_follow_it() -> None:
    it = book()
    for msg_id in "123456":
        it.arrived(msg_id, A, "x")
    it.started("0", A)
    it.started("1", A)
    it.reported("1", A, DOWN, 100)
    it.ended("1", A)
    it.rests("1", A, "x")
    assert ask(it, "2", 100) == Wait(1900, f"another message tries {A}")
    it.reported("0", A, DOWN, 101)  # it began before: that is no second failure
    it.ended("0", A)
    assert it.calls() == ["2"]
    assert ask(it, "2", 101) is None  # at once after the first failure
    it.started("2", A)
    it.reported("2", A, DOWN, 102)
    it.ended("2", A)
    assert ask(it, "3", 102) == Wait(112, f"{A} does not answer; it tries next")
    assert ask(it, "4", 102) == Wait(1902, f"{A} does not answer")
    assert ask(it, "7", 102, B) is None
    assert it.peer(A).turn() == "3"
    assert ask(it, "3", 112) is None
    it.started("3", A)
    assert ask(it, "5", 112) == Wait(1912, f"another message tries {A}")
    it.reported("3", A, DOWN, 113)
    it.ended("3", A)
    assert it.calls() == ["4"]  # it is told when the next pause is over
    assert ask(it, "4", 113) == Wait(153, f"{A} does not answer; it tries next")
    it.answered(A, 120)
    assert it.calls() == ["4"]
    assert it.peer(A).reachable is None
    assert ask(it, "4", 120) is None
    it.started("4", A)
    assert ask(it, "6", 120) == Wait(1920, f"another message tries {A}")
    it.reported("4", A, GOOD, 121)
    it.ended("4", A)
    assert it.calls() == ["1", "5"]  # those that rest after a try, then by due time


def test_a_message_that_rests_is_called_when_no_other_waits() -> None:
    it = book()
    it.started("1", A)
    it.reported("1", A, DOWN, 100)
    it.ended("1", A)
    it.rests("1", A, "x")
    assert it.peer(A).turn() == "1"
    it.answered(A, 101)
    assert it.calls() == ["1"]


def fail(it: Book, name: str, now: float, report: Report = DOWN, msg_id: str = "0") -> None:
    """One transfer that failed."""
    it.started(msg_id, name)
    it.reported(msg_id, name, report, now)
    it.ended(msg_id, name)


def test_an_answer_is_news_once() -> None:
    it = book()
    assert it.answered(A, 100) is None  # nobody asked
    fail(it, A, 100)
    assert it.answered(A, 0) is None
    assert it.answered(A, 90) is it.peer(A)  # the clock was set back meanwhile
    assert it.answered(A, 90) is None
    fail(it, A, 101)
    assert it.answered(A, 90) is None
    assert it.answered(A, 105) is it.peer(A)


def test_no_clock_that_is_set_back_makes_a_peer_wait_for_days() -> None:
    it = book()
    for now in (500_000, 500_001):
        fail(it, A, now)
    assert ask(it, "1", 500_002) == Wait(500_011, f"{A} does not answer; it tries next")
    assert ask(it, "1", 1000) is None


def test_what_began_before_a_peer_fell_silent_says_nothing_new() -> None:
    it = book()
    for msg_id in ("1", "2"):
        it.started(msg_id, A)
    it.reported("1", A, DOWN, 100)
    it.answered(A, 110)
    it.reported("2", A, DOWN, 120)
    assert (it.peer(A).reachable, it.peer(A).failures) == (None, 1)


def test_after_a_pause_of_the_queue_who_was_called_is_called_again() -> None:
    it = book(limit=1)
    it.started("1", A)
    assert ask(it, "2", 10) is not None
    it.ended("1", A)
    assert it.calls() == ["2"]
    it.wake()
    assert it.calls() == ["2"]
    assert ask(it, "2", 11) is None
    it.started("2", A)
    it.wake()
    assert it.calls() == []


def test_what_is_held_again_and_again_takes_no_more_room() -> None:
    it = book(limit=1)
    it.started("0", A)
    for _ in range(100):
        for number in range(1, 6):
            assert ask(it, f"{number}", 10) is not None
    assert len(it.peer(A).heap) < 100
    it.ended("0", A)
    assert it.calls() == ["1"]


def test_tries_to_dead_peers_leave_workers_to_the_living() -> None:
    it = book(tries=1)
    for name in (A, B):
        fail(it, name, 0)
    assert ask(it, "1", 20) is None
    it.started("1", A)
    assert ask(it, "2", 20, B) == Wait(21, "1 message tries another peer")


def test_what_is_known_of_a_peer() -> None:
    it = book()
    it.reported("", A, GOOD, 50)
    # So little says nothing about how fast the peer is.
    it.reported("", A, Report(reached=True, sent=7, seconds=1, error="it answers 503"), 60)
    peer = it.peer(A)
    assert (peer.reachable, peer.since, peer.kind) == (True, 50, "rqcore")
    assert (peer.last_success, peer.bytes, peer.messages, peer.rate) == (
        50, 2_000_007, 1, 1e6,
    )  # fmt: skip
    assert (peer.last_error, peer.last_error_at) == ("it answers 503", 60)
    fail(it, A, 70, Report(reached=False, error="cut", retry_after=99))
    assert (peer.reachable, peer.since, peer.next_try) == (False, 70, 169)
    it.reported("", A, Report(reached=None, error="its token cannot be read"), 75)
    assert (peer.reachable, peer.failures, peer.last_error) == (
        False,
        1,
        "its token cannot be read",
    )
    known = Book(lambda _: 1, lambda: 1, [{"name": A, "failures": 3, "next_try": 500.0}])
    assert ask(known, "1", 400) == Wait(500, f"{A} does not answer; it tries next")


def test_the_oldest_of_a_destination() -> None:
    it = book()
    for msg_id in ("3", "1", "2"):
        it.arrived(msg_id, A, "x")
    line = it.peer(A).lines["x"]
    assert line.oldest() == "1"
    it.left("1")
    assert (line.oldest(), len(line.ids)) == ("2", 2)
    it.left("2")
    it.left("3")
    assert it.peer(A).lines == {}


# The rules together: any history, by the kernel's schedule


@dataclass
class World:
    """A queue with more workers than two peers with two transfers each can take."""

    now: float = 1000.0
    count: int = 0
    schedule: Schedule = field(default_factory=lambda: Schedule(5))
    it: Book = field(default_factory=book)
    dues: dict[str, float] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    #: Those that were started while their peer was down.
    trying: set[str] = field(default_factory=set)

    def add(self, name: str, delay: float) -> None:
        self.count += 1
        msg_id = f"{self.count:04d}"
        self.peers[msg_id] = name
        self._queue(msg_id, self.now + delay)
        self.it.arrived(msg_id, name, "x")

    def _queue(self, msg_id: str, due: float) -> None:
        self.dues[msg_id] = due
        self.schedule.add(Entry(msg_id, due, ("", "", "", "")))

    def remove(self, number: int) -> None:
        waiting = sorted(self.dues)
        if waiting:
            msg_id = waiting[number % len(waiting)]
            self.schedule.discard(msg_id)
            del self.dues[msg_id]
            self.it.left(msg_id)

    def finish(self, number: int, report: Report | None) -> None:
        """The report is None when the script was killed and says nothing."""
        if not self.running:
            return
        msg_id = self.running.pop(number % len(self.running))
        self.trying.discard(msg_id)
        name = self.peers[msg_id]
        if report is not None:
            self.it.reported(msg_id, name, report, self.now)
        self.schedule.finished(msg_id, absorbed=False)
        self.it.ended(msg_id, name)
        if report is not GOOD:
            silent = report is DOWN
            self._queue(msg_id, self.now + (10 if report else 0))
            (self.it.rests if silent else self.it.arrived)(msg_id, name, "x")

    def settle(self) -> None:
        """Start what may start, as the queue's process does."""
        while True:
            for msg_id in reversed(self.it.calls()):
                self.schedule.front(msg_id)
            found = self.schedule.candidate(self.now)
            if found is None:
                break
            msg_id = found
            name = self.peers[msg_id]
            wait = self.it.ask(msg_id, name, "x", self.dues[msg_id], self.now)
            if wait is None:
                if self.it.peer(name).failures:
                    self.trying.add(msg_id)
                self.schedule.start(msg_id)
                del self.dues[msg_id]
                self.running.append(msg_id)
                self.it.started(msg_id, name)
            else:
                assert wait.until > self.now
                self.schedule.hold(msg_id, wait.until)

    def check(self) -> None:
        assert self.it.calls() == []
        for name in (A, B):
            peer = self.it.peer(name)
            mine = [msg_id for msg_id in self.running if self.peers[msg_id] == name]
            due = [i for i, at in self.dues.items() if at <= self.now and self.peers[i] == name]
            assert set(peer.running) == set(mine)
            assert len(mine) <= 2
            assert len(self.trying & set(mine)) <= 1
            waiting = {i for i in self.dues if self.peers[i] == name}
            assert set().union(*(line.ids for line in peer.lines.values())) == waiting
            if not peer.failures:
                assert len(mine) == 2 or not due, f"{due} wait for {name}, and nobody knows why"
            elif due and not mine:
                wake = self.schedule.next_wake(self.now)
                assert wake is not None
                assert self.now < peer.next_try
                assert wake <= peer.next_try


NAMES = st.sampled_from([A, B])
NUMBERS = st.integers(0, 20)
STEPS = st.one_of(
    st.tuples(st.just("add"), NAMES, st.sampled_from([0.0, 0.0, 0.0, 30.0])),
    st.tuples(st.just("finish"), NUMBERS, st.sampled_from([GOOD, DOWN, DOWN, None])),
    st.tuples(st.just("finish"), NUMBERS, st.just(Report(reached=True, error="503"))),
    st.tuples(st.just("later"), st.sampled_from([1.0, 10.0, 700.0])),
    st.tuples(st.just("answered"), NAMES),
    st.tuples(st.just("remove"), NUMBERS),
    st.tuples(st.just("wake")),
)


@settings(max_examples=300)
@given(st.lists(STEPS, min_size=25, max_size=60))
def test_any_history(steps: list[tuple[object, ...]]) -> None:
    world = World()
    for name, *given_values in steps:
        match name, given_values:
            case "later", [float(seconds)]:
                world.now += seconds
            case "answered", [str(peer)]:
                world.it.answered(peer, world.now)
            case "wake", _:
                world.it.wake()
            case _:
                getattr(world, str(name))(*given_values)
        world.settle()
        world.check()
