"""When a message is due, as people write it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rqcore_web.due import parse_due

NOW = 1_772_352_000.0


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("", NOW),
        (" now ", NOW),
        ("10m", NOW + 600),
        ("+2h", NOW + 7200),
        ("1h30m", NOW + 5400),
        ("1.5d", NOW + 129_600),
        ("2026-03-01T08:00Z", datetime(2026, 3, 1, 8, tzinfo=UTC).timestamp()),
        ("2026-03-01T08:00", datetime(2026, 3, 1, 8).astimezone().timestamp()),
        ("2026-03-01 08:00", datetime(2026, 3, 1, 8).astimezone().timestamp()),
        ("1767225600", 1_767_225_600.0),
        ("1767225600.25", 1_767_225_600.25),
    ],
)
def test_a_time_is_read(text: str, due: float) -> None:
    assert parse_due(text, NOW) == due


@pytest.mark.parametrize(
    "text", ["tomorrow", "10", "10 m", "2026-13-01", "-5m", "m", "9" * 400 + "w", "nan"]
)
def test_what_is_no_time_is_refused_with_what_can_be_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"10m or 1h30m|too far away"):
        parse_due(text, NOW)
