"""A queue's page: its state in words, its messages by state, what runs, its schedule and its figures.

What is shown is in the URL: ``state`` (one state, else all), ``filter`` (`rqcore_web.filters`),
``before`` (where the page begins, a message's id), ``span`` (of the charts).  The list goes by ids,
newest first, so that a page stays where it is while messages come and go.

The queue is asked for its description and for one page of messages.  One whose process does not run is
shown from what lies in its directory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore.config import ConfigError, QueueConfig
from rqcore.errors import RefusedError, UnreachableError
from rqcore_web import charts, filters, names, panels, schedules
from rqcore_web.access import need
from rqcore_web.render import page, with_query
from rqcore_web.site import Site
from rqcore_web.spool import STATES

_LIMIT = 50
#: What can be done to messages of a state, the likeliest first.
ACTIONS = {
    "prep": ("delete",),
    "que": ("run", "delete"),
    "run": ("kill",),
    "done": ("clone", "delete"),
    "relayed": ("clone", "delete"),
    "err": ("retry", "clone", "delete"),
    "": ("retry", "clone", "run", "kill", "delete"),
}


@dataclass(slots=True)
class Listing:
    """One page of messages; ``problem`` says what is wrong with the filter, or the queue."""

    items: list[dict[str, Any]] = field(default_factory=list)
    following: str | None = None
    problem: str = ""


async def queue(request: Request) -> Response:
    """``GET /q/NAME``."""
    site: Site = request.app.state.site
    need(request, "read", request.path_params["name"])
    name = names.shown(request)
    need(request, "read", name)
    query = request.query_params
    state = query.get("state", "") if query.get("state", "") in STATES else ""
    wanted, before = query.get("filter", "").strip(), query.get("before", "")
    shown, listing = await asyncio.gather(
        site.spool.describe(name), _listing(site, name, state, wanted, before)
    )
    if not shown["alive"]:
        shown["counts"] = await asyncio.to_thread(_on_disk, site, name)
    config, config_problem = load_config(site, name)
    span = query.get("span", "")
    if span not in charts.SPANS:
        span = _usual_span(site, name)
    return page(
        request,
        "queue.html",
        queue=shown,
        state=state,
        filter_text=wanted,
        before=before,
        listing=listing,
        actions=ACTIONS[state],
        config=config,
        config_problem=config_problem,
        schedule=schedules.describe(config) if config else [],
        span=span,
        spans=charts.SPANS,
        charts=charts.figures(site.history, name, span),
        link=lambda **changed: with_query(
            request.scope["path"].lstrip("/"),
            **{
                "state": state,
                "filter": wanted,
                "before": "",
                "span": query.get("span"),
                **changed,
            },
        ),
        panels=panels.panels(site, "rq_web_queue_panels", queue=shown),
    )


def _usual_span(site: Site, name: str) -> str:
    """A day; of a queue that is younger, the last hour, in which its few messages can be told apart."""
    since = site.history.begins(name)
    return "day" if since is not None and time() - since >= charts.SPANS["day"] else "hour"


async def _listing(site: Site, name: str, state: str, wanted: str, before: str) -> Listing:
    try:
        meant = filters.parse(wanted)
        items, following = await filters.page(site.spool, name, state, meant, _LIMIT, before)
    except UnreachableError:  # the page's head says so
        return Listing()
    except RefusedError as error:
        return Listing(problem=str(error))
    return Listing(items, following)


def _on_disk(site: Site, name: str) -> Mapping[str, int | None]:
    """How many messages lie in a queue that does not run; None for what would have to be walked."""
    folder = site.instance.queue_dir(name)
    counts: dict[str, int | None] = dict.fromkeys(STATES)
    for state in ("prep", "que", "run", "err"):
        try:
            counts[state] = len(os.listdir(folder / state))
        except OSError:  # never started, or not ours to read: it is not known
            counts[state] = None
    return counts


def load_config(site: Site, name: str) -> tuple[QueueConfig | None, str]:
    """A queue's config as it lies on the disk; None, and why, when it cannot be used."""
    try:
        config, _ = site.instance.load_queue(name)
    except ConfigError as error:
        return None, str(error)
    return config, ""
