"""What metrics adds to the site: ``/metrics``, for whoever may read, and a panel while a push fails.

Called by hooks of rqcore-web, in its process, which brings starlette and markupsafe; nothing of
rqcore-web itself is imported.  The handler is a plain function, since it asks sockets: the site calls
it in a thread.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from time import time
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rqcore.faces import Panel, Site
from rqcore.hookspecs import InstanceInfo
from rqcore.words import span_in_words
from rqcore_metrics import pushes
from rqcore_metrics.collect import collect
from rqcore_metrics.exposition import exposition
from rqcore_metrics.hookspecs import Family


def routes(site: Site, *, plugin_hooks: bool) -> list[BaseRoute]:
    """The address that Prometheus scrapes."""
    settings = site.settings
    instance = InstanceInfo(str(site.instance.directory), settings.base_url, settings.raw)

    def metrics(request: Request) -> Response:
        families = collect(site.hooks, instance, plugin_hooks=plugin_hooks)
        seen: frozenset[str] | None = request.state.who.queues
        if seen is not None:
            families = [_part(family, seen) for family in families]
        text, content_type = exposition(families, request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return [Route("/metrics", metrics)]


def _part(family: Family, queues: frozenset[str]) -> Family:
    """What somebody is shown who may see these queues alone: what is said of them, and no more."""
    samples = [sample for sample in family.samples if sample[0].get("queue") in queues]
    return replace(family, samples=samples)


def panels(site: Site) -> list[Panel]:
    """What the first page must say: where the metrics do not get to."""
    known = pushes.read(str(site.instance.directory))
    failing = [_failing(name, one) for name, one in known.items() if one["error"]]
    if not failing:
        return []
    listed = Markup("<ul class='files'>{}</ul>").format(Markup("").join(failing))
    return [Panel("Metrics that do not arrive", listed)]


def _failing(name: str, one: dict[str, Any]) -> Markup:
    since = float(one["since"] or one["at"])
    return Markup(
        "<li><div class='line'><strong>{} at {}</strong> <span class='muted small'>for "
        "<time datetime='{}' data-time='elapsed'>{}</time></span></div>"
        "<p class='problem'><span>{}</span></p></li>"
    ).format(
        name, one["to"], datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds"),
        span_in_words(time() - since), one["error"],
    )  # fmt: skip
