"""The first page: every queue in a row, what runs now, what is wrong, what comes next.

Each queue is asked once (`Spool.describe_all`), the manager once; the rest is in our memory.
Old checks read this page: it has ``QUEUEMGR:`` and ``OPERATIONAL`` on one line while the manager
answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import time
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from rqcore.config import ConfigError
from rqcore.errors import UnreachableError
from rqcore_web import charts, panels, schedules, words
from rqcore_web.access import need, who
from rqcore_web.render import page
from rqcore_web.site import Site
from rqcore_web.spool import SPECIAL

_NEXT = 8
_SPARK_MINUTES = 60
#: Less of the disk than this part is told.
_LITTLE = 0.05


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong, as a sentence that begins with its subject, which may lead somewhere.

    A ``notice`` is what an operator wished to be so.
    """

    subject: str
    text: str
    link: str = ""
    notice: bool = False


@dataclass(frozen=True, slots=True)
class Coming:
    """Something that comes next: when, in which queue, and why."""

    at: float
    queue: str
    what: str


async def overview(request: Request) -> Response:
    """``GET /``."""
    need(request, "read")
    site: Site = request.app.state.site
    queues, manager = await asyncio.gather(site.spool.describe_all(), _manager(site))
    asker = who(request)
    queues = [queue for queue in queues if asker.may("read", queue["name"])]
    running = sorted(
        ((queue["name"], run) for queue in queues for run in queue["running"]),
        key=lambda pair: pair[1]["started_at"],
    )
    return page(
        request,
        "overview.html",
        manager=manager,
        custom=[queue for queue in queues if queue["name"] not in SPECIAL],
        special=[queue for queue in queues if queue["name"] in SPECIAL],
        relayed=any(queue["counts"]["relayed"] for queue in queues),
        sparks={queue["name"]: _spark(site, queue["name"]) for queue in queues},
        running=running,
        troubles=list(_troubles(site, queues, manager)),
        coming=_coming(site, queues),
        panels=panels.panels(site, "rq_web_overview_panels"),
    )


async def _manager(site: Site) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = await site.spool.manager.ask("describe")
    except UnreachableError:
        return None
    return found


def _spark(site: Site, queue: str) -> Markup:
    """How many messages ended in each minute of the last hour."""
    points = site.history.recent(queue, _SPARK_MINUTES)
    ended = sum(point.ended for point in points)
    title = f"{words.plural(ended, 'message')} ended in the last hour"
    return charts.sparkline([None if point.gap else point.ended for point in points], title)


def _troubles(
    site: Site, queues: list[dict[str, Any]], manager: Mapping[str, Any] | None
) -> Iterator[Trouble]:
    if manager is None:
        yield Trouble(
            "The manager",
            "does not answer: queues go on, but none is started or watched; look at the log in "
            f"{site.instance.log_dir}, then start RQ again with rq up",
        )
    for queue in queues:
        name, status = queue["name"], queue["status"]
        if status != "UP":
            text = f"is {status}: {words.queue_words(queue)}"
            yield Trouble(name, text, f"q/{name}", notice=status in ("PAUSE", "DOWN"))
    for queue in queues:
        name, failed = queue["name"], queue["counts"]["err"]
        if failed:
            yield Trouble(
                name, f"has {words.plural(failed, 'message')} in err", f"errors?queue={name}"
            )
    for child in (manager or {}).get("children", ()):
        if child["kind"] == "service" and child["state"] != "running":
            yield Trouble(f"Service {child['name']}", f"is {child['state']}: {child['problem']}")
    for plugin in site.hooks.plugins():
        if plugin.status in ("failed", "quarantined"):
            text = f"is {plugin.status}: {plugin.error}"
            yield Trouble(f"Plugin {plugin.name}", text, "plugins")
    yield from _disk(site)


def _disk(site: Site) -> Iterator[Trouble]:
    found = os.statvfs(site.instance.directory)
    free = found.f_bavail * found.f_frsize
    for part, whole, text in (
        (found.f_bavail, found.f_blocks, f"has only {words.size(free)} free"),
        (found.f_favail, found.f_files, f"has only {words.plural(found.f_favail, 'inode')} free"),
    ):
        if whole and part < _LITTLE * whole:
            yield Trouble("The disk", f"{text}; remove old messages, or give RQ more room")


def _coming(site: Site, queues: list[dict[str, Any]]) -> list[Coming]:
    """The next messages that are due later, and the next runs of schedules, soonest first."""
    now = time()
    found = []
    for queue in queues:
        name, due = queue["name"], queue["earliest_due"]
        if due is not None and due > now:
            found.append(Coming(due, name, "the next message is due"))
        if queue["status"] == "UP":
            found += [
                Coming(view.next_runs[0], name, view.words)
                for view in _schedule(site, name)
                if view.next_runs
            ]
    return sorted(found, key=lambda one: one.at)[:_NEXT]


def _schedule(site: Site, name: str) -> list[schedules.ScheduleView]:
    try:
        config, _ = site.instance.load_queue(name)
    except ConfigError:
        return []
    return schedules.describe(config)
