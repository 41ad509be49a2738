"""What metrics adds to the site: ``/metrics``, for whoever may read.

Called by a hook of rqcore-web, in its process, which brings starlette; nothing of rqcore-web itself is
imported.  The handler is a plain function, since it asks sockets: the site calls it in a thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rqcore.config import InstanceConfig
from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo
from rqcore.instance import Instance
from rqcore_metrics.collect import collect
from rqcore_metrics.exposition import exposition
from rqcore_metrics.hookspecs import Family


class Site(Protocol):
    """The site, as far as this module uses it."""

    @property
    def instance(self) -> Instance:
        """The instance that it shows."""

    @property
    def settings(self) -> InstanceConfig:
        """Its main config."""

    @property
    def hooks(self) -> Hooks:
        """The plugins of this process."""


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
