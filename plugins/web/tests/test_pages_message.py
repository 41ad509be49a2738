"""A message's page: what became of it, what it carries, and what can be done with it."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.conftest import Seen, Web

RESENT = """#!/bin/sh
echo "try $RQ_COUNT"
if [ "$RQ_COUNT" -lt 2 ]; then echo "resend 0-Memcached not responding." >&3; exit; fi
echo "done warmed" >&3
"""
LEAVES = '#!/bin/sh\necho x > "result of it.txt"\necho "done left a file" >&3\n'
BIG = json.dumps({"number": 12345678901234567890, "rows": ["<script>alert(1)</script>"] * 400})


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("hello", shared.HELLO)
    shared.rq.queue("fails", shared.FAILS)
    shared.rq.queue("resent", RESENT)
    shared.rq.queue("leaves", LEAVES)
    shared.rq.queue("waits", "#!/bin/sh\nsleep 600\n")
    return shared.start()


def done(site: Web, queue: str, **fields: object) -> str:
    """A message that has ended."""
    msg_id = site.rq.send(queue, **fields)
    site.rq.until(queue, msg_id)
    return msg_id


def test_old_scripts_read_every_field(site: Web) -> None:
    msg_id = done(site, "resent", src="a <b>test</b>", param1="x")
    text = site.curl(f"q/resent/{msg_id}").text
    # As the tests of the Ruby release look for it.
    assert re.search(r"\scount[^:]+:[^2]+2\s", text)
    assert re.search(r"\smax_count[^:]+:[^1]+15\s", text)
    for line in (
        " count : 2", " max_count : 15", " param1 : x", " param2 : ", " state : done",
        " status : done - warmed", f" msg_id : {msg_id}", " src : a &lt;b&gt;test&lt;/b&gt;",
    ):  # fmt: skip
        assert f"\n{line}\n" in text


def test_its_life_is_told_run_by_run(site: Web, seen: Seen) -> None:
    msg_id = done(site, "resent", src="cron")
    seen.page.goto(f"{site.url}q/resent/{msg_id}")
    told = seen.page.locator("#timeline li").all_inner_texts()
    heads = [text.splitlines()[0] for text in told]
    assert heads == [
        "Made", "Run 1", "Was sent back, to run again", "Run 2", "Was sent back, to run again",
        "Run 3", "Succeeded",
    ]  # fmt: skip
    assert "by cron" in told[0]
    assert "Memcached not responding." in told[2]
    assert "warmed" in told[6]
    expect(seen.page.locator("#log")).to_contain_text("try 2")


def test_parameters_are_shown_whole_and_exact(site: Web, seen: Seen) -> None:
    plain = "  two\n\tlines & <script>alert(1)</script>  "
    msg_id = done(site, "hello", param1=BIG, param2=plain, param3="\nafter an empty line\r\n")
    page = seen.page
    page.goto(f"{site.url}q/hello/{msg_id}")
    first, second, third = page.locator("#params pre").all()
    assert '"number": 12345678901234567890' in first.inner_text()
    assert json.loads(first.inner_text()) == json.loads(BIG)
    assert second.evaluate("pre => pre.textContent") == plain
    assert third.evaluate("pre => pre.textContent") == "\nafter an empty line\u240d\n"
    copied = page.locator("#params [data-copy]").evaluate_all("all => all.map(b => b.dataset.copy)")
    assert copied == [BIG, plain, "\nafter an empty line\r\n"]
    assert not page.locator("script", has_text="alert").count()


def test_the_full_id_is_copied_on_plain_http_too(site: Web, seen: Seen) -> None:
    msg_id = done(site, "hello")
    page = seen.page
    # What a page of plain http has not; the browser takes 127.0.0.1 for safe.
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.goto(f"{site.url}q/hello/{msg_id}")
    page.get_by_role("button", name="Copy the full id").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.locator("#find").focus()
    page.keyboard.press("Control+v")
    assert page.locator("#find").input_value() == site.rq.message("hello", msg_id)["full_id"]


@pytest.mark.parametrize("width", [1280, 360])
def test_an_attachment_that_is_coming_is_shown_as_it_comes(
    site: Web, seen: Seen, width: int
) -> None:
    msg_id = site.rq.ask("hello", "prep_message", {"dest": "hello"}).rpartition("/")[2]
    begun = site.curl(
        f"api/v1/queues/hello/messages/{msg_id}/attachments/{'large' * 20}.iso", "-X", "POST",
        "-H", "Upload-Complete: ?0", "-H", "Upload-Length: 4000000",
    )  # fmt: skip
    page, upload = seen.page, begun.headers["location"].lstrip("/")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{site.url}q/hello/{msg_id}")
    coming = page.locator(".coming li")
    expect(coming).to_contain_text("large")
    expect(coming).to_contain_text("0 B of 4.0 MB, waits for its sender")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    head = "\r\n".join([
        f"PATCH /{upload} HTTP/1.1", "Host: localhost", "Content-Length: 4000000", "Upload-Offset: 0",
        "Upload-Complete: ?1", "Content-Type: application/partial-upload", "", "",
    ])  # fmt: skip
    with socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE) as sender:
        sender.sendall(head.encode() + b"x" * 3_500_000)
        expect(coming).to_contain_text("MB of 4.0 MB, coming in")
        sender.sendall(b"x" * 500_000)
        expect(page.locator("#files")).to_contain_text(hashlib.sha256(b"x" * 4_000_000).hexdigest())
    expect(coming).to_have_count(0)


def test_attachments_are_previewed_downloaded_and_never_run(site: Web, seen: Seen) -> None:
    answer: str = site.rq.ask("hello", "prep_message", {"dest": "hello"})
    msg_id = answer.rpartition("/")[2]
    for name, data in (
        ("evil.html", b"<script>document.title='owned'</script>"),
        ("long.txt", b"0123456789\n" * 2000),
        ("binary", bytes(range(256))),
    ):
        path = site.rq.directory / f"given-{name}"
        path.write_bytes(data)
        args = {"msg_id": msg_id, "pathname": str(path), "name": name}
        site.rq.ask("hello", "attach_message", args)
    page = seen.page
    page.goto(f"{site.url}q/hello/{msg_id}")
    files = page.locator("#files")
    facts = site.rq.message("hello", msg_id)["_attachments"]
    for name, about in facts.items():
        assert about["md5"] in files.inner_text(), name
        assert about["sha256"] in files.inner_text()
    assert "22.0 kB" in files.inner_text()
    evil = files.locator("li", has_text="evil.html")
    evil.get_by_text("Preview").click()
    expect(evil.locator("pre")).to_have_text("<script>document.title='owned'</script>")
    assert not files.locator("li", has_text="binary").get_by_text("Preview").count()
    long = files.locator("li", has_text="long.txt")
    long.get_by_text("Preview of its beginning").click()
    assert len(long.locator("pre").inner_text()) < 9000
    with page.expect_download() as download:
        long.get_by_role("link", name="Download").click()
    assert Path(download.value.path()).read_bytes() == b"0123456789\n" * 2000
    evil.get_by_role("link", name="evil.html").click()
    page.wait_for_url("**/attach/evil.html")
    assert page.title() != "owned"
    assert "<script>" in page.locator("body").inner_text()
    # The sandbox in which it is shown keeps the browser from fetching an icon for it.
    seen.expected.append("NotSameOrigin")


def test_what_a_script_left_is_listed(site: Web, seen: Seen) -> None:
    msg_id = done(site, "leaves")
    seen.page.goto(f"{site.url}q/leaves/{msg_id}")
    seen.page.locator("#left").get_by_role("link", name="result of it.txt").click()
    expect(seen.page.locator("#log")).to_contain_text("x")


@pytest.mark.parametrize("javascript", [True, False])
def test_it_is_prepared_attached_committed_cloned_and_deleted(
    site: Web, browser: Browser, tmp_path: Path, javascript: bool
) -> None:
    context = browser.new_context(java_script_enabled=javascript)
    page = context.new_page()
    answer: str = site.rq.ask("hello", "prep_message", {"dest": "hello", "param1": "me"})
    msg_id = answer.rpartition("/")[2]
    page.goto(f"{site.url}q/hello/{msg_id}")
    (tmp_path / "notes.txt").write_text("some notes")
    page.locator("#filedata").set_input_files(tmp_path / "notes.txt")
    page.get_by_role("button", name="Attach", exact=True).click()
    expect(page.locator("#files")).to_contain_text("notes.txt")
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#files .note").first).to_have_text("0")
    page.get_by_role("button", name="Commit").click()
    expect(page.locator(".flash")).to_contain_text("committed")
    site.rq.until("hello", msg_id, "done")
    page.goto(f"{site.url}q/hello/{msg_id}")
    page.get_by_role("button", name="Clone", exact=True).click()
    expect(page.locator(".flash")).to_contain_text("cloned")
    page.goto(f"{site.url}q/hello/{msg_id}")
    page.locator("summary", has_text="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator(".flash")).to_contain_text("deleted")
    assert site.curl(f"q/hello/{msg_id}.json").status == 404
    context.close()


def test_what_runs_is_killed_after_asking(site: Web, seen: Seen) -> None:
    msg_id = site.rq.send("waits")
    site.rq.until("waits", msg_id, "run")
    page = seen.page
    page.goto(f"{site.url}q/waits/{msg_id}")
    page.locator("summary", has_text="Kill").click()
    page.get_by_role("button", name="Kill it").click()
    site.rq.until("waits", msg_id, "err")
    page.goto(f"{site.url}q/waits/{msg_id}")
    expect(page.locator("#head .badge")).to_have_text("err")


def test_a_retried_one_runs_again(site: Web, seen: Seen) -> None:
    msg_id = done(site, "fails", param1="first")
    page = seen.page
    page.goto(f"{site.url}q/fails/{msg_id}")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".flash")).to_contain_text(f"{msg_id} runs again")
    site.rq.until("fails", msg_id, "err")
    expect(page.locator("#timeline")).to_contain_text("Run 2")


def test_a_retry_that_comes_too_late_says_why(site: Web, browser: Browser) -> None:
    msg_id = done(site, "fails", param1="late")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}q/fails/{msg_id}")
    site.rq.ask("fails", "delete_message", {"msg_id": msg_id})
    page.get_by_role("button", name="Retry").click()
    assert "There is nothing here" in page.locator("main").inner_text()
    assert f"{msg_id} was not retried: msg not found" in page.locator(".flash").inner_text()
    context.close()


def test_a_full_id_leads_to_the_short_address(site: Web, seen: Seen) -> None:
    msg_id = done(site, "hello")
    full = site.rq.message("hello", msg_id)["full_id"]
    seen.page.goto(f"{site.url}q/hello/{full}")
    assert seen.page.url == f"{site.url}q/hello/{msg_id}"


def test_messages_that_belong_together_are_linked(site: Web, seen: Seen) -> None:
    first = done(site, "hello")
    answer: str = site.rq.ask("hello", "clone_message", {"msg_id": first})
    clone = answer.rpartition("/")[2]
    site.rq.until("hello", clone)
    seen.page.goto(f"{site.url}q/hello/{clone}")
    seen.page.locator("#fields").get_by_role("link", name=first, exact=True).first.click()
    seen.page.wait_for_url(f"**/{first}")
