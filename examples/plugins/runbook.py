"""Shows what people know of a queue beside it: the text in the instance's ``runbook/QUEUE.txt``.

A panel on the page of each queue that has such a text, and of its messages in err; a line on the
first page; an item of the menu, and a page with all of them; the same for programs, at ``/runbook``.
It adds to rqcore-web, and does nothing where that is not installed: so it imports nothing of it, and
what comes with it only when it is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rqcore.hookspecs import hookimpl

if TYPE_CHECKING:
    from rqcore_web.site import Site
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


class Panel(NamedTuple):
    """A part of a page."""

    title: str
    content: object


class Item(NamedTuple):
    """An item of the menu."""

    label: str
    path: str


def _texts(site: Site) -> dict[str, str]:
    folder = Path(site.instance.directory, "runbook")
    return {file.stem: file.read_text(errors="replace") for file in sorted(folder.glob("*.txt"))}


def _panels(site: Site, queue: str) -> list[Panel]:
    from markupsafe import Markup  # noqa: PLC0415 - comes with rqcore-web

    text = _texts(site).get(queue)
    return [Panel("Runbook", Markup("<pre>{}</pre>").format(text))] if text else []


@hookimpl(optionalhook=True)
def rq_web_nav_items() -> list[Item]:
    return [Item("Runbook", "-/runbook/")]


@hookimpl(optionalhook=True)
def rq_web_overview_panels(site: Site) -> list[Panel]:
    queues = site.spool.names()
    known = len(_texts(site).keys() & set(queues))
    return [Panel("Runbook", f"{known} of {len(queues)} queues have a text")]


@hookimpl(optionalhook=True)
def rq_web_queue_panels(site: Site, queue: dict[str, Any]) -> list[Panel]:
    return _panels(site, queue["name"])


@hookimpl(optionalhook=True)
def rq_web_message_panels(site: Site, message: dict[str, Any]) -> list[Panel]:
    return _panels(site, message["queue"]) if message["state"] == "err" else []


@hookimpl(optionalhook=True)
def rq_web_routes(site: Site) -> list[BaseRoute]:
    from markupsafe import Markup  # noqa: PLC0415 - as above
    from starlette.routing import Route  # noqa: PLC0415 - as above

    async def page(request: Request) -> Response:
        found = _texts(site)
        parts = [Markup("<h2>{}</h2><pre>{}</pre>").format(*item) for item in found.items()]
        return site.page(request, "Runbook", Markup("").join(parts) or "Nobody wrote anything yet.")

    return [Route("/", page)]


@hookimpl(optionalhook=True)
def rq_web_root_routes(site: Site) -> list[BaseRoute]:
    from starlette.responses import JSONResponse  # noqa: PLC0415 - as above
    from starlette.routing import Route  # noqa: PLC0415 - as above

    async def texts(_: Request) -> Response:
        return JSONResponse(_texts(site))

    return [Route("/runbook", texts)]
