"""A queue whose process is killed again and again: what comes in and what ends is counted exactly."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from rqcore_metrics import book

from rqcore.errors import RqError
from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from tests.conftest import Counted

pytestmark = [pytest.mark.process, pytest.mark.crash]
_KILLS = 4
_MESSAGES = 120


def counts(rq: Counted) -> book.Counts:
    return book.read(f"{book.folder(str(rq.directory))}/test")


def total(rq: Counted, name: str) -> int:
    return sum(count for (key, _), count in counts(rq).counts.items() if key == name)


def test_totals_are_exact(rq: Counted) -> None:
    rq.use_plugins("cli", "metrics")
    rq.start()
    taken: list[str] = []
    unsure = 0
    enough = threading.Event()

    def send() -> None:
        nonlocal unsure
        while len(taken) < _MESSAGES:
            try:
                taken.append(rq.send("test", param1=str(len(taken))))
            except (RqError, OSError, TimeoutError):  # its process was killed: nobody knows
                unsure += 1
                rq.serving("test")
            if len(taken) >= _MESSAGES // 2:
                enough.set()

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(_KILLS):
        rq.serving("test")
        rq.kill(rq.ask("test", "describe")["pid"], signal.SIGKILL)
    assert enough.wait(PATIENCE)
    sender.join(PATIENCE)
    assert not sender.is_alive()
    rq.serving("test")
    for msg_id in taken:
        rq.until("test", msg_id)
    lying = rq.ask("test", "num_messages")
    assert (lying["que"], lying["run"]) == (0, 0)
    ended = lying["done"] + lying["err"]
    assert len(taken) <= ended <= len(taken) + unsure
    rq.stop()
    assert total(rq, "finished") == ended, counts(rq)
    assert total(rq, "enqueued") == ended, counts(rq)
    failures = json.loads((rq.directory / "var/metrics/exits.json").read_text())
    assert failures == {"test": _KILLS}


def test_counts_go_on_over_restarts(rq: Counted) -> None:
    rq.use_plugins("cli", "metrics")
    for times in (1, 2):
        rq.start()
        rq.until("test", rq.send("test"))
        rq.stop()
        assert (total(rq, "finished"), total(rq, "enqueued")) == (times, times)
        assert sum(counts(rq).histograms["run"][0]) == times


def test_a_message_that_was_running_is_counted_when_it_ends(rq: Counted) -> None:
    gate = rq.directory / "gate"
    rq.use_plugins("cli", "metrics")
    rq.queue(
        "test", f"#!/bin/sh\n[ -e {gate} ] && exec echo done >&3\necho run begun >&3\nsleep 1000\n"
    )
    rq.start()
    msg_id = rq.send("test")
    rq.until("test", msg_id, "run", matching=lambda one: "begun" in one["status"])
    gate.touch()
    rq.kill(rq.ask("test", "describe")["pid"])
    rq.serving("test")
    rq.until("test", msg_id, "done")
    rq.stop()
    found = counts(rq).counts
    assert found["finished", "done"] == total(rq, "finished") == 1
    assert found["started", ""] == 2
    assert found["requeued", "recover"] == 1
