"""Charts as SVG, made on the server: they are there without JavaScript, and say what they show.

No attribute of style and no script is in them: colours are classes of the style sheet (``charts.css``)
and ``currentColor``, so that they suit light and dark.  Whatever is shown by colour is shown by its
pattern or shape too.  A time of which nothing is known is a gap, which is not the same as a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup, escape

_SPARK_WIDTH, _SPARK_HEIGHT = 120.0, 24.0


def sparkline(values: Sequence[float | None], title: str) -> Markup:
    """A small bar for each value, the latest at the right; None where nothing is known."""
    step = _SPARK_WIDTH / max(1, len(values))
    highest = max((value for value in values if value), default=0.0)
    path = []
    for number, value in enumerate(values):
        if value:
            height = max(1.5, value / highest * (_SPARK_HEIGHT - 2))
            top = _SPARK_HEIGHT - 1 - height
            path.append(
                f"M{_n(number * step)} {_n(top)}h{_n(step * 0.72)}v{_n(height)}h{_n(-step * 0.72)}z"
            )
    lines = []
    at = 0
    for known, group in groupby(values, lambda value: value is not None):
        count = len(list(group))
        name = "base" if known else "unknown"
        y = _n(_SPARK_HEIGHT - 0.5)
        lines.append(f'<path class="{name}" d="M{_n(at * step)} {y}H{_n((at + count) * step)}"/>')
        at += count
    return Markup(  # noqa: S704 - the numbers are ours and the title is escaped
        f'<svg class="chart sparkline" viewBox="0 0 {_n(_SPARK_WIDTH)} {_n(_SPARK_HEIGHT)}" role="img" '
        f'preserveAspectRatio="none" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'{"".join(lines)}<path class="bars" fill="currentColor" d="{"".join(path)}"/></svg>'
    )


def _n(value: float) -> str:
    """A coordinate, as short as it is precise enough."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
