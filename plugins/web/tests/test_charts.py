"""rqcore_web.charts and .axes: honest ticks, visible gaps, and nothing by colour alone."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import expect
from rqcore_web import axes
from rqcore_web.charts import KINDS, SPANS, series, sparkline, summary
from rqcore_web.history import Point
from rqcore_web.tally import Tally

if TYPE_CHECKING:
    from markupsafe import Markup
    from tests.conftest import Seen, Web

START = 1_790_000_400.0
TIMES = "%s in the median, 95 of 100 within %s"
NUMBERS = re.compile(r"-?\d+(\.\d{1,2})?%?")


def point(number: int, done: int = 0, err: int = 0, covered: float = 1.0, **more: int) -> Point:
    tally = Tally(done=done, err=err, **more)  # type: ignore[arg-type]  # only counts are given
    for _ in range(done + err):
        tally.wait.add(0.02)
        tally.run.add(3.0)
    return Point(START + 1200 * number, 1200, covered, tally)


POINTS = st.lists(
    st.builds(
        lambda done, err, relayed, created, covered: point(
            0, done, err, covered, relayed=relayed, created=created
        ),
        *[st.integers(0, 50)] * 4,
        st.sampled_from([0.0, 0.3, 1.0]),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


def parsed(markup: Markup | str) -> ET.Element:
    """The markup as XML, which it has to be as well as HTML."""
    return ET.fromstring(f"<all>{markup}</all>")


def texts(markup: Markup, name: str) -> list[str]:
    return ["".join(element.itertext()) for element in parsed(markup).iter(name)]


# --- charts


@given(POINTS, st.sampled_from(sorted(KINDS)))
def test_whatever_happened_can_be_drawn(points: list[Point], kind: str) -> None:
    for number, each in enumerate(points):
        each.start = START + 1200 * number
    chart = parsed(series(points, kind))
    assert len(list(chart.iter("title"))) == len(points)
    plot = chart.findall(".//svg")[1]
    for rect in plot.findall(".//rect"):
        if rect.get("x") is None:
            continue  # in a pattern
        values = [rect.get(name) or "" for name in ("x", "y", "width", "height")]
        assert all(NUMBERS.fullmatch(value) for value in values), values
        top, height = float(values[1]), float(values[3])
        assert -6.1 <= top <= top + height <= 145.1, "a bar leaves the plot"
    assert not re.search(r"style=|<script|on\w+=|nan|inf\b", str(series(points, kind)))


def test_failed_and_relayed_have_patterns_and_what_came_in_a_mark() -> None:
    chart = series([point(0, 5, 2, relayed=3, created=12)], "ended", key="mine")
    bars = parsed(chart).findall(".//g[@class='bucket']/rect")
    looks = [bar.get("class") or bar.get("fill") for bar in bars]
    assert looks == ["hit", "done", "url(#chart-mine-relayed)", "url(#chart-mine-err)", "came"]
    ids = [pattern.get("id") for pattern in parsed(chart).iter("pattern")]
    assert {"chart-mine-relayed", "chart-mine-err", "chart-mine-gap"} == set(ids)
    heights = [float(bar.get("height") or 0) for bar in bars]
    assert heights[1] / heights[3] == pytest.approx(2.5, rel=0.01)
    assert texts(chart, "li") == ["done", "relayed", "failed", "came in"]


def test_a_single_failure_among_thousands_can_be_seen() -> None:
    bars = parsed(series([point(0, 9000, 1)], "ended")).findall(".//g[@class='bucket']/rect")
    assert float(bars[-1].get("height") or 0) >= 2


def test_a_gap_is_one_piece_and_no_zero() -> None:
    points = [point(0, 1), point(1, covered=0), point(2, covered=0), point(3), point(4, covered=0)]
    chart = series(points, "ended")
    gaps = [
        (rect.get("x"), rect.get("width"))
        for rect in parsed(chart).iter("rect")
        if rect.get("fill") == "url(#chart-ended-gap)" and rect.get("x")
    ]
    assert gaps == [("20%", "40%"), ("80%", "20%")]
    said = texts(chart, "title")
    assert [text.rpartition(": ")[2] for text in said] == [
        f"1 done, 0 came in, waited {TIMES % ('20 ms', '20 ms')}, ran {TIMES % ('3.0 s', '3.0 s')}",
        "not known", "not known", "0 done, 0 came in", "not known",
    ]  # fmt: skip
    assert texts(chart, "li")[-1] == "not known"
    assert texts(series([point(0)], "ended"), "li")[-1] != "not known"


def test_a_chart_says_what_it_shows() -> None:
    points = [point(0, 3, 1), point(1, 2, relayed=1)]
    (box,) = parsed(series(points, "ended"))
    assert (box.get("role"), box.get("aria-label")) == (
        "img", "Messages that ended: 5 done, 1 relayed, 1 failed"
    )  # fmt: skip
    assert summary(points, "run") == "median 3.0 s, 95 of 100 within 3.0 s, longest 3.0 s"
    assert summary([point(0)], "wait") == "none in this time"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(60, "21 Sep 14:20 to 14:21"), (86_400, "Mon 21 Sep"), (4 * 86_400, "21 Sep to 25 Sep")],
)
def test_when_a_bucket_was(seconds: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    at = datetime.fromisoformat("2026-09-21T14:20:00+00:00").timestamp()
    title = texts(series([Point(at, seconds, 1.0)], "ended"), "title")[0]
    assert title.startswith(f"{said}: ")


# --- sparklines


@given(st.lists(st.none() | st.integers(0, 10**9), max_size=80))
def test_a_sparkline_of_anything(values: list[int | None]) -> None:
    (svg,) = parsed(sparkline(values, 'a "title" <b>'))
    assert svg.get("aria-label") == 'a "title" <b>'
    assert svg.findtext("title") == 'a "title" <b>'
    bars = svg.find("path[@class='bars']")
    assert bars is not None
    assert (bars.get("d") or "").count("M") == sum(bool(value) for value in values)
    unknown = svg.findall("path[@class='unknown']")
    assert bool(unknown) == (None in values)


# --- axes


@given(st.integers(0, 10**12))
def test_counts_have_whole_round_ticks_that_hold_all(most: int) -> None:
    axis = axes.counts(most)
    values = [int(tick.label.replace(",", "")) for tick in axis.ticks]
    assert values[0] == 0
    assert values[-1] == axis.high >= most
    assert 2 <= len(values) <= 5
    assert axis.high <= max(1, most) * 2
    for tick, value in zip(axis.ticks, values, strict=True):
        assert axis.place(value) == pytest.approx(tick.place)


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_times_have_ticks_in_order_that_hold_all(one: float, other: float) -> None:
    axis = axes.times(min(one, other), max(one, other))
    places = [tick.place for tick in axis.ticks]
    assert places == sorted(places)
    assert (places[0], places[-1], len(places) >= 2) == (0, 1, True)
    for seconds in (one, other):
        assert 0 <= axis.log_place(seconds) <= 1
    assert axis.low <= max(min(one, other), 0.001)


def test_times_are_called_what_they_are() -> None:
    axis = axes.times(0.05, 700)
    assert [tick.label for tick in axis.ticks] == [
        "10 ms",
        "0.1 s",
        "1 s",
        "10 s",
        "1 min",
        "10 min",
        "1 h",
    ]
    assert axis.log_place(60) == axis.ticks[4].place


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (3600, ["14:30", "14:40", "14:50", "15:00", "15:10", "15:20"]),
        (86_400, ["18:00", "22 Sep", "06:00", "12:00"]),
        (7 * 86_400, ["23 Sep", "25 Sep", "27 Sep"]),
        (28 * 86_400, ["28 Sep", "5 Oct", "12 Oct", "19 Oct"]),
        (366 * 86_400, ["11 Jan", "3 May", "23 Aug"]),
    ],
)
def test_moments_are_round_by_the_machines_clock(
    span: int, labels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    start = datetime.fromisoformat("2026-09-21T14:20:30+00:00").timestamp()
    found = axes.moments(start, start + span)
    assert [tick.label for tick in found] == labels
    assert all(0 <= tick.place <= 1 for tick in found)


@given(st.floats(0, 4e9), st.floats(60, 400 * 86_400))
def test_moments_are_few_and_in_order(start: float, span: float) -> None:
    found = axes.moments(start, start + span)
    assert len(found) <= 6
    places = [tick.place for tick in found]
    assert places == sorted(set(places))
    assert all(0 <= place <= 1 for place in places)


# --- in a browser


def until_counted(web: Web) -> None:
    """Send messages until the site, which has just begun to follow the queue, has counted one."""
    while True:
        web.rq.until("test", web.rq.send("test"), "done")
        if re.search(r"Messages that ended: [1-9]", web.curl("q/test").text):
            return


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_queues_charts_in_a_browser(web: Web, seen: Seen, scheme: str, width: int) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    until_counted(web)
    page = seen.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of two words
    page.set_viewport_size({"width": width, "height": 900})
    chart = page.get_by_role("img", name=re.compile(r"^Messages that ended: \d+ done, 0 failed$"))
    for span in SPANS:
        page.goto(f"{web.url}q/test?span={span}")
        bar = chart.locator(".bucket rect.done").last
        box = bar.bounding_box()
        assert box is not None
        assert box["height"] > 20
        assert bar.evaluate("bar => getComputedStyle(bar).fill") not in ("rgb(0, 0, 0)", "none")
        labels = chart.locator("svg text").evaluate_all(
            "all => all.map(text => text.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert all(0 <= left < right <= width for left, right in labels)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_charts_grow_while_one_looks(web: Web, seen: Seen) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    until_counted(web)
    seen.page.goto(f"{web.url}q/test?span=hour")
    name = re.compile(r"^Messages that ended: (\d+) done")
    before = seen.page.get_by_role("img", name=name).get_attribute("aria-label") or ""
    found = name.match(before)
    assert found is not None
    for _ in range(2):
        web.rq.until("test", web.rq.send("test"), "done")
    later = f"Messages that ended: {int(found[1]) + 2} done, 0 failed"
    expect(seen.page.get_by_role("img", name=later)).to_be_visible()
