"""Messages through rq_router in a running instance: every action, and what becomes of the copies."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

import pytest
from rqcore_router import plugin

from rqcore.hookspecs import Delay, Hold, InstanceInfo, QueueInfo
from rqcore.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Router

    from rqcore.hooks import Hooks

pytestmark = pytest.mark.process


# --- actions


def test_relay_makes_a_copy_for_every_host(router: Router) -> None:
    router.rule("relay", "mq1", ["mq2:4444", "mq2:4444"], "/q/local", "https://mq3/rq/")
    webhooks = ["http://hook/"]
    msg_id, mark = router.send(
        "/q/test", src="me", param2="two", max_count=9, count=3, post_run_webhook=webhooks
    )
    ended = router.ended(msg_id)
    assert ended["state"] == "relayed"
    copies = router.copies("relay", mark)
    assert {copy["dest"] for copy in copies} == {
        "http://mq1:3333/q/test", "http://mq2:4444/q/test", "https://mq3/rq/q/test",
    }  # fmt: skip
    (here,) = router.copies("local", mark)
    assert here["dest"] == "/q/local"
    for copy in (*copies, here):
        kept = {key: copy[key] for key in ("src", "param2", "max_count", "count")}
        assert kept == {"src": "me", "param2": "two", "max_count": 9, "count": 3}
        assert copy["post_run_webhook"] == webhooks
        assert copy["orig_msg_id"] == f"http://localhost:3333/q/rq_router/{msg_id}"
    assert ended["status"].startswith("relayed - 4 copies, see the log; the last one is http://")
    assert re.search(r"copy for /q/local: http://.*/q/local/\d", router.log(msg_id))
    last = ended["status"].split()[-1]
    assert last.rpartition("/")[2] in {copy["msg_id"] for copy in copies}


def test_one_copy_is_told_by_its_id(router: Router) -> None:
    router.rule("relay", "mq1")
    msg_id, mark = router.send("http://old/rq/q/test")
    ended = router.ended(msg_id)
    (copy,) = router.copies("relay", mark)
    assert copy["dest"] == "http://mq1:3333/rq/q/test"
    assert ended["status"] == f"relayed - http://localhost:3333/q/relay/{copy['msg_id']}"


def test_balance_takes_one_host_that_is_reachable(router: Router) -> None:
    peers = router.rq.directory / "var" / "relay" / "peers.json"
    peers.parent.mkdir(exist_ok=True)
    peers.write_text(json.dumps({"peers": {"http://mq1:3333/": {"reachable": False}}}))
    router.rule("balance", "mq1", "mq2", "mq1:3333")
    sent = [router.send() for _ in range(6)]
    for msg_id, mark in sent:
        assert router.ended(msg_id)["state"] == "relayed"
        assert [copy["dest"] for copy in router.copies("relay", mark)] == ["http://mq2:3333/q/test"]
    peers.unlink()


def test_done_and_err(router: Router) -> None:
    router.rule("done")
    msg_id, _ = router.send()
    assert router.ended(msg_id)["status"] == "done - rule 'it' (line 1)"
    router.rule("err")
    msg_id, _ = router.send()
    assert router.ended(msg_id)["status"] == "err - rule 'it' (line 1)"


def test_what_only_the_default_takes_is_an_error_that_says_so(router: Router) -> None:
    rules = '[[rule]]\nname = "x"\nsrc = "abc"\naction = "done"\n\n[[rule]]\nname = "default"\n'
    router.rules(f'{rules}action = "err"\n')
    msg_id, _ = router.send("nowhere", src="me")
    assert router.ended(msg_id)["status"] == (
        "err - rule 'default' (line 6): no other rule takes src 'me' and dest 'nowhere'; see: rq route"
    )


def test_what_no_rule_matches_is_an_error_that_says_so(router: Router) -> None:
    router.rules('rule "x"\nsrc /abc/\naction :done\n', "rq_router_rules.rb")
    router.toml.unlink()
    try:
        msg_id, _ = router.send("nowhere", src="me")
        expected = "err - no rule matches src 'me' and dest 'nowhere'; see: rq route"
        assert router.ended(msg_id)["status"] == expected
    finally:
        router.rule("done")
        router.toml.with_suffix(".rb").unlink()


def test_a_rule_that_logs(router: Router) -> None:
    router.rule("relay", "/q/local", log=True)
    msg_id, mark = router.send()
    router.ended(msg_id)
    (copy,) = router.copies("local", mark)
    lines = (router.rq.directory / "log" / "rq_router.log").read_text().splitlines()
    (line,) = [line for line in lines if msg_id in line]
    assert re.fullmatch(
        rf"\S+Z http://\S+/q/rq_router/{msg_id} rule 'it' \(line 1\): "
        rf"relay to /q/local as http://\S+{copy['msg_id']}",
        line,
    )


def test_a_destination_that_is_this_instance_needs_no_relay(router: Router) -> None:
    router.rule("relay", "localhost")
    msg_id, mark = router.send("http://elsewhere:3333/q/local")
    assert router.ended(msg_id)["state"] == "relayed"
    (copy,) = router.copies("local", mark)
    assert copy["dest"] == "http://localhost:3333/q/local"
    msg_id, mark = router.send("local", force_remote=True)
    router.ended(msg_id)
    (copy,) = router.copies("relay", mark)
    assert (copy["dest"], copy["force_remote"]) == ("http://localhost:3333/q/local", True)
    msg_id, _ = router.send("rq_router")
    assert "is where the message comes from" in router.ended(msg_id)["status"]


def test_attachments_are_shared_and_not_copied(router: Router, tmp_path: Path) -> None:
    router.rule("relay", "/q/local", "mq1")
    for name in ("one.bin", "with space"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    msg_id, mark = router.attached("test", tmp_path / "one.bin", tmp_path / "with space")
    ended = router.ended(msg_id)
    for queue in ("local", "relay"):
        (copy,) = router.copies(queue, mark)
        for name, file in ended["_attachments"].items():
            assert copy["_attachments"][name]["sha256"] == file["sha256"]
            assert Path(copy["_attachments"][name]["path"]).samefile(file["path"])


def test_text_that_is_no_utf8_arrives_as_it_was(router: Router) -> None:
    router.rule("relay", "/q/local")
    msg_id, mark = router.send(src="\udcff\n", param2="\udce9 \0 x")
    router.ended(msg_id)
    (copy,) = router.copies("local", mark)
    assert (copy["src"], copy["param2"]) == ("\udcff\n", "\udce9 \0 x")


def test_a_circle_comes_to_an_end(router: Router) -> None:
    router.rule("relay", "mq1")
    msg_id, mark = router.send(count=16)
    ended = router.ended(msg_id)
    assert ended["state"] == "err"
    assert "was passed on 16 times, its max_count is 15" in ended["status"]
    assert not router.copies("relay", mark)


def test_a_destination_that_is_none(router: Router) -> None:
    router.rule("relay", "mq1")
    msg_id, _ = router.send("what is this")
    assert "what is this is no destination" in router.ended(msg_id)["status"]


# --- copies that cannot be made


def test_missing_copies_are_told_one_by_one_and_made_by_a_retry(own: Router) -> None:
    router = own
    router.rq.start()
    router.rule("relay", "mq1", "/q/later", "/q/local", "/q/never")
    msg_id, mark = router.send()
    ended = router.ended(msg_id)
    assert ended["state"] == "err"
    for words in (
        "2 of 4 copies made",
        "/q/later: there is no queue later",
        "/q/never: there is no",
    ):
        assert words in ended["status"]
    router.rq.manager.ask("create_queue", {
        "name": "later", "script": str(router.rq.directory / "code" / "local.script"),
    })  # fmt: skip
    router.rq.serving("later")
    router.rule("err")  # what was begun goes on by the rule that it was begun by
    router.rq.ask("rq_router", "retry_message", {"msg_id": msg_id})
    ended = router.ended(msg_id)
    assert "3 of 4 copies made; not made: /q/never: there is no queue never" in ended["status"]
    for queue in ("relay", "later", "local"):
        assert len(router.copies(queue, mark)) == 1


def test_a_queue_that_is_down_is_tried_again(router: Router) -> None:
    router.rule("relay", "/q/local", "mq1")
    router.rq.manager.ask("down_queue", "local")
    msg_id, mark = router.send()
    waiting = router.rq.until(
        "rq_router", msg_id, "que", matching=lambda message: message["count"] == 1
    )
    assert "1 of 2 copies made; not made: /q/local: status: DOWN" in waiting["status"]
    router.rq.manager.ask("up_queue", "local")
    router.rq.ask("rq_router", "run_message", {"msg_id": msg_id})
    assert router.ended(msg_id)["state"] == "relayed"
    for queue in ("relay", "local"):
        (copy,) = router.copies(queue, mark)
        assert copy["count"] == 0
    router.rq.manager.ask("down_queue", "local")
    msg_id, _ = router.send(max_count=1)
    assert "given up after 1 tries: 1 of 2 copies made" in router.ended(msg_id)["status"]
    router.rq.manager.ask("up_queue", "local")


def test_without_relay_it_says_what_to_install(own: Router) -> None:
    own.rule("relay", "mq1")
    (own.rq.directory / "queue" / "relay" / "config.json").unlink()
    own.rq.start()
    msg_id, _ = own.send()
    assert "http://mq1:3333/q/test: nothing here carries" in own.ended(msg_id)["status"]


# --- killed

#: Kills itself at the step that param2 names, once.  A step comes before each file that is written
#: and each question that is asked, and a last one before the end.
DIES = """#!{python}
import os, signal
from rqcore import client, durable
from rqcore_router import script

deadly = 0 if os.path.exists("died") else int(os.environ["RQ_PARAM2"])
step = 0

def dangerous(function):
    def wrapped(*args, **named):
        at_risk()
        return function(*args, **named)
    return wrapped

def at_risk():
    global step
    step += 1
    if step == deadly:
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

durable.write_file = dangerous(durable.write_file)
client.Client.call = dangerous(client.Client.call)
script._tell = dangerous(script._tell)
script.main()
print("steps", step)
"""


@pytest.mark.crash
def test_killed_at_any_step_no_copy_is_doubled_and_none_lost(own: Router, tmp_path: Path) -> None:
    own.rq.queue("rq_router", DIES.format(python=sys.executable), num_workers=4, exec_prefix="")
    own.rule("relay", ["mq1", "mq2"], "/q/local")
    (tmp_path / "file").write_bytes(os.urandom(5000))
    own.rq.start()
    whole, _ = own.attached("test", tmp_path / "file", param2="0")
    own.ended(whole)
    steps = int(own.log(whole).split()[-1])
    assert steps > 14
    sent = [own.attached("test", tmp_path / "file", param2=str(n + 1)) for n in range(steps)]
    for msg_id, _ in sent:
        assert "IMPROPERLY" in own.rq.until("rq_router", msg_id, "err")["status"]
        own.rq.ask("rq_router", "retry_message", {"msg_id": msg_id})
    for msg_id, mark in sent:
        ended = own.ended(msg_id)
        assert ended["state"] == "relayed", ended
        for queue in ("relay", "local"):
            (copy,) = own.copies(queue, mark)
            digests = (file["_attachments"]["file"]["sha256"] for file in (copy, ended))
            assert len(set(digests)) == 1
    for queue in ("relay", "local"):
        # Killed between the answer and the note: prepared, known to nobody, and never run.
        prepared = own.rq.ask(queue, "messages", {"state": "prep", "limit": 1000})
        assert len(prepared) <= 1
        for item in prepared:
            assert not own.rq.message(queue, item["msg_id"])["_attachments"]


@pytest.mark.crash
def test_a_queue_killed_between_two_copies(own: Router) -> None:
    own.rq.queue("slow", '#!/bin/sh\necho "done recorded" >&3\n')
    own.rule("relay", "mq1", "/q/slow", "/q/local")
    own.rq.start()
    slow = own.rq.ask("slow", "describe")["pid"]
    os.kill(slow, signal.SIGSTOP)
    try:
        msg_id, mark = own.send()
        own.rq.until("rq_router", msg_id, "run", matching=lambda m: "1 of 3 copies" in m["status"])
        own.rq.kill(own.rq.ask("rq_router", "describe")["pid"])
    finally:
        os.kill(slow, signal.SIGCONT)
    own.rq.serving("rq_router")
    assert own.ended(msg_id)["state"] == "relayed"
    for queue in ("relay", "slow", "local"):
        assert len(own.copies(queue, mark)) == 1


# --- waiting


def test_a_delay_lets_the_message_wait_without_a_process(router: Router) -> None:
    router.rule("done", delay=1)
    msg_id, _ = router.send()
    ended = router.ended(msg_id)
    assert time() >= ended["due"] + 1
    router.rule("done", delay=3600)
    msg_id, _ = router.send()
    due = router.rq.message("rq_router", msg_id)["due"]
    while (router.rq.ask("rq_router", "describe")["next_wake"] or 0) < due + 3600:
        pass  # each answer takes the queue a turn: it is asked until it has looked at the message
    router.rule("err")  # rules are asked anew when the message may start
    router.rq.ask("rq_router", "run_message", {"msg_id": msg_id})
    assert router.ended(msg_id)["state"] == "err"


def test_how_long_a_message_waits(tmp_path: Path, rq_hooks: Callable[..., Hooks]) -> None:
    hooks = rq_hooks(router=plugin)
    (tmp_path / "config").mkdir()
    path = tmp_path / "queue" / "rq_router"
    queue = QueueInfo("rq_router", str(path), {})
    message = Message(msg_id="20260101.0000.00.000.1", dest="x", due=4e9)
    vote = hooks.check_start(message, queue)
    assert isinstance(vote, Hold)
    assert "there is no rules file" in vote.reason
    (tmp_path / "config" / "rq_router_rules.rb").write_text(
        'rule "x"\ndest /x/\naction :err\ndelay 9'
    )
    assert hooks.check_start(message, queue) == Delay(
        4e9 + 9, "rule 'x' has a delay of 9 s (plugin router)"
    )
    assert hooks.check_start(message, QueueInfo("test", str(path), {})) is None
    job = path / "que" / message.msg_id / "job"
    job.mkdir(parents=True)
    (job / "router.json").touch()  # it has begun: what is missing is not delayed again
    assert hooks.check_start(message, queue) is None


# --- what is diverted


def test_every_message_goes_through_the_rules(router: Router) -> None:
    def target(dest: str) -> str | None:
        found: str | None = router.rq.manager.ask("resolve_destination", {"dest": dest})
        return found

    for dest in ("test", "/q/test", "http://mq1:3333/q/relay", "rq_router", "webhook", "no such"):
        assert target(dest) == "rq_router"
    for dest in ("relay", "/q/relay", "cleaner"):
        assert target(dest) is None
    router.toml.unlink()
    assert target("test") is None


def test_a_dup_goes_through_the_rules_but_not_from_the_router(
    tmp_path: Path, rq_hooks: Callable[..., Hooks]
) -> None:
    hooks = rq_hooks(router=plugin)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "rq_router_rules.rb").touch()
    hooks.configure(InstanceInfo(str(tmp_path), "http://a:1/", {}), {"router": {"x": 1}})
    assert hooks.plugins()[0].status == "ok"
    message = Message(dest="test")
    for queue, expected in (("test", "rq_router"), ("rq_router", None)):
        hooks.spool_ready(QueueInfo(queue, str(tmp_path / "queue" / queue), {}))
        assert hooks.resolve_destination("http://b/q/x", message, "dup") == expected
        assert hooks.resolve_destination("http://b/q/x", message, "submit") == "rq_router"


def test_a_message_sent_with_rq_arrives(router: Router) -> None:
    router.rule("relay", "/q/local")
    sent = router("sendmesg", "--dest", "anything", "--param1", "by hand")
    assert sent.out.startswith("ok http://localhost:3333/q/rq_router/"), sent
    router.ended(sent.out.strip().rpartition("/")[2])
    assert len(router.copies("local", "by hand")) == 1
