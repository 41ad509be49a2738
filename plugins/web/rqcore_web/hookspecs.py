"""The hooks by which plugins add to the site.  rqcore-web brings them, and asks them in its process.

Implement them with ``@hookimpl(optionalhook=True)``, so that your plugin works where rqcore-web is
not installed.  They follow the rules of `rqcore.hookspecs`: plain functions, each called alone, timed
and counted; one that fails shows as a failed panel, a missing item or a missing page, and the rest of
the site is served.

Nothing of this package has to be imported for it: a panel is whatever has a ``title`` and a
``content``, an item of the menu whatever has a ``label`` and a ``path``; `NavItem` and `Panel` are there
for those who want them.  A page is made by ``site.page(request, title, content)``.

HTML is given as `markupsafe.Markup`, which says that you have escaped what is in it; anything else is
shown as text.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rqcore.hookspecs import hookspec

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from rqcore_web.site import Site

#: All hooks of this plugin.
WEB_HOOKS = (
    "rq_web_routes", "rq_web_root_routes", "rq_web_nav_items", "rq_web_overview_panels",
    "rq_web_queue_panels", "rq_web_message_panels",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NavItem:
    """An item of the menu: its text and where it leads, a path below the site's root (``-/mine/``)."""

    label: str
    path: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a page: its heading and its content (`Markup`, or text that is escaped)."""

    title: str
    content: Any


@hookspec
def rq_web_routes(site: Site) -> Iterable[BaseRoute]:
    """Add pages of your own, below ``-/YOUR-NAME/``.

    Called: once, when the site is made.
    Process: web.

    Args:
        site: the site: its settings, its queues, its templates.
    Returns: Starlette routes, with paths relative to ``-/YOUR-NAME`` (your plugin's name).  They are
        served to whoever may read; a request that changes something needs ``operate``.
    If it raises: the plugin's pages are missing; logged.
    Since: 0.1

    """


@hookspec
def rq_web_root_routes(site: Site) -> Iterable[BaseRoute]:
    """Answer at addresses that programs expect at the site's root, such as ``/metrics``.

    Pages for people belong below ``-/YOUR-NAME/``, by `rq_web_routes`.

    Called: once, when the site is made.
    Process: web.

    Args:
        site: the site: its settings, its queues, its templates.
    Returns: Starlette routes, each with a path of one fixed part (``/metrics``).  One whose path the
        site itself answers is refused and logged, whatever its method, and so is one that two plugins
        bring.  They are served to whoever may read; a request that changes something needs ``operate``.
    If it raises: the plugin's addresses are missing; logged.
    Since: 0.1

    """


@hookspec
def rq_web_nav_items(site: Site) -> Iterable[NavItem]:
    """Add items to the menu.

    Called: for each page.
    Process: web.

    Args:
        site: the site.
    Returns: `NavItem` objects.
    If it raises: the items are missing; logged.
    Since: 0.1

    """


@hookspec
def rq_web_overview_panels(site: Site) -> Iterable[Panel]:
    """Add panels to the first page, below what needs attention.

    Called: for each such page.
    Process: web.

    Args:
        site: the site.
    Returns: `Panel` objects.
    If it raises: a panel says that the plugin failed.
    Since: 0.1

    """


@hookspec
def rq_web_queue_panels(site: Site, queue: dict[str, Any]) -> Iterable[Panel]:
    """Add panels to a queue's page.

    Called: for each such page.
    Process: web.

    Args:
        site: the site.
        queue: the queue as its process describes it: ``name``, ``status``, ``counts``, ``running``.
    Returns: `Panel` objects.
    If it raises: a panel says that the plugin failed.
    Since: 0.1

    """


@hookspec
def rq_web_message_panels(site: Site, message: dict[str, Any]) -> Iterable[Panel]:
    """Add panels to a message's page.

    Called: for each such page.
    Process: web.

    Args:
        site: the site.
        message: the message with all its fields, and ``queue``, ``state``, ``status``, ``path``.
    Returns: `Panel` objects.
    If it raises: a panel says that the plugin failed.
    Since: 0.1

    """
