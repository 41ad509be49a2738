"""A queue's process and the outbox: what is told when, also where the disk refuses or a kill came."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import pytest
from rqcore_webhook.clerk import Clerk
from rqcore_webhook.options import Options, parse_options
from rqcore_webhook.outbox import Outbox
from rqcore_webhook.stuck import Stuck

from rqcore.hookspecs import QueueInfo
from rqcore.lifecycle import State
from rqcore.loop import Loop
from rqcore.message import Message
from rqcore.pipe import Outcome
from rqcore.watch import watcher

ID = "20260301.0800.00.100.000001"
OTHER = "20260301.0800.00.100.000002"


def ended(state: State = State.DONE, *, timed_out: bool = False) -> Outcome:
    return Outcome(state, "well", 0.0, "", 3, timed_out)


def message(msg_id: str = ID, **fields: Any) -> Message:
    return Message(msg_id=msg_id, dest="q", post_run_webhook=("http://a/",), **fields)


@dataclass
class Queue:
    """A queue's directory, and the clerk of its process."""

    directory: Path
    given: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for state in ("que", "run", "err"):
            self.path(state).mkdir(parents=True, exist_ok=True)
        self.options: Options = parse_options(self.given, f"{self.directory}/config/config.json")
        self.outbox = Outbox(str(self.directory))
        self.clerk = self.process()

    def path(self, *parts: str) -> Path:
        return self.directory.joinpath("queue", "q", *parts)

    def process(self) -> Clerk:
        """Another process of the queue, which knows nothing of the last one's."""
        self.clerk = Clerk(QueueInfo("q", str(self.path()), {}), "http://h/", lambda: self.options)
        return self.clerk

    def waiting(self) -> list[str]:
        return [entry.msg_id for entry in self.outbox.left("q")]

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """The events that are to be told now, and what of."""
        entries = [self.outbox.read(name) for name in self.outbox.ready()]
        return [(w.event, json.loads(w.body)) for e in entries if e for w in e.webhooks]

    def states(self) -> list[tuple[str, str]]:
        return [(event, told["msg_id"].rpartition("/")[2]) for event, told in self.told()]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def test_an_end_is_told_when_it_is_true(queue: Queue) -> None:
    queue.path("run", ID).mkdir()
    queue.clerk.finishing(message(), ended())
    assert (queue.waiting(), queue.told()) == ([ID], [])
    queue.path("run", ID).rmdir()
    queue.clerk.moved(message(), State.RUN, State.DONE)
    [(event, told)] = queue.told()
    assert (event, told["state"], told["status"], told["count"]) == (
        "message.done",
        "done",
        "done - well",
        3,
    )
    assert queue.waiting() == []


@pytest.mark.parametrize("state", ["run", "que"])
def test_killed_before_the_move_it_is_not_told_and_the_next_end_is(
    queue: Queue, state: str
) -> None:
    queue.path(state, ID).mkdir()
    queue.clerk.finishing(message(), ended())
    queue.process().leftovers()
    assert queue.told() == []
    queue.clerk.finishing(message(), ended(State.ERR))
    queue.clerk.moved(message(), State.RUN, State.ERR)
    assert queue.states() == [("message.err", ID)]
    assert queue.waiting() == []


def test_killed_after_the_move_it_is_told(queue: Queue) -> None:
    queue.clerk.finishing(message(), ended())
    queue.process().leftovers()
    assert queue.states() == [("message.done", ID)]
    queue.process().leftovers()
    assert len(queue.told()) == 1


def test_an_end_that_did_not_come_true_is_not_told_though_the_next_one_tells_nobody(
    queue: Queue,
) -> None:
    queue.path("run", ID).mkdir()
    queue.clerk.finishing(message(), ended())
    queue.process().leftovers()
    queue.path("run", ID).rmdir()
    silent = Message(msg_id=ID, dest="q")
    queue.clerk.finishing(silent, ended(State.ERR))
    queue.clerk.moved(silent, State.RUN, State.ERR)
    assert queue.waiting() == []
    queue.process().leftovers()
    assert queue.told() == []


def test_what_is_sent_back_or_removed_never_ends(queue: Queue) -> None:
    queue.clerk.finishing(message(), ended(State.QUE))
    assert queue.waiting() == []
    queue.clerk.finishing(message(), ended())
    queue.clerk.moved(message(), State.QUE, None)
    queue.process().leftovers()
    assert (queue.waiting(), queue.told()) == ([], [])


def test_a_deleted_queue_leaves_nothing_to_the_next_of_its_name(queue: Queue) -> None:
    queue.path("que", ID).mkdir()
    queue.clerk.finishing(message(), ended())
    queue.clerk.finishing(message(OTHER), ended())
    queue.process().deleted()
    assert queue.states() == [("message.done", OTHER)]
    assert queue.waiting() == []


def test_an_outbox_that_cannot_be_written_loses_nothing_while_the_process_lives(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.outbox.make()
    folder = Path(queue.outbox.folder)
    folder.rmdir()
    folder.touch()  # whatever is done in there fails
    for msg_id in (ID, OTHER):
        queue.clerk.finishing(message(msg_id), ended())
        queue.clerk.moved(message(msg_id), State.RUN, State.DONE)
    assert caplog.text.count("the outbox cannot be written") == 1
    folder.unlink()
    last = "20260301.0800.00.100.000003"
    queue.clerk.finishing(message(last), ended(State.ERR))
    queue.clerk.moved(message(last), State.RUN, State.ERR)
    assert sorted(queue.states()) == [
        ("message.done", ID),
        ("message.done", OTHER),
        ("message.err", last),
    ]


def test_nobody_is_told_of_progress_too_often(tmp_path: Path) -> None:
    events = ["message.progress"]
    queue = Queue(tmp_path, {"endpoints": {
        "slow": {"url": "http://a/", "events": events, "progress_every": 1000},
        "fast": {"url": "http://b/", "events": events, "progress_every": 0.1},
        "deaf": {"url": "http://c/"},
    }})  # fmt: skip
    for number in range(3):
        queue.clerk.progress(message(), f"{number}")
    queue.clerk.progress(message(OTHER), "0")
    told = [
        (webhook.endpoint, json.loads(webhook.body)["status"])
        for name in queue.outbox.ready()
        for webhook in getattr(queue.outbox.read(name), "webhooks", ())
    ]
    assert told.count(("slow", "run - 0")) == 2
    assert ("slow", "run - 1") not in told


def test_those_without_webhooks_write_nothing(queue: Queue) -> None:
    queue.clerk.finishing(Message(msg_id=ID, dest="q"), ended())
    queue.clerk.moved(Message(msg_id=ID, dest="q"), State.RUN, State.DONE)
    queue.clerk.queued(message(), "create")
    queue.clerk.condition("DOWN", "UP")
    assert not Path(queue.outbox.folder).exists()


def test_a_machine_that_stays_away_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    endpoint = {"url": "http://a/", "events": ["relay.stuck"]}
    given = {"endpoints": {"ops": endpoint}, "relay_stuck_after": 100}
    config = {"plugins": {"webhook": given}}
    (tmp_path / "config/config.json").write_text(json.dumps(config))
    outbox, file = Outbox(str(tmp_path)), tmp_path / "var/relay/peers.json"
    outbox.make()
    loop = Loop()
    watching = watcher(loop, lambda: None)
    stuck = Stuck(loop, watching, str(tmp_path))

    def told_after(
        reachable: bool | None, seconds: float, waiting: int = 3, look: Stuck | None = None
    ) -> int:
        peer = {
            "reachable": reachable,
            "since": time() - seconds,
            "waiting": waiting,
            "last_error": None,
        }
        file.write_text(json.dumps({"peers": {"http://b/": peer}}))
        (look or stuck).look()
        return len(outbox.ready())

    stuck.look()
    file.parent.mkdir()
    file.write_text("nonsense")
    stuck.look()
    assert told_after(reachable=False, seconds=90) == 0
    assert told_after(reachable=True, seconds=200) == 0
    assert told_after(reachable=False, seconds=200, waiting=0) == 0
    assert told_after(reachable=False, seconds=200) == 1
    assert told_after(reachable=False, seconds=300) == 1
    assert told_after(reachable=False, seconds=300, waiting=0) == 1  # its last one tries
    again = Stuck(loop, watching, str(tmp_path))  # the service was started again
    assert told_after(reachable=False, seconds=300, look=again) == 1
    assert told_after(reachable=None, seconds=1) == 1
    assert told_after(reachable=False, seconds=101) == 2
    loop.close()
    watching._inotify.close()  # type: ignore[attr-defined]
