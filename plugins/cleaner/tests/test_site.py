"""The cleaner beside the site: what a browser downloads stays, and its pages show how the disk is."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rqcore.testing import PATIENCE, RunningInstance, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.process
CHROMIUM = "/usr/bin/chromium"
LARGE = "#!/bin/sh\ntruncate -s 60M large\necho 'done fine' >&3\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("site") / "rq") as rq:
        rq.use_plugins("cli", "web", "cleaner")
        rq.queue("test", LARGE)
        rq.configure(
            port=free_port(), plugins={"cleaner": {"disk": {"warning": "100%", "refuse": "1kB"}}}
        )
        yield rq.start()


def port(rq: RunningInstance) -> int:
    return int(rq.instance.load_config()[0].port)


def clean(rq: RunningInstance) -> str:
    msg_id = rq.send("cleaner", param1="test", param2="0")
    return str(rq.until("cleaner", msg_id)["status"])


def test_what_is_downloaded_just_now_stays_until_it_is(site: RunningInstance) -> None:
    msg_id = site.send("test")
    folder = Path(site.until("test", msg_id)["path"])
    with closing(http.client.HTTPConnection("127.0.0.1", port(site), PATIENCE)) as reader:
        reader.request("GET", f"/q/test/{msg_id}/log/large")
        answer = reader.getresponse()
        assert answer.status == 200
        assert clean(site) == "done - removed 0 messages, 0 B; 1 left that somebody reads"
        assert folder.is_dir()
        assert len(answer.read()) == 60 << 20
    # The answer is closed a moment after its last byte was read.
    while "1 left" in (status := clean(site)):
        assert folder.is_dir()
    assert status.startswith("done - removed 1 message")
    assert not folder.exists()
    site.disconnect()


@pytest.fixture
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 360])
def test_the_pages_show_how_the_disk_is(
    site: RunningInstance, chromium: Browser, width: int
) -> None:
    clean(site)
    page = chromium.new_page(viewport={"width": width, "height": 700})
    for path, words in (
        ("", ["The disk", "New messages are refused below 1.0 kB"]),
        ("q/cleaner", ["The disk", "Removed so far", "The last cleaning was"]),
    ):
        page.goto(f"http://127.0.0.1:{port(site)}/{path}")
        text = page.locator("main").inner_text()
        assert all(word in text for word in words), text
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    site.disconnect()
