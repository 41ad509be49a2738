"""What the cleaner adds to the site: a panel while the disk fills, and one on its own queue's page.

Called by the hooks of rqcore-web, in its process, which brings markupsafe; nothing of rqcore-web itself
is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from time import time
from typing import Any

from markupsafe import Markup

from rqcore.faces import Panel, Site
from rqcore.words import moment, size, span_in_words
from rqcore_cleaner import disk, totals
from rqcore_cleaner.disk import Level, Part
from rqcore_cleaner.engine import counted
from rqcore_cleaner.leftovers import leftovers
from rqcore_cleaner.options import Options

_MOST = 50


def overview(site: Site, options: Options) -> list[Panel]:
    """What the first page must say: that the disk fills."""
    level, worst, found = disk.state(str(site.instance.directory), options.disk)
    if level is Level.OK:
        return []
    return [Panel("The disk", _trouble(level, worst) + _free(found) + _remedy())]


def queue(site: Site, shown: Mapping[str, Any], options: Options) -> list[Panel]:
    """On the page of the queue cleaner: how the disk is, and what was removed so far."""
    if shown["name"] != "cleaner":
        return []
    directory = str(site.instance.directory)
    level, worst, found = disk.state(directory, options.disk)
    about = _free(found) if level is Level.OK else _trouble(level, worst) + _free(found) + _remedy()
    known = totals.read(directory)
    rows = sorted(known["removed"].items(), key=lambda item: -item[1]["bytes"])
    lines = Markup("").join(
        Markup("<dt><a href='{}'>{}</a></dt><dd>{}, {}</dd>").format(
            site.url(f"q/{name}"), name, counted(entry["messages"]), size(entry["bytes"])
        )
        for name, entry in rows[:_MOST]
    )
    removed = Markup(
        "<p>Nothing was removed yet. What would go: <code>rq clean --dry-run</code></p>"
    )
    if rows:
        last = Markup("<p>The last cleaning was {}.</p>").format(_time(known["at"]))
        removed = last + Markup("<dl class='facts'>{}</dl>").format(lines)
    left = len(list(leftovers(site.instance)))
    if left:
        text = "1 deleted queue is" if left == 1 else f"{left} deleted queues are"
        removed += Markup("<p>{} still on the disk, in <code>queue/</code>.</p>").format(text)
    return [Panel("The disk", about), Panel("Removed so far", removed)]


def _trouble(level: Level, worst: Part) -> Markup:
    free = worst.words(worst.free)
    if level is Level.REFUSE:
        return Markup(
            "<p class='problem'><span>New messages are refused: {} free. They are taken again from {} "
            "on.</span></p>"
        ).format(free, worst.words(worst.back))  # fmt: skip
    return Markup(
        "<p class='warning'>{} free. New messages are refused below {}.</p>"
    ).format(free, worst.words(worst.refuse))  # fmt: skip


def _free(found: list[Part]) -> Markup:
    rows = Markup("").join(
        Markup(
            "<dt>{}</dt><dd>{} of {} free "
            "<span class='muted'>warning below {}, refusal below {}</span></dd>"
        ).format(part.name.capitalize(), *map(part.figure, (
            part.free, part.whole, part.warning, part.refuse,
        )))
        for part in found
    )  # fmt: skip
    return Markup("<dl class='facts'>{}</dl>").format(rows)


def _remedy() -> Markup:
    return Markup("<p>What can go: <code>rq clean --dry-run</code></p>")


def _time(at: float) -> Markup:
    """A time as the site shows times: its script keeps them going."""
    return Markup("<time datetime='{}' title='{}' data-time='relative'>{} ago</time>").format(
        datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"), moment(at),
        span_in_words(time() - at),
    )  # fmt: skip
