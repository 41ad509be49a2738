"""New messages from the browser: as form.json wants them, with files, with JavaScript and without."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from rqcore.testing import PATIENCE
from rqcore.unix import Inotify

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Seen, Web

MEGA = 1_000_000


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("hello", shared.HELLO)
    shared.rq.queue("shaped", shared.HELLO)
    shared.rq.queue("odd", shared.HELLO)
    shared.rq.queue("down", shared.HELLO)
    folder = shared.rq.directory
    (folder / "config" / "down.down").touch()
    (folder / "queue" / "odd" / "form.json").write_text("{nonsense")
    (folder / "queue" / "shaped" / "form.json").write_text(json.dumps({
        "default": "hidden",
        "mesg_param3": {"label": "Branch", "help": "Branch to push to this cluster"},
        "mesg_param1": {"label": "Cluster ID", "choices": {"eu": "Europe", "us": "America"},
                        "required": True},
        "mesg_param2": {"hidden": True, "value": "fixed"},
    }))  # fmt: skip
    return shared.start()


def sent(site: Web, page: Page, queue: str = "hello") -> dict[str, object]:
    """The message on whose page the browser is."""
    page.wait_for_url(re.compile(rf"/q/{queue}/\d{{8}}\.[\d.]+$"))
    return site.rq.message(queue, page.url.rpartition("/")[2])


def test_a_message_is_sent_with_what_was_typed(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/hello/new_message")
    page.get_by_label("param1").fill("two\nlines ü")
    page.get_by_label("param2").fill('{"a": 1}')
    page.get_by_text("More: sender").click()
    page.get_by_label("From").fill("me")
    page.get_by_label("Attempts at most").fill("3")
    page.get_by_label("Webhook").fill("http://a.example.com/x http://b.example.com/y")
    page.get_by_role("button", name="Send").click()
    message = sent(site, page)
    assert message["param1"] == "two\nlines ü"
    assert (message["param2"], message["src"], message["max_count"]) == ('{"a": 1}', "me", 3)
    assert message["post_run_webhook"] == ["http://a.example.com/x", "http://b.example.com/y"]


def test_due_is_taken_as_people_write_it(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/hello/new_message")
    page.get_by_text("More: sender").click()
    page.get_by_label("Due").fill("tomorrow")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#due-problem")).to_contain_text("'tomorrow' is no time; write 10m")
    page.get_by_label("Due").fill("2h")
    page.get_by_role("button", name="Send").click()
    message = sent(site, page)
    assert abs(float(str(message["due"])) - time.time() - 7200) < 60


def test_due_is_taken_without_javascript(site: Web, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for text in ("tomorrow", "2h"):
        page.goto(f"{site.url}q/hello/new_message")
        page.get_by_text("More: sender").click()
        page.get_by_label("Due").fill(text)
        page.get_by_role("button", name="Send").click()
        if text == "tomorrow":
            assert "'tomorrow' is no time" in page.locator(".flash").inner_text()
    message = sent(site, page)
    assert abs(float(str(message["due"])) - time.time() - 7200) < 60
    context.close()


def test_files_go_along_with_progress_and_the_message_last(
    site: Web, seen: Seen, tmp_path: Path
) -> None:
    page = seen.page
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 160_000)
    (tmp_path / "a b ü.txt").write_text("small")
    page.goto(f"{site.url}q/hello/new_message")
    page.evaluate("""() => {
        window.seen = [];
        const list = document.getElementById("uploads");
        new MutationObserver(() => window.seen.push(list.innerText))
            .observe(list, {subtree: true, childList: true, characterData: true});
    }""")
    page.locator("#filedata").set_input_files([tmp_path / "large.bin", tmp_path / "a b ü.txt"])
    assert "41.0 MB" in page.locator("#uploads").inner_text()
    # What was seen of the upload is kept beyond the page on which it was seen.
    page.evaluate(
        "addEventListener('pagehide', () => sessionStorage.setItem('seen', JSON.stringify(window.seen)))"
    )
    page.get_by_role("button", name="Send").click()
    message = sent(site, page)
    attachments = message["_attachments"]
    assert isinstance(attachments, dict)
    assert attachments["large.bin"]["size"] == 40_960_000
    whole = hashlib.sha256(bytes(range(256)) * 160_000).hexdigest()
    assert attachments["large.bin"]["sha256"] == whole
    assert attachments["a b ü.txt"]["size"] == 5
    told = " ".join(page.evaluate("JSON.parse(sessionStorage.getItem('seen'))"))
    assert re.search(r"\d+\.\d MB of 41\.0 MB, [\d.]+ .B/s, \d+ s left", told)
    assert "attached" in told
    site.rq.until("hello", str(message["msg_id"]), "done")
    assert not list((site.rq.directory / "tmp").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gigabyte_goes_along(site: Web, seen: Seen, tmp_path: Path) -> None:
    page = seen.page
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"begin")
    page.goto(f"{site.url}q/hello/new_message")
    page.locator("#filedata").set_input_files(tmp_path / "huge.bin")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url(re.compile(r"/q/hello/\d{8}\.[\d.]+$"), timeout=240_000)
    attachments = sent(site, page)["_attachments"]
    assert isinstance(attachments, dict)
    assert attachments["huge.bin"]["size"] == 1 << 30
    with (tmp_path / "huge.bin").open("rb") as file:
        assert attachments["huge.bin"]["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert not list((site.rq.directory / "tmp").iterdir())


@contextlib.contextmanager
def upload_begins(site: Web) -> Iterator[None]:
    """When this is left, the service has begun to write the file that is sent within it."""
    inotify = Inotify()
    with contextlib.closing(inotify):
        inotify.add(str(site.rq.directory / "tmp"), Inotify.CREATE)
        yield
        assert select.select([inotify.fd], [], [], PATIENCE)[0], "no upload begins"


def test_an_upload_that_is_stopped_leaves_nothing(site: Web, seen: Seen, tmp_path: Path) -> None:
    page = seen.page
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(900 * MEGA)
    with site.rq.client("hello") as client:
        before = client.call("num_messages")
    page.goto(f"{site.url}q/hello/new_message")
    page.get_by_label("param1").fill("kept")
    page.locator("#filedata").set_input_files(tmp_path / "large.bin")
    with site.rq.manager as manager:
        children = manager.ask("describe")["children"]
    (queue,) = (child["pid"] for child in children if child["name"] == "hello")
    with upload_begins(site):
        page.get_by_role("button", name="Send").click()
    os.kill(queue, signal.SIGSTOP)  # however fast the upload is, it does not become an attachment
    try:
        page.get_by_role("button", name="Stop").click()
    finally:
        os.kill(queue, signal.SIGCONT)
    expect(page.get_by_role("alert")).to_contain_text("Stopped: nothing was sent")
    assert page.get_by_label("param1").input_value() == "kept"
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.goto(f"{site.url}q/hello")
    expect(page.locator("nav.band a.prep strong")).to_have_text(str(before["prep"]))


def test_a_form_is_shaped_by_form_json(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/shaped/new_message")
    fields = page.locator("#send .field:visible").evaluate_all("f => f.map(one => one.id)")
    assert fields == ["mesg_param3_field", "mesg_param1_field"]
    assert page.locator("#mesg_param3_field label").inner_text() == "Branch param3"
    assert (
        page.locator("#mesg_param3_field p.note").inner_text() == "Branch to push to this cluster"
    )
    assert not page.locator(".warning").count()
    page.get_by_label("Cluster ID").select_option("America")
    page.get_by_role("button", name="Send").click()
    message = sent(site, page, "shaped")
    assert (message["param1"], message["param2"]) == ("us", "fixed")


def test_a_form_json_that_is_wrong_is_told(site: Web, seen: Seen) -> None:
    seen.page.goto(f"{site.url}q/odd/new_message")
    assert "is not JSON" in seen.page.locator(".warning").inner_text()
    expect(seen.page.get_by_label("param4")).to_be_visible()


def test_a_clone_can_be_edited_first(site: Web, seen: Seen) -> None:
    first = site.rq.send("hello", param1="as it was\n", param2="\nb", src="me", max_count=4)
    page = seen.page
    page.goto(f"{site.url}q/hello/{first}")
    page.get_by_role("link", name="Clone with edits").click()
    assert page.get_by_label("param1").input_value() == "as it was\n"
    page.get_by_label("param1").fill("changed")
    page.get_by_role("button", name="Send").click()
    message = sent(site, page)
    assert message["msg_id"] != first
    assert (message["param1"], message["param2"]) == ("changed", "\nb")
    assert (message["src"], message["max_count"]) == ("me", 4)


def test_what_is_refused_is_told_and_nothing_is_lost(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/down/new_message")
    assert "an operator took it down" in page.locator("main").inner_text()
    page.get_by_label("param1").fill("kept")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("status: DOWN")
    assert page.get_by_label("param1").input_value() == "kept"
    seen.expected.append("status of 503")


@pytest.mark.parametrize("with_file", [True, False])
def test_without_javascript_it_is_a_plain_form(
    site: Web, browser: Browser, tmp_path: Path, with_file: bool
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}q/hello/new_message")
    page.get_by_label("param1").fill("plain")
    if with_file:
        (tmp_path / "notes.txt").write_text("some notes")
        page.locator("#filedata").set_input_files(tmp_path / "notes.txt")
    page.get_by_role("button", name="Send").click()
    message = sent(site, page)
    assert "Created message" in page.locator(".flash").inner_text()
    assert message["param1"] == "plain"
    attachments = message["_attachments"]
    assert isinstance(attachments, dict)
    assert list(attachments) == (["notes.txt"] if with_file else [])
    context.close()


def test_a_message_is_only_prepared_where_that_is_wished(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/hello/new_message")
    page.get_by_text("More: sender").click()
    page.get_by_label("Prepare it only").check()
    page.get_by_role("button", name="Send").click()
    assert sent(site, page)["state"] == "prep"
