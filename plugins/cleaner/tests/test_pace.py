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
    for seconds, busy in batches:
        before = pace.size
        pause = pace.after(seconds, before, busy=busy)
        assert 16 <= pace.size <= min(128, 2 * before)
        assert 0 <= pause <= 1
        assert pause <= seconds * (3 if busy else 0.1) + 1e-9


def test_quick_batches_grow_and_slow_ones_shrink_at_once() -> None:
    pace = Pace()
    sizes = []
    for _ in range(4):
        pace.after(0.001, pace.size, busy=False)
        sizes.append(pace.size)
    assert sizes == [32, 64, 128, 128]
    pace.after(0.2, 128, busy=False)
    assert pace.size == 32
    assert pace.after(0.1, 32, busy=True) > 10 * pace.after(0.1, 32, busy=False)
    assert pace.size == 16


def test_nothing_removed_says_nothing_about_the_size() -> None:
    pace = Pace()
    pace.after(9.0, 0, busy=True)
    assert pace.size == 16


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
