"""The viewer can be used by everybody: colours that can be read, keys, names, narrow windows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import (  # type: ignore[import-untyped]  # has none
    Axe,
)
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Web

#: AA: text of usual size.
ENOUGH = 4.5
LINES = [
    *(f"\x1b[{30 + n if n < 8 else 82 + n}mfg {n}\x1b[0m" for n in range(16)),
    *(f"\x1b[7;{30 + n if n < 8 else 82 + n}minverse {n}\x1b[0m" for n in range(16)),
    *(f"\x1b[{40 + n if n < 8 else 92 + n}mbg {n}\x1b[0m" for n in range(16)),
    *(f"\x1b[30;{40 + n}mblack on {n}\x1b[0m" for n in range(1, 8)),
    *(f"\x1b[97;{40 + n}mwhite on {n}\x1b[0m" for n in range(7)),
    "\x1b[7minverse\x1b[0m", "plain", "\x1b[2mdim\x1b[0m",
    *(f"\x1b[38;5;{n}mpalette {n}\x1b[0m" for n in range(16, 256, 9)),
    *(f"\x1b[48;5;{n}mpalette ground {n}\x1b[0m" for n in range(16, 256, 9)),
    "\x1b[38;2;0;0;90mdark blue\x1b[0m", "\x1b[38;2;255;255;150mpale yellow\x1b[0m",
    "x" * 300,
]  # fmt: skip
#: The text, its colour and what is behind it, as red, green, blue of 0..255, of every piece of a log.
COLOURS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const paint = (...colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const paper = getComputedStyle(document.querySelector(".log-frame")).backgroundColor;
  const found = [];
  const walker = document.createTreeWalker(document.querySelector(".log-rows"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const style = getComputedStyle(walker.currentNode.parentElement);
    const ground = paint(paper, style.backgroundColor);
    canvas.globalAlpha = Number(style.opacity);
    canvas.fillStyle = style.color;
    canvas.fillRect(0, 0, 1, 1);
    canvas.globalAlpha = 1;
    const ink = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    found.push([walker.currentNode.data, ink, ground]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def url(shared: Web) -> str:
    """The page of a log with every colour."""
    shared.rq.queue("test", shared.HELLO)
    shared.start()
    msg_id = shared.rq.send("test")
    folder = shared.rq.until("test", msg_id, "done")["path"]
    (Path(folder) / "job" / "stdio.log").write_text("\n".join(LINES) + "\n")
    return f"{shared.url}q/test/{msg_id}/tailviewlog/stdio.log"


def opened(browser: Browser, url: str, **how: Any) -> Page:
    page = browser.new_context(**how).new_page()
    page.goto(url)
    expect(page.locator(".log-row").last).to_be_in_viewport()
    return page


def contrast(one: list[int], other: list[int]) -> float:
    """The ratio of WCAG."""

    def luminance(colour: list[int]) -> float:
        parts = [value / 255 for value in colour]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_can_be_read(browser: Browser, url: str, theme: str) -> None:
    page = opened(browser, url, color_scheme=theme, viewport={"width": 1000, "height": 3000})
    found = page.evaluate(COLOURS)
    page.context.close()
    assert len(found) == len(LINES)
    poor = {
        text: round(contrast(ink, ground), 2)
        for text, ink, ground in found
        if contrast(ink, ground) < ENOUGH
    }
    assert not poor


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nobody_is_kept_out(browser: Browser, url: str, theme: str, width: int) -> None:
    page = opened(browser, url, color_scheme=theme, viewport={"width": width, "height": 740})
    found = Axe().run(page).response["violations"]
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.context.close()
    assert wide == width
    serious = [item for item in found if item["impact"] in ("serious", "critical")]
    assert not serious, [
        (item["id"], [node["html"] for node in item["nodes"][:3]]) for item in serious
    ]


def test_all_of_it_is_done_by_keys(browser: Browser, url: str) -> None:
    page = opened(browser, url, viewport={"width": 1280, "height": 500})
    log = page.get_by_role("log", name="Text of stdio.log")
    page.get_by_role("searchbox", name="Find in the log").focus()
    for name in ("Match case", "Find the previous", "Find the next", "Wrap", "Link"):
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name=name)).to_be_focused()
    page.keyboard.press("Tab")
    expect(log).to_be_focused()
    last = page.locator(".log-row").last
    page.keyboard.press("Home")
    expect(page.locator(".log-row").first).to_be_in_viewport()
    page.keyboard.press("PageDown")
    expect(page.locator(".log-row").first).not_to_be_in_viewport()
    page.keyboard.press("End")
    expect(last).to_be_in_viewport()
    page.keyboard.press("?")
    expect(page.locator("#log-text")).not_to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#log-text")).to_be_focused()
    page.context.close()
