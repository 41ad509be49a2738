"""rqcore.loop: what is called, when, and what harms nobody."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rqcore import unix
from rqcore.loop import Loop

DEADLINE = 10.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGCHLD)}
    loop = Loop()
    yield loop
    loop.close()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=["pidfd", "sigchld"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of waiting for children."""
    if request.param == "sigchld":
        monkeypatch.setattr(unix, "HAVE_PIDFD", False)
    elif not unix.HAVE_PIDFD:
        pytest.skip("this system has no pidfd")


def run(loop: Loop) -> None:
    """Run until something calls `stop`; a test that never does so fails."""
    late: list[bool] = []

    def give_up() -> None:
        late.append(True)
        loop.stop()

    timer = loop.after(DEADLINE, give_up)
    loop.run()
    timer.cancel()
    assert not late, "what was waited for did not happen"


def each(*acts: Callable[[], object]) -> Callable[[], None]:
    """One callback of several."""

    def act() -> None:
        for one in acts:
            one()

    return act


def turn(loop: Loop) -> None:
    loop.soon(loop.stop)
    run(loop)


def started(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE)


# --- descriptors ----------------------------------------------------------------------------------


def test_a_descriptor_is_told_when_it_can_be_read(loop: Loop) -> None:
    reading, writing = os.pipe()
    found: list[bytes] = []

    def on_readable() -> None:
        data = os.read(reading, 10)
        found.append(data)
        if not data:
            loop.forget_reader(reading)
            loop.stop()

    loop.reader(reading, on_readable)
    loop.soon(each(lambda: os.write(writing, b"one"), lambda: os.close(writing)))
    run(loop)
    os.close(reading)
    assert b"".join(found) == b"one"
    assert found[-1] == b""


def test_reading_and_writing_of_one_descriptor_are_told_apart(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    said: list[str] = []

    def on_writable() -> None:
        said.append("writable")
        loop.forget_writer(ours.fileno())
        theirs.send(b"x")

    def on_readable() -> None:
        said.append("readable")
        loop.stop()

    loop.reader(ours.fileno(), on_readable)
    loop.writer(ours.fileno(), on_writable)
    run(loop)
    loop.forget_reader(ours.fileno())
    assert said == ["writable", "readable"]
    ours.close()
    theirs.close()


def test_interest_taken_away_in_the_same_turn_counts(loop: Loop) -> None:
    """Of two that are ready together, the first closes the other: that one is not called."""
    pairs = [socket.socketpair(), socket.socketpair()]
    called: list[int] = []

    def on_readable(number: int) -> None:
        called.append(number)
        for ours, _ in pairs:
            loop.forget_reader(ours.fileno())
        loop.soon(loop.stop)

    for number, (ours, theirs) in enumerate(pairs):
        loop.reader(ours.fileno(), lambda number=number: on_readable(number))  # type: ignore[misc]
        theirs.send(b"x")
    run(loop)
    assert len(called) == 1
    for pair in pairs:
        for end in pair:
            end.close()


def test_a_number_that_is_given_to_another_file_in_the_same_turn_is_not_confused(
    loop: Loop,
) -> None:
    first, second = socket.socketpair(), socket.socketpair()
    called: list[str] = []
    reused: list[socket.socket] = []

    def on_first() -> None:
        called.append("first")
        number = second[0].fileno()
        loop.forget_reader(number)
        second[0].close()
        pair = socket.socketpair()
        reused.extend(pair)
        assert pair[0].fileno() == number
        loop.reader(number, lambda: called.append("reused"))
        loop.forget_reader(first[0].fileno())
        loop.soon(lambda: loop.soon(loop.stop))

    # Whichever is looked at first; the one registered first is, with epoll.
    loop.reader(first[0].fileno(), on_first)
    loop.reader(second[0].fileno(), lambda: called.append("second"))
    for pair in (first, second):
        pair[1].send(b"x")
    run(loop)
    assert called in (["first"], ["second", "first"])
    loop.forget_reader(reused[0].fileno())
    for end in (*first, second[1], *reused):
        end.close()


def test_forgetting_what_was_never_watched_is_harmless(loop: Loop) -> None:
    loop.forget_reader(12345)
    loop.forget_writer(-1)
    turn(loop)


# --- time -----------------------------------------------------------------------------------------


def test_timers_go_off_in_order_and_not_early(loop: Loop) -> None:
    order: list[str] = []
    began = time.monotonic()
    loop.after(0.02, each(lambda: order.append("late"), loop.stop))
    loop.after(0.01, lambda: order.append("early"))
    loop.after(-5, lambda: order.append("at once"))
    loop.after(-5, lambda: order.append("at once, second"))
    run(loop)
    assert order == ["at once", "at once, second", "early", "late"]
    assert time.monotonic() - began >= 0.02


def test_a_cancelled_timer_stays_silent_and_wakes_nobody(loop: Loop) -> None:
    called: list[str] = []
    timer = loop.after(0.001, lambda: called.append("cancelled"))
    timer.cancel()
    timer.cancel()
    loop.after(0.02, loop.stop)
    before = loop.wakeups
    run(loop)
    assert called == []
    assert loop.wakeups - before == 1


def test_a_loop_without_work_sleeps(loop: Loop) -> None:
    loop.after(0.2, loop.stop)
    used = time.process_time()
    before = loop.wakeups
    run(loop)
    assert loop.wakeups - before == 1
    assert time.process_time() - used < 0.1


def test_soon_is_without_waiting_and_before_the_end_of_a_turn(loop: Loop) -> None:
    order: list[str] = []
    loop.on_turn_end = lambda: order.append("end")

    def first() -> None:
        order.append("first")
        loop.soon(lambda: order.append("soon"))
        loop.soon(loop.stop)

    loop.soon(first)
    run(loop)
    assert order == ["first", "end", "soon", "end"]


def test_what_the_end_of_a_turn_leaves_over_is_not_slept_over(loop: Loop) -> None:
    """The end of a turn may ask for another: it comes at once, and has an end of its own."""
    ends: list[int] = []

    def on_turn_end() -> None:
        ends.append(loop.wakeups)
        if len(ends) < 5:
            loop.soon(lambda: None)
        else:
            loop.stop()

    loop.on_turn_end = on_turn_end
    loop.soon(lambda: None)
    run(loop)
    assert len(ends) == len(set(ends)) == 5


# --- what raises ----------------------------------------------------------------------------------


def test_a_callback_that_raises_is_logged_and_the_loop_goes_on(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    reached: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError("of ours")

    reading, writing = os.pipe()
    os.write(writing, b"x")

    def on_readable() -> None:
        loop.forget_reader(reading)
        fail()

    loop.reader(reading, on_readable)
    loop.soon(fail)
    loop.after(0, fail)
    loop.on_turn_end = fail
    loop.after(0.01, each(lambda: reached.append("the end"), loop.stop))
    with caplog.at_level(logging.ERROR, "rqcore.loop"):
        run(loop)
    os.close(reading)
    os.close(writing)
    assert reached == ["the end"]
    assert caplog.text.count("ZeroDivisionError: of ours") >= 4


def test_a_callback_that_wants_to_leave_leaves(loop: Loop) -> None:
    loop.soon(lambda: sys.exit(3))
    with pytest.raises(SystemExit):
        run(loop)


# --- threads, signals, children -------------------------------------------------------------------


def test_another_thread_wakes_the_loop(loop: Loop) -> None:
    names: list[str] = []

    def done() -> None:
        names.append(threading.current_thread().name)
        loop.stop()

    thread = threading.Thread(target=lambda: loop.from_thread(done))
    thread.start()
    run(loop)
    thread.join()
    assert names == [threading.current_thread().name]


def test_threads_may_hand_over_more_than_the_wake_up_holds(loop: Loop) -> None:
    count = 200_000
    called: list[int] = []

    def hand_over() -> None:
        for number in range(count):
            loop.from_thread(lambda number=number: called.append(number))  # type: ignore[misc]
        loop.from_thread(loop.stop)

    hand_over()
    run(loop)
    assert called == list(range(count))


def test_a_signal_is_a_callback_in_the_loop(loop: Loop) -> None:
    order: list[str] = []
    loop.on_signal(signal.SIGUSR1, each(lambda: order.append("signal"), loop.stop))

    def raise_it() -> None:
        signal.raise_signal(signal.SIGUSR1)
        order.append("after")

    loop.soon(raise_it)
    run(loop)
    assert order == ["after", "signal"]


def test_an_ended_child_is_told_once(loop: Loop, way: None) -> None:
    told: list[int] = []
    with started("true") as process:
        loop.on_exit(process.pid, each(lambda: told.append(process.wait()), loop.stop))
        run(loop)
    turn(loop)
    assert told == [0]


def test_a_child_that_had_ended_before_is_told_too(loop: Loop, way: None) -> None:
    with started("false") as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        loop.on_exit(process.pid, each(process.wait, loop.stop))
        run(loop)
        assert process.returncode == 1


def test_every_one_of_many_children_is_told(loop: Loop, way: None) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started("true")) for _ in range(20)]
        left = {process.pid for process in processes}

        def on_exit(process: subprocess.Popen[bytes]) -> None:
            process.wait()
            left.discard(process.pid)
            if not left:
                loop.stop()

        for process in processes:
            loop.on_exit(process.pid, lambda process=process: on_exit(process))  # type: ignore[misc]
        run(loop)
    assert not left


def test_a_child_is_told_without_a_descriptor_to_watch_it_by(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    if not unix.HAVE_PIDFD:
        pytest.skip("this system has no pidfd")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with started("sleep", "0.05") as process:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            loop.on_exit(process.pid, each(process.wait, loop.stop))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        run(loop)
        assert process.returncode == 0


def test_a_child_that_is_watched_when_the_loop_closes_leaves_no_descriptor() -> None:
    before = sorted(os.listdir("/dev/fd"))
    loop = Loop()
    with started("sleep", "1000") as process:
        loop.on_exit(process.pid, lambda: None)
        loop.close()
        process.kill()
    assert sorted(os.listdir("/dev/fd")) == before


# --- the wall clock -------------------------------------------------------------------------------


def test_a_set_clock_is_noticed_by_comparing(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix, "HAVE_TIMERFD", False)
    told: list[str] = []
    due: list[Callable[[], None]] = []
    monkeypatch.setattr(loop, "after", lambda seconds, callback: due.append(callback))
    loop.on_clock_set(lambda: told.append("set"))
    due.pop()()
    assert told == []
    monkeypatch.setattr("rqcore.loop.time", lambda: time.time() - 3600)
    due.pop()()
    assert told == ["set"]
    due.pop()()
    assert told == ["set"], "once for each time"
