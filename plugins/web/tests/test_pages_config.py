"""Configurations and queues changed in the browser: told in place what is wrong, in force when right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.conftest import Seen, Web


@pytest.fixture
def site(web: Web) -> Web:
    web.rq.queue(
        "hello", web.HELLO, env_vars={"A": "1"}, schedule=[{"cron": "0 4 * * *"}], note="by hand"
    )
    return web


def written(web: Web) -> dict[str, Any]:
    file = web.rq.directory / "queue" / "hello" / "config.json"
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_wrong_value_is_told_in_place_and_a_right_one_is_in_force(site: Web, seen: Seen) -> None:
    before = written(site)
    page = seen.page
    page.goto(f"{site.start().url}q/hello/config")
    assert "Every day at 04:00" in page.locator("main").inner_text()
    page.get_by_label("Workers").fill("900")
    page.locator("input[name='schedule[][cron]']").nth(1).fill("61 * * * *")
    page.get_by_role("button", name="Save").click()
    assert "2 things to correct" in page.get_by_role("alert").inner_text()
    assert "from 1 to 128" in page.locator("#wrong-num_workers").inner_text()
    assert "cron" in page.locator("#schedule .problem").inner_text()
    assert page.get_by_label("Workers").input_value() == "900"
    assert written(site) == before
    page.get_by_label("Workers").fill("3")
    page.get_by_label("Time limit").fill("90.5")
    page.locator("input[name='schedule[][cron]']").nth(1).fill("*/5 * * * *")
    page.get_by_role("group", name="Blocks by").get_by_label("param2").check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".flash")).to_contain_text("saved and in force")
    assert "Every 5 minutes" in page.locator("main").inner_text()
    assert written(site) == {
        **before, "num_workers": 3, "timeout": "90.5", "blocking_params": [2],
        "schedule": [{"cron": "0 4 * * *"}, {"cron": "*/5 * * * *"}],
    }  # fmt: skip
    assert site.rq.ask("hello", "describe")["workers"] == 3
    audit = (site.rq.directory / "log" / "audit.jsonl").read_text()
    assert '"configure_queue"' in audit
    seen.expected.append("status of 422")


def test_the_text_itself_can_be_edited_without_javascript(site: Web, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.start().url}q/hello/config?as=json")
    text = page.locator("textarea")
    text.fill(text.input_value().replace('"num_workers": 1', '"num_workers": 2,'))
    page.get_by_role("button", name="Save").click()
    assert "is not JSON" in page.get_by_role("alert").inner_text()
    text.fill(text.input_value().replace('"num_workers": 2,,', '"num_workers": 2,'))
    page.get_by_role("button", name="Save").click()
    assert "saved and in force" in page.locator(".flash").inner_text()
    assert written(site)["num_workers"] == 2
    assert written(site)["note"] == "by hand"
    context.close()


def test_who_saves_over_another_is_told(site: Web, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{site.start().url}q/hello/config")
    file = site.rq.directory / "queue" / "hello" / "config.json"
    file.write_text(json.dumps({**written(site), "num_workers": 7}))
    page.get_by_label("Workers").fill("2")
    page.get_by_role("button", name="Save").click()
    assert "was changed meanwhile" in page.get_by_role("alert").inner_text()
    assert written(site)["num_workers"] == 7
    seen.expected.append("status of 422")


@pytest.mark.parametrize("allowed", [True, False])
def test_another_program_is_named_only_where_queues_may_be_made(
    site: Web, seen: Seen, allowed: bool
) -> None:
    site.rq.configure(allow_new_queue=allowed)
    other = site.rq.script("other.sh", "#!/bin/sh\n")
    page = seen.page
    page.goto(f"{site.start().url}q/hello/config")
    script = page.get_by_label("Script", exact=True)
    assert script.is_editable() == allowed
    assert page.get_by_role("textbox", name="Environment").is_editable() == allowed
    assert page.locator("input[name=prefix_is]:disabled").count() == (0 if allowed else 2)
    if not allowed:
        assert "allow_new_queue is off" in page.locator("#fixed-script").inner_text()
        # Who sends another one all the same is refused.
        page.evaluate(
            "document.querySelectorAll('[readonly]').forEach((field) => field.readOnly = false)"
        )
    script.fill(str(other))
    page.get_by_role("textbox", name="Environment").fill("A=2\nB=c d")
    page.get_by_role("button", name="Save").click()
    if allowed:
        expect(page.locator(".flash")).to_contain_text("saved and in force")
        assert written(site)["script"] == str(other)
        assert written(site)["env_vars"] == {"A": "2", "B": "c d"}
    else:
        assert "cannot be changed over the web" in page.locator("#wrong-script").inner_text()
        assert "cannot be changed over the web" in page.locator("#wrong-env_vars").inner_text()
        assert written(site)["script"] != str(other)
    seen.expected.append("status of 422")


def test_who_may_only_read_sees_it_and_cannot_change_it(site: Web, seen: Seen) -> None:
    site.rq.configure(
        basic_auth={"realm": "RQ", "users": {"ann": "secret-of-ann"}},
        plugins={"web": {"roles": {"ann": "read"}}},
    )
    site.start()
    browser = seen.page.context.browser
    assert browser is not None
    context = browser.new_context(http_credentials={"username": "ann", "password": "secret-of-ann"})
    page = context.new_page()
    page.goto(f"{site.url}q/hello/config")
    assert page.get_by_label("Workers").is_disabled()
    assert not page.get_by_role("button", name="Save").count()
    for path in ("", "q/hello"):
        page.goto(site.url + path)
        assert not page.locator("main form[method=post]").count()
    answer = page.goto(f"{site.url}q/hello/new_message")
    assert answer is not None
    assert answer.status == 403
    assert "ann" in page.locator("main").inner_text()
    assert "who may read" in page.locator("main").inner_text()
    context.close()


def test_a_queue_is_made_and_deleted(site: Web, seen: Seen) -> None:
    site.rq.configure(allow_new_queue=True)
    script = site.rq.script("new.sh", site.HELLO)
    page = seen.page
    page.goto(f"{site.start().url}new_queue")
    page.get_by_label("Name", exact=True).fill("fresh")
    page.get_by_label("Script").fill(str(script))
    page.get_by_label("Workers").fill("2")
    page.get_by_role("group", name="Blocks by").get_by_label("param1").check()
    page.get_by_role("button", name="Make the queue").first.click()
    expect(page.locator(".flash")).to_contain_text("queue created")
    page.wait_for_url("**/q/fresh")
    made = json.loads((site.rq.directory / "queue" / "fresh" / "config.json").read_text())
    assert (made["num_workers"], made["blocking_params"]) == ("2", ["1"])
    site.rq.until("fresh", site.rq.send("fresh"), "done")
    page.goto(f"{site.url}q/fresh/config")
    page.locator("summary", has_text="Delete the queue").click()
    page.get_by_role("button", name="Delete fresh").click()
    expect(page.locator(".flash")).to_contain_text("Deleted queue fresh")
    assert not (site.rq.directory / "queue" / "fresh").exists()


def test_where_it_is_not_allowed_the_page_says_how_it_would_be(site: Web, seen: Seen) -> None:
    answer = seen.page.goto(f"{site.start().url}new_queue")
    assert answer is not None
    assert answer.status == 403
    assert '"allow_new_queue": true' in seen.page.locator("main").inner_text()
    assert "rq queue create" in seen.page.locator("main").inner_text()
    seen.expected.append("status of 403")
