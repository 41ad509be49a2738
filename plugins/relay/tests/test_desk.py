"""The desk: what it finds at its start, what it writes, and what it survives."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import pytest
from rqcore_relay import state
from rqcore_relay.desk import Desk
from rqcore_relay.options import Options

from rqcore.hookspecs import QueueInfo
from rqcore.lifecycle import State
from rqcore.message import Message

DEAD, OTHER, OWN = "http://dead:1/", "http://other:1/", "http://me:3333/"
OLD, NEW = "20260101.0000.00.000.000001", "20260102.0000.00.000.000001"


_MADE: list[Desk] = []


@pytest.fixture(autouse=True)
def everything_is_written() -> Iterator[None]:
    """No desk writes behind the back of the next test."""
    yield
    while _MADE:
        _MADE.pop().flush()


@dataclass
class Ended:
    state: State
    status: str = ""
    timed_out: bool = False


@pytest.fixture
def queue(tmp_path: Path) -> QueueInfo:
    path = tmp_path / "queue" / "relay"
    for name in ("que", "run"):
        (path / name).mkdir(parents=True)
    return QueueInfo("relay", str(path), {"num_workers": 8})


def desk(queue: QueueInfo, **options: Any) -> Desk:
    made = Desk(queue, (OWN, "http://alias/"), lambda: Options(**options))
    made.flush()
    _MADE.append(made)
    return made


def put(queue: QueueInfo, place: str, msg_id: str, dest: str, **result: Any) -> Message:
    """A message in the spool, with what its last run said."""
    folder = Path(queue.path, place, msg_id)
    (folder / "job").mkdir(parents=True)
    (folder / "msg").write_text(json.dumps({"dest": dest, "count": 1 if result else 0}))
    if result:
        (folder / "job" / "relay-result.json").write_text(json.dumps(result))
    return Message(msg_id, dest)


def told(queue: QueueInfo, it: Desk | None = None) -> dict[str, Any]:
    if it is not None:
        it.flush()
    return state.read(state.Files(str(Path(queue.path).parents[1])).peers)


def run(desk: Desk, queue: QueueInfo, message: Message, outcome: State, **result: Any) -> None:
    """One run of a message, as the queue's process tells it."""
    assert desk.ask(message) is None
    desk.starting(message)
    desk.moved(message, State.QUE, State.RUN)
    folder = Path(queue.path, "run", message.msg_id)
    (folder / "job").mkdir(parents=True, exist_ok=True)
    (folder / "job" / "relay-result.json").write_text(json.dumps(result))
    desk.finishing(message, Ended(outcome))
    desk.moved(message, State.RUN, outcome)


def test_what_lies_in_que_is_known_from_the_start(queue: QueueInfo) -> None:
    put(queue, "que", NEW, f"{DEAD}q/a")
    put(queue, "que", OLD, f"{DEAD}q/a", reached=False)
    put(queue, "que", "20260103.0000.00.000.000001", f"{DEAD}q/b")
    Path(queue.path, "que", "what").mkdir()
    Path(queue.path, "que", "is").mkdir()
    Path(queue.path, "que", "is", "msg").write_text("[1]")
    desk(queue)
    entry = told(queue)[DEAD]
    assert (entry["waiting"], entry["oldest"]) == (3, 1767225600)
    assert entry["turn"] == OLD  # it did not reach its peer the last time
    assert entry["destinations"] == {
        f"{DEAD}q/a": {"messages": 2, "oldest": 1767225600},
        f"{DEAD}q/b": {"messages": 1, "oldest": 1767398400},
    }


def test_a_transfer_is_entered_from_its_beginning_to_its_end(queue: QueueInfo) -> None:
    it = desk(queue)
    message = Message(NEW, f"{OTHER}q/a")
    it.queued(message)
    assert (told(queue, it)[OTHER]["waiting"], told(queue, it)[OTHER]["reachable"]) == (1, None)
    result = {"reached": True, "kind": "rqcore", "sent": 3_000_000, "seconds": 2}
    run(it, queue, message, State.RELAYED, **result)
    entry = told(queue, it)[OTHER]
    assert (entry["waiting"], entry["running"], entry["reachable"]) == (0, 0, True)
    assert (entry["messages"], entry["bytes"], entry["rate"]) == (1, 3_000_000, 1.5e6)
    assert entry["kind"] == "rqcore"


def test_a_peer_that_was_not_reached_is_known_after_a_restart(queue: QueueInfo) -> None:
    it = desk(queue)
    for msg_id in (OLD, NEW):
        message = Message(msg_id, f"{DEAD}q/a")
        run(it, queue, message, State.QUE, reached=False, error="Connection refused")
    entry = told(queue, it)[DEAD]
    assert (entry["reachable"], entry["failures"]) == (False, 2)
    assert entry["last_error"]["text"] == "Connection refused"
    assert entry["turn"] == OLD
    it.flush()
    again = desk(queue)
    wait = again.ask(Message(NEW, f"{DEAD}q/a"))
    assert wait is not None
    assert wait.reason == f"{DEAD} does not answer; it tries next"
    assert again.ask(Message(NEW, f"{OTHER}q/a")) is None


def test_an_answer_to_a_probe_lets_the_next_one_try(queue: QueueInfo) -> None:
    it = desk(queue)
    waiting = Message(NEW, f"{DEAD}q/a")
    for msg_id in (OLD, "x"):
        run(it, queue, Message(msg_id, f"{DEAD}q/a"), State.QUE, reached=False)
    assert it.ask(waiting) is not None
    probes = Path(queue.path).parents[1] / "var/relay/probes.json"
    probes.write_text(json.dumps({"peers": {DEAD: {"answered": time() + 1}, "x": 3}}))
    assert it.ask(waiting) is None
    assert told(queue, it)[DEAD]["reachable"] is None


def test_a_run_that_was_killed_says_nothing_and_no_former_one_is_taken_for_it(
    queue: QueueInfo,
) -> None:
    it = desk(queue)
    message = put(queue, "run", NEW, f"{OTHER}q/a", reached=False)
    it.starting(message)
    it.finishing(message, Ended(State.ERR))
    it.moved(message, State.RUN, State.ERR)
    assert told(queue, it)[OTHER]["failures"] == 0


def test_what_stays_on_this_machine_is_never_held(queue: QueueInfo) -> None:
    it = desk(queue, per_peer=1)
    for number in range(3):
        forced = Message(f"{number}", "/q/here", force_remote=True)
        run(it, queue, forced, State.QUE, reached=False, error="refused") if number < 2 else None
    assert it.ask(Message("9", "/q/here", force_remote=True)) is not None
    for dest in ("/q/here", f"{OWN}q/here", "http://ALIAS:80/q/here"):
        assert it.ask(Message(NEW, dest)) is None
    run(
        it, queue, Message(NEW, "http://127.0.0.1:3333/q/x"), State.QUE, kind="local", reached=False
    )
    assert told(queue, it)["http://127.0.0.1:3333/"]["reachable"] is True


def test_what_nobody_heard_of_for_a_month_is_forgotten(queue: QueueInfo) -> None:
    it = desk(queue)
    run(it, queue, Message(NEW, f"{OTHER}q/a"), State.RELAYED, reached=True)
    run(it, queue, Message(NEW, f"{DEAD}q/a"), State.RELAYED, reached=True)
    it.flush()
    peers = Path(queue.path).parents[1] / "var/relay/peers.json"
    found = json.loads(peers.read_text())
    found["peers"][DEAD].update(since=5, last_success=5)
    found["peers"]["nonsense"] = {"since": "x", "failures": "y", "last_error": 3}
    peers.write_text(json.dumps(found))
    desk(queue)
    assert told(queue).keys() == {OTHER}
    peers.write_text("{")
    desk(queue)
    assert told(queue) == {}


def test_a_file_that_cannot_be_written_is_told_once_and_stops_nothing(
    queue: QueueInfo, caplog: pytest.LogCaptureFixture
) -> None:
    (Path(queue.path).parents[1] / "var").write_text("a file")
    with caplog.at_level(logging.ERROR):
        it = desk(queue)
        run(it, queue, Message(NEW, f"{OTHER}q/a"), State.RELAYED, reached=True)
        it.flush()
    assert caplog.text.count("relay cannot note how its peers are") == 1
