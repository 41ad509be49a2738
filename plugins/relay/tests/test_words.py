"""Numbers, times and states of peers in words."""

from __future__ import annotations

from typing import Any

from rqcore_relay import words


def row(**facts: Any) -> dict[str, Any]:
    known = {"reachable": None, "failures": 0, "running": 0, "waiting": 0, "next_try": None}
    return {**known, "probe": None, **facts}


def test_states() -> None:
    assert words.status(row()) == "not tried yet"
    assert words.status(row(running=1)) == "is tried"
    assert words.status(row(failures=1)) == "answers again"
    assert words.status(row(reachable=True)) == "reachable"
    assert words.status(row(reachable=False, failures=1)) == "unreachable"


def test_what_comes() -> None:
    assert words.coming(row(next_try=5.0), 0) == ""
    down = row(failures=2, next_try=40.0, waiting=3, probe={"next": 8.0})
    assert words.coming(down, 0) == "asked again in 8 s, a message tries in 40 s"
    assert words.coming({**down, "waiting": 0, "probe": {}}, 0) == ""
    assert words.coming(row(failures=2, running=1), 0) == "a message tries now"
