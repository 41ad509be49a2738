"""Keys, light and dark, help: what makes the site quick to use, and is never in the way of typing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Seen, Web


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("hello", shared.HELLO)
    shared.start()
    for n in range(4):
        shared.rq.until("hello", shared.rq.send("hello", param1=str(n)), "done")
    return shared


def ready(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#theme")).to_be_visible()


@pytest.mark.parametrize(
    ("key", "place"), [("o", ""), ("e", "errors"), ("s", "-/search"), ("p", "plugins")]
)
def test_g_and_a_letter_go_to_a_page(site: Web, seen: Seen, key: str, place: str) -> None:
    ready(seen.page, f"{site.url}q/hello")
    seen.page.keyboard.press("g")
    seen.page.keyboard.press(key)
    seen.page.wait_for_url(site.url + place)


def test_rows_are_walked_selected_and_opened(site: Web, seen: Seen) -> None:
    page = seen.page
    ready(page, f"{site.url}q/hello")
    for key in "jjjkx":
        page.keyboard.press(key)
    row = page.locator("tr[data-at]")
    assert row.evaluate("row => row.rowIndex") == 2
    assert row.locator("input").is_checked()
    expect(page.locator("[data-selected]")).to_have_text("1 selected")
    page.keyboard.press("k")
    page.keyboard.press("k")
    first = page.locator("tbody tr").first
    assert first.get_attribute("data-at") == ""
    msg_id = str(first.get_attribute("id")).removeprefix("m-")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/q/hello/{msg_id}")


def test_the_overview_is_walked_too(site: Web, seen: Seen) -> None:
    ready(seen.page, site.url)
    seen.page.keyboard.press("j")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/q/hello")


def test_slash_searches_and_escape_leaves(site: Web, seen: Seen) -> None:
    page = seen.page
    ready(page, f"{site.url}q/hello")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    # What is typed is text, not commands.
    page.keyboard.type("grjx?t/")
    assert page.locator("#filter").input_value() == "grjx?t/"
    assert not page.locator("dialog[open]").count()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.body")
    ready(page, f"{site.url}plugins")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"


def test_help_opens_and_closes(site: Web, seen: Seen) -> None:
    page = seen.page
    ready(page, site.url)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("pause live updates")
    expect(dialog).to_contain_text("state:que,err")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    page.locator("#help-link").click()
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).not_to_be_visible()


def test_r_pauses_and_goes_on(site: Web, seen: Seen) -> None:
    ready(seen.page, site.url)
    for state in ("paused", "live"):
        seen.page.keyboard.press("r")
        expect(seen.page.locator("#live")).to_have_attribute("data-state", state)


def test_a_menu_closes_with_escape_and_a_click_elsewhere(site: Web, seen: Seen) -> None:
    page = seen.page
    ready(page, site.url)
    menu = page.locator("#queue-hello details")
    for with_key in (True, False):
        menu.locator("summary").click()
        expect(menu.get_by_role("link", name="New message")).to_be_visible()
        if with_key:
            page.keyboard.press("Escape")
        else:
            page.locator("h1").click()
        expect(menu.get_by_role("link", name="New message")).not_to_be_visible()


def ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_another_is_chosen(
    site: Web, browser: Browser, scheme: str
) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    ready(page, site.url)
    preferred = ground(page)
    page.get_by_role("button", name="Light or dark").click()
    chosen = ground(page)
    assert chosen != preferred
    page.goto(f"{site.url}q/hello")
    assert ground(page) == chosen
    # It is there before anything is painted: no flash of the other one.
    assert page.evaluate("document.documentElement.dataset.theme") != scheme
    page.keyboard.press("t")
    assert ground(page) == preferred
    # What the system prefers is not stored, so that the page goes on to follow it.
    assert page.evaluate("localStorage.getItem('rq-theme')") is None
    page.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    assert ground(page) == chosen
    context.close()


def test_everything_can_be_reached_by_tab_and_is_seen_to_be(site: Web, seen: Seen) -> None:
    page = seen.page
    ready(page, site.url)
    page.keyboard.press("Tab")
    skip = page.locator("a.skip")
    expect(skip).to_be_focused()
    assert skip.evaluate("a => a.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement !== document.body"):
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML")
        page.keyboard.press("Tab")


def test_motion_is_reduced_where_it_is_wished(site: Web, seen: Seen) -> None:
    seen.page.emulate_media(reduced_motion="reduce")
    ready(seen.page, site.url)
    moving = seen.page.evaluate("document.getAnimations().length")
    assert moving == 0


def test_it_prints_without_what_only_a_screen_can_do(site: Web, seen: Seen) -> None:
    seen.page.emulate_media(media="print", color_scheme="dark")
    ready_url = f"{site.url}q/hello"
    seen.page.goto(ready_url)
    expect(seen.page.locator(".tools")).not_to_be_visible()
    expect(seen.page.locator("#bulk")).not_to_be_visible()
    expect(seen.page.locator("tbody tr").first).to_be_visible()
    ink = seen.page.evaluate("getComputedStyle(document.body).color")
    assert max(int(n) for n in re.findall(r"\d+", ink)[:3]) < 100
