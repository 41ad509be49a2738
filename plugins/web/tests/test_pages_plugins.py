"""What plugins add to the site, with the plugin of examples/plugins; and plugins that fail."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Seen, Web

EXAMPLE = Path(__file__).parents[3] / "examples" / "plugins" / "runbook.py"
#: Fails, or gives nonsense, wherever it is asked.
CLUMSY = """
from rqcore.hookspecs import hookimpl
from rqcore_web.hookspecs import NavItem, Panel


@hookimpl
def rq_web_overview_panels():
    raise ValueError("the <b>sky</b> fell")


@hookimpl
def rq_web_queue_panels(queue):
    return (Panel(f"Part {n}", 1 // n) for n in (1, 0))


class Strange:
    label, path = "Strange", 7

    @property
    def title(self):
        raise LookupError("no title today")


@hookimpl
def rq_web_message_panels(message):
    return ["no panel at all", Panel(3, "x"), Strange()]


@hookimpl
def rq_web_nav_items():
    return [NavItem("Clumsy", "-/clumsy/fails"), "no item", Strange()]


@hookimpl
def rq_web_routes():
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def fails(request):
        raise RuntimeError("this page fails")

    async def works(request):
        return PlainTextResponse(request.method)

    return [Route("/fails", fails), Route("/works", works, methods=["GET", "POST"]), "no route"]


@hookimpl
def rq_web_root_routes():
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def works(request):
        return PlainTextResponse(f"at the root: {request.method}")

    return [
        Route("/clumsy.txt", works, methods=["GET"]), Route("/clumsy.txt", works, methods=["POST"]),
        Route("/q.txt", works, methods=["POST"]), Route("/new_queue", works, methods=["PUT"]),
        Route("/q/fails", works), Route("/{all}", works), Route("/runbook", works), 7,
    ]
"""


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("fails", shared.FAILS)
    shared.rq.queue("other", shared.HELLO)
    shutil.copy(EXAMPLE, shared.rq.directory / "plugins")
    shared.rq.plugin("clumsy", CLUMSY)
    (shared.rq.directory / "runbook").mkdir()
    (shared.rq.directory / "runbook" / "fails.txt").write_text("If it <fails>, call Ann.")
    return shared.start()


def test_an_item_of_the_menu_leads_to_a_page(site: Web, seen: Seen) -> None:
    seen.page.goto(site.url)
    seen.page.get_by_role("navigation", name="Pages").get_by_role("link", name="Runbook").click()
    seen.page.wait_for_url("**/-/runbook/")
    assert "If it <fails>, call Ann." in seen.page.locator("main").inner_text()
    assert seen.page.locator("nav a[aria-current=page]").inner_text() == "Runbook"


def test_panels_stand_on_their_pages(site: Web, seen: Seen) -> None:
    msg_id = site.rq.send("fails")
    site.rq.until("fails", msg_id, "err")
    seen.page.goto(site.url)
    told = seen.page.locator("main").inner_text()
    places = [
        told.index(part)
        for part in ("has 1 message in err", "1 of 2 queues have a text", "Runs now")
    ]
    assert places == sorted(places), "what a plugin tells stands below what needs attention"
    for path in ("q/fails", f"q/fails/{msg_id}"):
        seen.page.goto(site.url + path)
        panel = seen.page.locator("section", has=seen.page.get_by_role("heading", name="Runbook"))
        assert "If it <fails>, call Ann." in panel.inner_text()
    seen.page.goto(f"{site.url}q/other")
    assert not seen.page.get_by_role("heading", name="Runbook").count()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "ValueError: the <b>sky</b> fell"),
        ("q/other", "ZeroDivisionError"),
        ("q/fails/{msg_id}", "gave no Panel: a str has no content"),
        ("q/fails/{msg_id}", "gave no Panel: the title of a Panel must be text"),
        ("q/fails/{msg_id}", "gave no Panel: a Strange failed with LookupError: no title today"),
    ],
)
def test_a_panel_that_fails_says_so_on_a_page_that_is_whole(
    site: Web, seen: Seen, path: str, told: str
) -> None:
    from playwright.sync_api import expect

    msg_id = site.rq.send("fails")
    site.rq.until("fails", msg_id, "err")
    answer = seen.page.goto(site.url + path.format(msg_id=msg_id))
    assert answer is not None
    assert answer.status == 200
    panel = seen.page.locator(".card.wrong", has_text="clumsy").filter(has_text=told)
    expect(panel).to_have_count(1)
    assert seen.page.locator("footer").is_visible()


def test_what_was_given_before_it_failed_is_shown(site: Web, seen: Seen) -> None:
    seen.page.goto(f"{site.url}q/other")
    part = seen.page.locator("section", has=seen.page.get_by_role("heading", name="Part 1"))
    assert "1" in part.inner_text()


def test_a_page_of_a_plugin_that_fails_is_a_failure_like_others(site: Web) -> None:
    answer = site.curl("-/clumsy/fails", "-H", "Accept: text/html")
    assert answer.status == 500
    assert "this failed" in answer.text
    assert "RuntimeError" not in answer.text
    # It is logged after it was answered: before the next request is.
    site.curl("-/clumsy/works")
    assert "RuntimeError: this page fails" in site.rq.log_text()


def test_items_of_the_menu_that_are_none_are_left_out(site: Web) -> None:
    page = site.curl("").text
    assert 'href="/-/clumsy/fails"' in page
    assert "Strange" not in page
    assert "no NavItem: the path of a Strange must be text" in site.rq.log_text()


def test_pages_of_plugins_are_found_below_their_names_alone(site: Web) -> None:
    assert site.curl("-/clumsy/works").text == "GET"
    assert site.curl("-/clumsy/works", "-X", "POST").text == "POST"
    assert site.curl("-/clumsy/nothing").status == 404
    assert "some of its pages are missing" in site.rq.log_text()


def test_addresses_of_plugins_at_the_root_take_none_from_others(site: Web) -> None:
    assert site.curl("clumsy.txt").text == "at the root: GET"
    assert site.curl("clumsy.txt", "-X", "POST").text == "at the root: POST"
    assert site.curl("clumsy.txt", "-X", "PUT").status == 405
    assert site.curl("q.txt", "-X", "POST").status == 405
    assert site.curl("new_queue", "-X", "PUT").status == 405
    assert "at the root" not in site.curl("q/fails").text
    assert site.curl("nobody").status == 404
    assert site.curl("runbook").status == 404
    log = site.rq.log_text()
    for told in (
        "/q.txt is the site's own", "/new_queue is the site's own",
        "/q/fails is not one fixed part", "/{all} is not one fixed part", "no route: a int",
        "/runbook is brought by plugins clumsy and runbook; none is used",
    ):  # fmt: skip
        assert told in log


def test_the_page_of_plugins_says_how_each_fares(site: Web, seen: Seen) -> None:
    for _ in range(5):
        site.curl("")
    seen.page.goto(f"{site.url}plugins")
    clumsy = seen.page.locator("section", has=seen.page.get_by_role("heading", name="clumsy"))
    assert "quarantined" in clumsy.inner_text()
    assert "failed 5 times running in rq_web_overview_panels" in clumsy.inner_text()
    row = clumsy.locator("tr", has_text="rq_web_overview_panels")
    calls, errors = (row.locator("td").nth(n).inner_text() for n in (1, 2))
    assert int(calls) == int(errors) >= 5
    web = seen.page.locator(
        "section", has=seen.page.get_by_role("heading", name=re.compile("^web [0-9]"))
    )
    assert "rq_message_finishing" in web.inner_text()
    assert "ok" in web.inner_text()
