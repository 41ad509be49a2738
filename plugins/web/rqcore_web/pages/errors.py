"""The errors of all queues, grouped by what their scripts said last: numbers and ids count as the same.

A group is a queue and a line; it shows how many there are, when the first and the last were made, and
one whole.  One can be retried, and when that went well, all.  Of each queue the newest few hundred
messages in err are looked at; when there are more, the page says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore.errors import NotFoundError, RqError
from rqcore_web import flash, forms
from rqcore_web.access import need, who
from rqcore_web.bulk import Targets
from rqcore_web.filters import status_text
from rqcore_web.pages import many
from rqcore_web.render import page
from rqcore_web.site import Site

_LOOKED_AT = 500
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_MSG_ID = r"\d{8}\.\d{4}\.\d{2}\.\d{3}(?:\.\d+)?"
#: What makes two lines differ that say the same.
_FOLDED = re.compile(
    rf"(?P<id>\b(?:{_UUID}|{_MSG_ID}|0x[0-9a-fA-F]+|(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{{8,}})\b)"
    r"|(?P<number>\d+(?:[.,:]\d+)*)"
)

_ID, _NUMBER = "\u2039id\u203a", "\u2039n\u203a"


@dataclass(slots=True)
class Group:
    """Messages of one queue whose scripts said the same; ``items`` newest first."""

    queue: str
    line: str
    items: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What the group is named by in a URL."""
        return hashlib.sha256(f"{self.queue}\0{self.line}".encode("utf-8", "replace")).hexdigest()[
            :16
        ]


def fold(line: str) -> str:
    """The line with its numbers and ids left open."""
    return _FOLDED.sub(lambda found: _ID if found["id"] else _NUMBER, line)


def grouped(queue: str, items: list[dict[str, Any]]) -> list[Group]:
    """The groups of these messages, newest first."""
    groups: dict[str, Group] = {}
    for item in items:
        said = status_text(item).strip()
        line = fold(said.splitlines()[-1] if said else "")
        groups.setdefault(line, Group(queue, line)).items.append(item)
    return list(groups.values())


async def errors(request: Request) -> Response:
    """``GET /errors``; ``queue`` for one alone."""
    need(request, "read")
    site: Site = request.app.state.site
    asker = who(request)
    only = request.query_params.get("queue", "")
    names = [name for name in site.spool.names() if asker.may("read", name)]
    if only and only not in names:
        raise NotFoundError(f"no such queue: {only}")
    names = [only] if only else names
    found = await asyncio.gather(*(_of(site, name) for name in names))
    groups = [group for one, _, _ in found for group in one]
    groups.sort(key=lambda group: group.items[0]["msg_id"], reverse=True)
    return page(
        request, "errors.html",
        groups=groups, only=only, looked_at=_LOOKED_AT,
        cut=[name for name, (_, more, _) in zip(names, found, strict=True) if more],
        silent=[why for _, _, why in found if why],
    )  # fmt: skip


async def _of(site: Site, name: str) -> tuple[list[Group], bool, str]:
    """A queue's groups; are there more than were looked at; why there are none."""
    try:
        asked = {"state": "err", "limit": _LOOKED_AT}
        answer = await site.spool.ask(name, "list_messages", asked)
    except RqError as error:
        return [], False, str(error)
    items = answer["items"]
    return grouped(name, items), len(items) >= _LOOKED_AT and bool(answer["next"]), ""


async def retry_group(request: Request) -> Response:
    """``POST /-/errors/NAME/KEY``: retry a group, after it was asked for."""
    site: Site = request.app.state.site
    name, key = request.path_params["name"], request.path_params["key"]
    need(request, "operate", name)
    form = await forms.read(request, site.options.max_body)
    back = flash.local_path(form.fields.get("back"), site.url("errors"))
    groups, _, why = await _of(site, name)
    group = next((group for group in groups if group.key == key), None)
    if group is None:
        said = why or "these messages are not in err any more"
        return flash.redirect(request, back, said, ok=False)
    targets = Targets(name, tuple(item["msg_id"] for item in group.items))
    if form.text("confirm"):
        return many.begin(request, "retry", targets)
    return await many.ask(request, "retry", targets, back, f"-/errors/{name}/{key}", {})
