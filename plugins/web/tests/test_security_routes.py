"""Every route of the site: each asks for a scope, and a token for one queue reaches no other.

The routes are those of the application itself, so that a new one is held to this too.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import rqcore_web.plugin
from rqcore_web.access import Who
from rqcore_web.app import make_app
from rqcore_web.security import tokens
from rqcore_web.serve import make_site
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Mount, Route

from rqcore.errors import RqError
from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, ServiceContext
from rqcore.testing import PATIENCE, RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
#: What needs no scope, with the reason.
PUBLIC = {
    "/livez": "health: asked by whoever watches, says nothing of what is inside",
    "/readyz": "as livez",
    "/healthz": "as livez",
    "/api/v1/livez": "as livez",
    "/api/v1/readyz": "as livez",
    "/api/v1/healthz": "as livez",
    "/-/static/{version}/{name}": "scripts, styles and pictures; the same on every machine",
    "/-/jobs/{job}": "asks once it knows the job, and so its queue; here is none",
    "/-/jobs/{job}/cancel": "as the job itself",
    "/api": "there is nothing here, and it says so",
    "/api/{rest:path}": "as /api",
}
#: What changes nothing though its method might, with the reason.
READS: dict[str, str] = {}
#: Enough for every route to come as far as its question.
PARTS = {
    "name": "zqother", "queue": "zqother", "msg_id": "20260301.0800.00.000.1", "file": "stdio.log",
    "state": "que", "number": "0", "job": "none", "key": "none", "version": "v", "rest": "x",
    "upload": "0" * 32,
}  # fmt: skip


#: Some routes have to know what is to be done before they know what it takes.
DOING = b'{"action": "delete", "_method": "delete", "dest": "zqother"}'


@dataclass(frozen=True, slots=True)
class Spy(Who):
    """Nobody who may do anything, and who notes what it was asked for."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def may(self, scope: str, queue: str = "") -> bool:
        self.asked.append((scope, queue))
        return False


@pytest.fixture
def app(tmp_path: Path, rq_hooks: Callable[..., Hooks]) -> Starlette:
    rq = RunningInstance(tmp_path / "rq")
    rq.queue("zqother", "/bin/true")
    rq.configure(allow_new_queue=True)
    info = InstanceInfo(str(rq.directory), "http://localhost:3333/", {})
    hooks = rq_hooks(web=rqcore_web.plugin)
    return make_app(make_site(ServiceContext(info, -1, lambda: None, hooks)))


def paths(routes: list[BaseRoute], above: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every path of the application, and its methods."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(list(route.routes), above + route.path)
        else:
            assert isinstance(route, Route)
            methods = sorted((route.methods or set(METHODS)) - {"HEAD"})
            yield above + route.path, methods


def filled(path: str, **parts: str) -> str:
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: {**PARTS, **parts}[found[1]], path)


def ask(app: Starlette, spy: Spy, method: str, path: str, body: bytes, kind: bytes) -> int:
    """What the router answers to the spy, behind the guard's back; 403 for what is raised."""
    status = [0]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        status[0] = message.get("status", status[0])

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"name=zqother" if path == "/search" else b"", "scheme": "http",
        "http_version": "1.1", "server": ("127.0.0.1", 3333),
        "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost"), (b"content-type", kind)],
        "app": app, "state": {"who": spy, "request_id": "x"},
    }  # fmt: skip

    async def run() -> None:
        async with asyncio.timeout(PATIENCE):
            await app.router(scope, receive, send)

    try:
        asyncio.run(run())
    except RqError:
        return 403
    except HTTPException as error:
        return error.status_code
    return status[0]


def test_every_route_asks_for_a_scope_and_does_nothing_without(app: Starlette) -> None:
    silent, weak = set(), set()
    for path, methods in paths(app.routes):
        for method in methods:
            spy = Spy("spy", "read")
            status = ask(app, spy, method, filled(path), DOING, b"application/json")
            if status == 405:
                continue
            if not spy.asked:
                silent.add(path)
            elif method != "GET" and all(scope == "read" for scope, _ in spy.asked):
                weak.add(f"{method} {path}")
            if "zqother" in filled(path) and spy.asked:
                assert "zqother" in {queue for _, queue in spy.asked} or status == 403, path
    assert silent == set(PUBLIC)
    assert weak == set(READS)


def test_what_is_let_through_behind_its_back_is_noticed(app: Starlette) -> None:
    spy = Spy("spy", "admin")
    assert ask(app, spy, "GET", "/livez", b"", b"") == 200
    assert spy.asked == []


# --- a token for one queue

#: A request may be found wrong before it is known for which scope it would have to ask.
REFUSED = (400, 403, 404, 405, 411, 415, 422, 428)
#: What only the hidden queue holds; a refusal may name the queue itself, as it was asked for.
SECRETS = (
    b"zqother-param",
    b"zqother-log",
    b"zqother-status",
    b"zqother-source",
    b"zqother-schedule",
)


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    """Two queues: ``mine``, and ``zqother``, in whose message everything says so."""
    rq = shared.rq
    rq.queue("mine", shared.HELLO)
    rq.queue("zqother", '#!/bin/sh\necho zqother-log\necho "$RQ_PARAM1 zqother-status" >&3\n',
             schedule=[{"cron": "0 0 1 1 *", "param1": "zqother-schedule"}])  # fmt: skip
    rq.configure(allow_new_queue=True)
    shared.start()
    return shared


@pytest.fixture(scope="module")
def hidden(site: Web) -> str:
    """A failed message of the hidden queue."""
    msg_id = site.rq.send("zqother", param1="err", param2="zqother-param", src="zqother-source")
    site.rq.until("zqother", msg_id, "err")
    site.rq.until("mine", site.rq.send("mine", param1="done"), "done")
    site.rq.disconnect()
    return msg_id


@pytest.fixture(scope="module")
def bearer(site: Web) -> tuple[str, str]:
    """A token that may do everything, with the queue ``mine``."""
    made, text = tokens.make_token("mine", "admin", ["mine"], None, datetime.now(UTC))
    tokens.write_tokens(site.rq.directory / "config" / "tokens.json", [made])
    return ("-H", f"Authorization: Bearer {text}")


def everything(site: Web) -> dict[str, bytes]:
    """Every file of the hidden queue, but those of its process."""
    folder = site.rq.directory / "queue" / "zqother"
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.parent != folder
    } | {"config.json": (folder / "config.json").read_bytes()}


def test_a_token_for_one_queue_can_neither_touch_nor_see_another(
    site: Web, app: Starlette, hidden: str, bearer: tuple[str, str]
) -> None:
    before = everything(site)
    leaks, let_in = [], []
    for path, methods in paths(app.routes):
        url = filled(path, msg_id=hidden).lstrip("/")
        if url == "api/v1/events":
            url += "?queue=zqother"  # else it goes on for ever; see the next test
        for method in methods:
            for accept in ("application/json", "text/html"):
                answer = asked(site, method, url, bearer, accept)
                where = f"{method} {path} for {accept}: {answer.status}"
                named = "zqother" in url or method != "GET"
                told = SECRETS if named else (*SECRETS, b"zqother")
                if any(secret in answer.body for secret in told):
                    leaks.append(where)
                if "zqother" in url and answer.status not in REFUSED:
                    let_in.append(where)
    assert not let_in
    assert not leaks
    assert everything(site) == before


def asked(site: Web, method: str, url: str, bearer: tuple[str, str], accept: str) -> Answer:
    options = ["-X", method, *bearer, "-H", f"Accept: {accept}"]
    if method != "GET":
        options += ["-H", "Content-Type: application/json", "-d", DOING.decode()]
    return site.curl(url, *options)


def test_the_stream_of_events_tells_a_token_only_of_its_own_queue(
    site: Web, bearer: tuple[str, str]
) -> None:
    command = ["curl", "-sSN", *bearer, f"{site.url}api/v1/events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        heard = process.stdout.readline()
        site.rq.until("zqother", site.rq.send("zqother", param1="done"), "done")
        mine = site.rq.send("mine", param1="done")
        site.rq.until("mine", mine, "done")
        while not (mine.encode() in heard and b'"done"' in heard):
            line = process.stdout.readline()
            assert line, "the stream ended"
            heard += line
        process.terminate()
    assert b"zqother" not in heard
    site.rq.disconnect()


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("new_queue", {"queue[name]": "third", "queue[script]": "/bin/true"}, 404),
        ("new_queue_link", {"queue[json_path]": "queue/zqother/config.json"}, 403),
        ("delete_queue", {"queue_name": "zqother"}, 404),
        ("q/zqother/adminoper", {"pause": "1"}, 404),
        ("q/zqother/restart", {}, 404),
        ("-/q/zqother/config", {"config": "{}"}, 404),
    ],
)
def test_a_token_for_one_queue_neither_makes_nor_changes_another(
    site: Web, bearer: tuple[str, str], path: str, fields: dict[str, str], status: int
) -> None:
    data = [word for name, value in fields.items() for word in ("-d", f"{name}={value}")]
    for page in ([], ["-H", "Accept: text/html", "-d", "x_format=html"]):
        assert site.curl(path, *bearer, "-X", "POST", *data, *page).status == status
    assert site.rq.instance.queue_names() == ["mine", "zqother"]
    assert site.rq.instance.admin_state("zqother") == "UP"
