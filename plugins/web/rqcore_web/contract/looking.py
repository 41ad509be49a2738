"""One message as programs see it: its fields, its state, its files; and the search for some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore.errors import NotFoundError
from rqcore_web import files
from rqcore_web.access import need
from rqcore_web.contract.answers import as_json
from rqcore_web.formnames import nest, query_fields
from rqcore_web.names import message_of, taking
from rqcore_web.site import site_of
from rqcore_web.spool import STATES, Spool

#: A search finds so many, and looks at so many: what lies further back is left to the other searches.
_FOUND = 1000
_LOOKED_AT = 100_000
_ASKED = 500


async def message(request: Request) -> Response:
    """``q/NAME/MSG_ID.json``."""
    return as_json((await _message(request))[1])


async def state(request: Request) -> Response:
    """``q/NAME/MSG_ID/state.json``: ``["done"]``."""
    queue, msg_id = await message_of(request)
    need(request, "read", queue)
    args = {"msg_id": msg_id, "even_down": True}
    return as_json([await site_of(request).spool.ask(queue, "get_message_state", args)])


async def attachment(request: Request) -> Response:
    """``q/NAME/MSG_ID/attach/FILE``."""
    name = files.raw_name(request)

    def serve(found: Mapping[str, Any]) -> Response:
        path = files.message_file(found, "attach", name)
        digests = found["_attachments"].get(name)
        return files.file_response(request, path, filename=name, digests=digests)

    return await _served(request, serve)


async def log(request: Request) -> Response:
    """``q/NAME/MSG_ID/log/FILE``: a file that its script wrote, as text."""
    name = files.raw_name(request)

    def serve(found: Mapping[str, Any]) -> Response:
        path = files.message_file(found, "job", name)
        kind = files.safe_type(name)
        text = "text/plain; charset=utf-8" if kind == "application/octet-stream" else kind
        return files.file_response(request, path, filename=name, content_type=text)

    return await _served(request, serve)


async def _served(request: Request, serve: Any) -> Response:
    """Serve a message's file; once more from the beginning when the message moved just then."""
    queue, found = await _message(request)
    try:
        answer: Response = serve(found)
    except NotFoundError:
        moved = await _get(site_of(request).spool, queue, str(found["msg_id"]))
        if moved["path"] == found["path"]:
            raise
        answer = serve(moved)
    return answer


async def _message(request: Request) -> tuple[str, dict[str, Any]]:
    queue, msg_id = await message_of(request)
    need(request, "read", queue)
    return queue, await _get(site_of(request).spool, queue, msg_id)


async def _get(spool: Spool, queue: str, msg_id: str) -> dict[str, Any]:
    args = {"msg_id": msg_id, "even_down": True}
    found: dict[str, Any] = await spool.ask(queue, "get_message", args)
    return found


async def search(request: Request) -> Response:
    """``search?name=Q&query[param1]=x&exact=1``: messages of a queue whose fields hold these values."""
    asked = nest(query_fields(request.scope["query_string"]))
    spool = site_of(request).spool
    name = str(asked.get("name") or "")
    queue = name if spool.exists(name) else taking(site_of(request), name)
    need(request, "read", queue)
    query = asked.get("query")
    wanted = {str(k): str(v) for k, v in query.items()} if isinstance(query, dict) else {}
    exact = asked.get("exact", "0") not in ("", "0", "false", "no")
    found = []
    async for msg_id in _matching(spool, queue, wanted, exact=exact):
        try:
            found.append(await _get(spool, queue, msg_id))
        except NotFoundError:  # deleted, or moved along, meanwhile
            continue
        if len(found) == _FOUND:
            break
    return as_json(found)


async def _matching(
    spool: Spool, queue: str, wanted: Mapping[str, str], *, exact: bool
) -> AsyncIterator[str]:
    # The queue looks for the longest value itself, so that few messages come over its socket.
    text = max(wanted.values(), key=len, default="")
    looked_at = 0
    for state in STATES:
        before: str | None = ""
        while before is not None and looked_at < _LOOKED_AT:
            args = {"state": state, "limit": _ASKED, "text": text, "before": before}
            page = await spool.ask(queue, "list_messages", args)
            for item in page["items"]:
                if all(_holds(item.get(k), v, exact=exact) for k, v in wanted.items()):
                    yield item["msg_id"]
            before = page["next"]
            looked_at += _ASKED


def _holds(value: Any, wanted: str, *, exact: bool) -> bool:
    if value is None:
        return False
    if isinstance(value, list):
        return any(_holds(item, wanted, exact=exact) for item in value)
    return str(value) == wanted if exact else wanted in str(value)
