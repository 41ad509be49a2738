"""A message's life in words, from what is known of it."""

from __future__ import annotations

from typing import Any

import pytest
from rqcore_web.pages.timeline import timeline

MADE = 1_795_500_000.0
ID = "20261124.0600.00.000.1"


def message(**fields: Any) -> dict[str, Any]:
    return {"msg_id": ID, "due": MADE, "src": "", "status": fields.get("state", ""), **fields}


def told(found: dict[str, Any], runs: Any = (), running: Any = None, now: float = MADE + 60) -> Any:
    return [(m.kind, m.what) for m in timeline(found, list(runs), running, now)]


def run(state: str, began: float, ended: float, status: str = "") -> dict[str, Any]:
    return {"began": MADE + began, "ended": MADE + ended, "state": state, "status": status}


@pytest.mark.parametrize(
    ("fields", "rest"),
    [
        ({"state": "prep"}, [("prep", "Waits for its commit")]),
        ({"state": "que"}, [("que", "Waits for a worker")]),
        ({"state": "que", "due": MADE + 600}, [("que", "Is due")]),
        (
            {"state": "que", "status": "que - set aside as duplicate of X"},
            [("que", "Waits with another one")],
        ),
        ({"state": "run"}, [("run", "Runs")]),
        ({"state": "done", "status": "done - fine"}, [("done", "Succeeded")]),
        ({"state": "relayed", "status": "relayed - X"}, [("relayed", "Was relayed")]),
        ({"state": "err", "due": MADE + 20}, [("que", "Was due"), ("err", "Failed")]),
    ],
)
def test_where_it_lies_now(fields: dict[str, Any], rest: list[tuple[str, str]]) -> None:
    assert told(message(**fields)) == [("prep", "Made"), *rest]


def test_every_run_is_told_with_what_it_said() -> None:
    runs = [run("que", 1, 3, "not yet"), run("done", 10, 12.5, "fine")]
    moments = timeline(message(state="done", status="done - fine"), runs, None, MADE + 60)
    assert [(m.kind, m.what, m.detail, m.said) for m in moments[1:]] == [
        ("run", "Run 1", "waited 1.0 s", ""),
        ("que", "Was sent back, to run again", "after 2.0 s", "not yet"),
        ("run", "Run 2", "waited 7.0 s", ""),
        ("done", "Succeeded", "after 2.5 s", "fine"),
    ]


def test_what_runs_goes_on() -> None:
    running = {"started_at": MADE + 5, "pid": 42}
    moments = timeline(message(state="run", src="cron"), [run("que", 1, 2)], running, MADE + 9)
    assert moments[0].detail == "by cron"
    assert (moments[-1].what, moments[-1].detail) == ("Run 2", "waited 3.0 s, pid 42")
    assert moments[-1].going_on


def test_a_retried_one_waits_again() -> None:
    assert told(message(state="que"), [run("err", 1, 2)])[-1] == ("que", "Waits for a worker")


def test_duplicates_and_clones_are_told() -> None:
    found = message(state="done", dups=["a", "b"], cloned_from="20260101.0000.00.000.1")
    moments = timeline(found, [run("done", 1, 2)], None, MADE)
    assert moments[0].detail == "a clone of 20260101.0000.00.000.1"
    assert moments[-1].what == "Stands for 2 duplicates"
