"""Messages over /api/v1, by real curl: created, listed, shown, waited for, moved along."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

MESSAGES = "api/v1/queues/test/messages"
JSON = ("-H", "Content-Type: application/json")


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    """Queues that work, fail, wait and are paused."""
    shared.rq.queue("test", shared.HELLO)
    shared.rq.queue("fails", shared.FAILS)
    shared.rq.queue("waits", shared.WAITS, num_workers=4)
    shared.rq.queue("paused", shared.HELLO)
    shared.rq.queue("down", shared.HELLO)
    (shared.rq.directory / "config/paused.pause").touch()
    (shared.rq.directory / "config/down.down").write_text("its disk is being changed\n")
    return shared.start()


def post(site: Web, path: str, body: Any = None, *options: str) -> Answer:
    given = () if body is None else (*JSON, "--data-binary", "@-")
    data = b"" if body is None else json.dumps(body).encode()
    return site.curl(path, "-X", "POST", *given, *options, stdin=data)


def problem(answer: Answer, status: int, kind: str = "") -> dict[str, Any]:
    """The problem that this answer is."""
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["status"] == status
    assert told["type"] == (f"urn:rqcore:problem:{kind}" if kind else "about:blank")
    assert told["title"]
    assert told["detail"]
    return told


def audit(site: Web) -> list[dict[str, Any]]:
    lines = (site.rq.directory / "log/audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# --- creating


def test_the_trace_of_the_request_is_the_messages(site: Web) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = ("-H", f"traceparent: {parent}", "-H", "tracestate: vendor=1")
    one = post(site, MESSAGES, {}, *headers).json()["msg_id"]
    many = post(site, "api/v1/messages:batch", {"messages": [{"queue": "test"}]}, *headers)
    own = post(site, MESSAGES, {"traceparent": parent.replace("a", "c")}, *headers)
    for msg_id, trace in (
        (one, parent), (many.json()["results"][0]["msg_id"], parent),
        (own.json()["msg_id"], parent.replace("a", "c")),
    ):  # fmt: skip
        site.rq.until("test", msg_id)
        found = site.curl(f"{MESSAGES}/{msg_id}").json()
        assert found["traceparent"] == trace
        assert found.get("tracestate") == ("vendor=1" if trace == parent else None)


def test_it_is_created_and_there(site: Web) -> None:
    answer = post(site, MESSAGES, {"param1": "you", "src": "api"})
    assert answer.status == 201
    made = answer.json()
    assert answer.headers["location"] == made["url"] == f"/{MESSAGES}/{made['msg_id']}"
    assert made["full_id"] == f"http://localhost:{site.port}/q/test/{made['msg_id']}"
    assert (made["queue"], made["state"]) == ("test", "que")
    message = site.rq.until("test", made["msg_id"], "done")
    assert (message["dest"], message["src"], message["param1"]) == ("test", "api", "you")
    line = audit(site)[-1]
    assert (line["action"], line["queue"], line["subject"]) == ("create", "test", made["msg_id"])


@pytest.mark.parametrize(
    ("dest", "queue"),
    [("test", "test"), ("/q/test", "test"), ("/q/paused", "paused")],
)
def test_it_goes_where_its_destination_says(site: Web, dest: str, queue: str) -> None:
    made = post(site, "api/v1/messages", {"dest": dest, "due": 1.5, "count": 2})
    assert made.status == 201
    message = site.rq.message(queue, made.json()["msg_id"])
    assert (message["dest"], message["due"], message["count"]) == (dest, 1.5, 2)


@pytest.mark.parametrize(
    ("dest", "status", "words"),
    [
        ("nobody", 404, "no such queue: nobody"),
        ("http://far.example.com:3333/q/x", 404, "install rqcore-relay"),
        ("a b", 422, "is no destination"),
    ],
)
def test_where_nobody_takes_it(site: Web, dest: str, status: int, words: str) -> None:
    answer = post(site, "api/v1/messages", {"dest": dest})
    told = problem(answer, status, "invalid" if status == 422 else "")
    assert words in told["detail"]


def test_single_que_answers_the_one_that_waits(site: Web) -> None:
    for _ in range(3):
        answer = post(site, "api/v1/queues/paused/messages", {"mode": "single_que"})
        assert answer.status == 200
        assert answer.json()["msg_id"] == site.rq.ask(
            "paused", "list_messages", {"state": "que"}
        )["items"][0]["msg_id"]  # fmt: skip


def test_any_text_goes_through(site: Web) -> None:
    """Also half of a surrogate pair, which no encoding knows, and a byte that is not UTF-8."""
    given = {
        "mode": "prep",
        "param1": "\ud800",
        "param2": "\udcff",
        "param3": "ä€\0",
        "param4": '"\n',
    }
    made = post(site, MESSAGES, given).json()
    shown = site.curl(f"{MESSAGES}/{made['msg_id']}").json()
    assert {key: shown[key] for key in given if key != "mode"} == {
        key: value for key, value in given.items() if key != "mode"
    }


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"param1": 3, "parm2": "x"}, ["param1", "parm2"]),
        ({"due": "soon", "max_count": -1}, ["due", "max_count"]),
        ({"mode": "now"}, ["mode"]),
        ([], [""]),
        ("text", [""]),
    ],
)
def test_what_is_wrong_is_told_field_by_field(site: Web, body: Any, fields: list[str]) -> None:
    told = problem(post(site, MESSAGES, body), 422, "invalid")
    assert [error["field"] for error in told["errors"]] == fields
    assert all(error["message"] for error in told["errors"])
    assert told["instance"] == f"/{MESSAGES}"


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b'{"due": NaN}', "application/json", 400),
        (b'{"count": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"param1": "\xff"}', "application/json", 400),
        (b"dest=test", "application/x-www-form-urlencoded", 415),
        (b"{}", "", 415),
    ],
)
def test_what_cannot_be_read(site: Web, data: bytes, kind: str, status: int) -> None:
    answer = site.curl(
        MESSAGES, "-X", "POST", "-H", f"Content-Type:{kind and ' ' + kind}", "--data-binary", "@-",
        stdin=data,
    )  # fmt: skip
    problem(answer, status)


def test_a_body_that_is_too_long(site: Web) -> None:
    problem(post(site, MESSAGES, {"param1": "x" * (11 << 20)}), 413)
    told = problem(post(site, MESSAGES, {"param1": "x" * (9 << 20)}), 422, "refused")
    assert "too large" in told["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("PUT", MESSAGES, 405, "GET, HEAD, POST"),
        ("TRACE", "api/v1", 405, "GET, HEAD"),
        ("GET", "api/v1/messages:batch", 405, "POST"),
        ("POST", "api/v1/queues/test/messages/1/logs", 405, "GET, HEAD"),
        ("GET", "api/v1/nothing", 404, None),
        ("GET", "api", 404, None),
        ("GET", "api/v2/queues", 404, None),
        ("DELETE", "api/v1/nothing", 404, None),
        ("GET", "api/v1/queues/nobody", 404, None),
        ("GET", "api/v1/queues/a%2Fb", 404, None),
        ("GET", f"{MESSAGES}/nothing", 404, None),
        ("GET", f"{MESSAGES}/20260301.0800.00.000.1/logs/stdio.log", 404, None),
        ("POST", "api/v1/queues/nobody/messages/1/run", 404, None),
    ],
)
def test_what_is_not_there_is_a_problem(
    site: Web, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = site.curl(path, "-X", method)
    problem(answer, status)
    if allow is not None:
        assert ", ".join(sorted(answer.headers["allow"].split(", "))) == allow


def test_a_queue_that_is_down_says_so_and_not_when(site: Web) -> None:
    answer = post(site, "api/v1/queues/down/messages", {})
    told = problem(answer, 503, "queue-down")
    assert told["detail"] == "status: DOWN (down: its disk is being changed)"
    assert (told["queue"], told["reason"]) == ("down", "its disk is being changed")
    sent = problem(post(site, "api/v1/messages", {"dest": "down"}), 503, "queue-down")
    assert sent["queue"] == "down"
    assert "retry-after" not in answer.headers
    assert audit(site)[-1]["outcome"] == "status: DOWN"


# --- many at once


def test_a_batch_is_told_one_by_one(site: Web) -> None:
    before = site.rq.ask("test", "num_messages")
    sent = [
        {"queue": "test", "param1": "one"},
        {"dest": "/q/paused", "mode": "prep"},
        {"dest": "nobody"},
        {"queue": "down"},
        {"queue": "test", "param1": 3},
        {"param1": "nowhere to"},
        {"queue": "test", "mode": "single_que"},
        {"dest": "test", "param1": "last"},
    ]
    answer = post(site, "api/v1/messages:batch", {"messages": sent})
    assert answer.status == 200
    told = answer.json()
    results = told["results"]
    assert [result["status"] for result in results] == [201, 201, 404, 503, 422, 422, 422, 201]
    assert [result["index"] for result in results] == list(range(8))
    assert (told["created"], told["failed"]) == (3, 5)
    assert results[3]["problem"]["type"] == "urn:rqcore:problem:queue-down"
    assert results[4]["problem"]["errors"] == [
        {"field": "param1", "message": "must be text, not a number"}
    ]
    assert results[1]["state"] == "prep"
    for result in (results[0], results[7]):
        site.rq.until("test", result["msg_id"], "done")
    after = site.rq.ask("test", "num_messages")
    assert sum(after.values()) - sum(before.values()) == 2


@pytest.mark.parametrize(
    ("messages", "field"), [([], "messages"), ([{}] * 1001, "messages"), ([{}, "x"], "messages[1]")]
)
def test_a_batch_has_its_limits(site: Web, messages: list[Any], field: str) -> None:
    told = problem(post(site, "api/v1/messages:batch", {"messages": messages}), 422, "invalid")
    assert told["errors"][0]["field"] == field


def test_a_thousand_in_one_batch(site: Web) -> None:
    sent = [{"queue": "paused", "param1": str(number)} for number in range(1000)]
    results = post(site, "api/v1/messages:batch", {"messages": sent}).json()["results"]
    assert [result["status"] for result in results] == [201] * 1000
    assert len({result["msg_id"] for result in results}) == 1000


def test_a_hundred_at_once_have_ids_of_their_own(site: Web, tmp_path: Path) -> None:
    config = tmp_path / "curl"
    config.write_text("\nnext\n".join(
        f'url = "{site.url}{MESSAGES}"\nheader = "Content-Type: application/json"\n'
        f'data = "{{\\"param1\\": \\"{number}\\"}}"\noutput = "{tmp_path}/{number}.json"\n'
        for number in range(100)
    ))  # fmt: skip
    parallel = ("--parallel", "--parallel-immediate", "--parallel-max", "100")
    subprocess.run(["curl", "-sS", *parallel, "-K", str(config)], check=True, timeout=60)
    made = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(100)]
    assert len({one["msg_id"] for one in made}) == 100
    for number, one in enumerate(made):
        assert site.rq.message("test", one["msg_id"])["param1"] == str(number)


# --- prepared


def test_prepared_attached_and_committed(site: Web) -> None:
    made = post(site, MESSAGES, {"mode": "prep", "param1": "x"}).json()
    assert made["state"] == "prep"
    url = made["url"].lstrip("/")
    name = "a%20b%25%C3%A4.bin"
    put = site.curl(
        f"{url}/attachments/{name}", "-T", "-", "-H", "Content-Type:", stdin=b"some bytes"
    )
    problem(put, 422, "invalid")  # a percent sign may not be in a name
    name = "a%20b%C3%A4.bin"
    data = os.urandom(3_000_000)
    put = site.curl(f"{url}/attachments/{name}", "-X", "PUT", "--data-binary", "@-", stdin=data)
    assert put.status == 201
    attached = put.json()
    assert (attached["name"], attached["size"]) == ("a bä.bin", 3_000_000)
    assert put.headers["location"] == attached["url"] == f"/{url}/attachments/{name}"
    assert site.curl(f"{url}/attachments/gone", "-T", "-", stdin=b"gone").status == 201
    assert site.curl(f"{url}/attachments/gone", "-X", "DELETE").status == 204
    shown = site.curl(url).json()
    assert shown["attachments"] == [attached]
    got = site.curl(attached["url"].lstrip("/"))
    assert got.body == data
    part = site.curl(attached["url"].lstrip("/"), "-r", "-100")
    assert (part.status, part.body) == (206, data[-100:])
    outside = site.curl(attached["url"].lstrip("/"), "-r", "3000000-")
    problem(outside, 416)
    assert outside.headers["content-range"] == "bytes */3000000"
    assert post(site, f"{url}/commit").json()["detail"] == "msg commited"
    site.rq.until("test", made["msg_id"], "done")
    problem(post(site, f"{url}/commit"), 404)
    problem(site.curl(f"{url}/attachments/late", "-T", "-", stdin=b"x"), 409, "conflict")
    problem(site.curl(f"{url}/attachments/{name}", "-X", "DELETE"), 409, "conflict")
    assert [line["action"] for line in audit(site)[-5:]] == [
        "prep", "attach", "attach", "detach", "commit"
    ]  # fmt: skip


@pytest.mark.parametrize("name", [".hidden", "a%3Fb", "%7Ex", "x" * 256])
def test_names_that_no_attachment_has(site: Web, name: str) -> None:
    url = post(site, MESSAGES, {"mode": "prep"}).json()["url"].lstrip("/")
    told = problem(site.curl(f"{url}/attachments/{name}", "-T", "-", stdin=b"x"), 422, "invalid")
    assert told["errors"][0]["field"] == "name"


def test_a_file_that_cannot_fit_is_refused_before_it_comes(site: Web) -> None:
    url = post(site, MESSAGES, {"mode": "prep"}).json()["url"].lstrip("/")
    huge = ("-H", f"Content-Length: {1 << 49}", "-H", "Expect: 100-continue")
    answer = site.curl(
        f"{url}/attachments/huge", "-X", "PUT", "--data-binary", "@-", *huge, stdin=b"x"
    )
    problem(answer, 507)


# --- listed


@pytest.fixture(scope="module")
def listed(site: Web) -> list[str]:
    """Ids of twenty messages that failed, newest first."""
    ids = [site.rq.send("fails", param1=f"reason {number % 4}") for number in range(20)]
    for msg_id in ids:
        site.rq.until("fails", msg_id, "err")
    return ids[::-1]


def pages(site: Web, url: str) -> Iterator[list[str]]:
    """The ids of one page after the other, by the Link header."""
    while url:
        answer = site.curl(url)
        assert answer.status == 200
        yield [item["msg_id"] for item in answer.json()["items"]]
        link = re.fullmatch(r'<(/\S*)>; rel="next"', answer.headers.get("link", '</>; rel="next"'))
        assert link is not None
        url = link[1].lstrip("/")
        assert (answer.json()["next"] is None) == (url == "")


@pytest.mark.parametrize("limit", [7, 20, 1000])
def test_pages_follow_each_other(site: Web, listed: list[str], limit: int) -> None:
    found = list(pages(site, f"api/v1/queues/fails/messages?state=err&limit={limit}"))
    assert [one for page in found for one in page] == listed
    assert all(len(page) <= limit for page in found)
    assert len(found) == -(-20 // limit)


def test_a_filter_is_heeded_and_goes_on_to_the_next_page(site: Web, listed: list[str]) -> None:
    url = "api/v1/queues/fails/messages?limit=2&filter=state:err%20status:%3D%22reason%201%22"
    assert [one for page in pages(site, url) for one in page] == listed[2::4]
    item = site.curl(url).json()["items"][0]
    assert item["url"] == f"/api/v1/queues/fails/messages/{item['msg_id']}"
    assert (item["state"], item["status"], item["queue"]) == ("err", "err - reason 1", "fails")


def test_all_of_them_as_lines(site: Web, listed: list[str]) -> None:
    answer = site.curl("api/v1/queues/fails/messages", "-H", "Accept: application/jsonl")
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line)["msg_id"] for line in answer.body.splitlines()] == listed
    empty = site.curl("api/v1/queues/fails/messages?state=que", "-H", "Accept: application/jsonl")
    assert (empty.status, empty.body) == (200, b"")
    head = site.curl("api/v1/queues/fails/messages", "-I", "-H", "Accept: application/jsonl")
    assert (head.status, head.body.strip()) == (200, b"")


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("state=bad", ["state"]),
        ("limit=0", ["limit"]),
        ("limit=many", ["limit"]),
        ("limit=1001", ["limit"]),
        ("limit=1&limit=2", ["limit", "limit"]),
        ("cursor=here", ["cursor"]),
        ("filter=stat:err", ["filter"]),
        ("page=2", ["page"]),
    ],
)
def test_queries_that_say_nothing(site: Web, query: str, fields: list[str]) -> None:
    told = problem(site.curl(f"{MESSAGES}?{query}"), 422, "invalid")
    assert [error["field"] for error in told["errors"]] == fields


# --- shown and waited for


def test_a_message_with_all_it_has(site: Web) -> None:
    made = post(site, "api/v1/queues/fails/messages", {"param1": "of itself"}).json()
    site.rq.until("fails", made["msg_id"], "err")
    answer = site.curl(made["url"].lstrip("/"))
    shown = answer.json()
    assert shown["status"] == "err - of itself"
    assert shown["attachments"] == []
    assert "path" not in shown
    (run,) = shown["runs"]
    assert (run["state"], run["status"]) == ("err", "of itself")
    assert shown["created_at"] <= run["began"] <= run["ended"]
    again = site.curl(made["url"].lstrip("/"), "-H", f"If-None-Match: {answer.headers['etag']}")
    assert (again.status, again.body) == (304, b"")
    head = site.curl(made["url"].lstrip("/"), "-I")
    assert (head.status, head.body.strip()) == (200, b"")
    assert head.headers["etag"] == answer.headers["etag"]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def test_waiting_until_it_is_done(site: Web, gate: Path) -> None:
    made = post(site, "api/v1/queues/waits/messages", {"param1": str(gate)}).json()
    url = made["url"].lstrip("/")
    running = site.curl(f"{url}?until=run", "-H", "Prefer: wait=30")
    assert running.json()["state"] == "run"
    answers: list[Answer] = []
    waiter = threading.Thread(
        target=lambda: answers.append(site.curl(url, "-H", "Prefer: respond-async, wait=60"))
    )
    waiter.start()
    with gate.open("w"):
        pass
    waiter.join(30)
    (answer,) = answers
    assert (answer.json()["state"], answer.json()["status"]) == ("done", "done - waited")
    assert answer.headers["preference-applied"] == "wait=60"


def test_waiting_in_vain(site: Web) -> None:
    made = post(site, MESSAGES, {"mode": "prep"}).json()
    answer = site.curl(made["url"].lstrip("/"), "-H", "Prefer: wait=1")
    assert (answer.status, answer.json()["state"]) == (200, "prep")
    assert answer.headers["preference-applied"] == "wait=1"


def test_waiting_for_what_is_deleted_meanwhile(site: Web) -> None:
    made = post(site, MESSAGES, {"mode": "prep"}).json()
    url = made["url"].lstrip("/")
    answers: list[Answer] = []
    waiter = threading.Thread(
        target=lambda: answers.append(site.curl(url, "-H", "Prefer: wait=60"))
    )
    waiter.start()
    assert site.curl(url, "-X", "DELETE").status == 204
    waiter.join(30)
    problem(answers[0], 404)


# --- moved along


def test_run_kill_retry_clone_delete(site: Web, gate: Path) -> None:
    made = post(
        site, "api/v1/queues/waits/messages", {"param1": str(gate), "due": 99_999_999_999}
    ).json()
    url = made["url"].lstrip("/")
    problem(post(site, f"{url}/retry"), 409, "conflict")
    problem(post(site, f"{url}/kill"), 409, "conflict")
    problem(post(site, f"{url}/clone"), 409, "conflict")
    assert post(site, f"{url}/run").json()["detail"] == "msg sent to front of run queue"
    site.rq.until("waits", made["msg_id"], "run", matching=lambda m: "waiting" in m["status"])
    assert problem(post(site, f"{url}/run"), 409, "conflict")["detail"] == "msg already running"
    problem(site.curl(url, "-X", "DELETE"), 409, "conflict")
    killed = post(site, f"{url}/kill")
    assert (killed.status, killed.json()["detail"]) == (202, "msg destroyed")
    site.rq.until("waits", made["msg_id"], "err")
    copy = post(site, f"{url}/clone")
    assert copy.status == 201
    assert copy.headers["location"] == copy.json()["url"]
    assert post(site, f"{url}/retry").json()["queue"] == "waits"
    for msg_id in (made["msg_id"], copy.json()["msg_id"]):
        site.rq.until("waits", msg_id, "run", matching=lambda m: "waiting" in m["status"])
    assert post(site, f"{copy.headers['location'].lstrip('/')}/kill").status == 202
    site.rq.until("waits", copy.json()["msg_id"], "err")
    with gate.open("w"):
        pass
    site.rq.until("waits", made["msg_id"], "done")
    for msg_id in (made["msg_id"], copy.json()["msg_id"]):
        assert site.curl(f"api/v1/queues/waits/messages/{msg_id}", "-X", "DELETE").status == 204
        problem(site.curl(f"api/v1/queues/waits/messages/{msg_id}"), 404)
    shown = [(line["action"], line["outcome"]) for line in audit(site)]
    assert ("kill", "ok") in shown
    assert ("retry", "ok") in shown


def test_a_queue_that_is_down_can_be_looked_at_and_cleared(site: Web) -> None:
    (site.rq.directory / "config/down.down").unlink()
    msg_id = ""
    while not msg_id:  # until its process has seen that it is up
        answer = post(site, "api/v1/queues/down/messages", {"mode": "prep"})
        msg_id = answer.json().get("msg_id", "")
    (site.rq.directory / "config/down.down").touch()
    url = f"api/v1/queues/down/messages/{msg_id}"
    while post(site, f"{url}/commit").status != 503:
        pass
    shown = site.curl(url)
    assert shown.status == 200
    assert site.curl(url, "-X", "DELETE").status == 204


def test_what_is_to_be_routed_goes_to_the_router_where_there_is_one(web: Web) -> None:
    for name in ("test", "rq_router", "relay"):
        web.rq.queue(name, web.HELLO)
    web.start()
    fields = {"dest": "http://elsewhere:3333/q/test", "mode": "prep", "routed": True}

    def taken_by(queue: str, **more: Any) -> str:
        answer = post(web, f"api/v1/queues/{queue}/messages", {**fields, **more})
        assert answer.status == 201, answer.text
        made = answer.json()
        assert f"/queues/{made['queue']}/" in answer.headers["location"]
        assert web.curl(made["url"].lstrip("/")).json()["dest"] == fields["dest"]
        return str(made["queue"])

    assert taken_by("test") == "test"
    assert post(web, "api/v1/queues/none/messages", fields).status == 404
    (web.rq.directory / "config" / "rq_router_rules.toml").touch()
    assert [taken_by(name) for name in ("test", "none", "relay")] == [
        "rq_router",
        "rq_router",
        "relay",
    ]
    assert taken_by("test", routed=False) == "test"
    # What is said with a key is said of the queue that takes it.
    key = ("-H", "Idempotency-Key: k")
    answers = [post(web, "api/v1/queues/none/messages", fields, *key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
