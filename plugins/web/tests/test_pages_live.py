"""Pages that live: what happens is seen without a reload, whatever is interrupted meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Seen, Web

#: Says how far it is, a step for each line in the fifo.
STEPS = """#!/bin/bash
exec 9<>"$RQ_PARAM1"
for step in 1 2 3; do echo "run $step of 4 <b>parts</b>" >&3; read -r line <&9; done
echo "done all of it" >&3
"""


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("hello", shared.HELLO)
    shared.rq.queue("fails", shared.FAILS)
    shared.rq.queue("steps", STEPS)
    return shared.start()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def step(fifo: Path) -> None:
    """Let the script go on."""
    with fifo.open("w") as stream:
        stream.write("\n")


def open_and_mark(page: Page, url: str) -> None:
    """Open a page that would forget the mark if it were loaded again."""
    page.goto(url)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.evaluate("window.mark = 1")


def is_same(page: Page) -> bool:
    return bool(page.evaluate("window.mark === 1"))


@pytest.mark.parametrize("path", ["", "q/steps", "q/steps/{msg_id}"])
def test_progress_moves_without_a_reload(site: Web, seen: Seen, fifo: Path, path: str) -> None:
    msg_id = site.rq.send("steps", param1=str(fifo))
    site.rq.until("steps", msg_id, "run", matching=lambda m: "1 of 4" in m["status"])
    page = seen.page
    open_and_mark(page, site.url + path.format(msg_id=msg_id))
    bar = page.locator(f'progress[data-progress="{msg_id}"]').first
    assert bar.evaluate("bar => [bar.value, bar.max]") == [1, 4]
    step(fifo)
    expect(page.locator(f'[data-status="{msg_id}"]').first).to_have_text("2 of 4 <b>parts</b>")
    assert bar.evaluate("bar => bar.value") == 2
    step(fifo)
    step(fifo)
    site.rq.until("steps", msg_id, "done")
    if msg_id in path.format(msg_id=msg_id):
        expect(page.locator("#head .badge")).to_have_text("done")
        expect(page.locator("#timeline")).to_contain_text("all of it")
    else:
        expect(page.locator("#running")).to_contain_text("Nothing runs")
    assert is_same(page)


def test_counts_follow_and_errors_are_told(site: Web, seen: Seen) -> None:
    page = seen.page
    open_and_mark(page, site.url)
    cell = page.locator("#queue-fails td.err")
    before = int(cell.inner_text())
    site.rq.until("fails", site.rq.send("fails"), "err")
    expect(cell).to_have_text(str(before + 1))
    expect(page.locator("#troubles")).to_contain_text("fails has")
    assert is_same(page)


def test_a_queue_that_is_paused_by_hand_is_seen(site: Web, seen: Seen) -> None:
    page = seen.page
    open_and_mark(page, f"{site.url}q/hello")
    (site.rq.directory / "config" / "hello.pause").touch()
    expect(page.locator("#head")).to_contain_text("an operator paused it")
    (site.rq.directory / "config" / "hello.pause").unlink()
    expect(page.locator("#head")).to_contain_text("takes and runs messages")
    assert is_same(page)


def test_what_the_reader_is_at_stays(site: Web, seen: Seen) -> None:
    first = site.rq.send("hello", param1="first")
    site.rq.until("hello", first, "done")
    page = seen.page
    open_and_mark(page, f"{site.url}q/hello")
    page.locator(f"#m-{first.replace('.', chr(92) + '.')} input").check()
    page.get_by_text("More", exact=True).click()
    page.locator("#filter").press_sequentially("state:er")
    second = site.rq.send("hello", param1="second")
    expect(page.locator("tbody tr").first).to_contain_text("second")
    expect(page.locator("tbody tr").first).to_contain_text(second.rpartition(".")[0])
    assert page.locator("#filter").input_value() == "state:er"
    assert page.evaluate("document.activeElement.id") == "filter"
    assert page.locator(f"#m-{first.replace('.', chr(92) + '.')} input").is_checked()
    assert page.locator("#head details").evaluate("d => d.open")
    assert is_same(page)


def test_it_can_be_paused_and_goes_on(site: Web, seen: Seen) -> None:
    page = seen.page
    open_and_mark(page, f"{site.url}q/hello")
    page.get_by_role("button", name="Live").click()
    expect(page.locator("#live")).to_have_attribute("data-state", "paused")
    msg_id = site.rq.send("hello", param1="while it was paused")
    site.rq.until("hello", msg_id, "done")
    # Another page, which is not paused, has seen it: so this one has heard of it, too.
    other = page.context.new_page()
    other.add_init_script("sessionStorage.clear()")
    other.goto(f"{site.url}q/hello")
    expect(other.locator("#listing")).to_contain_text("while it was paused")
    assert "while it was paused" not in page.locator("#listing").inner_text()
    page.bring_to_front()
    page.reload()
    expect(page.locator("#live")).to_have_attribute("data-state", "paused")
    page.get_by_role("button", name="Paused").click()
    expect(page.locator("#listing")).to_contain_text("while it was paused")


def test_a_page_goes_on_after_the_service_was_killed(web: Web, seen: Seen) -> None:
    web.rq.queue("hello", web.HELLO)
    site, page = web.start(), seen.page
    open_and_mark(page, f"{site.url}q/hello")
    page.locator("#filter").press_sequentially("being typed")
    # Refused from then on; and what was just being answered is cut off.
    seen.expected += ["net::ERR_CONNECTION_", "net::ERR_CONTENT_LENGTH_", "net::ERR_INCOMPLETE_"]
    service, manager = site.pid(), site.rq.process
    assert manager is not None
    manager.send_signal(signal.SIGSTOP)  # it is not begun anew before somebody has looked
    try:
        site.rq.kill(service, signal.SIGKILL)
        expect(page.locator("#live")).to_have_attribute("data-state", "reconnecting")
        assert page.get_by_text("Reconnecting…").is_visible()
    finally:
        manager.send_signal(signal.SIGCONT)
    while_away = site.rq.send("hello", param1="while the site was away")
    site.rq.until("hello", while_away, "done")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#listing")).to_contain_text("while the site was away")
    site.rq.until("hello", site.rq.send("hello", param1="and afterwards"), "done")
    expect(page.locator("#listing")).to_contain_text("and afterwards")
    assert page.locator("#filter").input_value() == "being typed"
    assert is_same(page)


def test_a_queue_whose_process_is_killed_is_seen_to_come_back(web: Web, seen: Seen) -> None:
    web.rq.queue("fails", web.FAILS)
    site, page = web.start(), seen.page
    open_and_mark(page, f"{site.url}q/fails")
    pid = site.rq.ask("fails", "describe")["pid"]
    site.rq.kill(pid, signal.SIGKILL)
    site.rq.serving("fails")
    new = site.rq.ask("fails", "describe")["pid"]
    expect(page.locator("#head")).to_contain_text(f"pid {new}")
    assert is_same(page)


def test_many_tabs_share_one_stream(site: Web, seen: Seen) -> None:
    pages = [seen.page, *(seen.page.context.new_page() for _ in range(7))]
    for page in pages:
        page.goto(f"{site.url}q/hello")
    site.rq.until("hello", site.rq.send("hello", param1="seen by all"), "done")
    for page in pages:
        page.bring_to_front()
        expect(page.locator("#listing")).to_contain_text("seen by all")


def test_without_a_shared_worker_a_page_lives_by_itself(site: Web, seen: Seen, fifo: Path) -> None:
    page = seen.page
    page.add_init_script("delete window.SharedWorker")
    msg_id = site.rq.send("steps", param1=str(fifo))
    open_and_mark(page, f"{site.url}q/steps/{msg_id}")
    expect(page.locator("#head [data-status]")).to_have_text("1 of 4 <b>parts</b>")
    for _ in range(3):
        step(fifo)
    expect(page.locator("#head .badge")).to_have_text("done")
    assert is_same(page)


def test_a_message_that_is_deleted_is_told_in_place(site: Web, seen: Seen) -> None:
    msg_id = site.rq.send("hello")
    site.rq.until("hello", msg_id, "done")
    open_and_mark(seen.page, f"{site.url}q/hello/{msg_id}")
    site.rq.ask("hello", "delete_message", {"msg_id": msg_id})
    expect(seen.page.locator("main")).to_contain_text("There is nothing here")
    seen.expected.append("status of 404")


def test_times_go_on(site: Web, seen: Seen) -> None:
    msg_id = site.rq.send("hello")
    site.rq.until("hello", msg_id, "done")
    seen.page.clock.install()
    seen.page.goto(f"{site.url}q/hello/{msg_id}")
    at = seen.page.locator("#timeline time").first
    expect(at).to_have_text("now")
    seen.page.clock.fast_forward(90_000)
    expect(at).to_have_text("2 min ago")
    assert "202" in str(at.get_attribute("title"))


def test_a_page_lives_for_who_has_logged_in_and_says_when_it_cannot(
    web: Web, browser: Browser
) -> None:
    web.rq.queue("hello", web.HELLO)
    web.rq.configure(basic_auth={"realm": "RQ", "users": {"ann": "secret-of-ann"}})
    web.start()
    context = browser.new_context(http_credentials={"username": "ann", "password": "secret-of-ann"})
    page = context.new_page()
    page.goto(f"{web.url}q/hello")
    web.rq.until("hello", web.rq.send("hello", param1="for ann"), "done")
    expect(page.locator("#listing")).to_contain_text("for ann")
    assert "you are ann" in page.locator("footer").inner_text()
    context.route("**/api/v1/events*", lambda route: route.fulfill(status=503, body="no"))
    page.add_init_script("delete window.SharedWorker")
    page.reload()
    expect(page.locator("#live")).to_have_attribute("data-state", "reconnecting")
    context.close()
