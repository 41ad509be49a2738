"""The viewer in a real Chromium, on a real instance: what a reader sees and does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Seen, Web

#: Each row that is in the page: where it begins, its text, and whether all of it is in view.
ROWS = """() => {
  const view = document.querySelector(".log-view").getBoundingClientRect();
  return [...document.querySelectorAll(".log-row")].map((row) => {
    const box = row.getBoundingClientRect();
    const shown = box.bottom > view.top + 1 && box.top < view.bottom - 1;
    return {at: Number(row.dataset.at), text: row.querySelector(".log-line").textContent, shown};
  });
}"""
#: Does what is in view consist of rows, without a gap?
COVERED = """() => {
  const view = document.querySelector(".log-view").getBoundingClientRect();
  const rows = document.querySelectorAll(".log-row");
  if (!rows.length) return false;
  return rows[0].getBoundingClientRect().top <= view.top + 1
    && rows[rows.length - 1].getBoundingClientRect().bottom >= view.bottom - 1;
}"""


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    """An instance with a queue whose messages wait at a fifo, and one whose logs tests write."""
    shared.rq.queue("test", "#!/bin/sh\necho 'done ok' >&3\n")
    shared.rq.queue("waits", shared.WAITS)
    shared.rq.queue("paused", shared.HELLO)
    shared.start()
    shared.rq.manager.ask("pause_queue", "paused")
    return shared


def with_log(web: Web, log: bytes) -> str:
    """A message that is done, with this log."""
    msg_id = web.rq.send("test")
    folder = web.rq.until("test", msg_id, "done")["path"]
    (Path(folder) / "job" / "stdio.log").write_bytes(log)
    return msg_id


@contextmanager
def running(web: Web, tmp_path: Path, name: str = "fifo") -> Iterator[tuple[str, IO[bytes]]]:
    """A message that runs, and what its script goes on to print."""
    fifo = tmp_path / name
    os.mkfifo(fifo)
    msg_id = web.rq.send("waits", param1=str(fifo))
    web.rq.until("waits", msg_id, "run", matching=lambda found: "waiting" in found["status"])
    with fifo.open("wb", buffering=0) as feed:
        yield msg_id, feed
    web.rq.until("waits", msg_id)


def numbered(first: int, last: int, width: int = 0) -> bytes:
    return b"".join(b"line %d%s\n" % (n, b" x" * (n % (width or 1))) for n in range(first, last))


def open_log(page: Page, web: Web, msg_id: str, queue: str = "test", rest: str = "") -> None:
    page.goto(f"{web.url}q/{queue}/{msg_id}/tailviewlog/stdio.log{rest}")


def rows(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(ROWS)
    return found


def shown(page: Page) -> list[str]:
    """The lines that are in view."""
    return [row["text"] for row in rows(page) if row["shown"]]


def until(page: Page, expression: str, argument: Any = None) -> None:
    """Wait until this is true in the page."""
    page.wait_for_function(expression, arg=argument)


def covered(page: Page) -> None:
    until(page, COVERED)


def line(page: Page, text: str) -> Any:
    return page.locator(".log-line", has_text=re.compile(f"^{re.escape(text)}$"))


def press(page: Page, *keys: str) -> None:
    page.locator(".log-view").focus()
    for key in keys:
        page.keyboard.press(key)


def search(page: Page, text: str, key: str = "Enter") -> None:
    page.locator("#log-text").fill(text)
    page.locator("#log-text").press(key)


def said(page: Page) -> Any:
    return expect(page.locator(".log-progress"))


def state(page: Page) -> Any:
    return expect(page.locator(".log-state"))


# --- following


def test_a_log_is_followed_paused_when_the_reader_scrolls_up_and_followed_again(
    site: Web, seen: Seen, tmp_path: Path
) -> None:
    page = seen.page
    with running(site, tmp_path) as (msg_id, feed):
        open_log(page, site, msg_id, "waits")
        expect(line(page, "ready")).to_be_visible()
        state(page).to_have_text("live")
        for n in range(200):
            feed.write(b"tick %d\n" % n)
        expect(line(page, "tick 199")).to_be_in_viewport()
        page.locator(".log-view").hover()
        page.mouse.wheel(0, -700)
        state(page).to_have_text("paused")
        expect(line(page, "tick 150")).to_be_in_viewport()
        page.wait_for_function("() => !document.querySelector('.log-view').matches(':active')")
        before = line(page, "tick 150").bounding_box()
        for n in range(300):
            feed.write(b"tock %d\n" % n)
        expect(page.locator(".log-where")).to_have_text(re.compile(r"% of 4\.3 kB"))
        assert line(page, "tick 150").bounding_box() == before
        page.get_by_role("button", name="Jump to the end").click()
        expect(line(page, "tock 299")).to_be_in_viewport()
        state(page).to_have_text("live")
        feed.write(b"no newline yet")
        expect(line(page, "no newline yet")).to_be_in_viewport()
        feed.write(b", now\rNO\n")
        expect(line(page, "NO newline yet, now")).to_be_in_viewport()
        page.get_by_role("button", name="Follow").click()
        state(page).to_have_text("paused")
        press(page, "End")
        state(page).to_have_text("live")
    state(page).to_have_text("done")


def test_scrolling_to_the_end_follows_again(site: Web, seen: Seen, tmp_path: Path) -> None:
    page = seen.page
    with running(site, tmp_path) as (msg_id, feed):
        feed.write(numbered(0, 500))
        open_log(page, site, msg_id, "waits")
        expect(line(page, "line 499")).to_be_in_viewport()
        page.locator(".log-view").hover()
        page.mouse.wheel(0, -2000)
        state(page).to_have_text("paused")
        page.mouse.wheel(0, 9000)
        state(page).to_have_text("live")
        feed.write(b"one more\n")
        expect(line(page, "one more")).to_be_in_viewport()


def test_a_window_that_changes_its_size_goes_on_following(
    site: Web, seen: Seen, tmp_path: Path
) -> None:
    page = seen.page
    with running(site, tmp_path) as (msg_id, feed):
        feed.write(numbered(0, 300))
        open_log(page, site, msg_id, "waits")
        expect(line(page, "line 299")).to_be_in_viewport()
        for height in (1400, 500, 900):
            page.set_viewport_size({"width": 1000, "height": height})
            feed.write(b"now %d\n" % height)
            expect(line(page, f"now {height}")).to_be_in_viewport()
            state(page).to_have_text("live")
            covered(page)


def test_a_burst_of_megabytes_is_followed_at_its_end(site: Web, seen: Seen, tmp_path: Path) -> None:
    page = seen.page
    with running(site, tmp_path) as (msg_id, feed):
        open_log(page, site, msg_id, "waits")
        expect(line(page, "ready")).to_be_visible()
        for n in range(40):
            feed.write(numbered(n * 20000, (n + 1) * 20000, 9))
        feed.write(b"the last of all\n")
        expect(line(page, "the last of all")).to_be_in_viewport()
        covered(page)
        assert len(rows(page)) < 600


@pytest.mark.parametrize(
    ("queue", "command", "word"),
    [
        ("test", "prep_message", "The message is being prepared."),
        ("paused", "create_message", "The message waits for its turn."),
    ],
)
def test_before_anything_is_printed_it_says_what_is_waited_for(
    site: Web, seen: Seen, queue: str, command: str, word: str
) -> None:
    msg_id = site.rq.ask(queue, command, {"dest": queue}).rpartition("/")[2]
    open_log(seen.page, site, msg_id, queue)
    expect(seen.page.get_by_text(word)).to_be_visible()


def test_a_script_that_prints_nothing_is_no_error(site: Web, seen: Seen) -> None:
    open_log(seen.page, site, with_log(site, b""))
    expect(seen.page.get_by_text("The script printed nothing.")).to_be_visible()
    expect(seen.page.get_by_role("button", name="Follow")).to_be_hidden()


def test_a_log_that_comes_later_appears(web: Web, seen: Seen, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    web.rq.queue("late", '#!/bin/sh\ncat "$RQ_PARAM1"\necho "done x" >&3\n')
    web.start()
    web.rq.manager.ask("pause_queue", "late")
    msg_id = web.rq.send("late", param1=str(fifo))
    open_log(seen.page, web, msg_id, "late")
    expect(seen.page.get_by_text("The message waits for its turn.")).to_be_visible()
    web.rq.manager.ask("resume_queue", "late")
    expect(seen.page.get_by_text("The script has printed nothing yet.")).to_be_visible()
    fifo.write_text("here it comes\n")
    expect(line(seen.page, "here it comes")).to_be_visible()
    state(seen.page).to_have_text("done")


def test_a_message_that_is_run_again_goes_on_in_its_log(web: Web, seen: Seen) -> None:
    web.rq.queue("again", '#!/bin/sh\necho "run $RQ_COUNT"\n'
                 'if [ "$RQ_COUNT" -lt 2 ]; then echo "resend 1-once more" >&3; '
                 'else echo "done x" >&3; fi\n')  # fmt: skip
    web.start()
    msg_id = web.rq.send("again")
    open_log(seen.page, web, msg_id, "again")
    expect(line(seen.page, "run 2")).to_be_visible()
    assert [row["text"] for row in rows(seen.page)] == ["run 0", "run 1", "run 2"]
    state(seen.page).to_have_text("done")


def test_a_message_that_is_retried_from_its_page_goes_on_there(web: Web, seen: Seen) -> None:
    web.rq.queue("twice", '#!/bin/sh\nif mkdir once; then echo first; echo "err no" >&3; '
                 'else echo second; echo "done x" >&3; fi\n')  # fmt: skip
    web.start()
    msg_id = web.rq.send("twice")
    web.rq.until("twice", msg_id, "err")
    seen.page.goto(f"{web.url}q/twice/{msg_id}")
    expect(line(seen.page, "first")).to_be_visible()
    state(seen.page).to_have_text("err")
    seen.page.locator("#live[data-state=live]").wait_for()
    web.rq.ask("twice", "retry_message", {"msg_id": msg_id})
    expect(line(seen.page, "second")).to_be_visible()
    state(seen.page).to_have_text("done")


def test_a_service_that_is_restarted_is_found_again_and_nothing_is_missed(
    web: Web, browser: Browser, tmp_path: Path
) -> None:
    web.rq.queue("waits", web.WAITS)
    web.start()
    context = browser.new_context()
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    with running(web, tmp_path) as (msg_id, feed):
        open_log(page, web, msg_id, "waits")
        feed.write(b"before\n")
        expect(line(page, "before")).to_be_visible()
        web.rq.kill(web.pid())
        state(page).to_have_text(re.compile("connection lost"))
        feed.write(numbered(0, 3000) + b"meanwhile\n")
        expect(line(page, "meanwhile")).to_be_in_viewport()
        state(page).to_have_text("live")
        covered(page)
    state(page).to_have_text("done")
    context.close()
    assert not broken


def test_a_log_that_is_cut_short_or_replaced_is_shown_anew(
    site: Web, seen: Seen, tmp_path: Path
) -> None:
    page = seen.page
    with running(site, tmp_path) as (msg_id, feed):
        feed.write(numbered(0, 400))
        job = Path(site.rq.message("waits", msg_id)["path"]) / "job"
        open_log(page, site, msg_id, "waits")
        expect(line(page, "line 399")).to_be_in_viewport()
        os.truncate(job / "stdio.log", 0)
        expect(page.get_by_text("The script has printed nothing yet.")).to_be_visible()
        feed.write(b"begun anew\n")
        expect(line(page, "begun anew")).to_be_visible()
        assert len(rows(page)) == 1
        (job / "new").write_bytes(b"another file\n" * 3)
        (job / "new").rename(job / "stdio.log")
        expect(line(page, "another file").last).to_be_visible()
        assert len(rows(page)) == 3


def test_a_page_that_is_not_seen_lets_go_of_its_connection_and_catches_up(
    site: Web, seen: Seen, tmp_path: Path
) -> None:
    page = seen.page
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with running(site, tmp_path) as (msg_id, feed):
        open_log(page, site, msg_id, "waits")
        expect(line(page, "ready")).to_be_visible()
        page.evaluate(hide, True)
        feed.write(b"while nobody looked\n")
        site.rq.until("waits", msg_id, "run")
        page.evaluate(hide, False)
        expect(line(page, "while nobody looked")).to_be_visible()


# --- scrolling


def test_all_of_it_is_scrolled_through_without_a_gap(site: Web, seen: Seen) -> None:
    page = seen.page
    log = numbered(0, 4000, 30)
    open_log(page, site, with_log(site, log))
    expect(line(page, "line 3999" + " x" * (3999 % 30))).to_be_in_viewport()
    texts: dict[int, str] = {}
    page.locator(".log-view").hover()
    place = -1
    while place != 0:
        covered(page)
        found = rows(page)
        assert [row["at"] for row in found] == sorted({row["at"] for row in found})
        texts.update((row["at"], row["text"]) for row in found)
        place = next(row["at"] for row in found if row["shown"])
        page.mouse.wheel(0, -1500)
        until(
            page,
            "(at) => at === 0 || document.querySelector('.log-view').scrollTop === 0 ||"
            f" ({ROWS})().find((row) => row.shown)?.at < at",
            place,
        )
    assert "".join(texts[at] + "\n" for at in sorted(texts)).encode() == log


@pytest.mark.parametrize("wrap", [False, True])
def test_wherever_the_reader_goes_he_sees_that_part_of_the_log(
    site: Web, seen: Seen, wrap: bool
) -> None:
    page = seen.page
    log = numbered(0, 60000, 120)
    open_log(page, site, with_log(site, log))
    covered(page)
    if wrap:
        page.get_by_role("button", name="Wrap").click()
    for share in (0.5, 0.11, 0.99, 0.0, 0.73, 0.02, 1.0, 0.3):
        page.evaluate(
            "(share) => { const view = document.querySelector('.log-view');"
            " view.scrollTop = share * (view.scrollHeight - view.clientHeight); }",
            share,
        )
        until(
            page,
            f"([share, size]) => {{ const row = ({ROWS})().find((row) => row.shown);"
            f" return row && Math.abs(row.at / size - share) < 0.02 && ({COVERED})(); }}",
            [share, len(log)],
        )
        for row in rows(page):
            end = log.index(b"\n", row["at"])
            assert row["text"] == log[row["at"] : end].decode()
    for keys, word in ((["Home"], "line 0"), (["End"], f"line 59999{' x' * (59999 % 120)}")):
        press(page, *keys)
        expect(line(page, word)).to_be_in_viewport()
        covered(page)


def test_pages_up_and_down_are_steps_through_the_lines(site: Web, seen: Seen) -> None:
    page = seen.page
    open_log(page, site, with_log(site, numbered(0, 5000)))
    press(page, "Home")
    expect(line(page, "line 0")).to_be_in_viewport()
    first = 0
    for _ in range(5):
        page.keyboard.press("PageDown")
        until(
            page,
            f"(first) => Number(({ROWS})().find((row) => row.shown).text.slice(5)) > first + 20",
            first,
        )
        first = int(shown(page)[0].removeprefix("line "))
    assert 100 < first < 200


def test_a_line_of_a_hundred_megabytes_is_shown_in_pieces(site: Web, seen: Seen) -> None:
    page = seen.page
    piece = b"".join(b"%08d " % n for n in range(100_000))
    open_log(page, site, with_log(site, b"first\n" + piece * 112 + b"\nlast\n"))
    expect(line(page, "last")).to_be_in_viewport()
    covered(page)
    page.evaluate("() => { document.querySelector('.log-view').scrollTop = 3e5; }")
    covered(page)
    assert max(len(row["text"]) for row in rows(page)) <= 2 * 8192
    press(page, "Home")
    expect(line(page, "first")).to_be_in_viewport()
    search(page, "00099999 00000000 00000001", "Enter")
    said(page).to_have_text("at 0.9 %")
    covered(page)


def test_folding_long_lines_keeps_the_place_and_is_remembered(site: Web, seen: Seen) -> None:
    page = seen.page
    msg_id = with_log(site, numbered(0, 3000, 400))
    open_log(page, site, msg_id, rest="#at=600000")
    marked = page.locator(".log-marked")
    expect(marked).to_be_in_viewport()
    text = marked.inner_text()
    page.get_by_role("button", name="Wrap").click()
    expect(page.get_by_role("button", name="Wrap")).to_have_attribute("aria-pressed", "true")
    fits = "(view) => view.scrollWidth <= view.clientWidth"
    assert page.locator(".log-view").evaluate(fits)
    covered(page)
    open_log(page, site, msg_id, rest="?#at=600000")
    expect(page.get_by_role("button", name="Wrap")).to_have_attribute("aria-pressed", "true")
    expect(marked).to_be_in_viewport()
    assert marked.inner_text() == text
    assert page.locator(".log-view").evaluate(fits)


# --- search


def test_text_is_found_before_and_after_and_around_the_end(site: Web, seen: Seen) -> None:
    page = seen.page
    log = bytearray(numbered(0, 30000, 20))
    places = []
    for n in (101, 15001, 29001):
        at = log.index(b"line %d " % n)
        log[at : at + 4] = b"NEED"
        places.append(at)
    open_log(page, site, with_log(site, bytes(log)))
    covered(page)
    marked = page.locator(".log-marked")

    def found(at: int, word: str) -> None:
        said(page).to_have_text(re.compile(word))
        expect(marked).to_be_in_viewport()
        expect(marked).to_have_attribute("data-at", str(at))

    search(page, "need", "Shift+Enter")
    found(places[2], r"^at \d+ %$")
    page.locator("#log-text").press("Shift+Enter")
    found(places[1], r"^at \d+ %$")
    press(page, "N")
    found(places[0], r"^at 0\.\d %$")
    press(page, "N")
    found(places[2], "from the end again")
    press(page, "n")
    found(places[0], "from the beginning again")
    press(page, "n")
    found(places[1], r"^at \d+ %$")
    page.get_by_role("button", name="Find the next").click()
    found(places[2], r"^at \d+ %$")
    page.get_by_role("button", name="Find the previous").click()
    found(places[1], r"^at \d+ %$")
    highlighted = page.evaluate(
        "() => [...CSS.highlights.get('log-found-here')].map((range) => range.toString())"
    )
    assert highlighted == ["NEED"]
    page.get_by_role("button", name="Match case").click()
    press(page, "n")
    said(page).to_have_text("not found")
    search(page, "no such text")
    said(page).to_have_text("not found")


def test_a_slash_in_the_log_asks_what_to_find_and_escape_leaves(site: Web, seen: Seen) -> None:
    page = seen.page
    open_log(page, site, with_log(site, b"a/b\n\x1b[32mgr\x1b[1mee\x1b[0mn field\n"))
    press(page, "/")
    expect(page.locator("#log-text")).to_be_focused()
    page.keyboard.type("green f")
    page.keyboard.press("Enter")
    said(page).to_have_text(re.compile("^at "))
    expect(page.locator(".log-marked .log-line")).to_have_text("green field")
    highlighted = "() => [...CSS.highlights.get('log-found-here')].map((range) => range.toString())"
    assert page.evaluate(highlighted) == ["green f"]
    page.keyboard.press("Escape")
    expect(page.locator(".log-view")).to_be_focused()
    assert page.evaluate(highlighted) == []


def test_a_long_search_tells_how_far_it_is_and_is_ended_at_once(site: Web, seen: Seen) -> None:
    page = seen.page
    open_log(page, site, with_log(site, b"end\n"))
    folder = Path(site.rq.message("test", page.url.split("/")[5])["path"])
    os.truncate(folder / "job" / "stdio.log", 1 << 43)
    page.reload()
    search(page, "nowhere in eight terabytes")
    said(page).to_have_text(re.compile(r"^searching… 0\.\d+ %|^searching… 0 %"))
    page.get_by_role("button", name="Cancel").click()
    said(page).to_have_text("search ended")
    search(page, "still nowhere")
    said(page).to_have_text(re.compile("^searching"))
    page.keyboard.press("Escape")
    said(page).to_have_text("search ended")


# --- links and downloads


def test_a_line_has_a_link_that_shows_and_marks_it(site: Web, seen: Seen) -> None:
    page = seen.page
    msg_id = with_log(site, numbered(0, 20000))
    open_log(page, site, msg_id)
    expect(line(page, "line 19999")).to_be_in_viewport()
    row = page.locator(".log-row", has_text="line 19980")
    row.hover()
    row.get_by_role("link", name="Link to this line").click()
    expect(row).to_have_class(re.compile("log-marked"))
    at = page.url.partition("#at=")[2]
    assert at.isdecimal()
    middle = numbered(0, 10000)
    open_log(page, site, msg_id, rest=f"?#at={len(middle) + 3}")
    marked = page.locator(".log-marked")
    expect(marked.locator(".log-line")).to_have_text("line 10000")
    expect(marked).to_be_in_viewport()
    state(page).to_have_text("done")
    page.evaluate("(at) => { location.hash = `at=${at}`; }", at)
    expect(marked.locator(".log-line")).to_have_text("line 19980")
    expect(marked).to_be_in_viewport()
    open_log(page, site, msg_id, rest="?#at=99999999")
    expect(line(page, "line 19999")).to_be_in_viewport()


def test_what_there_is_can_be_downloaded_while_it_runs(
    site: Web, seen: Seen, tmp_path: Path
) -> None:
    page = seen.page
    with running(site, tmp_path) as (msg_id, feed):
        feed.write(b"half of it\n")
        open_log(page, site, msg_id, "waits")
        expect(line(page, "half of it")).to_be_visible()
        with page.expect_download() as begun:
            page.get_by_role("link", name="Download").click()
        assert begun.value.suggested_filename == "stdio.log"
        assert Path(begun.value.path()).read_bytes() == b"ready\nhalf of it\n"


# --- what scripts print


HOSTILE = [
    "<script>window.hurt = 1</script>", "<img src=x onerror='window.hurt=1'>", "</span></div></pre>",
    "<svg/onload=window.hurt=1>", "<a href='javascript:window.hurt=1'>x</a>",
    "<style>*{display:none}</style>",
    "&lt;b&gt; &#60;b&#62; &amp;", "\x1b]8;;javascript:window.hurt=1\x1b\\<b>click</b>\x1b]8;;\x07",
    "\x1b[31m<script>window.hurt = 1</script>\x1b[0m",
    "\x9d8;;javascript:window.hurt=1\x9clink\x9d8;;\x9c",
    "\x9b31mred", "\x1b[38;2;1;2;3;url(javascript:window.hurt=1)mx", "\x1b[38;5;1}*{color:red}mx",
    "\x1b]0;</title><script>window.hurt=1</script>\x07t", "\x1bP<script>\x1b\\dcs", "{{ 7*7 }} ${7*7}",
    "\u202eevil\u2028line\u2029", "\x00\x01\x02\x7f", "\x1b[999999999999999999999999;1H", "\ufeffbom",
]  # fmt: skip


def test_nothing_that_is_printed_becomes_markup_or_script(site: Web, seen: Seen) -> None:
    page = seen.page
    page.on("dialog", lambda dialog: seen.problems.append(f"dialog: {dialog.message}"))
    log = "\n".join(HOSTILE).encode() + b"\n" + bytes(range(256)) * 40 + b"\n"
    msg_id = with_log(site, log)
    open_log(page, site, msg_id)
    expect(page.locator(".log-row")).not_to_have_count(0)
    press(page, "Home")
    covered(page)
    expect(line(page, HOSTILE[0]).first).to_be_visible()
    expect(line(page, "<b>click</b>").first).to_be_visible()
    assert page.evaluate("window.hurt") is None
    inside = page.evaluate(
        "() => [...document.querySelectorAll('.log-rows *')].map((element) => element.localName)"
    )
    assert set(inside) == {"a", "div", "span"}
    links = page.evaluate(
        "() => [...document.querySelectorAll('.log-rows a')].map((e) => e.getAttribute('href'))"
    )
    assert all(re.fullmatch(r"#at=\d+", link) for link in links)
    search(page, "<script>")
    said(page).to_have_text(re.compile("^at "))
    assert page.evaluate("window.hurt") is None


def test_without_javascript_the_end_is_there_as_text(site: Web, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    msg_id = with_log(site, b"\x1b[31mred\x1b[0m <b>text</b>\n" + numbered(0, 50))
    open_log(page, site, msg_id)
    expect(page.locator(".log-text")).to_contain_text("red <b>text</b>")
    expect(page.locator(".log-text")).to_contain_text("line 49")
    expect(page.locator(".log-view")).to_be_hidden()
    expect(page.locator("#log-text")).to_be_hidden()
    context.close()


def test_the_messages_own_page_shows_the_same_viewer(site: Web, seen: Seen, tmp_path: Path) -> None:
    page = seen.page
    with running(site, tmp_path) as (msg_id, feed):
        page.goto(f"{site.url}q/waits/{msg_id}")
        feed.write(b"live there, too\n")
        expect(line(page, "live there, too")).to_be_visible()
    state(page).to_have_text("done")
    page.get_by_role("link", name="Whole page").click()
    expect(line(page, "live there, too")).to_be_visible()
