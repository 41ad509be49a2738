"""Who may post now: targets that hang do not take the workers from those that work."""

from __future__ import annotations

from pathlib import Path
from time import time

import pytest
from rqcore_webhook.desk import Desk
from rqcore_webhook.health import Files, Health
from rqcore_webhook.options import Options

from rqcore.hookspecs import Hold, QueueInfo
from rqcore.lifecycle import State
from rqcore.message import Message


def message(number: int, host: str) -> Message:
    msg_id = f"20260301.0800.00.100.{number:06d}"
    return Message(msg_id=msg_id, dest="webhook", param1=f"http://{host}/")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    hanging = {f"http://hangs{n}:80": Health(failures=5, last_failure=time()) for n in range(20)}
    files = Files(str(tmp_path))
    files.write({**hanging, "http://works:80": Health(last_success=time())})
    queue = QueueInfo("webhook", f"{tmp_path}/queue/webhook", {"num_workers": 8})
    return Desk(queue, Options)


def start(desk: Desk, number: int, host: str) -> bool:
    if isinstance(desk.ask(message(number, host)), Hold):
        return False
    desk.starting(message(number, host))
    return True


def test_those_that_fail_take_half_of_the_workers(desk: Desk) -> None:
    assert [start(desk, n, f"hangs{n}") for n in range(6)] == [True] * 4 + [False] * 2
    assert [start(desk, 10 + n, "works") for n in range(5)] == [True] * 4 + [False]
    desk.moved(message(0, "hangs0"), State.RUN, State.QUE)
    assert start(desk, 5, "hangs5")
    assert not start(desk, 4, "hangs4")


def test_those_that_fail_are_called_in_turn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(desk._bell, "ring", called.extend)  # there is no queue to ring at
    for number in range(4):
        assert start(desk, number, f"hangs{number}")
    for number, host in enumerate(("hangs0", "hangs0", "hangs8", "hangs9"), 10):
        assert not start(desk, number, host)
    for number, wanted in ((0, (10, "hangs0")), (1, (12, "hangs8")), (2, (13, "hangs9"))):
        desk.moved(message(number, f"hangs{number}"), State.RUN, State.QUE)
        assert called.pop() == message(*wanted).msg_id
        assert start(desk, *wanted)
    desk.moved(message(10, "hangs0"), State.RUN, State.QUE)
    assert called == [message(11, "hangs0").msg_id]


def test_one_that_is_new_gets_one_until_it_took_it(desk: Desk) -> None:
    assert start(desk, 1, "new")
    assert not start(desk, 2, "new")
