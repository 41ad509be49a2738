"""The pace: small batches and long pauses while somebody works, and neither too small nor too long."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from rqcore_cleaner.pace import Pace, busy_machine


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), min_size=1))
def test_batches_and_pauses_keep_within_their_bounds(batches: list[tuple[float, bool]]) -> None:
    pace = Pace()
    largest = pace.size
    for seconds, busy in batches:
        pause = pace.after(seconds, pace.size, busy=busy)
        assert 1 <= pace.size <= min(64, max(2, 2 * largest))
        largest = max(largest, pace.size)
        assert 0 <= pause <= 1
        assert pause <= seconds * (2 if busy else 0.1) + 1e-9


def settled(once: float, each: float, *, busy: bool) -> tuple[int, int]:
    """The two sizes that batches come to, where a batch and a message take so many seconds."""
    pace = Pace()
    sizes = [pace.size]
    for _ in range(50):
        pace.after(once + each * pace.size, pace.size, busy=busy)
        sizes.append(pace.size)
    return min(sizes[-2:]), max(sizes[-2:])


def test_a_slow_sync_is_shared_by_many_and_slow_messages_are_few() -> None:
    assert settled(0.05, 0.0002, busy=True) == (32, 64)
    assert settled(0.001, 0.009, busy=True) == (1, 3)
    assert settled(0.05, 0.009, busy=True) == (1, 3)
    assert settled(0.001, 0.009, busy=False) == (5, 11)
    assert settled(0.0, 0.5, busy=True) == (1, 2)


def test_pauses_are_long_while_somebody_works() -> None:
    assert Pace().after(0.1, 8, busy=True) > 10 * Pace().after(0.1, 8, busy=False)
    assert Pace().after(10.0, 8, busy=True) == 1


def test_nothing_removed_says_nothing_about_the_size() -> None:
    pace = Pace()
    pace.after(9.0, 0, busy=True)
    assert pace.size == 4


def test_the_machine_is_asked_in_a_moment() -> None:
    assert busy_machine() in (True, False)


def test_whoever_steps_back_is_last_for_processor_and_disk() -> None:
    program = (
        "import os; from rqcore_cleaner.pace import step_back; done = step_back();"
        "print(done, os.getpriority(os.PRIO_PROCESS, 0), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        done, nice = process.stdout.readline().split()
        assert int(nice) == 19
        assert done == str(sys.platform.startswith("linux"))
        process.stdin.write("\n")
    assert process.returncode == 0
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
