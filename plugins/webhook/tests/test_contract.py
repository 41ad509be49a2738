"""The contract's webhooks: post_run_webhook, in RQ's form, once for each end, to whom may be told."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rqcore.errors import RefusedError

if TYPE_CHECKING:
    from tests.conftest import Receiver, Rq

pytestmark = pytest.mark.process


def full_id(rq: Rq, queue: str, msg_id: str) -> str:
    return str(rq.instance.message(queue, msg_id)["full_id"])


def attempts(message: dict[str, Any]) -> list[dict[str, Any]]:
    lines = Path(message["path"], "job", "attempts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("word", "state"), [("done", "done"), ("err", "err"), ("relayed", "relayed")]
)
def test_an_end_is_told_in_rqs_form(rq: Rq, receiver: Receiver, word: str, state: str) -> None:
    path = f"/end-{state}"
    msg_id = rq.instance.send(
        "work", param1=word, param2="zwei\u20ac", src="me", post_run_webhook=[receiver.url(path)]
    )
    [got] = receiver.until(path)
    assert got.headers["content-type"] == "application/x-www-form-urlencoded"
    assert set(got.form) == {"x_format", "payload"}
    assert got.form["x_format"] == "json"
    told = got.payload
    assert told["msg_id"] == full_id(rq, "work", msg_id) == told["orig_msg_id"]
    assert told["state"] == state
    assert told["status"] == f"{state} - said so"
    assert (told["dest"], told["src"], told["param2"]) == ("work", "me", "zwei\u20ac")
    [webhook] = rq.webhooks(told["msg_id"])
    done = rq.instance.until("webhook", webhook["msg_id"])
    assert done["state"] == "done"
    assert done["status"] == "done - answered 200"
    assert (done["param1"], json.loads(done["param2"])) == (receiver.url(path), told)
    [attempt] = attempts(done)
    assert attempt["excerpt"] == "thank you"
    assert (attempt["status"], attempt["result"]) == (200, "success")
    assert (attempt["address"], attempt["error"]) == ("127.0.0.1", "")


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        ([f"http://h/{n}" for n in range(101)], "101 URLs"),
        (["http://h/" + "x" * 8000], "8009 characters"),
    ],
)
def test_more_than_can_be_told_is_refused(rq: Rq, urls: list[str], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        rq.instance.send("work", post_run_webhook=urls)


def test_each_url_is_told_once(rq: Rq, receiver: Receiver) -> None:
    urls = " ".join(receiver.url(path) for path in ("/a", "/b", "/a"))
    msg_id = rq.instance.send("work", post_run_webhook=urls)
    receiver.until("/a")
    receiver.until("/b")
    rq.empty()
    assert len(rq.webhooks(full_id(rq, "work", msg_id))) == 2


def test_a_failure_is_tried_again_at_once_and_then_later(rq: Rq, receiver: Receiver) -> None:
    receiver.answer(
        "/shaky", {"status": 500, "body": b"no\nroom"}, {"status": 500, "body": b"no room"}
    )
    rq.instance.send("work", post_run_webhook=[receiver.url("/shaky")])
    receiver.until("/shaky", 2)
    [item] = [
        m for m in rq.instance.ask("webhook", "list_messages", {"state": "que"})["items"]
        + rq.instance.ask("webhook", "list_messages", {"state": "run"})["items"]
        if m["param1"].endswith("/shaky")
    ]  # fmt: skip
    waiting = rq.instance.until(
        "webhook", item["msg_id"], "que", matching=lambda m: bool(m["count"] == 2)
    )
    assert waiting["status"] == "que - 60-answers 500 Internal Server Error: no room"
    rq.instance.ask("webhook", "run_message", {"msg_id": item["msg_id"]})
    done = rq.instance.until("webhook", item["msg_id"])
    assert done["status"] == "done - answered 200"
    assert [one["status"] for one in attempts(done)] == [500, 500, 200]


def test_redirects_are_not_followed(rq: Rq, receiver: Receiver) -> None:
    receiver.answer(
        "/moved", {"status": 302, "headers": {"Location": receiver.url("/trap")}, "always": True}
    )
    msg_id = rq.instance.send("webhook", param1=receiver.url("/moved"), param2="{}", max_count=1)
    failed = rq.instance.until("webhook", msg_id)
    assert failed["state"] == "err"
    [attempt] = attempts(failed)
    assert "redirects are not followed" in attempt["error"]
    assert receiver.at("/trap") == []


def test_what_cannot_be_posted_to_fails_in_words(rq: Rq) -> None:
    for url, why in (
        ("ftp://host/x", "does not begin with http"),
        ("", "is no text"),
        ("http://", "names no host"),
        ("http://169.254.169.254/latest/meta-data/", "link-local, where clouds keep"),
        ("http://[::ffff:a9fe:a9fe]/", "link-local"),
    ):
        msg_id = rq.instance.send("webhook", param1=url, param2="{}")
        failed = rq.instance.until("webhook", msg_id)
        assert failed["state"] == "err"
        assert why in failed["status"]
        assert f"rq retry webhook/{msg_id}" in failed["status"]


def test_nobody_listening_is_tried_again(rq: Rq) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        msg_id = rq.instance.send("webhook", param1=f"http://127.0.0.1:{port}/", param2="{}")
        waiting = rq.instance.until(
            "webhook", msg_id, "que", matching=lambda m: bool(m["count"] == 2)
        )
    assert waiting["status"] == f"que - 60-127.0.0.1:{port} cannot be reached: Connection refused"


def test_a_payload_that_is_too_large_for_a_parameter_arrives(rq: Rq, receiver: Receiver) -> None:
    big = "\u20ac" * 900_000  # as JSON in JSON it grows beyond what a message may be
    rq.instance.send("work", param3=big, post_run_webhook=[receiver.url("/big")])
    [got] = receiver.until("/big")
    assert got.payload["param3"] == big


def test_webhooks_make_no_webhooks(rq: Rq, receiver: Receiver) -> None:
    msg_id = rq.instance.send(
        "webhook",
        param1=receiver.url("/once"),
        param2="{}",
        post_run_webhook=[receiver.url("/never")],
    )
    assert rq.instance.until("webhook", msg_id)["state"] == "done"
    rq.empty()
    assert receiver.at("/never") == []


def test_duplicates_are_told_of_too(rq: Rq, receiver: Receiver) -> None:
    pause = rq.directory / "config/same.pause"
    pause.touch()
    urls = [receiver.url("/same")]
    sent = {rq.instance.send("same", param1="x", post_run_webhook=urls) for _ in range(4)}
    pause.unlink()
    got = receiver.until("/same", 4)
    rq.empty()
    told = {one.payload["msg_id"].rpartition("/")[2]: one.payload["status"] for one in got}
    assert told.keys() == sent
    assert len(receiver.at("/same")) == 4
    assert sum(status.startswith("done - duplicate http") for status in told.values()) == 3
