"""A reader who does anything at any time, while the log grows: what he sees is always the log.

A random walk of scrolling, dragging, keys, links, folding and other window sizes.  After each few steps
the rows must be those of the log, one after another, and fill the window.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from tests.conftest import Seen, Web

PIECE = 8192
STEPS = 40
OPENS = '#!/bin/sh\necho "run waiting" >&3\ncat "$RQ_PARAM1"\necho "done waited" >&3\n'

#: What is wrong with what is seen, given where rows begin; "" for nothing.
WRONG = """(starts) => {
  const view = document.querySelector(".log-view");
  const box = view.getBoundingClientRect();
  const rows = [...document.querySelectorAll(".log-row")];
  if (!rows.length) return "no rows";
  const at = rows.map((row) => Number(row.dataset.at));
  const index = starts.indexOf(at[0]);
  if (at.some((start, i) => start !== starts[index + i])) return "rows are missing or twice there";
  const first = at[0] === 0, last = index + rows.length === starts.length;
  const top = rows[0].getBoundingClientRect().top, end = rows.at(-1).getBoundingClientRect().bottom;
  if (top > box.top + 1 && !(first && view.scrollTop < 1)) return "a gap above";
  if (end < box.bottom - 1 && !(last && first)) return "a gap below";
  const live = document.querySelector(".log-state").textContent === "live";
  if (live && !(last && end <= box.bottom + 1)) return "followed, but not at the end";
  return "";
}"""
TEXTS = """() => [...document.querySelectorAll(".log-row")].map((row) =>
  [Number(row.dataset.at), row.querySelector(".log-line").textContent])"""
BAR = """(share) => {
  const view = document.querySelector(".log-view");
  view.scrollTop = share * (view.scrollHeight - view.clientHeight);
}"""


def starts_of(log: bytes) -> list[int]:
    """Where rows begin: after newlines, and at the pieces of lines that are too long."""
    found = {0} | {at + 1 for at, byte in enumerate(log) if byte == 10}
    for at in range(PIECE, len(log), PIECE):
        if b"\n" not in log[at - PIECE : at]:
            found.add(at)
    return sorted(at for at in found if at < len(log))


class Walk:
    """The reader, and the script that goes on printing."""

    def __init__(self, page: Page, feed: Any, seed: int) -> None:
        self.page = page
        self.chance = random.Random(seed)
        self.log = bytearray()
        self.steps: list[str] = []
        self._feed = feed
        self._lines = 0

    def grow(self, lines: int) -> None:
        printed = bytearray()
        for _ in range(lines):
            usual = self.chance.random() < 0.995
            length = self.chance.choice([10, 30, 80, 200] if usual else [5000, 20000, 60000])
            printed += (b"%d " % self._lines + b"abcdefgh " * (length // 9))[:length]
            printed += b"\n" if self.chance.random() < 0.97 else b""
            self._lines += 1
        self._feed.write(printed)
        self.log += printed

    def step(self) -> None:
        chance, page = self.chance, self.page
        act = chance.choice(
            ["grow", "grow", "burst", "wheel", "wheel", "wheel", "fling", "bar", "Home", "End",
             "PageUp", "PageDown", "window", "wrap", "link"]
        )  # fmt: skip
        self.steps.append(act)
        if act in ("grow", "burst"):
            self.grow(chance.randint(1, 60) if act == "grow" else chance.randint(2000, 6000))
        elif act in ("wheel", "fling"):
            page.locator(".log-view").hover(position={"x": 100, "y": 100})
            way = chance.choice([-1, 1])
            for _ in range(1 if act == "wheel" else chance.randint(3, 12)):
                far = chance.randint(20, 900) if act == "wheel" else chance.randint(300, 3000)
                page.mouse.wheel(0, way * far)
        elif act == "bar":
            page.evaluate(BAR, chance.random())
        elif act == "window":
            page.set_viewport_size(
                {"width": chance.randint(360, 1400), "height": chance.randint(600, 1200)}
            )
        elif act == "wrap":
            page.get_by_role("button", name="Wrap").click()
        elif act == "link":
            page.evaluate(
                "(at) => { location.hash = `at=${at}`; }", chance.randrange(len(self.log))
            )
        else:
            page.locator(".log-view").focus()
            for _ in range(chance.randint(1, 6) if act.startswith("Page") else 1):
                page.keyboard.press(act)

    def look(self) -> None:
        starts = starts_of(bytes(self.log))
        ends = dict(zip(starts, [*starts[1:], len(self.log)], strict=True))
        deadline = monotonic() + PATIENCE
        while True:
            wrong = self.page.evaluate(WRONG, starts)
            texts = {} if wrong else dict(self.page.evaluate(TEXTS))
            if texts and all(
                text == self.log[at : ends.get(at, at)].decode().removesuffix("\n")
                for at, text in texts.items()
            ):
                return
            assert monotonic() < deadline, f"{wrong or 'other text'} after {self.steps[-10:]}"
            self.page.evaluate("() => new Promise(requestAnimationFrame)")


@pytest.mark.parametrize("seed", [3, 8])
def test_whatever_the_reader_does_he_sees_the_log(
    web: Web, seen: Seen, tmp_path: Path, seed: int
) -> None:
    web.rq.queue("waits", OPENS)
    web.start()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    msg_id = web.rq.send("waits", param1=str(fifo))
    web.rq.until("waits", msg_id, "run")
    with fifo.open("wb", buffering=0) as feed:
        walk = Walk(seen.page, feed, seed)
        walk.grow(300)
        seen.page.goto(f"{web.url}q/waits/{msg_id}/tailviewlog/stdio.log")
        walk.look()
        for _ in range(STEPS):
            walk.step()
            if walk.chance.random() < 0.6:
                walk.look()
        walk.look()
    web.rq.until("waits", msg_id)
