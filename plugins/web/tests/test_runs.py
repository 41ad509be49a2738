"""rqcore_web.runs: what a message's timeline is made from survives whatever happens to its runs."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_web import runs
from rqcore_web.runs import MAX_BYTES, read_runs

from rqcore.lifecycle import State
from rqcore.message import Message
from rqcore.pipe import Outcome

if TYPE_CHECKING:
    from tests.conftest import Web

ID = "20260101.1200.00.000.00001"
MESSAGE = Message(msg_id=ID, dest="test", count=3)
DONE = Outcome(State.DONE, "fine", 0.0, "", 3)
#: Asks to run again twice, then it is done.
RESENDS = """#!/bin/sh
echo "run number $RQ_COUNT" >&3
if [ "$RQ_COUNT" -lt 2 ]; then echo "resend 0-not yet" >&3; else echo "done at last" >&3; fi
"""
#: Its first run waits for ever, the next one is done.
WAITS_ONCE = """#!/bin/sh
if [ -e began ]; then echo "done again" >&3; exit; fi
touch began
echo "run waiting" >&3
sleep 1000
"""


def told(message: dict[str, Any]) -> list[tuple[str, str, int]]:
    found = read_runs(message["path"])
    times = [moment for run in found for moment in (run["began"], run["ended"])]
    assert times == sorted(times), "the runs overlap"
    return [(run["state"], run["status"], run["count"]) for run in found]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("HELLO", [("done", "fine", 0)]),
        ("FAILS", [("err", "it broke", 0)]),
        (RESENDS, [("que", "0-not yet", 0), ("que", "0-not yet", 1), ("done", "at last", 2)]),
    ],
)
def test_each_run_is_noted(web: Web, script: str, expected: list[tuple[str, str, int]]) -> None:
    web.rq.queue("test", getattr(web, script, script))
    before = time()
    web.start()
    message = web.rq.until("test", web.rq.send("test"))
    assert told(message) == expected
    found = read_runs(message["path"])
    assert before <= found[0]["began"]
    assert found[-1]["ended"] <= time()


def test_a_retry_adds_to_it(web: Web) -> None:
    web.rq.queue("test", web.FAILS)
    web.start()
    msg_id = web.rq.send("test")
    web.rq.until("test", msg_id, "err")
    web.rq.queue("test", web.HELLO)
    web.rq.ask("test", "retry_message", {"msg_id": msg_id})
    message = web.rq.until("test", msg_id, "done")
    assert told(message) == [("err", "it broke", 0), ("done", "fine", 0)]


def test_a_run_that_a_kill_cuts_off(web: Web) -> None:
    web.rq.queue("test", WAITS_ONCE)
    web.rq.configure(kill_grace=1)
    web.start()
    before = time()
    msg_id = web.rq.send("test")
    web.rq.until("test", msg_id, "run", matching=lambda m: "waiting" in m["status"])
    began = time()
    web.rq.kill(web.rq.ask("test", "describe")["pid"])
    web.rq.serving("test")
    message = web.rq.until("test", msg_id, "done")
    cut, done = read_runs(message["path"])
    assert (cut["state"], done["state"]) == ("que", "done")
    assert "cut off" in cut["status"]
    # As precise as the file system's clock, which goes by ticks.
    assert before - 0.05 <= cut["began"] <= began
    assert cut["ended"] >= began


def test_a_run_that_is_stopped_with_its_queue(web: Web) -> None:
    web.rq.queue("test", WAITS_ONCE)
    web.rq.configure(stop_grace=0)
    web.start()
    msg_id = web.rq.send("test")
    web.rq.until("test", msg_id, "run", matching=lambda m: "waiting" in m["status"])
    web.rq.stop()
    web.start()
    message = web.rq.until("test", msg_id, "done")
    assert told(message) == [("que", "stopped with its queue", 0), ("done", "again", 0)]


def test_a_message_that_is_taken_away_while_it_runs_harms_no_other(web: Web) -> None:
    web.rq.queue(
        "test", '#!/bin/sh\n[ -z "$RQ_PARAM1" ] || rm -rf "$RQ_MSG_DIR/.."\necho done >&3\n'
    )
    web.start()
    for _ in range(6):  # as often as would have a failing plugin set aside
        web.rq.send("test", param1="go")
    message = web.rq.until("test", web.rq.send("test"), "done")
    assert told(message) == [("done", "", 0)]
    assert "quarantined" not in web.rq.log_text()


# --- the file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A message's directory in ``run``."""
    made = tmp_path / "run" / ID
    made.mkdir(parents=True)
    return made


def run_once(folder: Path, status: str = "fine") -> None:
    queue = str(folder.parents[1])
    runs.began(queue, ID)
    runs.ended(queue, MESSAGE, Outcome(State.DONE, status, 0.0, "", 3))


def test_it_is_bounded_and_keeps_the_latest(folder: Path) -> None:
    for number in range(1500):
        run_once(folder, f"run {number}")
        assert (folder / "runs.jsonl").stat().st_size <= MAX_BYTES
    found = read_runs(str(folder))
    numbers = [int(run["status"].split()[1]) for run in found]
    assert numbers == list(range(1500 - len(numbers), 1500))
    assert len(numbers) > 200
    run_once(folder, "ü" * 60_000)
    assert read_runs(str(folder))[-1]["status"] == "ü" * 1000
    assert not runs._began


@pytest.mark.parametrize("spoil", [os.mkfifo, os.mkdir])
def test_a_place_that_a_script_has_spoiled_costs_a_line_and_a_word(
    folder: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(folder / "runs.jsonl")
    run_once(folder)
    assert "is not noted" in caplog.text
    assert read_runs(str(folder)) == []


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond this size fail, as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_costs_a_line_and_a_word(
    folder: Path, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    run_once(folder)
    with file_size_limit((folder / "runs.jsonl").stat().st_size + room):
        run_once(folder, "lost")
    assert "is not noted" in caplog.text
    assert [run["status"] for run in read_runs(str(folder))] == ["fine"]


def test_one_that_was_never_begun_is_not_noted(folder: Path) -> None:
    """It could not be started after all."""
    runs.stopped(str(folder.parents[1]), MESSAGE)
    assert list(folder.iterdir()) == []


SPOILED: list[tuple[str, object]] = [
    ("began", "x"), ("began", None), ("ended", 1e300), ("ended", -1), ("count", {}),
    ("began", float("nan")), ("count", float("inf")),
]  # fmt: skip
GOOD = {"began": 1.5, "ended": 2.5, "state": "done", "status": "fine", "count": 0}


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b"[" * 5000, b'{"began": 1}',
        *(json.dumps({**GOOD, key: value}).encode() for key, value in SPOILED),
    ],
)  # fmt: skip
def test_damaged_lines_are_left_out(folder: Path, damaged: bytes) -> None:
    good = json.dumps(GOOD).encode()
    (folder / "runs.jsonl").write_bytes(b"\n".join([good, damaged, good, good[:20]]))
    assert read_runs(str(folder)) == [GOOD, GOOD]


def test_a_message_without_runs_has_none(tmp_path: Path) -> None:
    assert read_runs(str(tmp_path / "nowhere")) == []
    (tmp_path / "runs.jsonl").write_bytes(b"x" * (2 * MAX_BYTES + 1))
    assert read_runs(str(tmp_path)) == []
