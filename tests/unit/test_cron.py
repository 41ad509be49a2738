"""Cron lines and the table of a queue's schedule: never a double run, never a lost one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rqcore.cron import CATCHUP, MAX_CATCHUP, CronLine, CronTable, Firing
from rqcore.errors import RefusedError

MINUTE, HOUR, DAY = 60, 3600, 86400
#: Thursday 2026-01-01 00:00 UTC.
START = 1_767_225_600
#: Around these hours the clocks of Berlin change in 2026, and those of Lord Howe by half an hour.
CHANGES = [
    datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp(),
    datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp(),
    datetime(2026, 4, 4, 15, tzinfo=UTC).timestamp(),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC).timestamp(),
]
LINES = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "30 2 * * *", "0,20,40 2,3 * * *", "0 * * * *", "*/30 2 * * *",
     "15 0 * * 1-5", "0 0 1 * *", "@daily", "@weekly", "30 1-3 * * *", "59 2 * * *", "5 */2 * * *"]
)  # fmt: skip
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/New_York"])
MOMENTS = st.one_of(
    st.floats(START - DAY, START + 400 * DAY),
    st.tuples(st.sampled_from(CHANGES), st.integers(-4 * HOUR, 4 * HOUR)).map(sum),
)


def utc(line: str) -> CronLine:
    return CronLine(line, "UTC")


def at(*moment: int, zone: str = "Europe/Berlin", fold: int = 0) -> float:
    year, month, day, hour, minute = moment
    return datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def brute(line: CronLine, after: float, until: float) -> list[int]:
    times: list[int] = []
    t = line.next_after(after)
    while t <= until:
        times.append(int(t))
        t = line.next_after(t)
    return times


@given(expression=LINES, zone=ZONES, t=MOMENTS, share=st.floats(0, 1))
def test_the_next_time_is_later_and_the_same_until_it_has_come(
    expression: str, zone: str, t: float, share: float
) -> None:
    line = CronLine(expression, zone)
    following = line.next_after(t)
    assert following > t
    assert following % MINUTE == 0
    between = t + (following - t) * share
    if between < following:
        assert line.next_after(between) == following


@given(expression=LINES, zone=ZONES, after=MOMENTS, span=st.integers(-60, 3 * DAY),
       limit=st.sampled_from([1, 2, 5, 1000]))  # fmt: skip
def test_between_gives_the_newest_of_all(
    expression: str, zone: str, after: float, span: int, limit: int
) -> None:
    line = CronLine(expression, zone)
    assert line.between(after, after + span, limit) == brute(line, after, after + span)[-limit:]


def test_between_takes_its_end_and_not_its_beginning() -> None:
    assert utc("* * * * *").between(START, START + 2 * MINUTE, 9) == [
        START + MINUTE,
        START + 2 * MINUTE,
    ]


def test_between_costs_what_is_asked_for_and_not_what_lies_between() -> None:
    # Ten years of minutes are five millions.
    line = utc("* * * * *")
    times = line.between(START - 3650 * DAY, START, 1000)
    assert times == list(range(START - 999 * MINUTE, START + MINUTE, MINUTE))
    assert utc("@yearly").between(0, START, 3) == [1704067200, 1735689600, START]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        (" @Daily ", "0 0 * * *"),
        ("0  0\t* *  *", "0 0 * * *"),
        ("0 0 * * SUN", "0 0 * * 7"),
    ],
)
def test_names_stand_for_fields(name: str, fields: str) -> None:
    t = START + 12345
    assert utc(name).next_after(t) == utc(fields).next_after(t)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "0 fields instead of 5"),
        ("* * * *", "4 fields instead of 5"),
        ("0 * * * * *", "6 fields instead of 5"),
        ("61 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("*/0 * * * *", "bad minute"),
        ("5-1 * * * *", "bad minute"),
        ("\N{ARABIC-INDIC DIGIT FIVE} * * * *", "bad minute"),
        ("0 0 1--100000000 * *", "bad day-of-month"),
        ("0 0 1-100000000 * *", "bad day-of-month"),
        ("0 0 */99999999999999999999 13 *", "bad month"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 */40 * MON#5", "no day ever matches"),
        ("@reboot", "known are @hourly"),
        ("@", "known are @hourly"),
        ("* * * * " + "*," * 1_000_000, "longer than 200 characters"),
        ("9" * 190 + " * * * *", "bad minute"),
    ],
)
def test_what_means_no_time_is_refused_at_once(expression: str, words: str) -> None:
    before = time.process_time()
    with pytest.raises(RefusedError, match=r"cron line .* refused: .*; ") as refused:
        CronLine(expression)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 500
    assert time.process_time() - before < 1


@pytest.mark.parametrize(
    "zone", ["Nowhere", "../etc/passwd", "/etc/passwd", "Europe", "\0", "\ud800", "x" * 9000, "."]
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(RefusedError, match=r"unknown time zone .*Europe/Berlin"):
        CronLine("@daily", zone)


@given(st.text(st.sampled_from("0123456789*/-,#LW@ adhlmnoruyMONSU\t\u0665"), max_size=30))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_line_or_refused_in_words(expression: str) -> None:
    refused = ""
    try:
        line = utc(expression)
    except RefusedError as error:
        refused = str(error)
    else:
        assert START < line.next_after(START) < START + 41 * 366 * DAY
    assert refused == "" or repr(expression) in refused


def test_a_fixed_time_in_the_gap_runs_at_its_end() -> None:
    line = CronLine("30 2 * * *", "Europe/Berlin")
    assert brute(line, at(2026, 3, 28, 12, 0), at(2026, 3, 30, 12, 0)) == [
        at(2026, 3, 29, 3, 0),
        at(2026, 3, 30, 2, 30),
    ]


def test_a_fixed_time_in_the_doubled_hour_runs_once() -> None:
    line = CronLine("30 2 * * *", "Europe/Berlin")
    expected = [at(2026, 10, 25, 2, 30), at(2026, 10, 26, 2, 30)]
    assert brute(line, at(2026, 10, 24, 12, 0), at(2026, 10, 26, 12, 0)) == expected
    # Also when looked at from within the second of the two hours.
    assert line.next_after(at(2026, 10, 25, 2, 10, fold=1)) == expected[1]


def test_a_line_with_a_star_follows_real_time() -> None:
    line = CronLine("0 * * * *", "Europe/Berlin")
    for change in CHANGES[:2]:
        times = brute(line, change - 3 * HOUR, change + 3 * HOUR)
        assert times == [int(change) + i * HOUR for i in range(-2, 4)]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    if before is None:
        monkeypatch.delenv("TZ")
    else:
        monkeypatch.setenv("TZ", before)
    time.tzset()


@given(expression=LINES, t=MOMENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_machines_own_zone_is_the_default(berlin: None, expression: str, t: float) -> None:
    named, own = CronLine(expression, "Europe/Berlin"), CronLine(expression)
    assert own.next_after(t) == named.next_after(t)


@pytest.mark.parametrize(
    "expression", ["30 2 * * *", "*/5 2 29 3 *", "0 * * * *", "0,20 2,3 * * *"]
)
def test_the_machines_own_zone_changes_its_clocks(berlin: None, expression: str) -> None:
    named, own = CronLine(expression, "Europe/Berlin"), CronLine(expression)
    for change in CHANGES[:2]:
        span = (change - 6 * HOUR, change + 30 * HOUR)
        assert brute(own, *span) == brute(named, *span)


def table(catchup: str = "last", **state: float) -> CronTable:
    return CronTable({"a": utc("*/10 * * * *")}, state, {"a": catchup})


def test_a_new_line_has_missed_nothing() -> None:
    fresh = table()
    assert fresh.due(START + 60) == []
    assert fresh.next_wake(START + 60) == START + 600
    assert fresh.state() == {"a": START + 60}
    assert fresh.due(START + 600) == [Firing("a", START + 600)]


def test_a_firing_is_offered_until_it_is_marked() -> None:
    some = table(a=START)
    for now in (START + 600, START + 601):
        assert some.due(now) == [Firing("a", START + 600)]
        assert some.next_wake(now) == now
    some.mark("a", START + 600)
    assert some.due(START + 601) == []
    assert some.next_wake(START + 601) == START + 1200


def test_of_the_missed_runs_the_latest_is_made_up_for() -> None:
    assert table("last", a=START).due(START + DAY + 5) == [Firing("a", START + DAY)]


def test_all_missed_runs_are_made_up_for_up_to_a_bound() -> None:
    assert table("all", a=START).due(START + 1800) == [
        Firing("a", START + 600), Firing("a", START + 1200), Firing("a", START + 1800),
    ]  # fmt: skip
    many = table("all", a=START).due(START + 365 * DAY)
    assert len(many) == MAX_CATCHUP
    assert many[-1].at == START + 365 * DAY


def test_without_catch_up_only_what_is_on_time_runs() -> None:
    late = table("none", a=START)
    assert late.due(START + 700) == []
    assert late.next_wake(START + 700) == START + 1200
    assert late.due(START + 1259) == [Firing("a", START + 1200)]
    late.mark("a", START + 1200)
    assert late.due(START + 1259) == []


def test_what_passes_while_the_queue_is_not_up_is_let_go() -> None:
    for catchup in CATCHUP:
        some = table(catchup, a=START)
        some.skip(START + 1800)
        assert some.due(START + 1801) == []
        assert some.next_wake(START + 1801) == START + 2400
        assert some.state() == {"a": START + 1800}


def test_a_clock_that_steps_back_repeats_nothing() -> None:
    some = table(a=START + HOUR)
    assert some.due(START + HOUR - 3 * HOUR) == []
    assert some.next_wake(START - 2 * HOUR) == START + HOUR + 600
    some.skip(START)
    assert some.state() == {"a": START + HOUR}


def test_a_clock_that_was_corrected_goes_on_from_now() -> None:
    some = table(a=START + 10 * 365 * DAY)
    assert some.next_wake(START) == START + 600
    assert some.state() == {"a": START}
    assert some.due(START + 600) == [Firing("a", START + 600)]


def test_state_of_lines_that_are_gone_and_of_no_sense_is_dropped() -> None:
    lines = {"a": utc("@hourly"), "b": utc("@hourly")}
    state = {"gone": START, "a": float("nan"), "b": -1e300}
    some = CronTable(lines, state)
    assert some.state() == {}
    assert some.next_wake(START) == START + HOUR
    assert CronTable({}, {}).next_wake(START) is None


def test_an_unknown_catchup_is_refused() -> None:
    with pytest.raises(RefusedError, match="last, all, none"):
        table("some")


def test_firings_of_several_lines_come_in_order() -> None:
    lines = {"a": utc("0 2 * * *"), "b": utc("0 1 * * *"), "c": utc("0 1 * * *")}
    some = CronTable(lines, dict.fromkeys(lines, START))
    assert [firing.key for firing in some.due(START + 3 * HOUR)] == ["b", "c", "a"]


@given(
    expression=LINES,
    zone=ZONES,
    start=MOMENTS,
    steps=st.lists(
        st.tuples(
            st.floats(-2 * HOUR, 40 * HOUR),
            st.sampled_from(["run", "run", "run", "restart", "crash before mark", "skip"]),
        ),
        max_size=12,
    ),
    catchup=st.sampled_from(["last", "all"]),
)
def test_no_run_is_doubled_or_lost(
    expression: str, zone: str, start: float, steps: list[tuple[float, str]], catchup: str
) -> None:
    line = CronLine(expression, zone)
    some = CronTable({"a": line}, {"a": start}, {"a": catchup})
    now = dealt = start
    for step, what in steps:
        now = max(now + step, dealt - 3 * HOUR)
        if what == "restart":
            some = CronTable({"a": line}, some.state(), {"a": catchup})
        if what == "skip":
            some.skip(now)
            dealt = max(dealt, now)
            continue
        wake = some.next_wake(now)
        expected = brute(line, dealt, now)[-(1 if catchup == "last" else MAX_CATCHUP) :]
        found = some.due(now)
        assert [firing.at for firing in found] == expected
        assert wake is not None
        assert (wake == now) == bool(expected) or wake == now == line.next_after(dealt)
        assert wake == max(now, line.next_after(dealt))
        if what == "crash before mark":
            some = CronTable({"a": line}, some.state(), {"a": catchup})
            assert some.due(now) == found
        for firing in found:
            some.mark("a", firing.at)
            dealt = firing.at
        assert some.due(now) == []
