"""Whoever is killed, whenever: an end of a message becomes one webhook, and none is lost.

Three processes are on its way: the queue's, whose message ends; the service, which hands over; and the
queue webhook's, which takes it.  Each is killed before each thing that it does to a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Receiver, Rq

pytestmark = [pytest.mark.process, pytest.mark.crash]

#: Kills the process of the queue work before the act that a message's second parameter names, once:
#: counted from when it is told that the message is about to end until that end is released.
KILLER = """
import os, signal, sys
from rqcore.hookspecs import hookimpl

last, seen, busy = 0, [], False

def listen(event, args):
    global busy, last
    changes = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
    if not last or busy or not (changes or event in ("os.rename", "os.remove", "os.mkdir")):
        return
    seen.append((event, *map(str, args[:2])))
    busy = True
    if len(seen) == last:
        os.mkdir(f"killed-{last}")
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "os.rename" and str(args[1]).endswith(".go"):
        with open("acts", "w") as file:
            print(*seen, sep="\\n", file=file)
        os.mkdir(f"passed-{last}")
        last = 0
    busy = False

@hookimpl
def rq_message_finishing(message, queue):
    global last
    if queue.name == "work" and message.param2 and not os.path.exists(f"killed-{message.param2}"):
        if not seen:
            sys.addaudithook(listen)
        seen.clear()
        last = int(message.param2)
"""
#: Hands over, in a child for each step, which is killed before that step; another child then ends it.
HAND_OVER = """
import os, signal, sys
from rqcore_webhook.dispatch import Dispatch
from rqcore_webhook.outbox import Entry, Webhook

directory, msg_id = sys.argv[1:]
dispatch = Dispatch(None, directory, "http://localhost:3333/")
dispatch.outbox.make()

def in_child(last):
    "Its exit status: 0 when it came to its end, negative when it was killed."
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seen = []

    def listen(event, args):
        changes = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
        if changes or event in ("os.rename", "os.remove", "os.mkdir", "socket.connect"):
            seen.append(event)
            if len(seen) == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(listen)
    os._exit(1 if dispatch.hand_over_all(10) else 0)

step, status = 0, -9
while status == -9:
    step += 1
    webhooks = tuple(
        Webhook(name, f"http://127.0.0.1:1/{step}/{name}", "message.done", "{}")
        for name in ("one", "two")
    )
    dispatch.outbox.put(Entry(f"{step:024d}", 1.0, "work", msg_id, webhooks))
    status = in_child(step)
    if status == -9:
        dispatch.outbox.tidy()  # as the service does when it starts
        assert in_child(0) == 0
print(step, status)
"""


def any_exists(*paths: Path) -> bool:
    return any(path.exists() for path in paths)


def test_the_queues_process_is_killed_at_each_step(
    make_rq: Callable[..., Rq],
    receiver: Receiver,
    wait: Callable[[Path, Callable[[], object]], None],
) -> None:
    rq = make_rq()
    instance = rq.instance
    instance.plugin("killer", KILLER)
    instance.start()

    def send(at: int) -> str:
        urls = [receiver.url(f"/kill-{at}"), receiver.url(f"/also-{at}")]
        return instance.send("work", param2=str(at), post_run_webhook=urls)

    sent: dict[int, str] = {}
    for at in count(1):
        killed, passed = rq.directory / f"killed-{at}", rq.directory / f"passed-{at}"
        sent[at] = send(at)
        wait(rq.directory, partial(any_exists, killed, passed))
        if passed.exists():
            break
        # Started again at once, and not after a pause that grows.
        instance.manager.ask("restart_queue", "work")
        instance.until("work", sent[at])
    acts = (rq.directory / "acts").read_text().splitlines()
    renamed = [act for act in acts if "os.rename" in act]
    steps = (".wait", "/done/", ".go")
    assert [
        next(n for n in reversed(steps) if n in act)
        for act in renamed
        if any(n in act for n in steps)
    ] == [*steps]
    rq.empty()
    for at, msg_id in sent.items():
        message = instance.message("work", msg_id)
        assert message["state"] == "done"
        told = rq.webhooks(message["full_id"])
        assert sorted(item["param1"] for item in told) == sorted(message["post_run_webhook"]), acts[
            at - 1
        ]
        receiver.until(f"/kill-{at}")
        receiver.until(f"/also-{at}")


def test_who_hands_over_is_killed_at_each_step(
    rq_instance: RunningInstance, made_of: Callable[[RunningInstance], Rq]
) -> None:
    """The service's work, done by processes of our own, one after another, each killed a step later."""
    rq_instance.queue("webhook", "#!/bin/sh\necho 'done fine' >&3\n", num_workers=8)
    rq_instance.queue("work", "#!/bin/sh\necho 'done fine' >&3\n")
    rq_instance.start()
    rq = made_of(rq_instance)
    message = rq_instance.until("work", rq_instance.send("work"))
    command = [sys.executable, "-c", HAND_OVER, str(rq_instance.directory), message["msg_id"]]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    steps, status = map(int, said.split())
    assert (steps > 12, status) == (True, 0)
    assert rq.outbox() == []
    told = [str(item["param1"]) for item in rq.webhooks(message["full_id"])]
    assert sorted(told) == sorted(
        f"http://127.0.0.1:1/{step}/{name}"
        for step in range(1, steps + 1)
        for name in ("one", "two")
    )
    assert rq_instance.ask("webhook", "num_messages")["prep"] == 0


def test_the_queue_webhook_and_the_service_are_killed_while_many_come(
    make_rq: Callable[..., Rq], receiver: Receiver
) -> None:
    rq = make_rq()
    rq.instance.start()
    sent = []
    for number in range(24):
        sent.append(rq.instance.send("work", post_run_webhook=[receiver.url(f"/many-{number}")]))
        if number % 8 == 3:
            for name in ("webhook", "work"):
                pid = (rq.directory / f"queue/{name}/queue.pid").read_text()
                rq.instance.kill(int(pid))
                rq.instance.manager.ask("restart_queue", name)
        if number % 8 == 6:
            children = rq.instance.manager.ask("describe")["children"]
            [service] = [c for c in children if c["kind"] == "service" and c["name"] == "webhook"]
            if service["pid"]:
                rq.instance.kill(service["pid"])
    for msg_id in sent:
        rq.instance.until("work", msg_id)
    rq.empty()
    for number, msg_id in enumerate(sent):
        message = rq.instance.message("work", msg_id)
        [webhook] = rq.webhooks(message["full_id"])
        if webhook["state"] != "err":  # its script was ended with its queue
            receiver.until(f"/many-{number}")
    assert os.listdir(rq.directory / "queue/webhook/prep") == []
    assert json.loads((rq.directory / "var/webhook/health.json").read_text())["targets"]
