"""A message for people: signed, shown once on the page that a redirect leads to, and nowhere else."""

from __future__ import annotations

import subprocess
import time
from http.cookies import SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rqcore_web import flash
from starlette.requests import Request

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.conftest import Web


def request_of(var: Path, cookie: str = "", scheme: str = "http") -> Request:
    headers = [(b"cookie", f"rq_flash={cookie}".encode())] if cookie else []
    site = SimpleNamespace(var=var, root="/rq/")
    app = SimpleNamespace(state=SimpleNamespace(site=site))
    scope = {"type": "http", "headers": headers, "app": app, "scheme": scheme, "path": "/"}
    return Request({**scope, "query_string": b"", "server": ("x", 80)})


def cookie_of(var: Path, text: str, *, ok: bool = True, scheme: str = "http") -> Any:
    answer = flash.redirect(request_of(var, scheme=scheme), "/rq/q/test", text, ok=ok)
    assert (answer.status_code, answer.headers["location"]) == (303, "/rq/q/test")
    return SimpleCookie(answer.headers["set-cookie"])["rq_flash"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.booleans())
def test_it_is_shown_once(tmp_path: Path, text: str, ok: bool) -> None:
    cookie = cookie_of(tmp_path, text, ok=ok).value
    taken = flash.take(request_of(tmp_path, cookie))
    assert taken is not None
    assert taken[1] is ok
    if len(text.encode("utf-8", "replace")) < 2000:
        assert taken[0].encode("utf-8", "replace") == text.encode("utf-8", "replace")
    assert flash.take(request_of(tmp_path, cookie)) is None


def test_it_fits_into_a_cookie_and_scripts_do_not_see_it(tmp_path: Path) -> None:
    cookie = cookie_of(tmp_path, "☃" * 5000)
    assert len(cookie.OutputString()) < 4096
    assert (cookie["path"], cookie["samesite"], cookie["max-age"]) == ("/rq/", "lax", "60")
    assert cookie["httponly"]
    assert not cookie["secure"]
    assert cookie_of(tmp_path, "x", scheme="https")["secure"]


@pytest.mark.parametrize("change", ["body", "signature", "nothing", "other", "short", "odd"])
def test_nobody_else_can_make_one(tmp_path: Path, change: str) -> None:
    body, _, signature = cookie_of(tmp_path, "all is well").value.partition(".")
    (tmp_path / "other").mkdir()
    forged = {
        "body": f"{body[:-2]}AA.{signature}", "signature": f"{body}.{signature[:-2]}AA", "nothing": body,
        "other": cookie_of(tmp_path / "other", "x").value, "short": "x", "odd": "\xff.\xff",
    }[change]  # fmt: skip
    assert flash.take(request_of(tmp_path, forged)) is None


def test_it_is_not_shown_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = cookie_of(tmp_path, "x").value
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 62)
    assert flash.take(request_of(tmp_path, cookie)) is None


def test_without_a_secret_there_is_no_message_but_the_way_on(tmp_path: Path) -> None:
    answer = flash.redirect(request_of(tmp_path / "missing"), "/rq/", "x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/rq/")
    assert "set-cookie" not in answer.headers
    assert flash.take(request_of(tmp_path / "missing", "a.b")) is None


# On real pages


def ruby(web: Web, jar: Path, path: str, *fields: str) -> str:
    """As the Ruby release's own tests ask: HTTP/1.0, a cookie jar, and on to where it leads."""
    options = [option for field in fields for option in ("-F", field)]
    command = ["curl", "-0", "--cookie-jar", str(jar), "-sL", *options, f"{web.url}{path}"]
    return subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()


def test_after_creating_a_queue_the_page_says_so(web: Web, tmp_path: Path) -> None:
    web.rq.configure(allow_new_queue=True)
    web.start()
    jar = tmp_path / "jar"
    fields = ("queue[script]=/bin/true", "queue[num_workers]=1", 'queue[exec_prefix]=""')
    page = ruby(web, jar, "new_queue", "queue[name]=test", *fields)
    assert "queue created" in page
    config = web.rq.directory / "linked.json"
    config.write_text('{"name": "linked", "script": "/bin/true"}')
    assert "queue created" in ruby(web, jar, "new_queue_link", f"queue[json_path]={config}")
    for name in ("bad que test", "bad.que.test", "bad/que/test"):
        page = ruby(web, jar, "new_queue", f"queue[name]={name}", *fields)
        assert "queue created" not in page
        assert "queue name has invalid characters" in page


def test_a_browser_without_scripts_shows_it_once(web: Web, browser: Browser) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{web.url}q/test/new_message")
    page.fill("[name='mesg[param1]']", "<b>hello</b>")
    page.click("form[action$=new_message] button:not([type])")
    page.wait_for_url("**/q/test/2*")
    assert page.get_by_text("Created message").is_visible()
    page.reload()
    assert page.get_by_text("Created message").count() == 0
    context.close()


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("q/none/x.json", (), 404),
        ("q/test/new_message", ("-d", "mesg[]="), 400),
        ("q/test/new_message", ("-H", "Content-Type: text/plain", "-d", "x"), 415),
        ("new_queue", ("-d", "queue[name]=x"), 403),
    ],
)
def test_errors_are_pages_for_people(
    web: Web, path: str, options: tuple[str, ...], status: int
) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    html = ("-d", "x_format=html") if options else ()
    answer = web.curl(path, "-H", "Accept: text/html", *html, *options)
    assert answer.status == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
