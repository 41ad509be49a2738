"""rqcore.followers: who is told what, who is cut off, and which logs are watched."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from rqcore import wire
from rqcore.followers import Audience, Followers
from rqcore.lifecycle import State, Step
from rqcore.loop import Loop
from rqcore.message import Message
from rqcore.server import Connection
from rqcore.store import SpoolStore, open_store
from rqcore.watch import PollingWatcher

ID, OTHER = "20260101.1200.00.000.00001", "20260101.1200.00.000.00002"
QUEUE = {"status": "UP", "admin": "UP", "oper": "UP", "problem": ""}


class Follower:
    """A connection and its other end."""

    def __init__(self, loop: Loop) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.settimeout(10)
        self._decoder = wire.Decoder()
        self.connection = Connection(loop, ours, lambda _: None, lambda: None)

    def told(self) -> list[dict[str, Any]]:
        """What has been sent to it and not been read yet; all that was told before is sent now."""
        self.connection.flush()
        self.sock.setblocking(False)
        events = []
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(1 << 16):
                events += [json.loads(payload) for payload in self._decoder.feed(data)]
        return events

    def close(self) -> None:
        self.connection.close()
        self.sock.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def many(loop: Loop) -> Iterator[list[Follower]]:
    followers = [Follower(loop) for _ in range(3)]
    yield followers
    for follower in followers:
        follower.close()


# --- an audience


def test_everybody_hears_what_he_wants(many: list[Follower]) -> None:
    everything, one, logs = many
    audience = Audience()
    assert not audience
    audience.add(everything.connection)
    audience.add(one.connection, ID)
    audience.add(logs.connection, ID, log=True)
    audience.tell({"n": 1}, ID)
    audience.tell({"n": 2}, OTHER)
    audience.tell({"n": 3}, ID, log=True)
    audience.tell({"n": 4})
    assert [[event["n"] for event in each.told()] for each in many] == [
        [1, 2, 4], [1, 4], [1, 3, 4]
    ]  # fmt: skip


def test_a_log_is_wanted_by_whoever_asked_for_it(many: list[Follower]) -> None:
    audience = Audience()
    audience.add(many[0].connection, ID)
    audience.add(many[1].connection, "")
    assert not audience.wants_log(ID)
    audience.add(many[0].connection, ID, log=True)
    assert (audience.wants_log(ID), audience.wants_log(OTHER)) == (True, False)
    audience.add(many[1].connection, "", log=True)
    assert audience.wants_log(OTHER)


def test_who_has_left_is_forgotten_by_the_next_event_or_follower(many: list[Follower]) -> None:
    audience = Audience()
    audience.add(many[0].connection)
    many[0].connection.close()
    audience.add(many[1].connection)
    audience.tell({})
    audience.flush()
    many[1].connection.close()
    audience.tell({})
    audience.flush()
    assert not audience
    assert [len(each.told()) for each in many] == [0, 1, 0]


def test_who_does_not_keep_up_is_cut_off_and_nobody_else(many: list[Follower]) -> None:
    slow, quick, _ = many
    audience = Audience()
    audience.add(slow.connection)
    audience.add(quick.connection)
    heard = 0
    while not slow.connection.closed:
        audience.tell({"text": "x" * (1 << 14)})
        heard += len(quick.told())
        assert heard < 1000, "the memory fills up"
    audience.tell({})
    assert len(quick.told()) == 1
    assert not quick.connection.closed


def test_what_is_told_in_one_turn_comes_in_one_piece(many: list[Follower]) -> None:
    audience = Audience()
    audience.add(many[0].connection)
    for number in range(3):
        audience.tell({"n": number})
    many[0].sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        many[0].sock.recv(1)
    audience.flush()
    assert many[0].sock.recv(1 << 16).count(b"rq1 ") == 3
    many[0].connection.send_bytes(b"1")
    audience.tell({})
    many[0].connection.send_bytes(b"2")  # keeps its place behind what is held
    audience.tell({})
    audience.flush()
    assert many[0].told() == [1, {}, 2, {}]


def test_what_is_held_is_sent_before_the_end(many: list[Follower]) -> None:
    audience = Audience()
    audience.add(many[0].connection)
    audience.tell({"n": 1})
    many[0].connection.close_when_sent()
    assert many[0].told() == [{"n": 1}]
    assert many[0].connection.closed


# --- the followers of a queue


class Looking(PollingWatcher):
    """What is watched, for the tests to see."""

    @property
    def paths(self) -> set[str]:
        return {path for path, *_ in self._watched.values()}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SpoolStore]:
    store = open_store("directory", str(tmp_path), fsync=False)
    yield store
    store.close()


def running(store: SpoolStore, msg_id: str) -> Message:
    message = Message(msg_id=msg_id, dest="test", due=12.5)
    store.add(message, State.QUE)
    store.move(msg_id, Step.START, State.QUE, State.RUN)
    job = Path(store.directory(msg_id, State.RUN)) / "job"
    job.mkdir()
    (job / "stdio.log").write_text("first\n")
    return message


def test_the_queue_is_described_only_for_those_who_hear_it(
    loop: Loop, store: SpoolStore, many: list[Follower]
) -> None:
    followers = Followers(loop, Looking(loop), store)
    followers.on_queue(lambda: pytest.fail("nobody follows"))
    followers.add(many[0].connection, "", log=False)
    followers.add(many[1].connection, ID, log=False)
    followers.on_queue(lambda: QUEUE)
    assert many[0].told() == many[1].told() == [{"event": "queue", **QUEUE}]


def test_a_log_is_watched_as_long_as_somebody_wants_it(
    loop: Loop, store: SpoolStore, many: list[Follower]
) -> None:
    files = Looking(loop)
    followers = Followers(loop, files, store)
    everything, first, second = many
    message, other = running(store, ID), running(store, OTHER)
    log = f"{store.directory(ID, State.RUN)}/job/stdio.log"
    followers.add(everything.connection, "", log=False)
    followers.on_started(other)
    assert files.paths == set()
    followers.add(first.connection, ID, log=True)
    followers.add(second.connection, ID, log=True)
    assert files.paths == {log}
    size = {"event": "log", "msg_id": ID, "size": 6}
    assert first.told() == [size]
    first.connection.close()
    followers._logs[ID]._look()
    assert files.paths == {log}
    second.connection.close()
    followers._logs[ID]._look()
    assert files.paths == set(), "a log is watched for nobody, though somebody follows the queue"
    assert everything.told() == []
    followers.on_moved(message, State.RUN, State.DONE, Step.FINISH)
    assert [event["event"] for event in everything.told()] == ["state"]


def test_the_log_of_what_left_run_is_watched_no_more(
    loop: Loop, store: SpoolStore, many: list[Follower]
) -> None:
    files = Looking(loop)
    followers = Followers(loop, files, store)
    message = running(store, ID)
    followers.add(many[0].connection, ID, log=True)
    store.move(ID, Step.FINISH, State.RUN, State.DONE, status="fine")
    followers.on_moved(message, State.RUN, State.DONE, Step.FINISH)
    assert files.paths == set()
    event = many[0].told()[-1]
    assert abs(event.pop("at") - time()) < 60
    assert event == {
        "event": "state", "msg_id": ID, "old": "run", "new": "done", "step": "finish",
        "status": "fine", "due": 12.5,
    }  # fmt: skip
