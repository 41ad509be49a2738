"""The form for a new message, as the queue's ``form.json`` wants it (`formspec`).

It is sent to the contract's own URL, as a plain form that may bring one file.  Where there is JavaScript
(``static/send.js``) it brings any number of them, one after the other, and shows how far it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rqcore import durable
from rqcore.errors import NotFoundError, RqError
from rqcore_web import flash, forms, names
from rqcore_web.access import need, who
from rqcore_web.due import parse_due
from rqcore_web.logfollow import message_of
from rqcore_web.pages import formspec
from rqcore_web.pages.queue import load_config
from rqcore_web.render import page
from rqcore_web.site import Site

_MAX_FORM = 256 * 1024


async def new_message(request: Request) -> Response:
    """``GET /q/NAME/new_message``; ``from=MSG_ID`` fills in what that message said."""
    site: Site = request.app.state.site
    name: str = request.path_params["name"]
    need(request, "enqueue", name)
    queue = names.taking(site, name)
    spec = await asyncio.to_thread(_spec, site, name if site.spool.exists(name) else queue)
    like = request.query_params.get("from", "")
    found = await message_of(site, queue, like) if like else {}
    _fill(spec, found, name)
    config, _ = load_config(site, queue)
    return page(
        request, "send.html",
        name=name, spec=spec, like=like, found=found, queue=await site.spool.describe(queue),
        shared=bool(config and (config.coalesce_params or config.blocking_params)),
        max_upload=site.options.max_upload,
    )  # fmt: skip


def _spec(site: Site, name: str) -> formspec.Spec:
    file = site.instance.queue_dir(name) / "form.json"
    try:
        data = durable.read_file(file, _MAX_FORM)
    except FileNotFoundError:
        return formspec.parse(None, str(file))
    except OSError as error:
        spec = formspec.parse(None, str(file))
        spec.warnings.append(f"{file} cannot be read: {error.strerror}; the usual form is shown")
        return spec
    return formspec.parse(data, str(file))


def _fill(spec: formspec.Spec, found: Mapping[str, Any], name: str) -> None:
    for field in spec.fields:
        if field.name == "dest" and not field.value:
            field.value = name
        if field.name not in found or field.name in ("status", "due"):
            continue
        value = found[field.name]
        field.value = " ".join(value) if isinstance(value, list) else str(value)
        field.hidden = field.hidden and not field.value


async def due(request: Request) -> Response:
    """``GET /-/q/NAME/due``: the unix time that is meant by ``text``, or what is wrong with it."""
    need(request, "enqueue", request.path_params["name"])
    try:
        return JSONResponse(["ok", parse_due(request.query_params.get("text", ""), time())])
    except ValueError as error:
        return JSONResponse(["fail", str(error)])


async def run_schedule(request: Request) -> Response:
    """``POST /-/q/NAME/schedule/N``: make the message of an entry of the schedule now."""
    site: Site = request.app.state.site
    name: str = request.path_params["name"]
    need(request, "enqueue", name)
    form = await forms.read(request, site.options.max_body)
    back = flash.local_path(form.fields.get("back"), site.url(f"q/{name}"))
    config, problem = load_config(site, name)
    number = int(request.path_params["number"])
    if config is None or number >= len(config.schedule):
        raise NotFoundError(problem or "this entry of the schedule is not there any more")
    line = config.schedule[number]
    fields = {
        "dest": name, "src": f"schedule, run by {who(request).name}", "due": int(time()),
        "param1": line.param1, "param2": line.param2, "param3": line.param3, "param4": line.param4,
    }  # fmt: skip
    try:
        answer = await site.spool.ask(name, "create_message", fields)
    except RqError as error:
        site.audit.note(request, "run schedule", name, outcome=str(error))
        return flash.redirect(request, back, f"its message was not made: {error}", ok=False)
    msg_id = str(answer).rpartition("/")[2]
    site.audit.note(request, "run schedule", name, msg_id)
    return flash.redirect(request, back, f"Created message {answer}")
