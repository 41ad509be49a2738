"""Search over all queues, and the way to a message by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Seen, Web


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("hello", shared.HELLO)
    shared.rq.queue("fails", shared.FAILS)
    shared.rq.queue("broken", shared.HELLO, num_workers=0)
    return shared.start()


def test_messages_of_all_queues_are_found_newest_first(site: Web, seen: Seen) -> None:
    ids = []
    for queue in ("hello", "fails", "hello"):
        ids.append(site.rq.send(queue, param1="needle in here"))
        site.rq.until(queue, ids[-1])
    page = seen.page
    page.goto(f"{site.url}plugins")
    page.locator("#find").fill("param1:needle*")
    page.keyboard.press("Enter")
    page.wait_for_url("**/-/search?q=param1*")
    rows = page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.id)")
    assert rows == [f"m-{msg_id}" for msg_id in reversed(ids)]
    assert "in broken" in page.locator("main").inner_text()
    page.locator("#q").fill("param1:needle* state:err")
    page.get_by_role("button", name="Search").click()
    assert page.locator("tbody tr").count() == 1
    page.locator("tbody a[data-open]").click()
    page.wait_for_url(f"**/q/fails/{ids[1]}")


@pytest.mark.parametrize("form", ["{id}", "{full}", "/q/hello/{id}", "  {id} "])
def test_an_id_leads_straight_to_its_message(site: Web, seen: Seen, form: str) -> None:
    msg_id = site.rq.send("hello")
    full = site.rq.message("hello", msg_id)["full_id"]
    seen.page.goto(site.url)
    seen.page.locator("#find").fill(form.format(id=msg_id, full=full))
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url(f"**/q/hello/{msg_id}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour:red", "is no field"),
        ("20200101.0000.00.000.1", "Nothing was found"),
        ("fail", "Queues:"),
        ("", "What can be looked for"),
        ("http://elsewhere.example.com:3333/q/hello/20200101.0000.00.000.1", "no field"),
    ],
)
def test_what_is_not_found_is_told(site: Web, seen: Seen, text: str, told: str) -> None:
    seen.page.goto(site.url + "-/search")
    seen.page.locator("#q").fill(text)
    seen.page.get_by_role("button", name="Search").click()
    assert told in seen.page.locator("main").inner_text()


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("name=hello&query[param1]=x%20y", "q/hello?filter=param1%3A%22x+y%22"),
        ("name=hello&query[src]=a&exact=1", "q/hello?filter=src%3A%3D%22a%22"),
        ("q=state:err", "-/search?q=state%3Aerr"),
    ],
)
def test_a_browser_at_the_old_address_finds_the_new_one(site: Web, query: str, place: str) -> None:
    answer = site.curl(f"search?{query}", "-g", "-H", "Accept: text/html")
    assert (answer.status, answer.headers["location"]) == (303, f"/{place}")


def test_a_program_is_still_given_json(site: Web) -> None:
    assert site.curl("search?name=hello&query[param1]=no-such-value", "-g").json() == []
