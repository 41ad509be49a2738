"""What plugins add to the site: panels, items of the menu, pages and addresses of their own.

Every hook is asked by the kernel's isolation (`rqcore.hooks`): one that raises becomes a panel that
says so, and the page it stands on is whole.  What a plugin returns is looked at here, too: it may be a
generator that fails half-way, or something that is no panel.

A panel is whatever has a ``title`` (text) and a ``content``, an item of the menu whatever has a
``label`` and a ``path`` (text): `rqcore_web.hookspecs.Panel` and `NavItem`, or a class of the plugin's
own, so that it needs no import of this package.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from rqcore_web.access import need
from rqcore_web.hookspecs import NavItem

if TYPE_CHECKING:
    from rqcore_web.site import Site

_log = logging.getLogger(__name__)
_SAFE = ("GET", "HEAD", "OPTIONS")
_ONE_PART = re.compile(r"/[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class ShownPanel:
    """A panel as a page shows it; ``error`` says why there is nothing to show."""

    plugin: str
    title: str
    content: Any
    error: str = ""


def panels(site: Site, hook: str, **given: Any) -> list[ShownPanel]:
    """The panels that plugins give by this hook (``rq_web_…_panels``), the failed ones too."""
    found = []
    for plugin, item, error in _items(site, hook, **given):
        if error:
            found.append(ShownPanel(plugin, plugin, "", error))
        elif wrong := _wrong(item, "Panel", ("title", "content"), ("title",)):
            found.append(ShownPanel(plugin, plugin, "", f"{hook} gave {wrong}"))
        else:
            found.append(ShownPanel(plugin, item.title, item.content))
    return found


def nav_items(site: Site) -> list[NavItem]:
    """The items that plugins add to the menu; what is none is left out and logged."""
    found = []
    for plugin, item, error in _items(site, "rq_web_nav_items"):
        wrong = error or _wrong(item, "NavItem", ("label", "path"), ("label", "path"))
        if wrong:
            _log.error("plugin %s: its items of the menu are missing: %s", plugin, wrong)
        else:
            found.append(NavItem(item.label, item.path))
    return found


def _wrong(item: object, what: str, parts: tuple[str, ...], texts: tuple[str, ...]) -> str:
    """Why this is none, for lack of these attributes, some of them text; nothing when it is one."""
    kind = type(item).__name__
    try:
        missing = [part for part in parts if not hasattr(item, part)]
        here = [part for part in texts if part not in missing]
        other = [part for part in here if not isinstance(getattr(item, part), str)]
    except Exception as error:  # noqa: BLE001 - an attribute of a plugin may do and raise anything
        return f"no {what}: a {kind} failed with {type(error).__name__}: {error}"
    if missing:
        return f"no {what}: a {kind} has no {' and no '.join(missing)}"
    return f"no {what}: the {' and the '.join(other)} of a {kind} must be text" if other else ""


def _items(site: Site, hook: str, **given: Any) -> Iterator[tuple[str, Any, str]]:
    """Plugin, item, error: of everything that the plugins return."""
    for answer in site.hooks.call(hook, site=site, **given):
        if answer.error:
            yield answer.plugin, None, answer.error
            continue
        try:
            for item in answer.value:
                yield answer.plugin, item, ""
        except Exception as error:  # noqa: BLE001 - whatever a plugin's generator raises
            _log.exception("plugin %s failed in %s", answer.plugin, hook)
            yield answer.plugin, None, f"{type(error).__name__}: {error}"


def routes(site: Site) -> list[BaseRoute]:
    """The pages of plugins, each plugin's below ``-/ITS-NAME``."""
    found: dict[str, list[BaseRoute]] = {}
    for plugin, route, error in _items(site, "rq_web_routes"):
        if isinstance(route, BaseRoute):
            found.setdefault(plugin, []).append(route)
        else:
            _log.error("plugin %s: some of its pages are missing: %s", plugin, error or route)
    return [
        Mount(f"/-/{plugin}", app=_Guarded(Mount("", routes=own))) for plugin, own in found.items()
    ]


def root_routes(site: Site, own: Sequence[BaseRoute]) -> list[BaseRoute]:
    """Addresses of plugins at the root, where the site's ``own`` routes leave room for them."""
    found: dict[str, list[tuple[str, Route]]] = {}
    for plugin, route, error in _items(site, "rq_web_root_routes"):
        problem = error or _misplaced(route, own)
        if problem:
            _log.error("plugin %s: an address of it is missing: %s", plugin, problem)
        else:
            found.setdefault(route.path, []).append((plugin, route))
    kept: list[BaseRoute] = []
    for path, given in found.items():
        plugins = {plugin for plugin, _ in given}
        if len(plugins) > 1:
            who = " and ".join(sorted(plugins))
            _log.error("%s is brought by plugins %s; none is used, remove one", path, who)
        else:
            kept.append(Route(path, _Guarded(Router([route for _, route in given]))))
    return kept


def _misplaced(route: Any, own: Sequence[BaseRoute]) -> str:
    """Why this cannot be served at the root; nothing when it can."""
    if not isinstance(route, Route):
        return f"no route: a {type(route).__name__}"
    if not _ONE_PART.fullmatch(route.path):
        return f"{route.path} is not one fixed part, such as /metrics"
    scope = {"type": "http", "method": "GET", "path": route.path, "root_path": "", "headers": []}
    if any(one.matches(scope)[0] is not Match.NONE for one in own):
        return f"{route.path} is the site's own"
    return ""


class _Guarded:
    """A plugin's pages: for whoever may read, and for changes for whoever may operate."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        need(request, "read" if request.method in _SAFE else "operate")
        await self._app(scope, receive, send)
