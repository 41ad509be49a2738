"""One thing done to many messages: what it would be about, what is done, cancelled, cut off."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_web import bulk
from rqcore_web.filters import parse

from rqcore.errors import RefusedError

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

#: Fails, unless the file that param1 names is there.
MENDED = (
    '#!/bin/sh\n[ -e "$RQ_PARAM1" ] && echo "done mended" >&3 || echo "err broken $RQ_PARAM2" >&3\n'
)


def post(web: Web, queue: str, body: Any) -> Answer:
    options = ("-X", "POST", "-H", "Content-Type: application/json", "--data-binary", "@-")
    return web.curl(
        f"api/v1/queues/{queue}/messages:bulk", *options, stdin=json.dumps(body).encode()
    )


def ended(web: Web, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it is over."""
    found: dict[str, Any] = web.curl(job["url"].lstrip("/"), "-H", "Prefer: wait=60").json()
    assert found["ended_at"] is not None
    return found


def broken(web: Web, number: int, file: Path) -> list[str]:
    """Messages that failed, oldest first."""
    ids = [web.rq.send("test", param1=str(file), param2=str(n % 2)) for n in range(number)]
    for msg_id in ids:
        web.rq.until("test", msg_id, "err")
    return ids


def audit(web: Web) -> list[tuple[str, str]]:
    lines = (web.rq.directory / "log/audit.jsonl").read_text().splitlines()
    return [(line["action"], line["outcome"]) for line in map(json.loads, lines)]


def test_first_it_is_said_what_it_would_be_about_then_it_is_done(web: Web, tmp_path: Path) -> None:
    web.rq.queue("test", MENDED, num_workers=4)
    web.start()
    ids = broken(web, 50, tmp_path / "fixed")
    wanted = {"action": "retry", "filter": 'status:="broken 1"'}
    dry = post(web, "test", {**wanted, "dry_run": True})
    assert dry.status == 200
    assert dry.json() == {
        "action": "retry", "queue": "test", "total": 25, "exact": True, "first": ids[::-1][:20:2],
    }  # fmt: skip
    assert web.rq.ask("test", "num_messages")["err"] == 50
    (tmp_path / "fixed").touch()
    started = post(web, "test", wanted)
    assert started.status == 202
    job = started.json()
    assert started.headers["location"] == job["url"] == f"/api/v1/jobs/{job['id']}"
    done = ended(web, job)
    assert (done["state"], done["total"], done["done"], done["failed"]) == ("done", 25, 25, 0)
    assert [one["msg_id"] for one in done["outcomes"] if one["ok"]].sort() == ids[1::2].sort()
    for msg_id in ids[1::2]:
        web.rq.until("test", msg_id, "done")
    assert web.rq.ask("test", "num_messages")["err"] == 25
    assert [one["id"] for one in web.curl("api/v1/jobs").json()["items"]] == [job["id"]]
    assert audit(web) == [
        ("bulk retry", 'started: filter status:="broken 1"'), ("bulk retry", "done: 25 done, 0 refused")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "state", "after"),
    [("delete", "err", (0, 0)), ("clone", "err", (20, 10)), ("retry", "err", (10, 0))],
)
def test_all_that_the_action_is_for(
    web: Web, tmp_path: Path, action: str, state: str, after: tuple[int, int]
) -> None:
    """``after``: how many there are, and how many of them are copies."""
    web.rq.queue("test", MENDED, num_workers=4)
    web.start()
    broken(web, 10, tmp_path / "fixed")
    prepared = web.rq.ask("test", "prep_message", {"dest": "test"})
    done = ended(web, post(web, "test", {"action": action, "filter": f"state:{state}"}).json())
    assert (done["state"], done["total"], done["done"], done["failed"]) == ("done", 10, 10, 0)
    for one in done["outcomes"] if action != "delete" else []:
        copy = one["detail"].rpartition("/")[2] if action == "clone" else one["msg_id"]
        web.rq.until("test", copy, "err")
    found = web.rq.ask("test", "list_messages", {"state": "err"})["items"]
    copies = [item for item in found if item.get("cloned_from")]
    assert (len(found), len(copies)) == after
    assert web.rq.message("test", prepared.rpartition("/")[2])["state"] == "prep"


def test_named_one_by_one_each_is_told(web: Web, tmp_path: Path) -> None:
    web.rq.queue("test", MENDED)
    web.start()
    failed, other = broken(web, 2, tmp_path / "fixed")
    (tmp_path / "fixed").touch()
    fine = web.rq.send("test", param1=str(tmp_path / "fixed"))
    web.rq.until("test", fine, "done")
    ids = [failed, fine, failed, "20200101.0000.00.000.1"]
    dry = post(web, "test", {"action": "retry", "ids": ids, "dry_run": True}).json()
    assert (dry["total"], dry["exact"], dry["first"]) == (3, True, [failed, fine, ids[3]])
    done = ended(web, post(web, "test", {"action": "retry", "ids": ids}).json())
    assert (done["done"], done["failed"], done["filter"]) == (1, 2, None)
    told = {one["msg_id"]: (one["ok"], one["detail"]) for one in done["outcomes"]}
    assert told == {
        failed: (True, "msg sent to run again"),
        fine: (False, "message is in done; only one in err can be retried"),
        ids[3]: (False, "msg not found"),
    }
    assert web.rq.message("test", other)["state"] == "err"


def test_run_and_kill(web: Web, tmp_path: Path) -> None:
    web.rq.queue("test", web.WAITS, num_workers=5)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    web.start()
    ids = [web.rq.send("test", param1=str(gate), due=99_999_999_999) for _ in range(5)]
    job = ended(web, post(web, "test", {"action": "run", "filter": ""}).json())
    assert (job["done"], job["total"]) == (5, 5)
    for msg_id in ids:
        web.rq.until("test", msg_id, "run", matching=lambda m: "waiting" in m["status"])
    job = ended(web, post(web, "test", {"action": "kill", "filter": f"-msg_id:={ids[0]}"}).json())
    assert job["done"] == 4
    for msg_id in ids[1:]:
        web.rq.until("test", msg_id, "err")
    with gate.open("w"):
        pass
    web.rq.until("test", ids[0], "done")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"action": "retry"}, 422, "either by filter or by ids"),
        ({"action": "retry", "filter": "", "ids": ["x"]}, 422, "either by filter or by ids"),
        ({"action": "retry", "filter": "state:done"}, 422, "is for messages in err"),
        ({"action": "retry", "filter": "age:1h"}, 422, "position 5"),
        ({"action": "explode", "filter": ""}, 422, "must be one of run, clone"),
        ({"action": "run", "ids": []}, 422, "must have 1 to 10000 items"),
    ],
)  # fmt: skip
def test_what_means_nothing(web: Web, body: Any, status: int, words: str) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    answer = post(web, "test", body)
    assert (answer.status, words in answer.json()["detail"]) == (status, True), answer.text
    assert post(web, "nobody", {"action": "run", "filter": ""}).status == 404
    assert web.curl("api/v1/jobs").json() == {"items": []}


#: Deleting waits until the file ``go`` is there: a plugin may take its time.
SLOW = """
import select
import time
from pathlib import Path
from rqcore import unix
from rqcore.hookspecs import hookimpl


@hookimpl
def rq_check_removal(message, queue):
    folder = Path(queue.path).parents[1] / "gates"
    watch = unix.Inotify()
    watch.add(str(folder), unix.Inotify.CREATE)
    (folder / f"asked.{message.msg_id}").touch()
    while not (folder / "go").exists():
        select.select([watch.fd], [], [], 30)
        watch.read()
    watch.close()
"""


def test_a_job_that_is_cancelled_asks_for_no_more(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.rq.plugin("slow", SLOW)
    (web.rq.directory / "gates").mkdir()
    web.start()
    for _ in range(100):
        web.rq.ask("test", "prep_message", {"dest": "test"})
    job = post(web, "test", {"action": "delete", "filter": ""}).json()
    cancelled = web.curl(job["url"].lstrip("/"), "-X", "DELETE")
    assert cancelled.status == 202
    (web.rq.directory / "gates/go").touch()
    done = ended(web, job)
    assert done["state"] == "cancelled"
    assert done["done"] <= 16
    left = web.rq.ask("test", "num_messages")["prep"]
    assert left == 100 - done["done"]
    assert audit(web)[-1] == ("bulk delete", f"cancelled: {done['done']} done, 0 refused")


def test_a_queue_that_is_down_ends_the_job(web: Web, tmp_path: Path) -> None:
    web.rq.queue("test", MENDED)
    web.start()
    broken(web, 40, tmp_path / "fixed")
    web.rq.ask("test", "ping")
    (web.rq.directory / "config/test.down").touch()
    while web.rq.ask("test", "describe")["status"] != "DOWN":
        pass
    done = ended(web, post(web, "test", {"action": "retry", "filter": ""}).json())
    assert (done["state"], done["problem"], done["done"]) == ("failed", "status: DOWN", 0)
    assert 0 < done["failed"] <= 16
    # To clear up is possible all the same.
    done = ended(web, post(web, "test", {"action": "delete", "filter": ""}).json())
    assert (done["state"], done["done"]) == ("done", 40)


def test_a_job_ends_with_the_service_and_that_is_said(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.rq.plugin("slow", SLOW)
    (web.rq.directory / "gates").mkdir()
    web.start()
    for _ in range(50):
        web.rq.ask("test", "prep_message", {"dest": "test"})
    job = post(web, "test", {"action": "delete", "filter": ""}).json()
    pid = web.pid()
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=30)
        os.kill(pid, signal.SIGKILL)
        while next(events)["state"] != "running":
            pass
    (web.rq.directory / "gates/go").touch()
    answer = web.curl(job["url"].lstrip("/"))
    assert answer.status == 404
    assert "until the web service ends" in answer.json()["detail"]
    assert web.curl("api/v1/jobs").json() == {"items": []}
    done = ended(web, post(web, "test", {"action": "delete", "filter": ""}).json())
    assert done["state"] == "done"
    assert web.rq.ask("test", "num_messages")["prep"] == 0


@pytest.mark.parametrize(
    "given",
    [
        {"ids": (), "filter": None},
        {"ids": ("a",), "filter": parse("")},
        {"ids": tuple(str(n) for n in range(10_001)), "filter": None},
    ],
)
def test_targets_are_either_named_or_meant(given: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        bulk.Targets("test", **given)
