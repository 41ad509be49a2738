"""The outbox: what a hand has spoiled there, or the queue does not want, holds up nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_webhook.dispatch import Dispatch
from rqcore_webhook.options import parse_options
from rqcore_webhook.outbox import Entry, Outbox, Webhook

from rqcore.loop import Loop
from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq

WEBHOOK = Webhook("", "http://127.0.0.1:1/", "message.done", '{"a": "\u20ac"}')
ENTRY = Entry("k" * 24, 1.0, "work", "20260301.0800.00.100.000001", (WEBHOOK, WEBHOOK))
NAME = f"{1:020d}.{'k' * 24}.go"


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def spoiled(change: Callable[[Any], object]) -> str:
    told = json.loads(ENTRY.to_json())
    change(told)
    return json.dumps(told)


def test_what_is_written_is_read_and_each_body_is_written_once(tmp_path: Path) -> None:
    outbox = Outbox(str(tmp_path))
    outbox.put(ENTRY)
    [name] = outbox.ready()
    assert outbox.read(name) == ENTRY
    assert json.loads(ENTRY.to_json())["bodies"] == [WEBHOOK.body]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "[" * 100_000, '{"webhooks": 5}',
        spoiled(lambda told: told.update(bodies=[5])),
        spoiled(lambda told: told.update(bodies=["\ud800"])),
        spoiled(lambda told: told.update(bodies=[])),
        spoiled(lambda told: told.update(key=None)),
        spoiled(lambda told: told.update(queue="a\0b")),
        spoiled(lambda told: told.update(msg_id=5)),
        spoiled(lambda told: told.update(at="never")),
        spoiled(lambda told: told.update(trace=["dest"])),
        spoiled(lambda told: told.update(trace={"traceparent": 5})),
        spoiled(lambda told: told.update(webhooks=["text"])),
        spoiled(lambda told: told["webhooks"][0].update(url=None)),
        spoiled(lambda told: told["webhooks"][1].update(endpoint={})),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_set_aside(tmp_path: Path, loop: Loop, content: str) -> None:
    dispatch = Dispatch(loop, str(tmp_path), "http://h/")
    dispatch.outbox.make()
    (Path(dispatch.outbox.folder) / NAME).write_text(content)
    assert dispatch.hand_over_all(10) == ""
    assert os.listdir(dispatch.outbox.folder) == [f"{NAME}.bad"]


def test_what_is_no_file_is_set_aside(tmp_path: Path, loop: Loop) -> None:
    dispatch = Dispatch(loop, str(tmp_path), "http://h/")
    dispatch.outbox.make()
    os.mkfifo(f"{dispatch.outbox.folder}/{NAME}")
    assert dispatch.hand_over_all(10) == ""
    assert os.listdir(dispatch.outbox.folder) == [f"{NAME}.bad"]


@pytest.mark.process
def test_one_that_is_refused_holds_up_no_other(
    rq_instance: RunningInstance, made_of: Callable[[RunningInstance], Rq], loop: Loop
) -> None:
    rq_instance.queue("webhook", "#!/bin/sh\necho 'done fine' >&3\n")
    rq_instance.start()
    rq = made_of(rq_instance)
    dispatch = Dispatch(loop, str(rq_instance.directory), "http://h/")
    dispatch.outbox.make()
    endless = Webhook("", "http://h/" + "x" * 9_000_000, "message.done", "{}")
    dispatch.outbox.put(Entry("a" * 24, 1.0, "work", "1", (endless,)))
    assert "too large" in dispatch.hand_over_all(10)
    [refused] = [name for name in rq.outbox() if name.endswith(".go")]
    dispatch.outbox.put(ENTRY)
    # The one that was refused has a pause of its own, and is not asked about.
    assert dispatch.hand_over_all(10) == ""
    assert [name for name in rq.outbox() if name.endswith(".go")] == [refused]


@pytest.mark.process
def test_a_message_shows_no_secrets_of_an_endpoint(
    rq_instance: RunningInstance, made_of: Callable[[RunningInstance], Rq], loop: Loop
) -> None:
    rq_instance.queue("webhook", "#!/bin/sh\necho 'done fine' >&3\n")
    rq_instance.start()
    url = "https://me:passw0rd@h.example/hook?token=passw0rd"
    given = {"endpoints": {"ops": {"url": url}}}
    assert parse_options(given, "config/config.json").endpoints["ops"].url == url
    dispatch = Dispatch(loop, str(rq_instance.directory), "http://h/")
    dispatch.outbox.make()
    webhooks = (Webhook("ops", url, "message.done", "{}"),)
    dispatch.outbox.put(Entry("a" * 24, 1.0, "work", "1", webhooks))
    assert dispatch.hand_over_all(10) == ""
    [webhook] = made_of(rq_instance).webhooks("http://h/q/work/1")
    assert webhook["param1"] == "https://h.example/hook?\u2026"
    assert "passw0rd" not in json.dumps(webhook)
