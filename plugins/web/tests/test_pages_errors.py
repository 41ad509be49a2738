"""The page of errors: grouped by what scripts said, retried one first and then all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.conftest import Seen, Web

MENDABLE = """#!/bin/sh
test -e ../../../../../mended && { echo "done mended" >&3; exit 0; }
echo "err $RQ_PARAM1" >&3
"""


def broken(web: Web) -> None:
    """Two queues with errors of three kinds."""
    web.rq.queue("mail", MENDABLE, num_workers=4)
    web.rq.queue("import", MENDABLE)
    web.start()
    ids = [
        ("mail", web.rq.send("mail", param1=f"10.0.0.{n} timed out after {n} s")) for n in range(6)
    ]
    ids += [("mail", web.rq.send("mail", param1="no <b>space</b> left"))]
    ids += [("import", web.rq.send("import", param1="10.0.0.9 timed out after 9 s"))]
    for queue, msg_id in ids:
        web.rq.until(queue, msg_id, "err")


def test_one_is_retried_then_all(web: Web, seen: Seen) -> None:
    broken(web)
    page = seen.page
    page.goto(f"{web.url}errors")
    assert "8 messages in err, 3 kinds" in page.locator("#head").inner_text()
    group = page.locator("article", has_text="mail").filter(has_text="timed out")
    assert group.locator(".many").inner_text().startswith("6")
    assert "\u2039n\u203a timed out after \u2039n\u203a s" in group.inner_text()
    group.get_by_text("One of them whole").click()
    assert "10.0.0.5 timed out after 5 s" in group.locator("pre").inner_text()
    (web.rq.directory / "mended").touch()
    group.get_by_role("button", name="Retry the newest").click()
    expect(page.locator(".flash")).to_contain_text("runs again")
    expect(group.locator(".many")).to_have_text("5 messages")
    group.get_by_role("button", name="Retry all 5").click()
    assert page.locator("h1").inner_text() == "Retry 5 messages of mail?"
    page.get_by_role("button", name="Retry 5").click()
    expect(page.locator("#head .badge")).to_have_text("done")
    page.goto(f"{web.url}errors?queue=mail")
    expect(page.locator("article")).to_have_count(1)
    assert "no <b>space</b> left" in page.locator("article").inner_text()
    page.get_by_role("link", name="Of all queues").click()
    expect(page.locator("article")).to_have_count(2)


def test_new_errors_come_by_themselves_and_none_is_a_good_word(web: Web, seen: Seen) -> None:
    web.rq.queue("fails", web.FAILS)
    web.start()
    seen.page.goto(f"{web.url}errors")
    assert "Nothing is in err" in seen.page.locator("main").inner_text()
    expect(seen.page.locator("#live")).to_have_attribute("data-state", "live")
    web.rq.until("fails", web.rq.send("fails", param1="it broke"), "err")
    expect(seen.page.locator("article")).to_contain_text("it broke")


def test_a_group_that_is_gone_meanwhile_is_told(web: Web, seen: Seen) -> None:
    broken(web)
    seen.page.add_init_script("sessionStorage.setItem('rq-paused', 'yes')")
    seen.page.goto(f"{web.url}errors?queue=mail")
    for item in web.rq.ask("mail", "list_messages", {"state": "err"})["items"]:
        web.rq.ask("mail", "delete_message", {"msg_id": item["msg_id"]})
    seen.page.get_by_role("button", name="Retry all 6").click()
    expect(seen.page.locator(".flash")).to_contain_text("not in err any more")


def test_a_queue_that_is_not_there(web: Web) -> None:
    assert web.start().curl("errors?queue=nothing").status == 404
