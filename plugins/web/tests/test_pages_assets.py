"""Static files, failures, and what pages say in their headers; by real curl."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rqcore_web
from rqcore_web.assets import Assets

if TYPE_CHECKING:
    from tests.conftest import Seen, Web

STATIC = Path(rqcore_web.__file__).parent / "static"
HTML = ("-H", "Accept: text/html")


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("hello", shared.HELLO)
    return shared.start()


def path_of(site: Web, name: str) -> str:
    found = re.search(rf"/(-/static/[0-9a-f]{{16}}/{name})", site.curl("", *HTML).text)
    assert found is not None
    return found[1]


def test_a_file_is_kept_for_ever_and_named_by_its_content(site: Web) -> None:
    answer = site.curl(path_of(site, "app.css"), "-H", "Accept-Encoding: gzip")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == (STATIC / "app.css").read_bytes()
    plain = site.curl(path_of(site, "app.css"))
    assert "content-encoding" not in plain.headers
    assert plain.body == (STATIC / "app.css").read_bytes()


def test_an_old_name_gets_what_there_is_and_may_not_keep_it(site: Web) -> None:
    answer = site.curl("-/static/0123456789abcdef/app.js")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e/app.py", ""])
def test_nothing_else_is_served(site: Web, name: str) -> None:
    assert site.curl(f"-/static/0123456789abcdef/{name}", "--path-as-is").status in (400, 404)


def test_another_content_has_another_name(tmp_path: Path) -> None:
    versions = set()
    for text in ("a", "b"):
        (tmp_path / "x.css").write_text(text)
        versions.add(Assets(tmp_path).version)
    assert len(versions) == 2
    with pytest.raises(LookupError):
        Assets(tmp_path).path("y.css")


def test_every_script_is_asked_for_by_a_page_or_another_script() -> None:
    scripts = {file.name: file.read_text() for file in STATIC.glob("*.js")}
    templates = "".join(file.read_text() for file in (STATIC.parent / "templates").glob("*.html"))
    used = set(re.findall(r"[\w-]+\.js\b", templates))
    for text in scripts.values():
        used |= set(re.findall(r'"\./([\w-]+\.js)"', text))
    assert set(scripts) <= used


def test_every_icon_is_used_and_there() -> None:
    there = set(re.findall(r'<symbol id="(\w+)"', (STATIC / "icons.svg").read_text()))
    templates = "".join(file.read_text() for file in (STATIC.parent / "templates").glob("*.html"))
    wanted = set(re.findall(r'icon\("(\w+)"', templates))
    assert wanted <= there, wanted - there


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("q/nothing", 404, "no such queue: nothing"),
        ("nothing", 404, "Nothing is at this address"),
        ("q/hello/20200101.0000.00.000.1", 404, "msg not found"),
        ("-/jobs/nothing", 404, "no such job"),
        ("q/hello/new_message?from=20200101.0000.00.000.1", 404, "msg not found"),
    ],
)
def test_a_failure_wears_the_same_dress(site: Web, path: str, status: int, told: str) -> None:
    answer = site.curl(path, *HTML)
    assert answer.status == status
    assert told in answer.text
    assert "app.css" in answer.text
    plain = site.curl(path)
    assert plain.status == status
    assert "<html" not in plain.text


def test_the_overview_works_while_no_manager_answers(web: Web, seen: Seen) -> None:
    web.rq.queue("hello", web.HELLO)
    web.start()
    pid = web.pid()
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=30)
        (web.rq.directory / "config" / "queuemgr.sock").unlink()
        # Begun anew, the service has no connection that it could go on using.
        os.kill(pid, signal.SIGKILL)
        while next(events)["state"] != "running":
            pass
    page = seen.page
    page.goto(web.url)
    assert "QUEUEMGR: DOWN" in page.locator("main").inner_text()
    assert "The manager does not answer" in page.locator("main").inner_text()
    assert page.locator("#queue-hello .badge").inner_text() == "UP"


def test_a_message_whose_queue_does_not_run_is_503_and_comes_back(web: Web, seen: Seen) -> None:
    web.rq.queue("hello", web.HELLO)
    web.start()
    msg_id = web.rq.send("hello")
    web.rq.until("hello", msg_id, "done")
    file = web.rq.directory / "queue" / "hello" / "config.json"
    right = file.read_text()
    file.write_text(json.dumps({**json.loads(right), "num_workers": 0}))
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=30)
        pid = web.rq.ask("hello", "describe")["pid"]
        web.rq.kill(pid)
        while next(events)["state"] != "failed":
            pass
    page = seen.page
    answer = page.goto(f"{web.url}q/hello/{msg_id}")
    assert answer is not None
    assert answer.status == 503
    assert "nothing is lost" in page.locator("main").inner_text()
    page.locator("#live[data-state=live]").wait_for()
    file.write_text(right)
    web.rq.manager.ask("restart_queue", "hello")
    page.get_by_text("What happened").wait_for()
    seen.expected.append("status of 503")


def test_pages_are_sent_small_and_not_kept(site: Web) -> None:
    answer = site.curl("q/hello", *HTML, "-H", "Accept-Encoding: gzip")
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["content-encoding"] == "gzip"
    assert b"</html>" in gzip.decompress(answer.body)


def test_everything_is_found_below_another_root(web: Web, seen: Seen) -> None:
    web.root = "/deep/rq/"
    web.rq.configure(relative_root=web.root)
    web.rq.queue("hello", web.HELLO)
    web.start()
    page = seen.page
    page.goto(web.url)
    page.locator("#queue-hello a.name").click()
    page.wait_for_url("**/deep/rq/q/hello")
    page.get_by_role("link", name="New message").click()
    page.get_by_role("button", name="Send").click()
    page.wait_for_url(re.compile(r"/deep/rq/q/hello/\d"))
    page.locator("#live[data-state=live]").wait_for()
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_url("**/deep/rq/errors")
