"""Queues as programs and shell scripts read them: ``q.txt``, ``q.json``, and each queue's own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore import durable
from rqcore.config import parse_queue
from rqcore.errors import NotFoundError
from rqcore.schema import MAX_BYTES
from rqcore_web.access import need
from rqcore_web.contract.answers import as_json, as_text
from rqcore_web.forms import BodyError
from rqcore_web.names import shown
from rqcore_web.site import site_of
from rqcore_web.spool import STATES

#: So many messages of each state are in a queue's JSON; where the rest is, stands beside them.  What
#: shows more than its id has to be read from the disk, message by message.
_SHOWN = 1000
_SHOWN_READ = 500
#: One answer of a queue has so many.
_PAGE = 1000
#: And one of ours.
_MOST = 100_000
_USUAL = 10
#: Of messages in these states only the id is told.
_IDS_ALONE = ("prep", "done", "err")


async def names(request: Request) -> Response:
    """``q.txt``: where each queue's state is to be had."""
    asker, site = need(request, "read"), site_of(request)
    seen = sorted(name for name in site.spool.names() if asker.may("read", name))
    return as_text([site.url(f"q/{name}.txt") for name in seen])


async def queues(request: Request) -> Response:
    """``q.json``: the manager, and every queue with its counts."""
    asker, site = need(request, "read"), site_of(request)
    manager, described = await asyncio.gather(
        site.spool.manager.ask("describe"), site.spool.describe_all()
    )
    now = datetime.now().astimezone()
    return as_json({
        "status": "OPERATIONAL", "ping": "pong", "pid": manager["pid"],
        "uptime": manager["uptime"], "version": manager["version"],
        "time": now.strftime("%Y-%m-%d %H:%M:%S %z"),
        "queues": [_entry(queue) for queue in described if asker.may("read", queue["name"])],
    })  # fmt: skip


def _entry(queue: Mapping[str, Any]) -> dict[str, Any]:
    entry = {key: queue[key] for key in ("name", "status", "pid", "uptime", "counts")}
    if not queue["alive"]:  # then nobody knows how many there are
        return {**entry, "ping": "", "counts": {}}
    return {**entry, "ping": "pong"}


async def text(request: Request) -> Response:
    """``q/NAME.txt``, which Nagios reads."""
    name = shown(request)
    need(request, "read", name)
    queue = await site_of(request).spool.describe(name)
    lines = [f"status: {queue['status']}"]
    if queue["alive"] and queue["status"] != "DOWN":
        lines.append(f"uptime: {queue['uptime']}")
        lines += [f"{state}: {count}" for state, count in queue["counts"].items()]
    return as_text(lines)


async def state(request: Request) -> Response:
    """``q/NAME.json``: how many messages, and which, in each state."""
    name = shown(request)
    need(request, "read", name)
    site = site_of(request)
    queue = await site.spool.describe(name)
    if not queue["alive"] or queue["status"] == "DOWN":
        return as_json({"status": queue["status"]})
    limit = _limit(request, _SHOWN)
    lists = await asyncio.gather(
        *(_messages(request, name, state, min(limit, _bound(state))) for state in STATES)
    )
    messages = dict(zip(STATES, lists, strict=True))
    more = {
        state: _next_page(request, name, state, items)
        for state, items in messages.items()
        if len(items) < queue["counts"][state] and items
    }
    sizes = {f"{state}_size": queue["counts"][state] for state in STATES}
    answer = {
        "status": queue["status"], "uptime": queue["uptime"], **sizes, "messages": messages,
    }  # fmt: skip
    return as_json({**answer, "more": more} if more else answer)


def _bound(state: str) -> int:
    return _SHOWN if state in _IDS_ALONE else _SHOWN_READ


async def ids(request: Request) -> Response:
    """``q/NAME/STATE.json``: the ids in a state, newest first; ``before`` an id goes on from there."""
    name, state = shown(request), str(request.path_params["state"])
    need(request, "read", name)
    limit = _limit(request, _USUAL)
    items = await _messages(request, name, state, limit, request.query_params.get("before", ""))
    headers = {}
    if items and len(items) == limit:
        headers["link"] = f'<{_next_page(request, name, state, items, limit)}>; rel="next"'
    return as_json([item["msg_id"] for item in items], headers=headers)


async def _messages(
    request: Request, name: str, state: str, limit: int, before: str = ""
) -> list[dict[str, Any]]:
    spool = site_of(request).spool
    items: list[dict[str, Any]] = []
    while len(items) < limit:
        wanted = min(_PAGE, limit - len(items))
        args = {"state": state, "limit": wanted, "before": before}
        page = spool.queue(name).unpack("messages", await spool.queue(name).call("messages", args))
        items += page
        # What cannot be read is left out where more than the id is told, so a short page may go on.
        if not page or (len(page) < wanted and state in _IDS_ALONE):
            break
        before = page[-1]["msg_id"]
    return items


def _next_page(
    request: Request, name: str, state: str, items: list[dict[str, Any]], limit: int = _PAGE
) -> str:
    last = items[-1]["msg_id"]
    return site_of(request).url(f"q/{name}/{state}.json?limit={limit}&before={last}")


def _limit(request: Request, usual: int) -> int:
    given = request.query_params.get("limit")
    if not given:
        return usual
    if not given.isascii() or not given.isdecimal():
        raise BodyError(f"limit must be a whole number, not {given[:40]!r}")
    return min(_MOST, int(given[:9]))


async def raw_config(request: Request) -> Response:
    """``q/NAME/config.json``: the file as it is."""
    name = shown(request)
    need(request, "read", name)
    file = site_of(request).instance.queue_config_file(name)
    try:
        data = durable.read_file(file, MAX_BYTES)
    except OSError as error:
        raise NotFoundError(
            f"the config of queue {name} cannot be read: {error.strerror}"
        ) from None
    return Response(data, media_type="application/json")


async def config(request: Request) -> Response:
    """``q/NAME/config``: what the queue goes by, every default filled in."""
    name = shown(request)
    need(request, "read", name)
    site = site_of(request)
    raw = await site.spool.ask(name, "config")
    found, _ = parse_queue(raw, str(site.instance.queue_config_file(name)), name)
    filled = asdict(found)
    del filled["raw"]
    if found.exec_prefix is None:
        filled["exec_prefix"] = "bash -lc "
    filled["fsync"] = "fsync" if found.fsync else "no-fsync"
    return as_json({**raw, **filled})
