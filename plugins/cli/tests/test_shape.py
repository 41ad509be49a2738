"""``rq shape``: what waits, by age, counted exactly."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq

#: Ages in seconds, well within their columns (5, 10, 20 minutes).
YOUNG, MIDDLE, OLD = 60, 450, 90_000


def place(queue: Path, number: int, age: float, state: str = "que", **fields: Any) -> Path:
    """A message as RQ would have left it, made so long ago."""
    made = time.time() - age
    stamp = time.strftime("%Y%m%d.%H%M.%S", time.gmtime(made))
    folder = queue / state / f"{stamp}.000.{number}"
    folder.mkdir(parents=True)
    (folder / "msg").write_text(json.dumps({"dest": queue.name, "due": made, **fields}))
    return folder


def cells(out: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in out.splitlines()}


@pytest.fixture
def mail(rq_instance: RunningInstance) -> Path:
    rq_instance.queue("mail", "#!/bin/sh\n")
    rq_instance.queue("empty", "#!/bin/sh\n")
    queue = rq_instance.directory / "queue" / "mail"
    place(queue, 1, YOUNG, dest="http://b.example.com:3333/q/mail", param1="x")
    place(queue, 2, YOUNG, dest="http://b.example.com:3333/q/other")
    place(queue, 3, MIDDLE, dest="http://c.example.com:3333/q/mail")
    place(queue, 4, OLD, dest="mail")
    place(queue, 5, OLD, due=time.time() + 3600)
    place(queue, 6, OLD, due=time.time() - MIDDLE)
    place(queue, 7, YOUNG, state="prep")
    return queue


def test_by_queue(rq: Rq, mail: Path) -> None:
    found = cells(rq("shape").out)
    assert found["QUEUE"] == [
        "TOTAL", "LATER", "5m", "10m", "20m", "40m", "80m", "2h", "5h", "10h", "21h", ">21h",
    ]  # fmt: skip
    assert found["mail"] == ["6", "1", "2", "2", *".......", "1"]
    assert found["TOTAL"] == found["mail"]
    assert "empty" not in found, "a queue in which nothing waits has no row"
    assert "nothing waits" in rq("shape", "empty").err
    prep = cells(rq("shape", "--state", "prep", "--first", "10s", "--buckets", "2").out)
    assert prep["QUEUE"] == ["TOTAL", "LATER", "10s", "20s", ">20s"]
    assert prep["mail"] == ["1", ".", ".", ".", "1"]


def test_by_destination(rq: Rq, mail: Path) -> None:
    by_host = cells(rq("shape", "mail", "--by", "host").out)
    assert list(by_host) == ["HOST", "TOTAL", "(here)", "b.example.com:3333", "c.example.com:3333"]
    assert by_host["b.example.com:3333"][:3] == ["2", ".", "2"]
    by_dest = cells(rq("shape", "--by", "dest").out)
    assert by_dest["mail"][0] == "3"
    assert by_dest["http://b.example.com:3333/q/other"][0] == "1"
    assert cells(rq("shape", "--by", "param1").out)["(none)"][0] == "5"
    limited = rq("shape", "--by", "dest", "--limit", "1")
    assert "and 3 more" in limited.err


def test_json(rq: Rq, mail: Path) -> None:
    found = rq("shape", "--json", "--buckets", "2").json()
    assert found == {
        "by": "queue", "bounds": [300.0, 600.0],
        "rows": [{"queue": "mail", "total": 6, "later": 1, "ages": [2, 2, 1]}],
    }  # fmt: skip
    assert rq("shape", "empty", "--json").json()["rows"] == []


def test_what_cannot_be_read_is_left_to_the_queue(rq: Rq, mail: Path) -> None:
    place(mail, 8, YOUNG).joinpath("msg").write_text("not json")
    place(mail, 9, YOUNG).joinpath("msg").unlink()
    (mail / "que" / "notes.txt").write_text("no message")
    (mail / "que" / "20260101.0000.00.000.9").mkdir()
    odd = place(mail, 10, YOUNG, due="soon", dest=7)
    assert cells(rq("shape").out)["mail"][0] == "7"
    assert cells(rq("shape", "--by", "dest").out)["7"][0] == "1"
    assert odd.exists()


def test_mistakes(rq: Rq, mail: Path) -> None:
    assert "messages wait in prep and in que" in rq("shape", "--state", "done", status=2).err
    assert "there is no queue nosuch" in rq("shape", "nosuch", status=3).err
    assert "no span of time" in rq("shape", "--first", "x", status=2).err
    assert "sized" not in rq("shape", "--by", "size", status=2).out


@pytest.mark.process
def test_a_store_without_directories_is_asked(rq: Rq, rq_instance: RunningInstance) -> None:
    rq_instance.queue("mail", "#!/bin/sh\n", store="memory")
    rq_instance.start()
    for _ in range(3):
        rq_instance.send("mail", due=4_000_000_000)
    assert cells(rq("shape").out)["mail"][:2] == ["3", "3"]


def test_a_queue_that_cannot_be_looked_at_hides_no_other(rq: Rq, mail: Path) -> None:
    (mail.parent / "bad").mkdir()
    (mail.parent / "bad" / "config.json").write_text("{,")
    told = rq("shape", status=1)
    assert cells(told.out)["mail"][0] == "6"
    assert "queue bad is not counted: " in told.err
    assert "is not JSON" in rq("shape", "bad", status=1).err


@pytest.mark.process
def test_on_a_terminal(rq: Rq, mail: Path) -> None:
    status, seen = rq.on_terminal("shape", "--by", "host")
    assert status == 0
    assert "b.example.com:3333" in seen
