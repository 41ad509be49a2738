"""The page about the peers and its pieces; in a real browser it fits any screen and keeps itself new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from markupsafe import Markup
from rqcore_relay import pages, state, survey
from rqcore_relay.metrics import exposition

from rqcore.instance import Instance
from rqcore.testing import PATIENCE, RunningInstance, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "/usr/bin/chromium"
NASTY = "<script>alert(1)</script>"


class FakeSite:
    settings: Any = None
    hooks: Any = None

    def __init__(self, directory: Path) -> None:
        self.instance = Instance(directory)

    def url(self, path: str = "") -> str:
        return f"/root/{path}"

    def page(self, request: object, title: str, content: object, status: int = 200) -> Any:
        raise NotImplementedError


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    return FakeSite(tmp_path)


def write(site: FakeSite, **peers: dict[str, Any]) -> None:
    import json

    files = state.Files(str(site.instance.directory))
    files.make()
    named = {f"http://{name}:3333/": entry for name, entry in peers.items()}
    Path(files.peers).write_text(json.dumps({"peers": named}))


DOWN = {
    "reachable": False, "since": 1.0, "failures": 2, "waiting": 3, "oldest": 5,
    "last_error": {"text": NASTY, "at": 7},
    "destinations": {f"http://a:3333/q/{number}": {"messages": 1, "oldest": 5} for number in range(30)},
}  # fmt: skip


def test_nothing_is_said_while_all_is_well(site: FakeSite) -> None:
    assert pages.panels(site) == []
    write(site, good={"reachable": True, "since": 1, "messages": 4, "last_success": 5})
    assert pages.panels(site) == []
    assert pages.queue_panels(site, {"name": "relay"}) == []
    assert pages.message_panels(site, {"queue": "other", "state": "que"}) == []


def test_a_peer_that_took_nothing_yet_is_not_called_rq(site: FakeSite) -> None:
    """Whatever answers, and is not rqcore, is taken for a plain peer."""
    message = {"queue": "relay", "state": "que", "dest": "http://a:3333/q/x", "full_id": "x"}
    write(site, a={"reachable": True, "since": 1, "kind": "plain", "waiting": 1})
    [panel] = pages.message_panels(site, message)
    assert "It is" not in panel.content
    write(site, a={"reachable": True, "since": 1, "kind": "plain", "last_success": 5})
    [panel] = pages.message_panels(site, message)
    assert "RQ, by its plain protocol" in panel.content


def test_what_others_wrote_is_text(site: FakeSite) -> None:
    write(site, a=DOWN)
    [panel] = pages.panels(site)
    assert Markup.escape(NASTY) in panel.content
    assert NASTY not in panel.content
    message = {"queue": "relay", "state": "que", "dest": "http://A:3333/q/x", "full_id": "x"}
    [panel] = pages.message_panels(site, message)
    assert "3 messages waiting" in panel.content
    assert "and 10 more destinations" in panel.content
    [panel] = pages.queue_panels(site, {"name": "relay"})
    assert "All about relay" in panel.content


def test_a_hundred_machines_are_not_all_shown_on_the_first_page(site: FakeSite) -> None:
    write(site, **{f"m{number}": DOWN for number in range(100)})
    [panel] = pages.panels(site)
    assert panel.content.count("<li>") == 20
    assert "and 80 more: <a href='/root/-/relay/'>" in panel.content


def test_metrics_leave_out_what_nobody_knows(site: FakeSite) -> None:
    write(site, a=DOWN, b={"reachable": None, "waiting": 2, "bytes": 1_500_000_000_000})
    text = exposition(survey.survey(str(site.instance.directory)))
    lines = text.splitlines()
    assert 'rqcore_relay_up{peer="http://a:3333/"} 0' in lines
    assert 'rqcore_relay_bytes_total{peer="http://b:3333/"} 1500000000000' in lines
    assert not any("_up" in line and "http://b" in line for line in lines)
    assert exposition([]).endswith("last_success_timestamp_seconds gauge\n")


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    # Its processes come and go in their own time; none of them is a leftover of a test.
    mark = os.environ.pop("RQCORE_TEST_SESSION", None)
    try:
        playwright = sync_playwright().start()
        made = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
    finally:
        if mark is not None:
            os.environ["RQCORE_TEST_SESSION"] = mark
    yield made
    made.close()
    playwright.stop()


@pytest.mark.browser
def test_the_page_fits_and_keeps_itself_new(browser: Browser, rq_instance: RunningInstance) -> None:
    from playwright.sync_api import expect

    port, dead = free_port(), free_port()
    rq_instance.use_plugins("cli", "relay", "web")
    rq_instance.configure(port=port)
    rq_instance.start()
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page, problems = context.new_page(), list[str]()
    page.on("console", lambda said: problems.append(said.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://127.0.0.1:{port}/-/relay/")
    expect(page.locator("main")).to_contain_text("No message has gone to another machine yet")
    dest = f"http://{'a-very-long-name.' * 8}invalid:{dead}/q/work"
    rq_instance.send("relay", dest=dest)
    rq_instance.send("relay", dest=f"http://localhost:{dead}/q/work")
    # Without being loaded anew:
    expect(page.locator(".badge.DOWN")).to_have_count(2)
    expect(page.locator("main")).to_contain_text("Connection refused")
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert problems == []
    context.close()
