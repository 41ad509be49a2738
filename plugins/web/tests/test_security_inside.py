"""The guard around an application that fails, hangs, or reads too much; in one process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rqcore_web.plugin
from rqcore_web.access import who
from rqcore_web.security.accesslog import AccessLog, Visit
from rqcore_web.security.guard import Guard
from rqcore_web.security.limits import Body, expect_upload
from rqcore_web.serve import make_site
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, ServiceContext
from rqcore.testing import RunningInstance

Asked = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def rq(tmp_path: Path) -> RunningInstance:
    return RunningInstance(tmp_path / "rq")


@pytest.fixture
def asked(rq: RunningInstance, rq_hooks: Callable[..., Hooks]) -> Asked:
    """Asks an application behind the guard; returns status, headers and body."""

    def ask(app: ASGIApp, path: str = "/x", **more: Any) -> tuple[int, dict[str, str], bytes]:
        info = InstanceInfo(str(rq.directory), "http://localhost:3333/", {})
        hooks = rq_hooks(web=rqcore_web.plugin)
        guard = Guard(app, make_site(ServiceContext(info, -1, lambda: None, hooks)))
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": b"", "query_string": b"",
            "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 1),
            "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost")], **more,
        }  # fmt: skip
        asyncio.run(guard(scope, receive, send))
        guard._access_log._lines.close()  # type: ignore[union-attr]
        headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]} if sent else {}
        body = b"".join(message.get("body", b"") for message in sent)
        return (sent[0]["status"] if sent else 0), headers, body

    return ask


def access(rq: RunningInstance) -> dict[str, Any]:
    (line,) = (rq.directory / "log" / "access.jsonl").read_text().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("the reason")


async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ValueError("the reason")


async def gone(scope: Scope, receive: Receive, send: Send) -> None:
    raise ClientDisconnect


def test_what_fails_is_a_500_with_the_name_by_which_the_log_knows_it(
    asked: Asked, rq: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    status, headers, body = asked(fails)
    assert status == 500
    request_id = headers["x-request-id"]
    assert body.decode() == f"this failed; the log says why, by the name {request_id}\n"
    assert f"request {request_id}: GET /x failed" in caplog.text
    assert "ValueError: the reason" in caplog.text
    assert (access(rq)["id"], access(rq)["status"]) == (request_id, 500)


def test_what_fails_late_is_logged_and_answered_no_second_time(
    asked: Asked, rq: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, body = asked(fails_late)
    assert (status, body) == (200, b"")
    assert "ValueError: the reason" in caplog.text


def test_who_goes_away_is_no_failure(
    asked: Asked, rq: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    assert asked(gone)[0] == 0
    assert not caplog.records
    assert access(rq)["status"] == 0


def test_a_response_keeps_the_headers_that_it_has_set(asked: Asked) -> None:
    own = {"Content-Security-Policy": "sandbox", "X-Request-Id": "mine"}
    _, headers, _ = asked(PlainTextResponse("x", headers=own))
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-request-id"] == "mine"
    assert headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in headers
    _, headers, _ = asked(PlainTextResponse("x"), scheme="https")
    assert headers["strict-transport-security"] == "max-age=31536000"


def test_a_client_without_an_address_is_nobody_in_particular(
    asked: Asked, rq: RunningInstance
) -> None:
    assert asked(PlainTextResponse("x"), client=None)[0] == 200
    assert access(rq)["from"] == ""
    rq.configure(allowed_ips=["127.0.0.1"])
    assert asked(PlainTextResponse("x"), client=None)[0] == 403


def test_a_route_knows_who_asks_and_by_which_name(asked: Asked) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        told = f"{who(request).name} {who(request).scope} {request.state.request_id}"
        await PlainTextResponse(told)(scope, receive, send)

    _, headers, body = asked(app)
    assert body.decode() == f"anonymous admin {headers['x-request-id']}"


def test_everything_else_passes(asked: Asked, rq: RunningInstance) -> None:
    passed: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    asked(app, type="lifespan")
    assert passed == ["lifespan"]
    assert not (rq.directory / "log" / "access.jsonl").exists()


def test_an_access_log_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AccessLog(tmp_path / "missing" / "access.jsonl", enabled=True)
    visit = Visit("id", "127.0.0.1", "", "GET", "/" + "x" * 1000, "curl", 200, 0, 0.1)
    for _ in range(3):
        log.note(visit)
    assert caplog.text.count("cannot be written") == 1
    (tmp_path / "missing").mkdir()
    log.note(visit)
    assert len(json.loads((tmp_path / "missing" / "access.jsonl").read_text())["path"]) == 500
    assert log._lines is not None
    log._lines.close()


# --- bodies


def read(
    pieces: list[bytes], *, most: int = 10, length: str = "", upload: int | None = -1
) -> list[bytes] | HTTPException:
    """Read a body through the counter; what came, or what was raised."""
    asked_for = []

    async def receive() -> Message:
        asked_for.append(1)
        if len(asked_for) > len(pieces):
            await asyncio.Event().wait()
        piece = pieces[len(asked_for) - 1]
        more = len(asked_for) < len(pieces) or piece.endswith(b"...")
        return {"type": "http.request", "body": piece, "more_body": more}

    async def run() -> list[bytes]:
        body = Body(receive, {"content-length": length}, most, 0.05)
        if upload != -1:
            scope = {"type": "http", "headers": [], "state": {"incoming_body": body}}
            expect_upload(Request(scope), upload)
        came = []
        while not body.over:
            came.append((await body())["body"])
        return came

    try:
        return asyncio.run(run())
    except HTTPException as error:
        unread = not asked_for
        return error if unread or not length or error.status_code == 408 else []


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"pieces": [b"12345", b"12345"]}, 0),
        ({"pieces": [b""]}, 0),
        ({"pieces": [b"12345", b"12345", b"1"]}, 413),
        ({"pieces": [b""], "length": "11"}, 413),
        ({"pieces": [b"1234567890"], "length": "10"}, 0),
        ({"pieces": [b"12..."]}, 408),
        ({"pieces": [b"12..."], "length": "9"}, 408),
        ({"pieces": [b"123456789012"], "length": "12", "upload": None}, 0),
        ({"pieces": [b"123456789012"], "upload": 12}, 0),
        ({"pieces": [b"1234567890123"], "upload": 12}, 413),
    ],
)
def test_a_body_is_as_long_and_as_slow_as_it_may_be(given: dict[str, Any], status: int) -> None:
    found = read(**given)
    if status:
        assert isinstance(found, HTTPException)
        assert found.status_code == status
        assert found.headers == {"Connection": "close"}
    else:
        assert found == given["pieces"]


def test_when_nobody_waits_for_the_body_it_may_be_silent() -> None:
    """As in a stream of events, which listens only for its client's going away."""

    async def receive() -> Message:
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def run() -> Message:
        body = Body(receive, {}, 10, 0.01)
        body.over = True
        return await body()

    assert asyncio.run(run()) == {"type": "http.disconnect"}


def test_an_upload_is_expected_also_where_nobody_guards() -> None:
    expect_upload(Request({"type": "http", "headers": []}))
