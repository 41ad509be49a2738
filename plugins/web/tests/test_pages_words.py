"""What pages make of figures, times and texts: read by people, and exact."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_web import words
from rqcore_web.pages.errors import fold, grouped
from rqcore_web.pretty import pretty
from rqcore_web.progress import Progress, parse


@pytest.mark.parametrize(
    ("given", "shown"),
    [(0, "0"), (99_999, "99,999"), (100_000, "100k"), (1_234_567, "1.23M"), (45_600_000, "45.6M")],
)
def test_counts_stay_short(given: int, shown: str) -> None:
    assert words.compact(given) == shown


@given(st.integers(0, 10**14))
def test_no_count_is_longer_than_its_place(count: int) -> None:
    assert len(words.compact(count)) <= 6


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.0 MB"),
        (2 * 10**9, "2.0 GB"),
    ],
)
def test_sizes(given: int, shown: str) -> None:
    assert words.size(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (-3, "0 ms"),
        (0.32, "320 ms"),
        (4.21, "4.2 s"),
        (59.7, "1 min"),
        (192, "3 min 12 s"),
        (7500, "2 h 5 min"),
        (86400 * 3 + 14400, "3 d 4 h"),
    ],
)
def test_durations(given: float, shown: str) -> None:
    assert words.duration(given) == shown


@pytest.mark.parametrize(
    ("away", "shown"), [(0, "now"), (-12, "12 s ago"), (300, "in 5 min"), (-90000, "1 d ago")]
)
def test_relative_times(away: float, shown: str) -> None:
    assert words.relative(1000.0 + away, now=1000.0) == shown


def test_a_time_says_the_absolute_one_too() -> None:
    element = words.when(0.0)
    assert re.search(r'datetime="19[67]\d-[\d-]+T', element)
    assert re.search(r'title="19[67]\d-', element)


@pytest.mark.parametrize("moment", [1e11, -1e15, 4e18])
def test_a_time_out_of_all_calendars_is_shown_all_the_same(moment: float) -> None:
    assert "<time" in words.when(moment)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\x1b[31mb", "a\u241b[31mb"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("line\n\ttab 💥 عربي", "line\n\ttab 💥 عربي"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(given: str, shown: str) -> None:
    assert words.shown(given) == shown


@given(st.text())
def test_what_is_shown_can_be_sent(text: str) -> None:
    words.shown(text).encode()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Processed 5 of 15 log files.", Progress(5, 15)),
        ("5/15", Progress(5, 15)),
        ("37%", Progress(37, 100)),
        ("12.5 % done", Progress(12.5, 100)),
        ("copied 1,500 of 3,000 rows", Progress(1500, 3000)),
        ("2026/11/24 3 of 4", Progress(3, 4)),
        ("16 of 15", None),
        ("0 of 0", None),
        ("250%", None),
        ("greeting", None),
        ("", None),
    ],
)
def test_progress_is_read_from_what_scripts_say(text: str, found: Progress | None) -> None:
    assert parse(text) == found


@given(st.text(alphabet="0123456789 of/%.,x"))
def test_progress_is_never_more_than_all(text: str) -> None:
    found = parse(text)
    assert found is None or 0 <= found.percent <= 100


def plain(markup: str) -> str:
    """What is read of it."""
    text = re.sub(r"<[^>]+>", "", markup)
    for name, char in (
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&#34;", '"'),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ):
        text = text.replace(name, char)
    return text


def test_json_keeps_every_token() -> None:
    text = '{"n": 12345678901234567890123456789012345678901, "f": 1.0, "e": 1E400, "n": -0.10}'
    shown = plain(str(pretty(text)))
    assert json.loads(shown, parse_int=str, parse_float=str, object_pairs_hook=list) == [
        ("n", "12345678901234567890123456789012345678901"),
        ("f", "1.0"),
        ("e", "1E400"),
        ("n", "-0.10"),
    ]
    assert "\n  " in shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(alphabet='ab<>&"\\\n ü'),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="ab<"), inner),
        max_leaves=20,
    ).filter(lambda value: isinstance(value, dict | list))
)
def test_json_stays_the_same_value_and_is_never_markup(value: object) -> None:
    found = pretty(json.dumps(value))
    assert found is not None
    assert json.loads(plain(str(found))) == value
    assert set(re.findall(r"</?(\w+)", str(found))) <= {"span"}


@pytest.mark.parametrize("text", ["", "hello", "12", '"text"', "{", '{"a": }', "[" * 100_000])
def test_what_is_no_json_object_is_left_alone(text: str) -> None:
    assert pretty(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "connection to 10.0.0.1 timed out after 30 s",
            "connection to 10.2.3.4 timed out after 9 s",
        ),
        ("no such row 1f0c9d2e7ab4", "no such row 00aa11bb22cc"),
        (
            "job 123e4567-e89b-12d3-a456-426614174000 lost",
            "job 00000000-0000-4000-8000-000000000000 lost",
        ),
        ("duplicate 20261124.0626.50.285.000002786378", "duplicate 20261125.0000.00.001.1"),
    ],
)
def test_errors_that_differ_in_numbers_and_ids_are_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_errors_that_differ_in_words_are_not() -> None:
    assert fold("no space left on disk 1") != fold("no route to host 1")
    assert fold("facade broken") == "facade broken"


def test_groups_count_by_the_last_line() -> None:
    statuses = ["err - a\nlost 1", "err - b\nlost 2", "err - other", "err"]
    items = [{"msg_id": str(n), "state": "err", "status": s} for n, s in enumerate(statuses)]
    assert [len(group.items) for group in grouped("q", items)] == [2, 1, 1]
    keys = {group.key for group in grouped("q", items)}
    assert len(keys) == 3
    assert keys.isdisjoint(group.key for group in grouped("another", items))
