"""Idempotency keys: what is sent twice is done once, also when the service dies in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_web.api import keys
from rqcore_web.api.keys import Keys

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

MESSAGES = "api/v1/queues/test/messages"
#: A plugin that has the web service die at a chosen word to a queue: before it is sent, or after it is
#: answered.  The file `die` says where: ``before commit_message``.
DIES = """
import os
from pathlib import Path

from rqcore.hookspecs import hookimpl


@hookimpl(optionalhook=True)
def rq_web_routes(site):
    from rqcore_web.asking import Peer

    file = Path(site.instance.directory) / "die"
    ask = Peer.ask

    async def asking(self, command, args=None):
        if file.exists() and file.read_text() == f"before {command}":
            file.unlink()
            os._exit(1)
        answer = await ask(self, command, args)
        if file.exists() and file.read_text() == f"after {command}":
            file.unlink()
            os._exit(1)
        return answer

    Peer.ask = asking
    return []
"""


def post(web: Web, path: str, body: Any, key: str, *options: str) -> Answer:
    given = ("-H", "Content-Type: application/json", "--data-binary", "@-", *options)
    return web.curl(
        path, "-X", "POST", *given, "-H", f"Idempotency-Key: {key}", stdin=json.dumps(body).encode()
    )


def problem(answer: Answer, status: int, kind: str) -> dict[str, Any]:
    assert answer.status == status, answer.text
    told: dict[str, Any] = answer.json()
    assert told["type"] == f"urn:rqcore:problem:{kind}"
    return told


def number(web: Web, name: str = "test") -> int:
    """How many messages the queue has, whatever their state."""
    counts: dict[str, int] = web.rq.ask(name, "num_messages")
    return sum(counts.values())


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("test", shared.HELLO)
    shared.rq.queue("paused", shared.HELLO)
    shared.rq.queue("down", shared.HELLO)
    (shared.rq.directory / "config/paused.pause").touch()
    (shared.rq.directory / "config/down.down").touch()
    return shared.start()


@pytest.mark.parametrize("body", [{"param1": "x"}, {"mode": "prep"}, {"mode": "single_que"}])
def test_the_same_again_is_the_same(site: Web, body: dict[str, Any]) -> None:
    path, key = "api/v1/queues/paused/messages", f"same-{body}"
    first = post(site, path, body, key)
    assert "idempotent-replayed" not in first.headers
    before = number(site, "paused")
    for _ in range(2):
        again = post(site, path, body, key)
        assert (again.status, again.body) == (first.status, first.body)
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotent-replayed"] == "true"
    assert number(site, "paused") == before


def test_a_key_is_for_one_thing(site: Web) -> None:
    assert post(site, MESSAGES, {"param1": "1"}, "one").status == 201
    problem(post(site, MESSAGES, {"param1": "2"}, "one"), 422, "key-reused")
    # Another operation has keys of its own.
    assert post(site, "api/v1/messages", {"dest": "test"}, "one").status == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "täg"])
def test_keys_that_are_none(site: Web, key: str) -> None:
    sent = f"Idempotency-Key;{key}" if not key else f"Idempotency-Key: {key}"
    answer = site.curl(
        MESSAGES, "-X", "POST", "-H", "Content-Type: application/json", "-d", "{}", "-H",
        sent if key else "Idempotency-Key;",
    )  # fmt: skip
    problem(answer, 400, "key-invalid")


def test_what_was_refused_can_be_sent_again(site: Web) -> None:
    path = "api/v1/queues/down/messages"
    for _ in range(2):
        problem(post(site, path, {}, "refused"), 503, "queue-down")
    problem(post(site, path, {"due": "x"}, "refused"), 422, "invalid")
    assert number(site, "down") == 0


def test_a_hundred_with_one_key_make_one(site: Web) -> None:
    before = number(site)
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(post(site, MESSAGES, {"src": "x"}, "all")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert number(site) == before + 1
    made = {answer.json()["msg_id"] for answer in answers if answer.status == 201}
    assert len(made) == 1
    for answer in answers:
        if answer.status != 201:
            problem(answer, 409, "key-in-use")
            assert answer.headers["retry-after"] == "1"


def test_a_batch_is_done_once(site: Web) -> None:
    batch = {
        "messages": [{"queue": "paused", "param1": str(n)} for n in range(50)] + [{"queue": "down"}]
    }
    first = post(site, "api/v1/messages:batch", batch, "batch")
    assert (first.json()["created"], first.json()["failed"]) == (50, 1)
    before = number(site, "paused")
    again = post(site, "api/v1/messages:batch", batch, "batch")
    assert again.body == first.body
    assert number(site, "paused") == before


def test_other_things_are_done_once_too(site: Web) -> None:
    msg_id = site.rq.send("test")
    site.rq.until("test", msg_id, "done")
    before = number(site)
    clones = [post(site, f"{MESSAGES}/{msg_id}/clone", None, "clone") for _ in range(2)]
    assert clones[0].status == clones[1].status == 201
    assert clones[0].json() == clones[1].json()
    assert number(site) == before + 1
    bulk = {"action": "delete", "filter": "state:prep"}
    jobs = [post(site, f"{MESSAGES}:bulk", bulk, "bulk") for _ in range(2)]
    assert jobs[0].json()["id"] == jobs[1].json()["id"]


def test_a_commit_is_done_once(site: Web) -> None:
    msg_id = site.rq.ask("test", "prep_message", {"dest": "test"}).rpartition("/")[2]
    path = f"{MESSAGES}/{msg_id}/commit"
    first = post(site, path, None, "commit")
    assert first.status == 200
    site.rq.until("test", msg_id, "done")
    again = post(site, path, None, "commit")
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    # Without the key, or with another, it is what it is: not in prep.
    for key in ("commit2", "commit3"):
        assert post(site, path, None, key).status == 404


def test_a_queue_is_made_once(web: Web) -> None:
    web.rq.configure(allow_new_queue=True)
    web.rq.script("new.script", web.HELLO)
    web.start()
    config = {"name": "new", "script": "code/new.script"}
    queues = [post(web, "api/v1/queues", config, "queue") for _ in range(2)]
    assert [queue.status for queue in queues] == [201, 201]
    assert queues[0].json() == queues[1].json()


# --- the service dies


@pytest.fixture
def mortal(web: Web) -> Web:
    """A site whose service dies where the file ``die`` says."""
    web.rq.plugin("dies", DIES)
    web.rq.queue("test", web.HELLO)
    return web.start()


def die(web: Web, where: str) -> None:
    (web.rq.directory / "die").write_text(where)


def until_served(web: Web, pid: int) -> None:
    """Wait until the service runs again; the manager tells."""
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=30)
        while True:
            (found,) = [
                child
                for child in web.rq.manager.ask("describe")["children"]
                if child["kind"] == "service"
            ]
            if found["state"] == "running" and found["pid"] != pid:
                return
            next(events)


def lost(web: Web, where: str, path: str, body: Any, key: str) -> None:
    """Send it; the service dies on the way."""
    pid = web.pid()
    die(web, where)
    with pytest.raises(AssertionError, match=r"curl: \((52|56)\)"):
        post(web, path, body, key)
    until_served(web, pid)


@pytest.mark.parametrize("where", ["before commit_message", "after commit_message"])
def test_a_commit_is_done_once_wherever_the_service_dies(mortal: Web, where: str) -> None:
    msg_id = mortal.rq.ask("test", "prep_message", {"dest": "test"}).rpartition("/")[2]
    path = f"{MESSAGES}/{msg_id}/commit"
    lost(mortal, where, path, None, "k")
    if where.startswith("after"):
        mortal.rq.until("test", msg_id, "done")
    answers = [post(mortal, path, None, "k") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert ("committed before" in answers[0].json()["detail"]) == where.startswith("after")
    mortal.rq.until("test", msg_id, "done")
    assert number(mortal) == 1


def test_of_a_commit_whose_message_is_gone_nobody_knows(mortal: Web) -> None:
    msg_id = mortal.rq.ask("test", "prep_message", {"dest": "test"}).rpartition("/")[2]
    path = f"{MESSAGES}/{msg_id}/commit"
    lost(mortal, "after commit_message", path, None, "k")
    mortal.rq.until("test", msg_id, "done")
    mortal.rq.ask("test", "delete_message", {"msg_id": msg_id})
    problem(post(mortal, path, None, "k"), 409, "key-outcome-unknown")


def test_an_answer_outlives_the_service(mortal: Web) -> None:
    first = post(mortal, MESSAGES, {"param1": "x"}, "k")
    pid = mortal.pid()
    os.kill(pid, signal.SIGKILL)
    until_served(mortal, pid)
    again = post(mortal, MESSAGES, {"param1": "x"}, "k")
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("before prep_message", 0),  # nothing had happened
        ("after prep_message", 1),  # what was prepared never runs, and another one is made
        ("before commit_message", 0),  # its id was written down: it is committed now
        ("after commit_message", 0),  # it had been committed, and is found
    ],
)
def test_a_message_runs_once_wherever_the_service_dies(mortal: Web, where: str, left: int) -> None:
    lost(mortal, where, MESSAGES, {"param1": "x"}, "k")
    answers = [post(mortal, MESSAGES, {"param1": "x"}, "k") for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body == answers[1].body
    mortal.rq.until("test", answers[0].json()["msg_id"], "done")
    counts = mortal.rq.ask("test", "num_messages")
    assert (counts["done"], counts["prep"], sum(counts.values())) == (1, left, 1 + left)


@pytest.mark.parametrize(
    "where",
    ["before reserve_id", "after reserve_id", "before prep_reserved", "after prep_reserved"],
)
def test_a_message_is_prepared_once_wherever_the_service_dies(mortal: Web, where: str) -> None:
    fields = {"param1": "x", "mode": "prep"}
    lost(mortal, where, MESSAGES, fields, "k")
    answers = [post(mortal, MESSAGES, fields, "k") for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body == answers[1].body
    counts = mortal.rq.ask("test", "num_messages")
    assert (counts["prep"], sum(counts.values())) == (1, 1)
    assert mortal.rq.message("test", answers[0].json()["msg_id"])["state"] == "prep"


def test_a_batch_runs_once_when_the_service_dies_in_the_middle(mortal: Web) -> None:
    batch = {"messages": [{"queue": "test", "param1": str(n)} for n in range(20)]}
    lost(mortal, "after commit_message", "api/v1/messages:batch", batch, "k")
    answer = post(mortal, "api/v1/messages:batch", batch, "k")
    assert (answer.json()["created"], answer.json()["failed"]) == (20, 0)
    for result in answer.json()["results"]:
        mortal.rq.until("test", result["msg_id"], "done")
    assert number(mortal) == 20


def test_where_nobody_knows_it_is_said(mortal: Web) -> None:
    """A clone has no id before it is made; and a message may be gone when it is asked for again."""
    msg_id = mortal.rq.send("test")
    mortal.rq.until("test", msg_id, "done")
    lost(mortal, "after clone_message", f"{MESSAGES}/{msg_id}/clone", None, "k")
    for _ in range(2):
        answer = post(mortal, f"{MESSAGES}/{msg_id}/clone", None, "k")
        assert "look whether" in problem(answer, 409, "key-outcome-unknown")["detail"]
    assert number(mortal) == 2
    lost(mortal, "after commit_message", MESSAGES, {}, "m")
    for state in ("done", "que", "run"):
        for item in mortal.rq.ask("test", "list_messages", {"state": state})["items"]:
            mortal.rq.until("test", item["msg_id"], "done")
            mortal.rq.ask("test", "delete_message", {"msg_id": item["msg_id"]})
    for _ in range(2):
        told = problem(post(mortal, MESSAGES, {}, "m"), 409, "key-outcome-unknown")
        assert "is not there any more" in told["detail"]
    assert number(mortal) == 0


@pytest.mark.parametrize("path", [MESSAGES, f"{MESSAGES}/20200101.0000.00.000.1/clone"])
def test_without_a_place_for_the_key_nothing_is_done(web: Web, path: str) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    file = web.rq.directory / "var/web/idempotency.jsonl"
    file.unlink()
    file.mkdir()
    for _ in range(2):
        problem(post(web, path, {}, "k"), 503, "storage")
    assert number(web) == 0
    file.rmdir()
    if path == MESSAGES:
        assert post(web, path, {}, "k").status == 201


# --- what is kept


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def answer_of(n: int) -> dict[str, Any]:
    return {"status": 201, "headers": {}, "body": f"{n}"}


def test_entries_are_read_again(file: Path) -> None:
    async def fill() -> None:
        known = Keys(file)
        done, planned, begun, gone = (known.new(name, "p") for name in ("d", "p", "b", "g"))
        await asyncio.gather(known.write(done), known.write(begun), known.write(gone))
        await asyncio.gather(
            known.finish(done, answer_of(1)), known.write(planned, plan={"0": "id"})
        )
        await known.write(planned, plan={"1": "id1"})
        await known.drop(gone)
        known.new("never written", "p")

    asyncio.run(fill())
    found = Keys(file)
    for name, answer, plan in (
        ("d", answer_of(1), {}), ("p", None, {"0": "id", "1": "id1"}), ("b", None, {}),
    ):  # fmt: skip
        entry = found.get(name)
        assert entry is not None
        assert (entry.answer, entry.plan, entry.running, entry.written) == (
            answer,
            plan,
            False,
            True,
        )
    assert found.get("g") is None
    assert found.get("never written") is None


def test_a_line_that_a_crash_cut_short_spoils_nothing(file: Path) -> None:
    async def write(name: str) -> None:
        known = Keys(file)
        await known.write(known.new(name, "p"))

    asyncio.run(write("a"))
    with file.open("ab") as cut:
        cut.write(b'{"key": "half')
    asyncio.run(write("b"))
    assert all(json.loads(line) for line in file.read_text().splitlines())
    assert [Keys(file).get(name) is not None for name in ("a", "b")] == [True, True]


def test_so_many_are_kept_and_the_file_does_not_grow(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MOST", 10)
    monkeypatch.setattr(keys, "_SLACK", 2000)

    async def fill() -> Keys:
        known = Keys(file)
        for n in range(200):
            entry = known.new(str(n), "p")
            await known.finish(entry, answer_of(n))
        return known

    for found in (asyncio.run(fill()), Keys(file)):
        assert [n for n in range(200) if found.get(str(n))] == list(range(190, 200))
    assert file.stat().st_size < 10_000
    monkeypatch.setattr(keys, "MOST_BYTES", file.stat().st_size // 3)
    found = Keys(file)
    assert 0 < len([n for n in range(200) if found.get(str(n))]) < 10


def test_they_are_kept_for_a_day(file: Path) -> None:
    lines = [{"key": str(age), "print": "p", "at": time() - age} for age in (90_000, 86_000)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = Keys(file)
    assert found.get("90000") is None
    assert found.get("86000") is not None


def test_a_disk_that_takes_nothing(file: Path) -> None:
    known = Keys(file)
    file.unlink()
    file.mkdir()

    async def fill() -> None:
        entry = known.new("a", "p")
        with pytest.raises(OSError, match="directory"):
            await known.write(entry)
        assert not entry.written
        await known.finish(entry, answer_of(1))
        assert known.get("a") is entry
        assert entry.answer == answer_of(1)

    asyncio.run(fill())
