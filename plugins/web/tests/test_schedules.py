"""rqcore_web.schedules: what people read of a schedule is what the kernel does."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from rqcore_web import schedules
from rqcore_web.schedules import MAX_LINES, describe, problems, words

from rqcore import cron
from rqcore.config import QueueConfig, parse_queue
from rqcore.cron import CronLine

BERLIN = ZoneInfo("Europe/Berlin")
#: Shortly before the clocks of Berlin are set forward, at 2:00 on this Sunday.
SATURDAY = datetime(2026, 3, 28, 23, 30, 40, tzinfo=BERLIN).timestamp()


def queue(*entries: object) -> QueueConfig:
    raw: dict[str, Any] = {"script": "/bin/true", "schedule": list(entries)}
    config, _ = parse_queue(raw, "queue/test/config.json", "test")
    return config


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("*/10 * * * *", "Every 10 minutes"),
        ("* * * * *", "Every minute"),
        ("0 0 * * *", "Every day at 00:00"),
        ("05   9 * * *", "Every day at 09:05"),
        ("30 4 1,15 * 5", "At 04:30, on day 1 and 15 of the month, or on Friday"),
        ("0 22 * * 1-5", "At 22:00, Monday through Friday"),
        ("0 9 * * 7", "At 09:00, only on Sunday"),
        ("0 0 29 2 *", "At 00:00, on day 29 of the month, only in February"),
        ("0 9 L * *", "At 09:00, on the last day of the month"),
        ("0 9 * * 5#2", "At 09:00, on the second Friday of the month"),
        ("@hourly", "Every hour, on the hour"),
        ("@Daily", "Every day at 00:00"),
    ],
)
def test_words(line: str, said: str) -> None:
    CronLine(line)
    assert words(line) == said


def test_every_name_that_the_kernel_knows_has_words() -> None:
    assert set(schedules._NAMED) == set(cron._NAMED)


@pytest.mark.parametrize("line", ["0 9 * * 5L", "0 9 LW * *", "0-59/7,3 1-5/2 */3 JAN-MAR,JUL sun"])
def test_whatever_the_kernel_understands_has_some_words(line: str) -> None:
    CronLine(line)
    assert words(line)


def test_words_do_not_depend_on_the_language_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LC_ALL", "LANG", "LANGUAGE"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    assert words("1 2 3 4 *") == "At 02:01, on day 3 of the month, only in April"


def test_a_line_is_described_in_full() -> None:
    config = queue({"cron": "30 2 * * *", "tz": "Europe/Berlin", "param1": "a", "param4": "d"})
    (view,) = describe(config, runs=3, now=SATURDAY)
    assert (view.words, view.cron, view.tz) == ("Every day at 02:30", "30 2 * * *", "Europe/Berlin")
    assert (view.zone, view.params) == ("Europe/Berlin", ("a", "", "", "d"))
    assert (view.catchup, view.missed) == ("last", "of missed runs, the last is made up for")
    # 2:30 does not exist on that day: it runs once, at the end of the gap.
    local = [datetime.fromtimestamp(at, BERLIN).strftime("%d %H:%M") for at in view.next_runs]
    assert local[0].startswith("29 03:")
    assert local[1:] == ["30 02:30", "31 02:30"]
    assert list(view.next_runs) == kernel_says(config, 3)


def kernel_says(config: QueueConfig, count: int) -> list[float]:
    line = CronLine(config.schedule[0].cron, config.schedule[0].tz)
    found: list[float] = []
    at = SATURDAY
    for _ in range(count):
        at = line.next_after(at)
        found.append(at)
    return found


def test_the_machines_own_zone_has_a_name() -> None:
    (view,) = describe(queue({"cron": "@hourly"}), now=SATURDAY)
    assert view.tz == ""
    assert view.zone
    assert view.next_runs[0] > SATURDAY
    assert len(view.next_runs) == 5


def test_a_time_that_is_now_is_not_the_next_one() -> None:
    (view,) = describe(queue({"cron": "* * * * *", "tz": "UTC"}), runs=2, now=600.0)
    assert view.next_runs == (660, 720)


def test_lines_keep_their_places_and_what_is_skipped_is_told() -> None:
    config = queue(
        {"cron": "@daily", "catchup": "none"}, {"cron": "61 * * * *"}, "text", {},
        {"cron": "0 1 * * *", "tz": "Mars/Olympus"}, {"cron": "@hourly", "catchup": "all"},
    )  # fmt: skip
    views = describe(config)
    assert [view.cron for view in views] == [line.cron for line in config.schedule]
    assert [view.catchup for view in views] == ["none", "all"]
    told = problems(config)
    assert len(told) == 4
    for number, text in zip((1, 2, 3, 4), told, strict=True):
        assert f"schedule[{number}]" in text
        assert "until then the entry is skipped" in text
    assert "Mars/Olympus" in told[3]
    assert problems(queue({"cron": "@daily"})) == []
    assert problems(QueueConfig("test", "/bin/true")) == []


def test_a_schedule_without_end_is_described_in_part() -> None:
    many = [{"cron": f"{n % 60} {n // 60 % 24} * * *"} for n in range(3 * MAX_LINES)]
    config = queue(*many)
    views = describe(config, runs=10**9)
    assert len(views) == MAX_LINES
    assert [view.cron for view in views] == [line.cron for line in config.schedule[:MAX_LINES]]
    assert all(len(view.next_runs) <= 100 for view in views)
    assert len(problems(queue(*[{"cron": "x"}] * (3 * MAX_LINES)))) == MAX_LINES


def test_a_queue_without_a_schedule() -> None:
    assert describe(queue()) == []
