"""Queues over /api/v1, by real curl: made, configured, taken up and down; health; who may what."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_web.access import Who
from rqcore_web.api.operations import Operation
from rqcore_web.api.queueconfig import merged
from rqcore_web.api.routes import Endpoint
from rqcore_web.api.table import OPERATIONS
from rqcore_web.options import SCOPES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Answer, Web

JSON = ("-H", "Content-Type: application/json")
CONFIG = "api/v1/queues/test/config"


def send(web: Web, method: str, path: str, body: Any = None, *options: str) -> Answer:
    given = () if body is None else (*JSON, "--data-binary", "@-")
    data = b"" if body is None else json.dumps(body).encode()
    return web.curl(path, "-X", method, *given, *options, stdin=data)


def problem(answer: Answer, status: int, kind: str = "") -> dict[str, Any]:
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["type"] == (f"urn:rqcore:problem:{kind}" if kind else "about:blank")
    return told


def config_file(web: Web) -> Path:
    return web.rq.directory / "queue/test/config.json"


# --- looked at


def test_listed_and_shown(web: Web) -> None:
    web.rq.queue("test", web.HELLO, num_workers=3)
    web.rq.queue("cleaner", web.HELLO)
    web.rq.queue("another", web.HELLO)
    web.rq.queue("broken", web.HELLO, num_workers=0)
    web.start()
    web.rq.until("test", web.rq.send("test"), "done")
    items = web.curl("api/v1/queues").json()["items"]
    assert [item["name"] for item in items] == ["another", "broken", "test", "cleaner"]
    shown = web.curl("api/v1/queues/test").json()
    assert (shown["status"], shown["admin"], shown["oper"]) == ("UP", "UP", "UP")
    assert (shown["alive"], shown["workers"], shown["counts"]["done"]) == (True, 3, 1)
    assert shown["url"] == "/api/v1/queues/test"
    broken = web.curl("api/v1/queues/broken").json()
    assert (broken["alive"], broken["status"]) == (False, "ERROR")
    assert "num_workers" in broken["problem"]
    # Nothing can be asked of it, and nobody knows when it can be: no Retry-After.
    answer = send(web, "POST", "api/v1/queues/broken/messages", {})
    assert "num_workers" in problem(answer, 503, "queue-unreachable")["detail"]
    assert "retry-after" not in answer.headers


def test_a_queue_that_is_being_started_again_says_when_to_ask(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    pid = web.curl("api/v1/queues/test").json()["pid"]
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    answer = send(web, "POST", "api/v1/queues/test/messages", {})
    while answer.status != 503:  # it may have been quicker
        pid = web.curl("api/v1/queues/test").json()["pid"]
        if pid:
            os.kill(pid, signal.SIGKILL)
        answer = send(web, "POST", "api/v1/queues/test/messages", {})
    problem(answer, 503, "queue-unreachable")
    assert int(answer.headers["retry-after"]) > 0


def test_the_instance_and_its_plugins(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    found = web.curl("api/v1").json()
    assert {(p["kind"], p["name"], p["state"]) for p in found["processes"]} == {
        ("queue", "test", "running"), ("service", "web", "running")
    }  # fmt: skip
    assert found["who"] == "anonymous"
    told = web.curl("api/v1/plugins").json()
    assert told["queues"].keys() == {"test"}
    for report in (told["manager"], told["web"], told["queues"]["test"]):
        assert "web" in json.dumps(report)


def test_what_is_planned(web: Web) -> None:
    schedule = [
        {"cron": "0 6 * * *", "param1": "early", "tz": "UTC"},
        {"cron": "every day"},
        {"cron": "*/5 * * * *"},
    ]
    web.rq.queue("test", web.HELLO, schedule=schedule)
    web.rq.queue("broken", web.HELLO, num_workers=0)
    web.start()
    told = web.curl("api/v1/queues/test/schedule?runs=3").json()
    assert [entry["cron"] for entry in told["items"]] == ["0 6 * * *", "*/5 * * * *"]
    assert [len(entry["next_runs"]) for entry in told["items"]] == [3, 3]
    assert "schedule[1]" in told["problems"][0]
    everything = web.curl("api/v1/schedule").json()
    assert [entry["cron"] for entry in everything["items"]] == ["*/5 * * * *", "0 6 * * *"]
    assert any("num_workers" in line for line in everything["problems"])
    problem(web.curl("api/v1/queues/broken/schedule"), 409, "conflict")


# --- made and removed


def test_queues_are_not_made_unless_it_is_allowed(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    config = {"name": "new", "script": "code/test.script"}
    told = problem(send(web, "POST", "api/v1/queues", config), 403, "creation-off")
    assert "allow_new_queue" in told["detail"]
    problem(send(web, "DELETE", "api/v1/queues/test"), 403, "creation-off")
    assert web.curl("api/v1/queues").json()["items"][0]["name"] == "test"


def test_a_queue_is_made_and_removed(web: Web) -> None:
    web.rq.configure(allow_new_queue=True)
    web.rq.script("new.script", web.HELLO)
    web.start()
    config = {"name": "new", "script": "code/new.script", "num_workers": "2"}
    made = send(web, "POST", "api/v1/queues", config)
    assert (made.status, made.headers["location"]) == (201, "/api/v1/queues/new")
    assert (made.json()["status"], made.json()["workers"]) == ("UP", 2)
    assert send(web, "POST", "api/v1/queues/new/messages", {}).status == 201
    problem(send(web, "POST", "api/v1/queues", config), 409, "conflict")
    assert send(web, "DELETE", "api/v1/queues/new").status == 204
    problem(web.curl("api/v1/queues/new"), 404)
    problem(send(web, "DELETE", "api/v1/queues/new"), 404)
    lines = (web.rq.directory / "log/audit.jsonl").read_text().splitlines()
    noted = [(line["action"], line["queue"], line["outcome"]) for line in map(json.loads, lines)]
    assert noted == [
        ("create queue", "new", "ok"),
        ("create", "new", "ok"),
        ("create queue", "new", "already created"),
        ("delete queue", "new", "ok"),
    ]


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({"name": "a/b", "script": "x"}, ["name"]),
        ({"name": "new", "script": "", "num_workers": 500}, ["script", "num_workers"]),
        (
            {"name": "new", "script": "x", "num_workers": "many", "fsync": "maybe"},
            ["num_workers", "fsync"],
        ),
        ({"script": "x"}, ["name"]),
    ],
)
def test_a_queue_that_is_wrong_is_told_all_that_is(
    web: Web, config: dict[str, Any], fields: list[str]
) -> None:
    web.rq.configure(allow_new_queue=True)
    web.start()
    told = problem(send(web, "POST", "api/v1/queues", config), 422, "invalid")
    assert [error["field"] for error in told["errors"]] == fields


# --- up and down


def test_states_and_restart(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    for action, admin in (
        ("pause", "PAUSE"), ("down", "DOWN"), ("up", "PAUSE"), ("resume", "UP"), ("resume", "UP"),
    ):  # fmt: skip
        answer = send(web, "POST", f"api/v1/queues/test/{action}")
        assert (answer.status, answer.json()) == (200, {"name": "test", "admin": admin})
    before = web.curl("api/v1/queues/test").json()["pid"]
    assert send(web, "POST", "api/v1/queues/test/restart").status == 200
    after = web.curl("api/v1/queues/test").json()
    assert after["alive"]
    assert after["pid"] != before
    problem(send(web, "POST", "api/v1/queues/nobody/pause"), 404)


# --- configured


def test_a_config_is_changed_by_who_has_seen_it(web: Web) -> None:
    web.rq.queue("test", web.HELLO, num_workers=1, env_vars={"A": "1"})
    web.start()
    answer = web.curl(CONFIG)
    config, etag = answer.json(), answer.headers["etag"]
    assert config == json.loads(config_file(web).read_text())
    assert web.curl(CONFIG, "-H", f"If-None-Match: {etag}").status == 304
    told = problem(send(web, "PATCH", CONFIG, {"num_workers": 2}), 428, "precondition-missing")
    assert "If-Match" in told["detail"]
    changed = send(web, "PATCH", CONFIG, {"num_workers": 2}, "-H", f"If-Match: {etag}")
    assert (changed.status, changed.json()) == (200, {"queue": "test", "warnings": []})
    assert web.curl(f"{CONFIG}/effective").json()["num_workers"] == 2
    now = web.curl(CONFIG)
    assert now.json() == {**config, "num_workers": 2}
    assert now.headers["etag"] == changed.headers["etag"] != etag
    stale = send(web, "PATCH", CONFIG, {"num_workers": 3}, "-H", f"If-Match: {etag}")
    problem(stale, 412, "precondition-failed")
    assert stale.headers["etag"] == now.headers["etag"]
    put = {**config, "num_workers": 4, "fsync": "no-fsync", "schedule": [{"cron": "never"}]}
    replaced = send(web, "PUT", CONFIG, put, "-H", "If-Match: *")
    assert replaced.status == 200
    assert [one["field"] for one in replaced.json()["warnings"]] == ["schedule[0].cron", "fsync"]
    assert json.loads(config_file(web).read_text()) == put
    line = json.loads((web.rq.directory / "log/audit.jsonl").read_text().splitlines()[-1])
    assert (line["action"], line["subject"]) == ("configure", "fsync, num_workers, schedule")


@pytest.mark.parametrize(
    ("change", "status", "kind", "fields"),
    [
        ({"num_workers": 0, "script": None}, 422, "invalid", ["script", "num_workers"]),
        ({"name": "other"}, 422, "invalid", ["name"]),
        ({"script": "/bin/sh"}, 403, "creation-off", None),
        ({"exec_prefix": "sh -c "}, 403, "creation-off", None),
        ({"env_vars": {"LD_PRELOAD": "x.so"}}, 403, "creation-off", None),
        ({"anything_of_a_plugin": 1}, 403, "creation-off", None),
    ],
)
def test_what_a_config_may_not_become(
    web: Web, change: dict[str, Any], status: int, kind: str, fields: list[str] | None
) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    before = config_file(web).read_bytes()
    answer = send(web, "PATCH", CONFIG, change, "-H", "If-Match: *")
    told = problem(answer, status, kind)
    if fields is not None:
        assert [error["field"] for error in told["errors"]] == fields
    assert config_file(web).read_bytes() == before


def test_where_queues_may_be_made_all_can_be_changed(web: Web) -> None:
    web.rq.configure(allow_new_queue=True)
    web.rq.queue("test", web.HELLO)
    web.start()
    script = web.rq.script("other", '#!/bin/sh\necho "done $WORD" >&3\n')
    change = {"script": str(script), "env_vars": {"WORD": "changed"}}
    options = ("-H", "If-Match: *", "-H", "Content-Type: application/merge-patch+json")
    answer = web.curl(CONFIG, "-X", "PATCH", *options, "-d", json.dumps(change))
    assert answer.status == 200
    assert web.rq.until("test", web.rq.send("test"))["status"] == "done - changed"


def test_a_config_that_cannot_be_read_can_be_replaced(web: Web) -> None:
    web.rq.configure(allow_new_queue=True)
    web.rq.queue("test", web.HELLO)
    good = json.loads(config_file(web).read_text())
    config_file(web).write_text("{")
    web.start()
    answer = web.curl(CONFIG)
    problem(answer, 409, "conflict")
    etag = answer.headers["etag"]
    problem(send(web, "PATCH", CONFIG, {}, "-H", f"If-Match: {etag}"), 409, "conflict")
    assert send(web, "PUT", CONFIG, good, "-H", f"If-Match: {etag}").status == 200
    web.rq.until("test", web.rq.send("test"), "done")


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": "foo"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ],
)
def test_a_merge_patch_is_as_the_standard_has_it(old: Any, patch: Any, new: Any) -> None:
    assert merged(old, patch) == new


# --- health


@pytest.mark.parametrize("prefix", ["", "api/v1/"])
def test_health(web: Web, prefix: str) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    live = web.curl(f"{prefix}livez")
    assert (live.status, live.json()) == (200, {"ready": True, "checks": {}})
    for name in ("readyz", "healthz"):
        answer = web.curl(f"{prefix}{name}")
        assert answer.status == 200
        assert answer.json() == {
            "ready": True,
            "checks": {
                "manager": {"ok": True, "detail": "answers"},
                "spool": {"ok": True, "detail": "takes files"},
                "space": {"ok": True, "detail": "enough"},
            },
        }
    assert os.listdir(web.rq.directory / "queue") == ["test"]


def test_health_without_space(web: Web) -> None:
    web.rq.configure(plugins={"web": {"keep_free": 1 << 50}})
    web.start()
    told = problem(web.curl("readyz"), 503, "not-ready")
    assert told["ready"] is False
    assert [name for name, check in told["checks"].items() if not check["ok"]] == ["space"]
    assert web.curl("livez").status == 200


def test_health_where_nothing_can_be_written(web: Web) -> None:
    """A file in the way stands for a disk that takes none: root may write in any directory."""
    web.start()
    (web.rq.directory / "queue").rename(web.rq.directory / "elsewhere")
    (web.rq.directory / "queue").touch()
    told = problem(web.curl("readyz"), 503, "not-ready")
    assert told["checks"]["spool"] == {"ok": False, "detail": "Not a directory"}
    (web.rq.directory / "queue").unlink()
    (web.rq.directory / "elsewhere").rename(web.rq.directory / "queue")


# --- who may what


def asked(operation: Operation, who: Who) -> int:
    """The status that this operation answers to him; nothing but the question is there."""
    path = re.sub(r"\{\w+\}", "x", operation.path)
    names = re.findall(r"\{(\w+)\}", operation.path)
    scope = {
        "type": "http", "method": operation.method, "path": path, "query_string": b"",
        "headers": [], "state": {"who": who}, "path_params": dict.fromkeys(names, "x"),
        "app": SimpleNamespace(state=SimpleNamespace(site=SimpleNamespace(url="/{}".format))),
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("its body was read before it was known whether he may")

    async def take(message: Any) -> None:
        sent.append(message)

    endpoint: Any = Endpoint(None, None, {operation.method: operation})  # type: ignore[arg-type]
    asyncio.run(endpoint(scope, receive, take))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "operation", [o for o in OPERATIONS if o.scope and o.handler], ids=lambda o: o.id
)
def test_nothing_is_done_for_who_may_not(operation: Operation) -> None:
    for scope in SCOPES[: SCOPES.index(operation.scope)]:
        assert asked(operation, Who("somebody", scope)) == 403
    if "{queue}" in operation.path:
        elsewhere = Who("somebody", "admin", frozenset({"y"}))
        assert asked(operation, elsewhere) == 404
