"""Times and sizes, as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore import words

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1w", 604800), ("1.5h", 5400)],
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert words.parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "-5m", "1h 5m", "ten minutes", "5y"])
def test_what_is_no_span_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="is no span of time; write it as 90s"):
        words.parse_span(text)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("now", NOW),
        ("10m", NOW + 600),
        ("+10m", NOW + 600),
        ("1767225600", 1767225600),
        ("1767225600.5", 1767225600.5),
        ("2026-03-01T08:00+01:00", datetime(2026, 3, 1, 7, tzinfo=UTC).timestamp()),
        ("2026-03-01 08:00Z", datetime(2026, 3, 1, 8, tzinfo=UTC).timestamp()),
    ],
)
def test_due_is_read(text: str, due: float) -> None:
    assert words.parse_due(text, NOW) == due


def test_a_date_without_a_zone_is_meant_here() -> None:
    assert words.parse_due("2026-03-01T08:00", NOW) == datetime(2026, 3, 1, 8).timestamp()  # noqa: DTZ001


@pytest.mark.parametrize("text", ["10", "tomorrow", "", "08:00", "2026-13-01", "nan", "inf"])
def test_what_is_no_time_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write 10m"):
        words.parse_due(text, NOW)


@pytest.mark.parametrize("text", ["999999999w", "0001-01-01T00:00+00:00"])
def test_a_time_too_far_away_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is too far away|is no time"):
        words.parse_due(text, NOW)


@given(st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert 0 <= words.parse_due(text, NOW) < 1e11
    except ValueError as error:
        assert "is no time" in str(error) or "too far" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0, "0s"), (99.9, "99s"), (100, "1m"), (5999, "99m"), (6000, "1h"),
     (72 * 3600 - 1, "71h"), (72 * 3600, "3d"), (1e7, "115d")],
)  # fmt: skip
def test_spans_are_shown_short(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1500, "1.5 kB"), (15_000, "15 kB"),
     (999_499, "999 kB"), (999_500, "1.0 MB"), (3_200_000_000, "3.2 GB"), (10**16, "10000 TB")],
)  # fmt: skip
def test_sizes_are_shown_short(count: int, text: str) -> None:
    assert words.size(count) == text


@given(st.integers(0, 4 * 10**12))
def test_ids_sort_around_the_stamp_of_a_time(ms: int) -> None:
    stamp = words.id_stamp(ms / 1000)
    at = f"{words.id_stamp(ms / 1000)}.000001"
    before = f"{words.id_stamp(max(0, ms - 2) / 1000)}.000001"
    assert stamp < at
    assert ms < 2 or before < stamp
    assert abs(words.id_time(at) - ms / 1000) < 0.002


@given(st.floats(0, 1e16))
def test_a_size_is_never_shown_with_four_digits(size: float) -> None:
    number, unit = words.size(size).split()
    assert float(number) < 1000 or unit == "TB"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("20MB", 20_000_000),
        ("1.5 g", 1_500_000_000),
        ("4GiB", 4 << 30),
        ("7kb", 7000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert words.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1 2", "5iB", "10%", "1e9", "many"])
def test_what_is_no_size_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; write it as 500, 20MB"):
        words.parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (99.9, "99 s"),
        (100, "1 min"),
        (5999, "99 min"),
        (6000, "1 h"),
        (300_000, "3 d"),
    ],
)
def test_spans_for_sentences(seconds: float, text: str) -> None:
    assert words.span_in_words(seconds) == text
