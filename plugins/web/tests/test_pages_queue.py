"""A queue's page and the overview: lists, filters, paging, and doing one thing to many messages."""

from __future__ import annotations

import json
import re
from time import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Seen, Web

#: Fails unless the file ``mended`` is there.
MENDABLE = """#!/bin/sh
test -e ../../../../../mended || { echo "err no space left on disk $RQ_PARAM1" >&3; exit 0; }
echo "done mended" >&3
"""


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("hello", shared.HELLO, num_workers=4)
    shared.rq.queue("other", shared.HELLO)
    schedule = [{"cron": "*/10 * * * *", "param1": "a b"}, {"cron": "0 4 * * *", "param1": "night"}]
    shared.rq.queue("cron", shared.HELLO, schedule=schedule)
    shared.start()
    ids = [shared.rq.send("hello", param1=f"n{n}", src="even" if n % 2 == 0 else "odd")
           for n in range(120)]  # fmt: skip
    for msg_id in ids:
        shared.rq.until("hello", msg_id, "done")
    shared.rq.send("hello", param1="later", due=int(time()) + 7200)
    return shared


def failing(web: Web, many: int) -> list[str]:
    """A queue with messages in err, in an instance of its own."""
    web.rq.queue("mendable", MENDABLE, num_workers=4)
    web.start()
    ids = [web.rq.send("mendable", param1=str(n)) for n in range(many)]
    for msg_id in ids:
        web.rq.until("mendable", msg_id, "err")
    return ids


def shown_ids(page: Page) -> list[str]:
    return [row.replace("m-", "") for row in page.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => row.id)"
    )]  # fmt: skip


def test_old_checks_find_what_they_look_for(site: Web) -> None:
    lines = [line for line in site.curl("").text.splitlines() if "QUEUEMGR:" in line]
    assert len(lines) == 1
    assert "OPERATIONAL" in lines[0]


def test_the_overview_says_all_of_a_queue(site: Web, seen: Seen) -> None:
    seen.page.goto(site.url)
    row = seen.page.locator("#queue-hello")
    assert row.locator("td.done").inner_text() == "120"
    assert row.locator("td.que").inner_text() == "1"
    assert row.locator("td.busy").inner_text() == "0 / 4"
    assert "next due" in row.locator("td.due").inner_text()
    assert "UP" in row.inner_text()
    # The site counts what it hears; the first ones may have ended before it listened.
    label = row.locator("svg.sparkline").get_attribute("aria-label") or ""
    assert re.search(r"\b1\d\d messages ended in the last hour", label)
    coming = seen.page.locator("#coming")
    expect(coming).to_contain_text("Every 10 minutes")
    expect(coming).to_contain_text("in 2 h")


def test_a_queue_is_paused_and_resumed_from_the_overview(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(site.url)
    for button, state in (("Pause", "PAUSE"), ("Resume", "UP")):
        page.locator("#queue-other summary").click()
        page.locator("#queue-other").get_by_role("button", name=button, exact=True).click()
        expect(page.locator("#queue-other .badge")).to_have_text(state)
        assert f"Successfully {button.lower()}d queue other" in page.locator(".flash").inner_text()
        assert site.rq.ask("other", "describe")["admin"] == state


def test_a_queue_is_paged_newest_first_and_pages_stay(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/hello?state=done")
    found = shown_ids(page)
    assert len(found) == 50
    page.get_by_role("link", name="Older").click()
    second = page.url
    found += shown_ids(page)
    page.get_by_role("link", name="Older").click()
    found += shown_ids(page)
    assert len(set(found)) == 120
    assert found == sorted(found, reverse=True)
    assert not page.get_by_role("link", name="Older").count()
    site.rq.until("hello", site.rq.send("hello", param1="new"), "done")
    page.goto(second)
    assert shown_ids(page) == found[50:100]
    page.get_by_role("link", name="Newest").click()
    assert len(shown_ids(page)) == 50


def test_a_filter_is_in_the_url_and_what_is_wrong_with_it_in_place(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/hello")
    page.locator("#filter").fill("param1:n7* src:odd state:done")
    page.keyboard.press("Enter")
    page.wait_for_url("**/q/hello?filter=param1*")
    assert len(shown_ids(page)) == 6
    page.locator("nav.band").get_by_role("link", name="que").click()
    expect(page.locator("#listing")).to_contain_text("No message in que fits this filter")
    page.locator("#filter").fill("colour:red")
    page.keyboard.press("Enter")
    expect(page.locator("#listing")).to_contain_text('position 1: "colour" is no field')
    assert page.locator("#filter").input_value() == "colour:red"
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("#filter")).to_have_value("")


def test_a_schedule_is_told_in_words_and_run_now(site: Web, seen: Seen) -> None:
    seen.page.goto(f"{site.url}q/cron")
    card = seen.page.locator("#schedule")
    assert "Every 10 minutes" in card.inner_text()
    assert "next in" in card.inner_text()
    card.get_by_role("button", name="Run now").nth(1).click()
    expect(seen.page.locator(".flash")).to_contain_text("Created message http")
    made = json.loads(site.curl("q/cron.json").body)["messages"]
    ids = [item["msg_id"] for state in made.values() for item in state]
    message = site.rq.until("cron", ids[0])
    assert (message["param1"], message["src"]) == ("night", "schedule, run by anonymous")


def test_those_selected_are_retried_after_a_confirmation(web: Web, seen: Seen) -> None:
    ids = failing(web, 5)
    page = seen.page
    page.goto(f"{web.url}q/mendable?state=err")
    (web.rq.directory / "mended").touch()
    for msg_id in ids[1:4]:
        page.get_by_label(f"Select {msg_id}").check()
    expect(page.locator("[data-selected]")).to_have_text("3 selected")
    page.get_by_role("button", name="Retry…").click()
    assert page.locator("h1").inner_text() == "Retry 3 messages of mendable?"
    assert ids[2] in page.locator("main").inner_text()
    assert {web.rq.message("mendable", msg_id)["state"] for msg_id in ids} == {"err"}
    page.get_by_role("button", name="Retry 3").click()
    expect(page.locator("#head .badge")).to_have_text("done")
    for msg_id in ids[1:4]:
        web.rq.until("mendable", msg_id, "done")
    assert web.rq.message("mendable", ids[0])["state"] == "err"
    expect(page.locator("#job")).to_contain_text(re.compile(r"done\s*3"))


def test_all_that_match_are_retried_and_the_number_is_told(web: Web, seen: Seen) -> None:
    ids = failing(web, 12)
    page = seen.page
    page.goto(f"{web.url}q/mendable?state=err&filter=param1:1*")
    (web.rq.directory / "mended").touch()
    page.get_by_label("all that match").check()
    page.get_by_role("button", name="Retry…").click()
    assert page.locator("h1").inner_text() == "Retry 3 messages of mendable?"
    assert "state:err param1:1*" in page.locator("main").inner_text()
    page.get_by_role("button", name="Retry 3").click()
    expect(page.locator("#head .badge")).to_have_text("done")
    for number in (1, 10, 11):
        web.rq.until("mendable", ids[number], "done")
    counts = web.rq.client("mendable").call("num_messages")
    assert (counts["done"], counts["err"]) == (3, 9)
    audit = (web.rq.directory / "log" / "audit.jsonl").read_text()
    assert '"bulk retry"' in audit


def test_many_are_deleted_without_javascript(web: Web, browser: Browser) -> None:
    ids = failing(web, 4)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{web.url}q/mendable?state=err")
    page.get_by_role("button", name="Delete…").click()
    assert "no message is selected" in page.locator(".flash").inner_text()
    for msg_id in ids[:2]:
        page.get_by_label(f"Select {msg_id}").check()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("link", name="No, go back").click()
    assert len(shown_ids(page)) == 4
    page.get_by_label("all 4 in this list").check()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete 4").click()
    while "running" in (state := page.locator("#head .badge").inner_text()) or "wait" in state:
        page.reload()
    assert page.locator("#head .badge").inner_text() == "done"
    page.get_by_role("link", name="To the queue").click()
    assert "This queue has no message yet" in page.locator("main").inner_text()
    context.close()


def test_what_is_refused_is_told_with_its_reason(web: Web, seen: Seen) -> None:
    ids = failing(web, 2)
    page = seen.page
    page.goto(f"{web.url}q/mendable")
    page.get_by_label(f"Select {ids[0]}").check()
    page.get_by_role("button", name="Kill…").click()
    page.get_by_role("button", name="Kill 1").click()
    expect(page.locator("#refused")).to_contain_text("message is in err, nothing runs")


def test_selecting_by_box_range_and_all(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.url}q/hello?state=done")
    boxes = page.locator("tbody input[type=checkbox]")
    boxes.nth(2).click()
    boxes.nth(6).click(modifiers=["Shift"])
    expect(page.locator("[data-selected]")).to_have_text("5 selected")
    page.locator("[data-select-all]").check()
    expect(page.locator("[data-selected]")).to_have_text("50 selected")
    page.locator("[data-select-all]").uncheck()
    expect(page.locator("[data-selected]")).to_have_text("")
