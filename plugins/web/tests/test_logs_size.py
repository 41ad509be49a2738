"""A log of a gigabyte, ten million lines: its end is there at once, and the browser stays small.

The figures are logged (``pytest -o log_cli=true -o log_cli_level=INFO``).  Playwright has the browser
keep what it fetches, for those who look at the network; so this Chromium is driven without it, by its
own pipe, and keeps nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import random
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Web

SIZE = 1 << 30
note = logging.getLogger("figures").info
LAST = "this is the last line"
MEGA = 1 << 20

#: Before anything else in the page: note when the last line stands in the view, and is painted.
WATCH = """
  const look = () => {
    const row = [...document.querySelectorAll(".log-row")].at(-1);
    const view = document.querySelector(".log-view")?.getBoundingClientRect();
    const box = row?.getBoundingClientRect();
    if (row?.textContent.includes("%s") && box.top >= view.top && box.bottom <= view.bottom + 1) {
      window.shownAfter = performance.now();
    } else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
"""
SHOWN = """new Promise((done) => {
  const look = () => window.shownAfter ? done(window.shownAfter) : setTimeout(look, 5);
  look();
})"""
#: Move the scrollbar, and wait until rows fill the view; answers milliseconds.
JUMP = """(async (share) => {
  const view = document.querySelector(".log-view");
  const began = performance.now();
  view.scrollTop = share * (view.scrollHeight - view.clientHeight);
  for (;;) {
    await new Promise(requestAnimationFrame);
    const box = view.getBoundingClientRect();
    const rows = document.querySelectorAll(".log-row");
    if (rows.length && rows[0].getBoundingClientRect().top <= box.top + 1
        && rows[rows.length - 1].getBoundingClientRect().bottom >= box.bottom - 1) {
      return performance.now() - began;
    }
    if (performance.now() - began > 10000) throw new Error(`nothing is seen at ${share}`);
  }
})(%r)"""
FIND = """(async (text) => {
  const began = performance.now();
  const field = document.querySelector("#log-text");
  const said = document.querySelector(".log-progress");
  field.value = text;
  field.dispatchEvent(new Event("input", {bubbles: true}));
  field.form.requestSubmit();
  do await new Promise((done) => setTimeout(done, 5)); while (/^$|^searching/.test(said.textContent));
  return [said.textContent, performance.now() - began,
    document.querySelector(".log-marked")?.dataset.at ?? ""];
})(%r)"""


class Chromium:
    """The system's Chromium with one page, spoken to in its own protocol through a pipe."""

    def __init__(self, profile: Path) -> None:
        ends = []
        for pair in (os.pipe(), os.pipe()):
            for fd in pair:  # out of the way of 3 and 4, where the browser wants them
                ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 50))
                os.close(fd)
        asked, self._asks, self._answers, answered = ends
        environ = {k: v for k, v in os.environ.items() if k != "RQCORE_TEST_SESSION"}
        self._pid = os.posix_spawn(
            "/usr/bin/chromium",
            [
                "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--remote-debugging-pipe", "--window-size=1280,900", f"--user-data-dir={profile}",
                "about:blank",
            ],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, asked, 3), (os.POSIX_SPAWN_DUP2, answered, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )  # fmt: skip
        os.close(asked)
        os.close(answered)
        self._number = 0
        self._read = b""
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Performance.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Ask the page (at first: the browser), and return the answer."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params}
        if self._session and not method.startswith(("Browser.", "SystemInfo.")):
            asked["sessionId"] = self._session
        os.write(self._asks, json.dumps(asked).encode() + b"\0")
        while True:
            one, found, rest = self._read.partition(b"\0")
            if not found:
                data = os.read(self._answers, MEGA)
                assert data, "the browser went away"
                self._read += data
                continue
            self._read = rest
            answer = json.loads(one)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, expression: str) -> Any:
        """What this is in the page, awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str) -> None:
        """Go there; the load goes on."""
        assert "errorText" not in self.call("Page.navigate", url=url)

    def memory(self) -> tuple[float, float]:
        """Megabytes: of JavaScript's heap, and of the page's process, what it shares counted in part."""
        self.call("HeapProfiler.collectGarbage")
        metrics = {m["name"]: m["value"] for m in self.call("Performance.getMetrics")["metrics"]}
        return metrics["JSHeapUsedSize"] / MEGA, max(map(proportional, self._renderers()))

    def _renderers(self) -> list[int]:
        found = self.call("SystemInfo.getProcessInfo")["processInfo"]
        return [process["id"] for process in found if process["type"] == "renderer"]

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        ended = os.pidfd_open(self._pid)
        if not select.select([ended], [], [], 10)[0]:
            os.kill(self._pid, signal.SIGKILL)
        os.close(ended)
        os.waitpid(self._pid, 0)
        os.close(self._asks)
        os.close(self._answers)


def proportional(pid: int) -> float:
    """Megabytes of a process, with its part of what it shares with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no memory")


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    made = Chromium(tmp_path / "profile")
    yield made
    made.close()


def write_log(path: Path) -> tuple[int, int]:
    """Real lines, with colours, of a gigabyte; returns how many, and where the needle is."""
    words = [b"INFO", b"WARN", b"ERROR", b"debug"]
    tails = [
        b" \x1b[3%dm%s\x1b[0m %s\n" % (n % 8, words[n % 4], b"lorem ipsum dolor sit amet " * (1 + n % 5))
        for n in range(64)
    ]  # fmt: skip
    lines = written = needle = 0
    with path.open("wb") as file:
        while written < SIZE:
            if not needle and written >= SIZE // 2:
                needle = written
                written += file.write(b"here is the \x1b[32mneed\x1b[0mle in the middle\n")
            written += file.write(
                b"".join(
                    [
                        b"%010d 2026-03-01T06:00:00Z%s" % (n, tails[n & 63])
                        for n in range(lines, lines + 20000)
                    ]
                )
            )
            lines += 20000
        file.write(LAST.encode() + b"\n")
    return lines, needle


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_gigabyte_opens_at_its_end_is_scrolled_and_searched_in_flat_memory(
    web: Web, chromium: Chromium
) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    msg_id = web.rq.send("test")
    log = Path(web.rq.until("test", msg_id, "done")["path"]) / "job" / "stdio.log"
    began = monotonic()
    lines, needle = write_log(log)
    note(f"{lines:,} lines, {log.stat().st_size:,} bytes, made in {monotonic() - began:.1f} s")
    assert lines > 1_000_000
    blank = chromium.memory()
    chromium.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH % LAST)

    took = []
    for _ in range(6):
        chromium.open(f"{web.url}q/test/{msg_id}/tailviewlog/stdio.log")
        took.append(chromium.run(SHOWN))
    note(f"navigation to the last line in view: {', '.join(f'{ms:.0f}' for ms in took)} ms")
    assert min(took) < 300

    opened = chromium.memory()
    moves = random.Random(1)
    jumps = [chromium.run(JUMP % moves.random()) for _ in range(50)]
    warm = chromium.memory()
    jumps += [chromium.run(JUMP % moves.random()) for _ in range(200)]
    after = chromium.memory()
    for name, (heap, process) in {
        "blank": blank, "opened": opened, "50 jumps": warm, "250 jumps": after,
    }.items():  # fmt: skip
        note(f"{name:>10}: JavaScript heap {heap:5.1f} MB, renderer {process:6.1f} MB")
    note(f"a jump anywhere: median {sorted(jumps)[125]:.0f} ms, worst {max(jumps):.0f} ms")
    assert after[0] < 20
    assert after[1] < 100 + blank[1]
    assert after[1] < warm[1] + 30

    chromium.run(JUMP % 0.0)
    assert chromium.run("document.querySelector('.log-line').textContent").startswith("0000000000 ")
    word, ms, at = chromium.run(FIND % "needle in the middle")
    note(f"found half a gigabyte away in {ms:.0f} ms")
    assert (word[:4], at) == ("at 5", str(needle))
    word, ms, _ = chromium.run(FIND % "not in there")
    note(f"not found in all of it in {ms:.0f} ms")
    assert word == "not found"
