"""The viewer's pure parts, run in a real Chromium: what is seen of a line, and where rows begin."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rqcore_web import logtext

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.conftest import Web

PLAIN = {"fg": -1, "bg": -1, "flags": 0}
BOLD, DIM, ITALIC, UNDERLINE, INVERSE, STRIKE, OVERLINE = 1, 2, 4, 8, 16, 32, 64
RGB = 0x1000000
PIECE = 8192


@pytest.fixture(scope="module")
def js(shared: Web, browser: Browser) -> Iterator[Page]:
    """A page of the site, with the viewer's modules on `window`, under its own security policy."""
    shared.rq.queue("test", shared.HELLO)
    shared.start()
    msg_id = shared.rq.send("test")
    shared.rq.until("test", msg_id, "done")
    page = browser.new_page()
    page.goto(f"{shared.url}q/test/{msg_id}/tailviewlog/stdio.log")
    page.evaluate(
        """async () => {
          const at = document.querySelector('script[src$="/log.js"]').src.replace("log.js", "");
          for (const name of ["ansi", "paint", "rows"]) {
            window[name] = await import(`${at}log-${name}.js`);
          }
          window.bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        }"""
    )
    yield page
    page.context.close()


def runs(js: Page, printed: str, style: Any = None) -> list[list[Any]]:
    """What is seen of a line: pieces of text with their colours and flags."""
    parsed = js.evaluate(
        "([text, style]) => ansi.parse(text, style ?? ansi.PLAIN)", [printed, style]
    )
    return [
        [run["text"], run["style"]["fg"], run["style"]["bg"], run["style"]["flags"]]
        for run in parsed["runs"]
    ]


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("", []),
        ("plain\ttext", [["plain\ttext", -1, -1, 0]]),
        ("\x1b[31mred\x1b[0m rest", [["red", 1, -1, 0], [" rest", -1, -1, 0]]),
        ("\x1b[1;91;44mx", [["x", 9, 4, BOLD]]),
        ("\x1b[m\x1b[;mx", [["x", -1, -1, 0]]),
        ("\x1b[97;107mx\x1b[39my\x1b[49mz", [["x", 15, 15, 0], ["y", -1, 15, 0], ["z", -1, -1, 0]]),
        ("\x1b[38;5;208mx", [["x", 208, -1, 0]]),
        ("\x1b[48;5;0mx", [["x", -1, 0, 0]]),
        ("\x1b[38;2;1;2;3;1mx", [["x", RGB + 0x010203, -1, BOLD]]),
        ("\x1b[38:2::1:2:3mx", [["x", RGB + 0x010203, -1, 0]]),
        ("\x1b[48:2:255:254:253mx", [["x", -1, RGB + 0xFFFEFD, 0]]),
        ("\x1b[38:5:17mx", [["x", 17, -1, 0]]),
        ("\x1b[38;5;256mx", [["x", -1, -1, 0]]),
        ("\x1b[38;2;300;0;0mx", [["x", -1, -1, 0]]),
        ("\x1b[38;9;1;1mx", [["x", -1, -1, 0]]),
        ("\x1b[58;5;3;1mx", [["x", -1, -1, BOLD]]),
        ("\x1b[2;3;4;7;9;53mx", [["x", -1, -1, DIM | ITALIC | UNDERLINE | INVERSE | STRIKE | OVERLINE]]),
        ("\x1b[1;2;3;4;7;9;53m\x1b[22;23;24;27;29;55mx", [["x", -1, -1, 0]]),
        ("\x1b[4:3mx\x1b[4:0my\x1b[21mz", [["x", -1, -1, 8], ["y", -1, -1, 0], ["z", -1, -1, 8]]),
        ("\x1b[5;8;999;31mx", [["x", 1, -1, 0]]),
        ("\x1b[99999999999999999999mx", [["x", -1, -1, 0]]),
        ("\x1b[31ma\x1b[31mb", [["ab", 1, -1, 0]]),
        ("\x1b[31mabc\r\x1b[32mX", [["X", 2, -1, 0], ["bc", 1, -1, 0]]),
        ("\x1b[41mabc\x1b[0m\x1b[2K\rx", [["x", -1, -1, 0], ["  ", -1, -1, 0]]),
        ("\x1b[?31mx\x1b[>1my\x1b[ mz", [["xyz", -1, -1, 0]]),
        ("\x9b31mx", [["x", 1, -1, 0]]),
    ],
)  # fmt: skip
def test_colours_are_those_that_the_script_chose(
    js: Page, printed: str, seen: list[list[Any]]
) -> None:
    found = runs(js, printed)
    joined: list[list[Any]] = []
    for text, *style in found:
        if joined and joined[-1][1:] == style:
            joined[-1][0] += text
        else:
            joined.append([text, *style])
    wanted: list[list[Any]] = []
    for text, *style in seen:
        if wanted and wanted[-1][1:] == style:
            wanted[-1][0] += text
        else:
            wanted.append([text, *style])
    assert joined == wanted


def test_colours_go_on_in_the_next_line(js: Page) -> None:
    after = js.evaluate("ansi.parse('a\\x1b[1;32mb', ansi.PLAIN).style")
    assert after == {"fg": 2, "bg": -1, "flags": BOLD}
    assert runs(js, "c\x1b[22md", after) == [["c", 2, -1, BOLD], ["d", 2, -1, 0]]


#: What scripts print, good and bad: sequences whole and broken, controls, markup, other alphabets.
PIECES = st.sampled_from(
    [
        "\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b_", "\x1b\\", "\x9b", "\x9d", "\x90", "\x9c", "\x85",
        "\x07", "\x18", "\r", "\b", "\t", "\x00", "\x7f", "\x0e", "m", "K", "G", "C", "D", "J", ";",
        ":", "0", "1", "2", "38", "5", "31", "?", " ", "(", "\x1b[31m", "\x1b[0m", "\x1b[K",
        "\x1b[2K", "\x1b[1K", "\x1b[3D", "\x1b[2C", "\x1b[5G", "\x1b[999999C", "\x1b]8;;http://x\x07",
        "\x1b]0;t\x1b\\", "abc", "é", "日本", "😀", "\u202e", "\u2028", "<script>", "</div>", "&lt;",
        "'\"`", "\ufeff", "\ufffd", "\\",
    ]
)  # fmt: skip
LINES = st.lists(
    st.one_of(
        st.lists(PIECES, max_size=14).map(lambda parts: "".join(parts).encode()),
        st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(LINES)
def test_whatever_is_printed_the_text_is_that_of_the_other_reader_and_nothing_but_text(
    js: Page, lines: list[bytes]
) -> None:
    seen = js.evaluate(
        """(lines) => lines.map((line) => {
          const text = new TextDecoder("utf-8", {ignoreBOM: true}).decode(bytesOf(line));
          const parsed = ansi.parse(text, ansi.PLAIN);
          const row = paint.makeRow(7, text, ansi.PLAIN);
          return {
            text: parsed.runs.map((run) => run.text).join(""),
            shown: row.line.textContent,
            elements: [...row.element.querySelectorAll("*")].map((element) =>
              [element.localName, ...element.getAttributeNames().sort()].join(" ")),
            classes: [...row.line.querySelectorAll("*")].map((element) => element.className),
          };
        })""",
        [base64.b64encode(line).decode() for line in lines],
    )
    for line, got in zip(lines, seen, strict=True):
        assert got["text"] == logtext.visible(line), line
        assert got["shown"] == got["text"], line
        for element in got["elements"]:
            assert element in ("a aria-label class href tabindex", "span class", "span class style")
        assert all(name.startswith("log-") for names in got["classes"] for name in names.split())


@pytest.mark.parametrize(
    "unit", ["\x1b]", "\x9d", "\x1b[", "\x1bP\r", "a\r", "\x1b[999999C\x1b[1K"]
)
def test_no_garbage_takes_long(js: Page, unit: str) -> None:
    took = js.evaluate(
        "([unit, many]) => { const text = unit.repeat(many); const began = performance.now();"
        " ansi.parse(text, ansi.PLAIN); return performance.now() - began; }",
        [unit, 2 * PIECE // len(unit)],
    )
    assert took < 2000


@pytest.mark.parametrize(
    ("colour", "channels"),
    [
        (16, [0, 0, 0]), (21, [0, 0, 255]), (196, [255, 0, 0]), (231, [255, 255, 255]),
        (110, [135, 175, 215]), (232, [8, 8, 8]), (255, [238, 238, 238]),
        (RGB + 0x0A141E, [10, 20, 30]),
    ],
)  # fmt: skip
def test_the_palette_is_the_usual_one(js: Page, colour: int, channels: list[int]) -> None:
    assert js.evaluate("(colour) => paint.channels(colour)", colour) == channels


# --- rows


def boundaries(log: bytes) -> list[int]:
    """Where rows begin, by a look at all of the log: after newlines, and where pieces have none."""
    found = {0} | {at + 1 for at, byte in enumerate(log) if byte == 10}
    for piece in range(PIECE, len(log), PIECE):
        if b"\n" not in log[piece - PIECE : piece]:
            at = piece
            while at < piece + 3 and at < len(log) and log[at] & 0xC0 == 0x80:
                at += 1
            found.add(at)
    return sorted(at for at in found if at < len(log))


LENGTHS = st.one_of(
    st.integers(0, 200), st.integers(PIECE - 3, PIECE + 3), st.integers(0, 4 * PIECE)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(LENGTHS, st.sampled_from([b"x", "é".encode(), "😀".encode()])), max_size=12),
    st.booleans(),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_rows_begin_where_a_look_at_all_of_the_log_says(
    js: Page, lines: list[tuple[int, bytes]], ended: bool, places: list[float]
) -> None:
    log = b"\n".join((unit * length)[:length] for length, unit in lines) + b"\n" * ended
    if not log:
        return
    starts = boundaries(log)
    offsets = [min(len(log) - 1, int(place * len(log))) for place in places]
    offsets += [max(0, start - 1) for start in starts] + starts
    got = js.evaluate(
        """([log, starts, offsets]) => {
          const data = bytesOf(log);
          let low = 0, high = 0;
          const check = (at) => {
            if (at < low - rows.REACH || at >= high + rows.REACH) throw new Error(`looks at ${at}`);
          };
          const bytes = {
            at: (offset) => { check(offset); return data[offset]; },
            lastNewline: (from, to) => {
              for (let i = Math.min(to, data.length) - 1; i >= from; i -= 1) {
                check(i);
                if (data[i] === 10) return i;
              }
              return -1;
            },
            firstNewline: (from, to) => {
              for (let i = from; i < Math.min(to, data.length); i += 1) {
                check(i);
                if (data[i] === 10) return i;
              }
              return -1;
            },
          };
          const around = (at, find) => { low = at; high = at + 1; return find(bytes, at, data.length); };
          return {
            starts: offsets.map((at) => around(at, rows.rowStart)),
            ends: starts.map((at) => around(at, rows.rowEnd)),
          };
        }""",
        [base64.b64encode(log).decode(), starts, offsets],
    )
    assert got["starts"] == [max(s for s in starts if s <= at) for at in offsets]
    assert got["ends"] == [*starts[1:], len(log)]
    assert max(end - start for start, end in zip(starts, got["ends"], strict=True)) <= 2 * PIECE + 3
