"""rqcore_relay.progress: what people are told about a transfer that goes on."""

from __future__ import annotations

import pytest
from rqcore_relay.progress import Progress, StoppedError, duration, words


@pytest.mark.parametrize(
    ("there", "total", "rate", "told"),
    [
        (540_000_000, 1_200_000_000, 88_000_000, "45% of 1.2 GB, 88 MB/s, 8 s left"),
        (0, 1000, 0, "0% of 1.0 kB, waiting"),
        (0, 0, 0, "100% of 0 B, waiting"),
        (999, 1000, 1, "99% of 1.0 kB, 1 B/s, 1 s left"),
        (2000, 1000, 10, "100% of 1.0 kB, 10 B/s, 0 s left"),
    ],
)
def test_words(there: int, total: int, rate: float, told: str) -> None:
    assert words(there, total, rate) == told


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "60 min"), (7500, "2 h 5 min"),
     (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_at_most_twice_a_second_with_the_rate_of_the_last_seconds() -> None:
    clock, told = Clock(), list[str]()
    progress = Progress(10_000, told.append, clock)
    progress.found(1000)
    for tick in range(120):  # twelve seconds: at first 10 bytes in a tenth, then 50
        clock.now += 0.1
        progress.add(10 if tick < 50 else 50)
    assert 18 <= len(told) <= 24
    assert told[0].startswith("10% of 10 kB, 100 B/s")
    assert "500 B/s" in told[-1]
    assert progress.sent == 50 * 10 + 70 * 50


def test_what_is_sent_again_is_counted_apart() -> None:
    progress = Progress(100, lambda _: None, Clock())
    progress.add(60, again=20)
    progress.found(-10)
    progress.add(10, again=10)
    assert (progress.sent, progress.resent) == (70, 30)


def test_why_it_does_not_go_on_is_told_at_once() -> None:
    told = list[str]()
    progress = Progress(200, told.append, Clock())
    progress.add(50)
    progress.halted("it goes on soon: cut off")
    assert told == ["25% of 200 B, it goes on soon: cut off"]


def test_whoever_goes_on_after_a_failure_is_stopped() -> None:
    progress = Progress(100, lambda _: None, Clock())
    progress.stop()
    with pytest.raises(StoppedError):
        progress.add(1)
