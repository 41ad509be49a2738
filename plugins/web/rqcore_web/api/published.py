"""The document is served: as JSON for programs, as a plain page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqcore_web import problems, render
from rqcore_web.api import operations
from rqcore_web.api.document import RULES, document
from rqcore_web.api.operations import IF_NONE_MATCH, JSON, Answer, Operation

if TYPE_CHECKING:
    from typing import Any

    from starlette.responses import Response

    from rqcore_web.api.call import Call


def _document(call: Call) -> dict[str, Any]:
    from rqcore_web.api.table import OPERATIONS as EVERY  # noqa: PLC0415 - the table has this room too

    return document(EVERY, call.site.root.rstrip("/"))


async def show(call: Call) -> Response:
    """The OpenAPI document."""
    return call.cached(_document(call))


async def show_page(call: Call) -> Response:
    """The same, to be read."""
    return render.page(
        call.request, "api_docs.html", doc=_document(call), rules=RULES, kinds=problems.KINDS
    )


OPERATIONS = (
    Operation(
        "showDocument", "GET", f"{operations.ROOT}/openapi.json", "instance",
        "This document, OpenAPI 3.1", "read",
        {200: Answer("the document", {JSON: {"type": "object"}}, {"ETag": "what If-None-Match takes"}),
         304: Answer("it is as you know it")},
        show, parameters=(IF_NONE_MATCH,),
    ),
    Operation(
        "showDocs", "GET", f"{operations.ROOT}/docs", "instance", "This document, to be read", "read",
        {200: Answer("a page", {"text/html": None})}, show_page,
    ),
)  # fmt: skip
