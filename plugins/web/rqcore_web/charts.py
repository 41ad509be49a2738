"""Charts as SVG, made on the server: they are there without JavaScript, and say what they show.

No attribute of style and no script is in them: colours are classes of ``charts.css``, so that they suit
light and dark.  Whatever is shown by colour is shown by its pattern or shape too.  A time of which
nothing is known is a hatched gap, which is not the same as a zero.

Places along the time are percentages and text is outside of any scaling, so a chart is as sharp and its
labels as large on a telephone as on a wall.  The text of each bucket is its ``title``, shown on
hovering; the chart as a whole is an image whose name says what it shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from rqcore_web import axes
from rqcore_web.history import Point, total
from rqcore_web.words import duration, plural

if TYPE_CHECKING:
    from rqcore_web.axes import Axis
    from rqcore_web.history import History
    from rqcore_web.spread import Spread

#: How far back the charts of a page go, by the words for it; in seconds.
SPANS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 28 * 86_400}
#: What `series` draws, by its key: the title.
KINDS = {"ended": "Messages that ended", "wait": "Wait until the start", "run": "Run time"}
_SPARK_WIDTH, _SPARK_HEIGHT = 120.0, 24.0
_TOP, _HEIGHT, _BOTTOM = 8.0, 84.0, 24.0
_BASE = _TOP + _HEIGHT
#: How much of its place a bar takes, and how high one is at least that is not zero.
_WIDE, _LEAST = 0.78, 2.0
#: Labels so near to the edges stay inside.
_EDGE = 0.04
_DAY = 86_400
_PATTERNS = {
    "err": '<rect class="err" width="6" height="6"/><path class="mark" d="M0 3H6"/>',
    "relayed": '<rect class="relayed" width="6" height="6"/><circle class="dot" cx="3" cy="3" r="1.4"/>',
    "gap": '<path class="hatch" d="M0 3H6"/>',
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title and, in a few words, what it shows."""

    title: str
    summary: str
    svg: Markup


def figures(history: History, queue: str, span: str) -> list[Figure]:
    """The charts of a queue over one of `SPANS`: what ended, how long it waited, how long it ran."""
    points = history.series(queue, SPANS[span])
    return [
        Figure(title, summary(points, kind), series(points, kind)) for kind, title in KINDS.items()
    ]


def summary(points: Sequence[Point], kind: str) -> str:
    """What a chart of one of the `KINDS` shows, in a few words."""
    whole = total(points)
    if kind != "ended":
        return _spread_words(whole.wait if kind == "wait" else whole.run)
    relayed = [f"{whole.relayed:,} relayed"] if whole.relayed else []
    return ", ".join((f"{whole.done:,} done", *relayed, f"{whole.err:,} failed"))


def series(points: Sequence[Point], kind: str, key: str = "") -> Markup:
    """A chart of one of the `KINDS`; ``key`` tells it from others of its kind on the same page."""
    drawing = _Ended(points, key or kind) if kind == "ended" else _Times(points, key or kind, kind)
    name = escape(f"{KINDS[kind]}: {summary(points, kind)}")
    # Of what is in it, labels are numbers and times, and the rest is ours.
    return Markup(f'<div class="chart-box" role="img" aria-label="{name}">{drawing.draw()}</div>')  # noqa: S704


def sparkline(values: Sequence[float | None], title: str) -> Markup:
    """A small bar for each value, the latest at the right; None where nothing is known."""
    step = _SPARK_WIDTH / max(1, len(values))
    highest = max((value for value in values if value), default=0.0)
    bars, lines, at = [], [], 0
    for number, value in enumerate(values):
        if value:
            height = max(1.5, value / highest * (_SPARK_HEIGHT - 2))
            place = f"M{_n(number * step)} {_n(_SPARK_HEIGHT - 1 - height)}"
            bars.append(f"{place}h{_n(step * _WIDE)}v{_n(height)}h{_n(-step * _WIDE)}z")
    for known, group in groupby(values, lambda value: value is not None):
        until = at + len(list(group))
        place = f"M{_n(at * step)} {_n(_SPARK_HEIGHT - 0.5)}H{_n(until * step)}"
        lines.append(f'<path class="{"base" if known else "unknown"}" d="{place}"/>')
        at = until
    return Markup(  # noqa: S704 - the numbers are ours and the title is escaped
        f'<svg class="sparkline" viewBox="0 0 {_n(_SPARK_WIDTH)} {_n(_SPARK_HEIGHT)}" role="img" '
        f'preserveAspectRatio="none" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'{"".join(lines)}<path class="bars" d="{"".join(bars)}"/></svg>'
    )


class _Plot:
    """Axes, gaps and buckets; what is in a bucket is for the kinds of charts to say."""

    def __init__(self, points: Sequence[Point], key: str, axis: Axis) -> None:
        self._points = points
        self._key = key
        self._axis = axis
        self._step = 100 / max(1, len(points))

    def bars(self, point: Point, left: float, width: float) -> Iterator[str]:
        """What is in a bucket that begins ``left`` and is as wide, both in percent."""
        raise NotImplementedError

    def legend(self) -> tuple[tuple[str, str], ...]:
        """The names of bars and what they stand for."""
        raise NotImplementedError

    def draw(self) -> str:
        """All of it."""
        labels, lines = [], []
        for place, label in self._axis.ticks:
            y = _n(_BASE - place * _HEIGHT)
            labels.append(
                f'<text x="100%" y="{y}" dy=".32em" text-anchor="end">{escape(label)}</text>'
            )
            lines.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        height = _n(_BASE + _BOTTOM)
        body = "".join((*lines, *self._gaps(), *self._moments(), *self._buckets()))
        return (
            f'<svg class="chart-y" width="44" height="{height}" aria-hidden="true">{"".join(labels)}'
            f'</svg><svg class="chart-plot" width="100%" height="{height}" aria-hidden="true">'
            f"{self._defs()}{body}</svg>{self._legend()}"
        )

    def rect(self, name: str, left: float, top: float, width: float, height: float) -> str:
        """A bar: from left and as wide in percent, from the top and as high in pixels."""
        return (
            f'<rect {self._look(name)} x="{_n(left)}%" y="{_n(top)}" width="{_n(width)}%" '
            f'height="{_n(height)}"/>'
        )

    def _look(self, name: str) -> str:
        # A class's fill would count more than the attribute's.
        pattern = f'fill="url(#chart-{self._key}-{name})"'
        return pattern if name in _PATTERNS else f'class="{name}"'

    def _defs(self) -> str:
        return "".join((
            "<defs>",
            *(f'<pattern id="chart-{self._key}-{name}" width="6" height="6" patternUnits='
              f'"userSpaceOnUse" patternTransform="rotate({45 if name == "gap" else -45})">{content}'
              "</pattern>" for name, content in _PATTERNS.items()),
            "</defs>",
        ))  # fmt: skip

    def _gaps(self) -> Iterator[str]:
        """What nobody knows, each time in one piece."""
        at = 0
        for gap, group in groupby(self._points, lambda point: point.gap):
            count = len(list(group))
            if gap:
                yield self.rect("gap", at * self._step, _TOP, count * self._step, _HEIGHT)
            at += count

    def _moments(self) -> Iterator[str]:
        last = self._points[-1]
        for place, label in axes.moments(self._points[0].start, last.start + last.seconds):
            x = _n(place * 100)
            anchor = "start" if place < _EDGE else "end" if place > 1 - _EDGE else "middle"
            yield f'<line class="tick" x1="{x}%" x2="{x}%" y1="{_n(_BASE)}" y2="{_n(_BASE + 4)}"/>'
            yield f'<text x="{x}%" y="{_n(_BASE + 18)}" text-anchor="{anchor}">{escape(label)}</text>'

    def _buckets(self) -> Iterator[str]:
        for number, point in enumerate(self._points):
            left, width = (number + (1 - _WIDE) / 2) * self._step, self._step * _WIDE
            hit = self.rect("hit", number * self._step, _TOP, self._step, _HEIGHT)
            inside = "".join(self.bars(point, left, width))
            yield f'<g class="bucket"><title>{escape(_words(point))}</title>{hit}{inside}</g>'

    def _legend(self) -> str:
        entries = self.legend()
        if any(point.gap for point in self._points):
            entries += (("gap", "not known"),)
        items = "".join(
            f'<li><svg class="swatch" width="14" height="10"><rect {self._look(name)} y="{top}" '
            f'width="14" height="{10 - 2 * top}"/></svg>{escape(label)}</li>'
            for name, label in entries
            for top in (4 if name == "came" else 0,)
        )
        return f'<ul class="legend" aria-hidden="true">{items}</ul>'


class _Ended(_Plot):
    """How many messages ended, by how they did, in one bar; and how many came in, as a mark."""

    def __init__(self, points: Sequence[Point], key: str) -> None:
        most = max((max(point.ended, point.created) for point in points), default=0)
        super().__init__(points, key, axes.counts(most))

    def bars(self, point: Point, left: float, width: float) -> Iterator[str]:
        base = _BASE
        for name, count in (("done", point.done), ("relayed", point.relayed), ("err", point.err)):
            if count:
                height = max(_LEAST, self._axis.place(count) * _HEIGHT)
                base -= height
                yield self.rect(name, left, base, width, height)
        if point.created:
            y = _BASE - self._axis.place(point.created) * _HEIGHT
            yield self.rect("came", left - width * 0.1, y - 1, width * 1.2, 2)

    def legend(self) -> tuple[tuple[str, str], ...]:
        relayed = (("relayed", "relayed"),) if any(point.relayed for point in self._points) else ()
        return (("done", "done"), *relayed, ("err", "failed"), ("came", "came in"))


class _Times(_Plot):
    """The median of times and the band up to the 95th of 100, on a logarithmic axis."""

    def __init__(self, points: Sequence[Point], key: str, kind: str) -> None:
        self._kind = kind
        found = [times for point in points if (times := self._quantiles(point))]
        shortest = min((median for median, _ in found), default=0.01)
        longest = max((late for _, late in found), default=1.0)
        super().__init__(points, key, axes.times(shortest, longest))

    def _quantiles(self, point: Point) -> tuple[float, float] | None:
        return _quantiles(point.wait if self._kind == "wait" else point.run)

    def bars(self, point: Point, left: float, width: float) -> Iterator[str]:
        found = self._quantiles(point)
        if found is not None:
            low, high = (_BASE - self._axis.log_place(seconds) * _HEIGHT for seconds in found)
            yield self.rect("band", left, high, width, max(_LEAST, low - high))
            yield self.rect("median", left, low - 1.5, width, 3)

    def legend(self) -> tuple[tuple[str, str], ...]:
        return (("median", "median"), ("band", "up to the 95th percentile"))


def _quantiles(spread: Spread) -> tuple[float, float] | None:
    median, late = spread.quantile(0.5), spread.quantile(0.95)
    return None if median is None or late is None else (median, late)


def _spread_words(spread: Spread) -> str:
    found = _quantiles(spread)
    if found is None:
        return "none in this time"
    median, late = map(duration, found)
    return f"median {median}, 95 of 100 within {late}, longest {duration(spread.longest)}"


def _words(point: Point) -> str:
    """A bucket in words."""
    if point.gap:
        return f"{_when(point)}: not known"
    said = [f"{point.done:,} done"]
    said += [
        f"{n:,} {name}" for n, name in ((point.relayed, "relayed"), (point.err, "failed")) if n
    ]
    said.append(f"{point.created:,} came in")
    if point.resent:
        said.append(plural(point.resent, "resend"))
    for name, spread in (("waited", point.wait), ("ran", point.run)):
        found = _quantiles(spread)
        if found is not None:
            median, late = map(duration, found)
            said.append(f"{name} {median} in the median, 95 of 100 within {late}")
    return f"{_when(point)}: {', '.join(said)}"


def _when(point: Point) -> str:
    begin, end = (
        datetime.fromtimestamp(at).astimezone() for at in (point.start, point.start + point.seconds)
    )
    day = f"{begin.day} {begin:%b}"
    if point.seconds < _DAY:
        return f"{day} {begin:%H:%M} to {end:%H:%M}"
    return f"{begin:%a} {day}" if point.seconds == _DAY else f"{day} to {end.day} {end:%b}"


def _n(value: float) -> str:
    """A coordinate, as short as it is precise enough."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
