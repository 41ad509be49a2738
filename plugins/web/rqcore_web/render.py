"""Pages are made here, and nowhere else: a template, what every page shows, and its headers.

`page` renders a template of ``rqcore_web/templates`` that extends ``base.html``; a plugin's own page is
made with `wrap`.  Everything is escaped but `markupsafe.Markup`.  Templates know, besides what they are
given, the filters of `rqcore_web.words` and:

    site, request, who          the site, the request, who asks
    can(scope, queue="")        may he do what needs this scope?
    url("q/test")               the URL of a path below the site's root
    asset("app.css")            the URL of a static file
    here                        this page's own URL, for forms that lead back to it

A page is the same whether it is opened, or fetched by itself to be made live (``static/live.js``).
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from rqcore import __version__
from rqcore_web import assets, flash, panels, words
from rqcore_web.access import who
from rqcore_web.filters import id_time, status_text
from rqcore_web.pretty import pretty
from rqcore_web.progress import parse as parse_progress
from rqcore_web.site import Site

_TEMPLATES = Path(__file__).parent / "templates"
#: Shorter pages are sent as they are.
_WORTH_ZIPPING = 4096


@cache
def environment() -> Environment:
    """The templates; made at the first page."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    for name in (
        "number", "compact", "size", "duration", "relative", "absolute", "when", "shown", "bidi",
        "queue_words", "plural", "brief", "exact",
    ):  # fmt: skip
        made.filters[name] = getattr(words, name)
    made.filters["id_time"] = id_time
    made.filters["status_text"] = status_text
    made.filters["pretty"] = pretty
    made.filters["progress"] = parse_progress
    made.filters["segment"] = lambda text: quote(str(text), safe="")
    made.globals["STATES"] = words.STATES
    made.globals["version"] = __version__
    return made


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """The answer that shows this template."""
    site: Site = request.app.state.site
    asker = who(request)
    text = (
        environment()
        .get_template(template)
        .render(
            site=site,
            request=request,
            who=asker,
            can=asker.may,
            url=site.url,
            asset=lambda name: assets.url(request, name),
            here=here(request),
            # What is said once is said to whoever looks, not to a page that looks by itself.
            flash=None if "rq-live" in request.headers else flash.take(request),
            nav=panels.nav_items(site),
            last_event=getattr(request.state, "last_event", ""),
            now=time(),
            **context,
        )
    )
    return _html(request, text, status)


def wrap(request: Request, title: str, content: object, status: int = 200) -> Response:
    """A page of a plugin, in the site's dress: ``content`` is `Markup`, or text that is escaped."""
    return page(request, "plugin.html", status, title=title, content=escape(content))


def _html(request: Request, text: str, status: int) -> Response:
    body = text.encode("utf-8", "replace")
    headers = {"Cache-Control": "private, no-cache", "Vary": "Accept-Encoding, Cookie"}
    if len(body) > _WORTH_ZIPPING and "gzip" in request.headers.get("accept-encoding", ""):
        body = gzip.compress(body, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers, "text/html; charset=utf-8")


def here(request: Request) -> str:
    """This page's own URL: path and query, below the host."""
    site: Site = request.app.state.site
    query = request.url.query
    path = site.url(quote(request.scope["path"].lstrip("/"), safe="/:@!$'()*+,;=~-._"))
    return f"{path}?{query}" if query else path


def with_query(path: str, **query: object) -> str:
    """A path with these parameters, those that are empty or None left out."""
    given = {name: str(value) for name, value in query.items() if value not in ("", None)}
    return f"{path}?{urlencode(given)}" if given else path


__all__ = ["Markup", "environment", "here", "page", "with_query", "wrap"]
