"""Endpoints of the config: the standard form, who is told of what, pauses, limits, being disabled."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_webhook.health import Files, Health
from rqcore_webhook.signing import new_secret

from rqcore import durable
from rqcore.testing import PATIENCE, free_port

if TYPE_CHECKING:
    from tests.conftest import Receiver, Rq

pytestmark = pytest.mark.process

SECRETS = [new_secret(), new_secret()]
IN_TURN = """#!/bin/sh
if [ -e ../../../../../fail ]; then echo 'err no' >&3; else echo 'done yes' >&3; fi
"""


@pytest.fixture(scope="module")
def options(receiver: Receiver) -> dict[str, Any]:
    return {"endpoints": {
        "signed": {
            "url": receiver.url("/signed"), "format": "standard", "secrets": SECRETS,
            "headers": {"X-Team": "ops"}, "events": ["message.done"], "queues": ["work"],
        },
        "life": {
            "url": receiver.url("/life"), "format": "standard", "queues": ["life"],
            "events": ["message.queued", "message.started", "message.progress", "message.relayed"],
        },
        "queues": {
            "url": receiver.url("/queues"), "format": "standard", "queues": ["up*"],
            "events": ["queue.down", "queue.up", "queue.paused", "queue.scripterror"],
        },
        "again": {
            "url": receiver.url("/again"), "format": "standard", "queues": ["turn", "slow"],
            "events": ["message.err", "message.recovered", "message.timeout"],
        },
        "gone": {"url": receiver.url("/gone"), "queues": ["goner"], "events": ["message.done"]},
        "watcher": {
            "url": receiver.url("/watcher"), "format": "standard", "events": ["endpoint.disabled"],
        },
        "pausing": {"url": receiver.url("/pausing"), "events": []},
        "narrow": {"url": receiver.url("/narrow"), "events": [], "concurrency": 2},
        "tired": {"url": receiver.url("/tired"), "events": [], "disable_after": 5},
    }}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def queues(shared: Any) -> Iterator[None]:
    """More queues, made while it runs."""
    shared.queue("life", "#!/bin/sh\necho 'run one' >&3\necho 'relayed http://h/q/x/1' >&3\n")
    shared.queue("upper", "#!/bin/sh\nsleep 60\n")
    shared.queue("turn", IN_TURN)
    shared.queue("slow", "#!/bin/sh\nexec sleep 60\n", timeout=0.2)
    shared.queue("goner", "#!/bin/sh\necho done >&3\n")
    shared.manager.ask("reload")
    shared.disconnect()
    yield
    shared.disconnect()


def types(receiver: Receiver, path: str) -> list[str]:
    return [got.payload["type"] for got in receiver.at(path)]


def test_the_standard_form_is_signed_by_all_secrets(rq: Rq, receiver: Receiver) -> None:
    receiver.answer("/signed", {"status": 503, "body": b"later"})
    msg_id = rq.instance.send("work", param1="done", src="me")
    first = receiver.until("/signed")[0]
    [item] = rq.webhooks(rq.instance.message("work", msg_id)["full_id"])
    waiting = rq.instance.until(
        "webhook", item["msg_id"], "que", matching=lambda m: bool(m["count"] == 1)
    )
    assert 4.9 < waiting["due"] - time() < 6
    rq.instance.ask("webhook", "run_message", {"msg_id": item["msg_id"]})
    second = receiver.until("/signed", 2)[1]
    for got in (first, second):
        assert all(got.signed_by(secret) for secret in SECRETS)
        assert got.headers["content-type"] == "application/json"
        assert got.headers["x-team"] == "ops"
        assert got.payload["type"] == "message.done"
        assert got.payload["data"]["state"] == "done"
        assert got.payload["data"]["src"] == "me"
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert rq.instance.until("webhook", item["msg_id"])["state"] == "done"


def test_the_trace_goes_on(rq: Rq, receiver: Receiver) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    rq.instance.send(
        "work", traceparent=trace, tracestate="a=b", post_run_webhook=[receiver.url("/trace")]
    )
    [got] = receiver.until("/trace")
    assert (got.headers["traceparent"], got.headers["tracestate"]) == (trace, "a=b")


def test_a_message_is_followed_from_begin_to_end(rq: Rq, receiver: Receiver) -> None:
    rq.instance.send("life", param1="x")
    receiver.until("/life", 4)
    assert sorted(types(receiver, "/life")) == [
        "message.progress", "message.queued", "message.relayed", "message.started",
    ]  # fmt: skip
    told = {got.payload["type"]: got.payload["data"] for got in receiver.at("/life")}
    assert told["message.queued"]["state"] == "que"
    assert told["message.progress"]["status"] == "run - one"
    assert len({got.headers["webhook-id"] for got in receiver.at("/life")}) == 4


def test_queues_are_told_of(rq: Rq, receiver: Receiver) -> None:
    config = rq.directory / "config"
    for name, count in (("pause", 1), ("down", 3)):
        durable.write_file(config / f"upper.{name}", b"moving house\n")
        assert receiver.until("/queues", count)[-1].payload["data"]["reason"] == "moving house"
        (config / f"upper.{name}").unlink()
        receiver.until("/queues", count + 1)
    assert types(receiver, "/queues") == ["queue.paused", "queue.up", "queue.down", "queue.up"]
    script = rq.directory / "code/upper.script"
    script.rename(rq.directory / "code/away")
    rq.instance.send("upper")
    got = receiver.until("/queues", 5)[4]
    assert got.payload["type"] == "queue.scripterror"
    assert got.payload["data"]["queue"] == "upper"


def test_a_crash_is_told(make_rq: Callable[..., Rq], receiver: Receiver) -> None:
    endpoint = {"url": receiver.url("/crash"), "format": "standard", "events": ["queue.crashed"]}
    rq = make_rq(endpoints={"crash": endpoint})
    rq.instance.start()
    rq.instance.kill(int((rq.directory / "queue/work/queue.pid").read_text()))
    [got] = receiver.until("/crash")
    told = got.payload["data"]
    assert (told["queue"], told["exit_status"]) == ("work", -9)
    rq.instance.serving("work")


def test_recovery_after_failure_is_told(rq: Rq, receiver: Receiver) -> None:
    fail = rq.directory / "fail"
    rq.instance.until("turn", rq.instance.send("turn"))
    fail.touch()
    failed = rq.instance.send("turn")
    rq.instance.until("turn", failed)
    fail.unlink()
    receiver.until("/again", 1)
    rq.instance.until("turn", rq.instance.send("turn"))  # the queue's next one
    receiver.until("/again", 2)
    rq.instance.until("turn", rq.instance.send("turn"))
    rq.instance.ask("turn", "retry_message", {"msg_id": failed})
    rq.instance.until("turn", failed, "done")  # and the message itself
    receiver.until("/again", 3)
    rq.empty()
    assert types(receiver, "/again") == ["message.err", "message.recovered", "message.recovered"]
    assert receiver.at("/again")[2].payload["data"]["msg_id"].endswith(failed)


def test_a_time_limit_is_told_once_as_what_it_is(rq: Rq, receiver: Receiver) -> None:
    before = len(receiver.at("/again"))
    msg_id = rq.instance.send("slow")
    message = rq.instance.until("slow", msg_id)
    assert message["state"] == "err"
    got = receiver.until("/again", before + 1)[before]
    rq.empty()
    assert (got.payload["type"], got.payload["data"]["state"]) == ("message.timeout", "err")
    assert len(rq.webhooks(message["full_id"])) == 1


def post(rq: Rq, receiver: Receiver, name: str, count: int = 1) -> list[str]:
    """Webhooks for an endpoint, put into the queue by hand."""
    return [
        rq.instance.send("webhook", param1=receiver.url(f"/{name}"), param2="{}", param3=name)
        for _ in range(count)
    ]


def test_410_disables_until_somebody_enables_it(rq: Rq, receiver: Receiver) -> None:
    files = Files(str(rq.directory))
    receiver.answer("/gone", {"status": 410, "always": True})
    full_id = rq.instance.message("goner", rq.instance.send("goner"))["full_id"]
    receiver.until("/gone")
    [got] = receiver.until("/watcher")
    assert got.payload["data"] == {"endpoint": "gone", "reason": "it answered 410 Gone"}
    rq.empty()
    [item] = rq.webhooks(full_id)
    assert rq.instance.until("webhook", item["msg_id"])["state"] == "err"
    assert files.disabled("gone") is not None
    # What is queued for it waits, without a worker; what happens now is only counted.
    [waits] = post(rq, receiver, "gone")
    rq.instance.until("goner", rq.instance.send("goner"))
    rq.empty()
    assert files.missed("gone") == 1
    assert rq.instance.message("webhook", waits)["state"] == "que"
    assert len(receiver.at("/gone")) == 1
    receiver.answer("/gone")
    files.enable("gone")
    rq.instance.ask("webhook", "run_message", {"msg_id": waits})
    assert rq.instance.until("webhook", waits)["state"] == "done"
    assert files.read()["gone"].failures == 0


def test_one_that_wants_to_be_left_alone_delays_nobody_else(rq: Rq, receiver: Receiver) -> None:
    receiver.answer("/pausing", {"status": 429, "headers": {"Retry-After": "3000"}, "always": True})
    [first] = post(rq, receiver, "pausing")
    waiting = rq.instance.until("webhook", first, "que", matching=lambda m: bool(m["count"]))
    assert 2990 < waiting["due"] - time() < 3001
    others = post(rq, receiver, "pausing", 40)
    [good] = post(rq, receiver, "narrow")
    assert rq.instance.until("webhook", good)["state"] == "done"
    assert len(receiver.at("/pausing")) == 1
    counts = rq.instance.ask("webhook", "num_messages")
    assert counts["que"] >= 41
    health = Files(str(rq.directory)).read()["pausing"]
    assert health.attempts["throttled"] == 1
    assert health.throttled_until is not None
    for msg_id in (first, *others):
        rq.instance.ask("webhook", "delete_message", {"msg_id": msg_id})


def test_no_more_at_a_time_than_allowed_and_all_of_them(rq: Rq, receiver: Receiver) -> None:
    gate, before = threading.Event(), len(receiver.at("/narrow"))
    shut = {"before": lambda: gate.wait(PATIENCE)}
    receiver.most.clear()
    receiver.answer("/narrow", shut, shut)
    sent = post(rq, receiver, "narrow", 6)
    receiver.until("/narrow", before + 2)
    [other] = post(rq, receiver, "tired")  # it has its own room
    assert rq.instance.until("webhook", other)["state"] == "done"
    assert len(receiver.at("/narrow")) == before + 2
    gate.set()
    for msg_id in sent:
        assert rq.instance.until("webhook", msg_id)["state"] == "done"
    assert receiver.most["/narrow"] == 2


def test_an_endpoint_that_failed_for_days_is_disabled(
    make_rq: Callable[..., Rq], receiver: Receiver
) -> None:
    rq = make_rq(endpoints={"old": {"url": receiver.url("/old"), "events": []}})
    files = Files(str(rq.directory))
    files.write({"old": Health(failures=9, failing_since=time() - 5.01 * 86_400)})
    receiver.answer("/old", {"status": 500, "always": True})
    rq.instance.start()
    [msg_id] = post(rq, receiver, "old")
    receiver.until("/old")
    rq.instance.until("webhook", msg_id, "que", matching=lambda m: bool(m["count"]))
    gone = files.disabled("old")
    assert gone is not None
    assert gone["reason"].startswith("nothing but 10 failures in 5.0 days, the last: answers 500")
    assert "rq webhook enable old" in rq.instance.log_text()


def test_a_machine_that_relay_does_not_reach_is_told_of_once(
    make_rq: Callable[..., Rq],
    receiver: Receiver,
    wait: Callable[[Path, Callable[[], object]], None],
) -> None:
    endpoint = {"url": receiver.url("/stuck"), "format": "standard", "events": ["relay.stuck"]}
    rq = make_rq(endpoints={"stuck": endpoint}, relay_stuck_after=0.2)
    rq.instance.use_plugins("cli", "webhook", "relay")
    rq.instance.start()
    peer = f"http://127.0.0.1:{free_port()}/"
    for _ in range(2):
        rq.instance.send("relay", dest=f"{peer}q/x")
    [got] = receiver.until("/stuck")
    told = got.payload["data"]
    assert (told["queue"], told["peer"]) == ("relay", peer)
    assert told["waiting"] >= 1
    assert "Connection refused" in told["reason"]


def test_while_the_queue_is_down_nothing_is_lost(
    make_rq: Callable[..., Rq],
    receiver: Receiver,
    wait: Callable[[Path, Callable[[], object]], None],
) -> None:
    rq = make_rq()
    rq.instance.start()
    down = rq.directory / "config/webhook.down"
    down.touch()
    rq.instance.until("work", rq.instance.send("work", post_run_webhook=[receiver.url("/down")]))
    folder = rq.directory / "var/webhook/outbox"
    wait(folder, lambda: any(name.endswith(".go") for name in rq.outbox()))
    rq.instance.stop()
    assert [name.rpartition(".")[2] for name in rq.outbox() if name != "poke"] == ["go"]
    rq.instance.start()
    down.unlink()
    [got] = receiver.until("/down")
    assert got.payload["state"] == "done"
    rq.empty()


def test_options_are_read_again(
    make_rq: Callable[..., Rq],
    receiver: Receiver,
    wait: Callable[[Path, Callable[[], object]], None],
) -> None:
    rq = make_rq()
    rq.instance.start()
    endpoints = {"new": {"url": receiver.url("/new"), "events": ["message.done"]}}
    rq.instance.configure(plugins={"webhook": {"endpoints": {"new": {"url": "nonsense"}}}})
    reload = rq.instance.manager.call("reload")
    assert "plugins.webhook.endpoints.new.url" in json.dumps(reload)
    # While the config is wrong no webhook is posted, and none fails.
    msg_id = rq.instance.send("work", post_run_webhook=[receiver.url("/meanwhile")])
    full_id = rq.instance.message("work", msg_id)["full_id"]
    wait(
        rq.directory / "queue/webhook/que",
        lambda: any(
            one["count"] and one["state"] == "que" and "endpoints.new.url" in one["status"]
            for one in rq.webhooks(full_id)
        ),
    )
    rq.instance.configure(plugins={"webhook": {"endpoints": endpoints}})
    rq.instance.manager.ask("reload")
    rq.instance.send("work")
    assert len(receiver.until("/new")) == 1
