"""What holds for every page, whatever lies in the queues: it can be used by everybody, everywhere.

No serious finding of axe in light and in dark, nothing that sticks out at 360 pixels, no error in the
console and no violation of the content security policy (`seen` watches), and the page is whole without
JavaScript, too.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import (  # type: ignore[import-untyped]  # has none
    Axe,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Seen, Web

LONG = "a-queue-with-a-name-of-128-characters_" + "x" * 90
ODD = "💥 عربي \x1b[31mred\x07 \u202egnp.exe caf\udce9 " + "without-any-space-" * 20
BIG = json.dumps({"rows": [{"n": n, "text": "ü <b>&amp;</b> " * 3} for n in range(150)]})

#: Every page, and what can be read on it.
PAGES = {
    "overview": ("", "Runs now"),
    "queue": ("q/hello", "world"),
    "queue that is empty": ("q/empty", "This queue has no message yet"),
    "queue with a long name": (f"q/{LONG}", LONG),
    "queue in err": ("q/fails?state=err", "it broke"),
    "queue that is filtered": ("q/fails?filter=state:err+age:%3C1d", "it broke"),
    "queue with a wrong filter": ("q/fails?filter=colour:red", "is no field"),
    "queue that is paused": ("q/paused", "an operator paused it"),
    "queue that is down": ("q/down", "an operator took it down"),
    "queue without its script": ("q/scriptless", "its script cannot run"),
    "queue that does not run": ("q/broken", "its process does not run"),
    "message": ("q/hello/{done}", "Succeeded"),
    "message with much": ("q/hello/{big}", '"rows"'),
    "message that runs": ("q/waits/{run}", "Kill"),
    "message in err": ("q/fails/{err}", "Retry"),
    "message with odd text": ("q/fails/{odd}", "gnp.exe"),
    "message in preparation": ("q/hello/{prep}", "Commit"),
    "message that waits": ("q/hello/{que}", "Is due"),
    "configuration": ("q/waits/config", "Change it"),
    "configuration as text": ("q/waits/config?as=json", "The whole file"),
    "configuration that is wrong": ("q/broken/config", "to correct"),
    "new message": ("q/hello/new_message", "Attachments"),
    "new message by form.json": ("q/waits/new_message", "Which fifo"),
    "clone with edits": ("q/hello/new_message?from={big}", "Clone with edits"),
    "new queue": ("new_queue", "Make the queue"),
    "errors": ("errors", "it broke"),
    "search": ("-/search", "What can be looked for"),
    "search that finds": ("-/search?q=hello", "hello"),
    "plugins": ("plugins", "rq_message_finishing"),
    "help": ("-/help", "Filters"),
    "nothing": ("q/nothing", "no such queue"),
}


@dataclass
class World:
    web: Web
    ids: dict[str, str]

    def url(self, name: str) -> str:
        return self.web.url + PAGES[name][0].format(**self.ids)


@pytest.fixture(scope="module")
def world(shared: Web) -> World:
    rq = shared.rq
    for name in ("hello", "empty", LONG, "paused", "down"):
        rq.queue(name, shared.HELLO)
    rq.queue("fails", shared.FAILS)
    rq.queue("relays", '#!/bin/sh\necho "relayed http://far/q/test/1" >&3\n')
    schedule = [{"cron": "*/10 * * * *", "param1": "x"}, {"cron": "30 4 * * 1-5", "tz": "UTC"}]
    rq.queue("waits", shared.WAITS, num_workers=2, schedule=schedule, env_vars={"A": "1"})
    rq.queue("scriptless", "/nowhere/at-all.sh")
    rq.queue("broken", shared.HELLO, num_workers=0)
    form = {"default": "hidden", "mesg_param1": {"label": "Which fifo", "choices": ["a", "b"]}}
    (rq.directory / "queue" / "waits" / "form.json").write_text(json.dumps(form))
    for state, name in (("down", "down"), ("pause", "paused")):
        (rq.directory / "config" / f"{name}.{state}").touch()
    rq.configure(allow_new_queue=True)
    shared.start()
    fifo = rq.directory / "fifo"
    os.mkfifo(fifo)
    ids = {
        "done": rq.send("hello", param1="world"),
        "big": rq.send("hello", param1=BIG, param2="<script>alert(1)</script>", src=ODD),
        "err": rq.send("fails"),
        "odd": rq.send("fails", param1=ODD),
        "run": rq.send("waits", param1=str(fifo)),
        "que": rq.send("hello", due=int(time()) + 3600),
        "prep": prepared(shared),
        "relayed": rq.send("relays"),
    }
    for name, queue, state in (
        ("done", "hello", "done"), ("big", "hello", "done"), ("err", "fails", "err"),
        ("odd", "fails", "err"), ("relayed", "relays", "relayed"),
    ):  # fmt: skip
        rq.until(queue, ids[name], state)
    rq.until("waits", ids["run"], "run", matching=lambda m: "waiting" in m["status"])
    return World(shared, ids)


def prepared(web: Web) -> str:
    """A message in preparation, with attachments of both kinds."""
    answer: str = web.rq.ask("hello", "prep_message", {"dest": "hello", "param1": "x"})
    msg_id = answer.rpartition("/")[2]
    for name, data in (
        ("notes for ünïcode.txt", b"a line\n" * 50), ("dot.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50),
        ("a" * 120 + ".bin", bytes(range(256))),
    ):  # fmt: skip
        path = web.rq.directory / f"given-{len(data)}"
        path.write_bytes(data)
        args = {"msg_id": msg_id, "pathname": str(path), "name": name}
        web.rq.ask("hello", "attach_message", args)
    return msg_id


def serious(page: Page) -> list[Any]:
    """What axe finds, so far as it hinders somebody."""
    violations = Axe().run(page).response["violations"]
    return [
        (found["id"], [node["html"][:200] for node in found["nodes"]][:3])
        for found in violations
        if found["impact"] in ("serious", "critical")
    ]


def expected(seen: Seen, name: str) -> None:
    """A page that says 404 is one that the console complains of; nothing else is."""
    if name == "nothing":
        seen.expected.append("status of 404")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_used_by_everybody(world: World, seen: Seen, name: str) -> None:
    page = seen.page
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.goto(world.url(name))
    assert PAGES[name][1] in page.locator("main").inner_text()
    assert serious(page) == []
    page.emulate_media(color_scheme="dark")
    assert serious(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1 && e.checkVisibility())"
        ".map(e => e.outerHTML.slice(0, 120)).slice(0, 3)"
    )
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360, wide
    expected(seen, name)


def test_six_states_and_large_counts_stand_side_by_side_on_a_telephone(
    world: World, seen: Seen
) -> None:
    page = seen.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(world.url("overview"))
    row = page.locator("#queue-relays td.count")
    assert row.locator("a").evaluate_all("all => all.map(a => a.dataset.label)")[-1] == "RELAYED"
    lines = """all => all.map(cell => {
        const label = getComputedStyle(cell.firstChild, "::before");
        const count = document.createRange();
        count.selectNodeContents(cell.firstChild);
        const one = parseFloat(label.height) < 2 * parseFloat(label.fontSize);
        return [one, count.getClientRects().length];
    })"""
    assert row.evaluate_all(lines) == [[True, 1]] * 6
    # As the template writes them, when there are so many.
    row.evaluate_all(
        "all => all.forEach(cell => {"
        " cell.classList.add('long', 'some'); cell.firstChild.textContent = '99,999'; })"
    )
    assert row.evaluate_all(lines) == [[True, 1]] * 6


@pytest.mark.parametrize("name", [n for n in PAGES if "wrong filter" not in n])
def test_a_page_is_whole_without_javascript(world: World, browser: Browser, name: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(world.url(name))
    assert PAGES[name][1] in page.locator("main").inner_text()
    assert not page.get_by_text("Live", exact=True).is_visible()
    context.close()


def test_nothing_is_styled_or_scripted_in_place(world: World) -> None:
    for name in PAGES:
        text = world.web.curl(PAGES[name][0].format(**world.ids), "-H", "Accept: text/html").text
        assert " style=" not in text
        assert "<style" not in text
        assert " onclick=" not in text
        assert "<script>" not in text


def test_what_opens_on_a_page_can_be_used_by_everybody(world: World, seen: Seen) -> None:
    page = seen.page
    page.goto(world.url("overview"))
    page.keyboard.press("?")
    assert serious(page) == []
    page.keyboard.press("Escape")
    page.locator("#queue-hello summary").click()
    assert serious(page) == []
    page.goto(world.url("message that runs"))
    page.locator("summary", has_text="Kill").click()
    assert serious(page) == []


def test_asking_doing_and_telling_can_be_used_by_everybody(world: World, seen: Seen) -> None:
    page = seen.page
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(world.web.url + "q/hello?state=done")
        page.get_by_label(f"Select {world.ids['done']}").check()
        page.get_by_role("button", name="Clone…").click()
        assert serious(page) == []
        page.get_by_role("button", name="Clone 1").click()
        page.locator("#head .badge", has_text="done").wait_for()
        assert serious(page) == []
        page.goto(f"{world.web.url}q/hello")
        name = "Pause" if scheme == "light" else "Resume"
        page.get_by_role("button", name=name, exact=True).first.click()
        page.locator(".flash").wait_for()
        assert serious(page) == []
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
