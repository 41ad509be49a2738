"""Which URL is answered where."""

from __future__ import annotations

from starlette.routing import BaseRoute

from rqcore_web.site import Site


def routes(site: Site) -> list[BaseRoute]:  # noqa: ARG001 - filled in
    """The routes, relative to the site's root."""
    return []
