"""A message's page: what became of it, its log as it grows, its parameters, files and fields.

Old scripts read this page: every field stands in it as ``name : value`` on a line of its own.  The log
is `rqcore_web.logs`'s; actions are the contract's own URLs, but for ``retry``, which is newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rqcore.errors import RqError
from rqcore.message import PARAM_NAMES, parse_full_id
from rqcore_web import flash, forms, logfiles, logs, names, panels
from rqcore_web.access import need
from rqcore_web.files import safe_type
from rqcore_web.logfiles import Part
from rqcore_web.logfollow import message_of
from rqcore_web.pages.timeline import timeline
from rqcore_web.render import page
from rqcore_web.runs import read_runs
from rqcore_web.site import Site

#: The first bytes of a text that are shown on the page itself.
_PREVIEW = 8 * 1024
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif")
_LARGE_IMAGE = 20_000_000
#: The order of the fields as old scripts find them; others follow.
_FIELDS = (
    "src", "dest", "msg_id", "status", "state", "count", "max_count", *PARAM_NAMES,
    "due", "post_run_webhook", "orig_msg_id", "cloned_from", "dups",
    "traceparent", "tracestate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """An attachment, or what a script left: ``text`` is the beginning of it, when it is text."""

    name: str
    size: int
    md5: str = ""
    sha256: str = ""
    image: bool = False
    text: str = ""
    cut: bool = False


async def message(request: Request) -> Response:
    """``GET /q/NAME/MSG_ID``."""
    site: Site = request.app.state.site
    need(request, "read", request.path_params["name"])
    name, msg_id = await names.message_of(request)
    if (name, msg_id) != (request.path_params["name"], request.path_params["msg_id"]):
        return RedirectResponse(site.url(f"q/{quote(name)}/{quote(msg_id)}"), 302)
    need(request, "read", name)
    found = await message_of(site, name, msg_id)
    running = await _running(site, name, found)
    runs, attached, left, viewer = await asyncio.gather(
        asyncio.to_thread(read_runs, found["path"]),
        asyncio.to_thread(_attachments, found),
        asyncio.to_thread(_left, found),
        logs.viewer(site, name, found),
    )
    return page(
        request,
        "message.html",
        queue=name,
        message=found,
        running=running,
        moments=timeline(found, runs, running, time()),
        attached=attached,
        coming=[one.view() for one in site.shelf.of(name, found["msg_id"]) if not one.complete],
        left=left,
        fields=plain_fields(found),
        other=_other(site, found),
        panels=panels.panels(site, "rq_web_message_panels", message={**found, "queue": name}),
        **viewer,
    )


async def _running(site: Site, name: str, found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if found["state"] != "run":
        return None
    for run in (await site.spool.describe(name))["running"]:
        if run["msg_id"] == found["msg_id"]:
            return dict(run)
    return None


def _attachments(found: Mapping[str, Any]) -> list[File]:
    return [
        _file(found["path"], name, about) for name, about in sorted(found["_attachments"].items())
    ]


def _file(folder: str, name: str, about: Mapping[str, Any]) -> File:
    kind, text, cut = safe_type(name), "", False
    image = kind in _IMAGES and about["size"] <= _LARGE_IMAGE
    if not image:
        with contextlib.suppress(OSError), logfiles.opened(folder, Part.ATTACH, name) as fd:
            data = os.pread(fd, _PREVIEW, 0)
            text, cut = _as_text(data), about["size"] > _PREVIEW
    return File(name, about["size"], about["md5"], about["sha256"], image, text, cut)


def _as_text(data: bytes) -> str:
    """The text that these first bytes are, "" for none."""
    if b"\0" in data:
        return ""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # A character may be cut by the end.
        return data[: error.start].decode() if error.start > len(data) - 4 else ""


def _left(found: Mapping[str, Any]) -> list[File]:
    """What its script left in ``job/``, beside the log."""
    return [
        File(os.fsencode(sight.name).decode("utf-8", "replace"), sight.size)
        for sight in logfiles.listing(found["path"], Part.JOB)
        if sight.name != "stdio.log"
    ]


def plain_fields(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every field and its value as text, for old scripts and for ``grep``."""
    names = [*_FIELDS, *sorted(set(found) - set(_FIELDS))]
    return [
        (name, value if isinstance(value := found[name], str) else json.dumps(value))
        for name in names
        if name in found and name not in ("_attachments", "path")
    ]


def _other(site: Site, found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Messages that this one has to do with: what they are to it, id, path below the root or URL."""
    told = []
    if found["state"] == "relayed":
        told.append(("went to", str(found["status"]).rpartition(" ")[2]))
    if found["orig_msg_id"] and found["orig_msg_id"] != found["full_id"]:
        told.append(("first sent as", found["orig_msg_id"]))
    if " - duplicate " in str(found["status"]):
        told.append(("runs with", str(found["status"]).rpartition(" ")[2]))
    told += [("its duplicate", dup) for dup in found.get("dups", ())]
    return [(what, full_id, _link(site, full_id)) for what, full_id in told if _link(site, full_id)]


def _link(site: Site, full_id: str) -> str:
    address = parse_full_id(full_id)
    if address is None:
        return ""
    if address.base in ("", site.settings.base_url):
        return site.url(f"q/{address.queue}/{address.msg_id}")
    return full_id


async def retry(request: Request) -> Response:
    """``POST /-/q/NAME/MSG_ID/retry``: from err back to que."""
    site: Site = request.app.state.site
    name, msg_id = request.path_params["name"], request.path_params["msg_id"]
    need(request, "operate", name)
    form = await forms.read(request, site.options.max_body)
    back = flash.local_path(form.fields.get("back"), site.url(f"q/{name}/{msg_id}"))
    try:
        await site.spool.ask(name, "retry_message", {"msg_id": msg_id})
    except RqError as error:
        site.audit.note(request, "retry", name, msg_id, str(error))
        return flash.redirect(request, back, f"{msg_id} was not retried: {error}", ok=False)
    site.audit.note(request, "retry", name, msg_id)
    return flash.redirect(request, back, f"{msg_id} runs again")
