"""Looking for messages in all queues at once, by the filter language; or straight to one by its id.

Queues are looked through side by side, each a bounded piece (`rqcore_web.finding`) and all within a few
seconds; which were not finished is said, with a way to go on there.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rqcore.errors import RefusedError, RqError
from rqcore.message import is_msg_id, parse_full_id
from rqcore_web import filters
from rqcore_web.access import need, who
from rqcore_web.render import page, with_query
from rqcore_web.site import Site

_EACH = 50
_SHOWN = 200
_SECONDS = 4.0
_QUERY = "query["


async def search(request: Request) -> Response:
    """``GET /-/search?q=FILTER``."""
    need(request, "read")
    site: Site = request.app.state.site
    text = request.query_params.get("q", "").strip()
    asker = who(request)
    names = [name for name in site.spool.names() if asker.may("read", name)]
    place = await _place(site, names, text)
    if place is not None:
        return RedirectResponse(site.url("q/" + "/".join(place)), 303)
    problem = ""
    found: list[tuple[str, dict[str, Any]]] = []
    unfinished: list[str] = []
    try:
        wanted = filters.parse(text)
    except RefusedError as error:
        problem = str(error)
    else:
        if text:
            found, unfinished = await _everywhere(site, names, wanted)
    return page(
        request, "search.html",
        text=text, problem=problem, found=found[:_SHOWN], more=len(found) > _SHOWN,
        unfinished=unfinished, queues=names,
        named=[name for name in names if text and text.lower() in name.lower()],
    )  # fmt: skip


async def old_search(request: Request) -> Response:
    """``GET /search?name=Q&query[param1]=x`` by a browser: the same, in the queue's own page.

    Programs are answered by the contract.
    """
    need(request, "read")
    site: Site = request.app.state.site
    given = request.query_params
    sign = "=" if given.get("exact", "") not in ("", "0") else ""
    terms = [
        f"{key[len(_QUERY) : -1]}:{sign}{json.dumps(value, ensure_ascii=False)}"
        for key, value in given.multi_items()
        if key.startswith(_QUERY) and key.endswith("]") and value
    ]
    name = given.get("name", "")
    path = f"q/{quote(name, safe='')}" if name else "-/search"
    query = {"filter" if name else "q": " ".join(terms) or given.get("q", "")}
    return RedirectResponse(site.url(with_query(path, **query)), 303)


async def _everywhere(
    site: Site, names: list[str], wanted: filters.Filter
) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Queue and message of all that fit, newest first; the queues that have, or may have, more."""
    tasks = {
        name: asyncio.create_task(filters.page(site.spool, name, "", wanted, _EACH))
        for name in names
    }
    await asyncio.wait(tasks.values(), timeout=_SECONDS) if tasks else None
    found, unfinished = [], []
    for name, task in tasks.items():
        if not task.done():
            task.cancel()
            unfinished.append(name)
            continue
        try:
            items, following = task.result()
        except RqError:  # it does not run, or was just removed
            unfinished.append(name)
            continue
        found += [(name, item) for item in items]
        if following:
            unfinished.append(name)
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    found.sort(key=lambda pair: pair[1]["msg_id"], reverse=True)
    return found, unfinished


async def _place(site: Site, names: list[str], text: str) -> tuple[str, str] | None:
    """The message that an id names: queue and short id."""
    address = parse_full_id(text)
    if address is not None and address.base in ("", site.settings.base_url):
        return (address.queue, address.msg_id) if address.queue in names else None
    if not is_msg_id(text):
        return None
    answers = await asyncio.gather(*(_has(site, name, text) for name in names))
    return next(((name, text) for name, has in zip(names, answers, strict=True) if has), None)


async def _has(site: Site, name: str, msg_id: str) -> bool:
    args = {"msg_id": msg_id, "even_down": True}
    try:
        await site.spool.ask(name, "get_message_state", args)
    except RqError:
        return False
    return True
