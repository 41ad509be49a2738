"""Queues are operated, made and deleted: ``adminoper``, ``restart``, ``new_queue``, ``delete_queue``."""

from __future__ import annotations

import os
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore import durable
from rqcore.config import ConfigError, decode_json
from rqcore.schema import MAX_BYTES
from rqcore_web import forms
from rqcore_web.access import ForbiddenError, need, who
from rqcore_web.contract.answers import decided, is_fine, outcome, speaks_json
from rqcore_web.forms import BodyError, Form
from rqcore_web.site import site_of

_BUTTONS = {
    "pause": "Successfully paused queue", "resume": "Successfully resumed queue",
    "down": "Successfully took down queue", "up": "Successfully took up queue",
}  # fmt: skip


async def adminoper(request: Request) -> Response:
    """``POST q/NAME/adminoper``: one of ``pause``, ``resume``, ``down``, ``up``."""
    name = _named(request, "operate")
    form = await _read(request)
    pressed = [button for button in _BUTTONS if button in form.fields]
    if len(pressed) != 1:
        raise BodyError(f"say one of {', '.join(_BUTTONS)}")
    answer = await site_of(request).spool.manager.call(f"{pressed[0]}_queue", name)
    return _told(request, form, pressed[0], name, answer, f"{_BUTTONS[pressed[0]]} {name}")


async def restart(request: Request) -> Response:
    """``POST q/NAME/restart``."""
    name = _named(request, "operate")
    form = await _read(request)
    answer = await site_of(request).spool.manager.call("restart_queue", name)
    return _told(request, form, "restart", name, answer, f"Successfully restarted queue {name}")


async def new_queue(request: Request) -> Response:
    """``POST new_queue``: ``queue[name]``, ``queue[script]``, and whatever else a config has."""
    form = await _read_allowed(request)
    given = form.mapping("queue")
    if given is None:
        raise BodyError("queue[name] and queue[script] are missing")
    need(request, "admin", str(given.get("name", "")))
    # A field that was left empty was not filled in; only an empty exec_prefix means something.
    config = {key: value for key, value in given.items() if value != "" or key == "exec_prefix"}
    answer = await site_of(request).spool.manager.call("create_queue", config)
    return _made(request, form, str(given.get("name", "")), answer)


async def new_queue_link(request: Request) -> Response:
    """``POST new_queue_link``: the config is a file on this machine, named by ``queue[json_path]``."""
    form = await _read_allowed(request)
    if who(request).queues is not None:
        raise ForbiddenError("who is limited to some queues makes none from a file")
    path = str((form.mapping("queue") or {}).get("json_path", ""))
    if not path or "\0" in path:
        raise BodyError("queue[json_path] is missing: the path of the queue's config")
    place = os.fspath(site_of(request).instance.directory / path)
    answer = await site_of(request).spool.manager.call("create_queue_link", place)
    return _made(request, form, _name_in(place) if is_fine(answer) else "", answer)


async def delete_queue(request: Request) -> Response:
    """``POST delete_queue``: ``queue_name``; its directory stays, under another name."""
    form = await _read_allowed(request)
    name = form.text("queue_name")
    need(request, "admin", name)
    answer = await site_of(request).spool.manager.call("delete_queue", name)
    site_of(request).audit.note(request, "delete_queue", name, outcome=outcome(answer))
    done = f"Deleted queue {name}"
    return decided(request, form, answer, done=done, to="", else_to=f"q/{name}")


def _named(request: Request, scope: str) -> str:
    name = str(request.path_params["name"])
    need(request, scope, name)
    site_of(request).spool.queue(name)
    return name


async def _read(request: Request) -> Form:
    form = await forms.read(request, site_of(request).options.max_body)
    speaks_json(request, form)
    return form


async def _read_allowed(request: Request) -> Form:
    if not site_of(request).settings.allow_new_queue:
        raise ForbiddenError(
            "Queue creation not allowed at this time. "
            'Make queues with rq queue create, or set "allow_new_queue": true in config/config.json'
        )
    need(request, "admin")
    return await _read(request)


def _told(request: Request, form: Form, action: str, name: str, answer: Any, done: str) -> Response:
    site_of(request).audit.note(request, action, name, outcome=outcome(answer))
    return decided(request, form, answer, done=done, to=f"q/{name}")


def _made(request: Request, form: Form, name: str, answer: Any) -> Response:
    site_of(request).audit.note(request, "create_queue", name, outcome=outcome(answer))
    done = f"queue created: {name}"
    return decided(request, form, answer, done=done, to=f"q/{name}", else_to="new_queue")


def _name_in(path: str) -> str:
    """The name that a config gives to its queue, which the manager has just read there too."""
    try:
        raw, _ = decode_json(durable.read_file(path, MAX_BYTES), path)
    except (OSError, ConfigError):
        return ""
    return str(raw.get("name", "")) if isinstance(raw, dict) else ""
