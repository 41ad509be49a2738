"""What cannot be shown: 404, 403, 503 and their like, in the site's dress for people.

`rqcore_web.app` asks for it where no room answered, and whoever asked would read HTML.  The page is
rendered by itself alone: it asks nobody, so that it can be shown when nobody answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from rqcore_web.render import page

_TITLES = {
    400: "This cannot be done",
    403: "Not allowed",
    404: "There is nothing here",
    405: "Not like this",
    413: "Too large",
    422: "This cannot be done",
    503: "Out of service",
}
#: For what HTTP alone says, in other words.
_WORDS = {
    "Not Found": "Nothing is at this address; it may have been deleted.",
    "Method Not Allowed": "This address is for another kind of request.",
}


def failure(
    request: Request, status: int, reason: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The page that says why there is no other."""
    title = _TITLES.get(status, HTTPStatus(status).phrase)
    answer = page(
        request, "failure.html", status,
        code=status, title=title, reason=_WORDS.get(reason, reason),
    )  # fmt: skip
    answer.headers.update(headers or {})
    return answer


def wants_html(request: Request) -> bool:
    """Is it a browser that asks?"""
    return "text/html" in request.headers.get("accept", "")
