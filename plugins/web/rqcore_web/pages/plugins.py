"""The plugins: which there are, how they fare in each process, what their hooks cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore.errors import RqError
from rqcore_web.access import need, who
from rqcore_web.render import page
from rqcore_web.site import Site


@dataclass(slots=True)
class Figures:
    """What one plugin's hook did in all processes together; seconds."""

    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(slots=True)
class Shown:
    """A plugin, in all processes: ``states`` says in which of them it is what, and why."""

    name: str
    version: str
    source: str
    states: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, None] = field(default_factory=dict)
    hooks: dict[str, Figures] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        return sum(figures.errors for figures in self.hooks.values())


async def plugins(request: Request) -> Response:
    """``GET /plugins``."""
    need(request, "read")
    site: Site = request.app.state.site
    asker = who(request)
    names = [name for name in site.spool.names() if asker.may("read", name)]
    asked = await asyncio.gather(_report(site, ""), *(_report(site, name) for name in names))
    reports: dict[str, Mapping[str, Any]] = {"web": site.hooks.report()}
    reports |= {
        f"queue {name}" if name else "manager": report
        for name, report in zip(("", *names), asked, strict=True)
        if report is not None
    }
    silent = [
        name or "manager"
        for name, report in zip(("", *names), asked, strict=True)
        if report is None
    ]
    return page(
        request, "plugins.html", plugins=together(reports), processes=len(reports), silent=silent
    )


async def _report(site: Site, queue: str) -> Mapping[str, Any] | None:
    """What a process says of its plugins: the manager for ""; None when it does not answer."""
    try:
        peer = site.spool.queue(queue) if queue else site.spool.manager
        report: Mapping[str, Any] = await peer.ask("plugins")
    except RqError:
        return None
    return report


def together(reports: Mapping[str, Mapping[str, Any]]) -> list[Shown]:
    """The plugins of all processes, those in trouble first."""
    found: dict[str, Shown] = {}
    for process, report in reports.items():
        for plugin in report["plugins"]:
            shown = found.setdefault(
                plugin["name"], Shown(plugin["name"], plugin["version"], plugin["source"])
            )
            shown.states.setdefault(plugin["status"], []).append(process)
            if plugin["error"]:
                shown.reasons[plugin["error"]] = None
        for figures in report["hooks"]:
            sums = found[figures["plugin"]].hooks.setdefault(figures["hook"], Figures())
            sums.calls += figures["calls"]
            sums.errors += figures["errors"]
            sums.seconds += figures["seconds"]
            sums.longest = max(sums.longest, figures["max_seconds"])
    return sorted(found.values(), key=lambda one: (set(one.states) <= {"ok", "disabled"}, one.name))
