"""A queue's configuration: looked at by everybody who may read, changed by who may ``admin``.

``GET /q/NAME/config`` shows what is in force and, to who may, a form, or (``as=json``) the text
itself.  ``POST /-/q/NAME/config`` changes it: what is wrong is told in place and nothing is written;
what is right is written and in force before the answer (the manager's ``configure_queue``).  Who saves
over what somebody else saved meanwhile is told, too.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore import durable
from rqcore.config import ConfigError, decode_json
from rqcore.errors import NotFoundError, RqError
from rqcore.schema import MAX_BYTES
from rqcore_web import flash, forms, schedules
from rqcore_web.access import HARMLESS, need
from rqcore_web.pages import configform
from rqcore_web.pages.configform import Problem
from rqcore_web.pages.queue import load_config
from rqcore_web.render import page, with_query
from rqcore_web.site import Site

#: What a queue's process takes only when it starts.
_AT_START = ("store", "fsync")


@dataclass(slots=True)
class _Shown:
    """What the editor shows: fields or text, and what is wrong with them."""

    as_json: bool
    digest: str
    text: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    fits: bool = True
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


async def config(request: Request) -> Response:
    """``GET /q/NAME/config``."""
    site: Site = request.app.state.site
    name = _existing(request, "read")
    data = await asyncio.to_thread(_read, site, name)
    raw = _decoded(data, site, name)
    fits = raw is not None and configform.fits_a_form(raw)
    shown = _Shown(
        as_json=request.query_params.get("as") == "json" or not fits,
        digest=hashlib.sha256(data).hexdigest(),
        text=data.decode("utf-8", "replace"),
        fields=configform.fields_of(raw or {}),
        fits=fits,
    )
    if raw is not None:
        shown.problems, shown.warnings = configform.check(raw, "", name)
    return _page(request, site, name, shown)


def _existing(request: Request, scope: str) -> str:
    site: Site = request.app.state.site
    name: str = request.path_params["name"]
    need(request, scope, name)
    if not site.spool.exists(name):
        raise NotFoundError(f"no such queue: {name}")
    return name


def _page(request: Request, site: Site, name: str, shown: _Shown, status: int = 200) -> Response:
    in_force, problem = load_config(site, name)
    return page(
        request, "config.html", status,
        name=name, editor=shown, config=in_force, config_problem=problem,
        file=site.instance.queue_config_file(name),
        schedule=schedules.describe(in_force) if in_force else [],
    )  # fmt: skip


def _read(site: Site, name: str) -> bytes:
    try:
        return durable.read_file(site.instance.queue_config_file(name), MAX_BYTES)
    except OSError:
        return b""


def _decoded(data: bytes, site: Site, name: str) -> dict[str, Any] | None:
    try:
        raw, _ = decode_json(data, str(site.instance.queue_config_file(name)))
    except ConfigError:
        return None
    return raw if isinstance(raw, dict) else None


async def save(request: Request) -> Response:
    """``POST /-/q/NAME/config``."""
    site: Site = request.app.state.site
    name = _existing(request, "admin")
    form = await forms.read(request, site.options.max_body)
    data = await asyncio.to_thread(_read, site, name)
    old = _decoded(data, site, name) or {}
    shown, wanted = _wanted(form, old, name)
    if wanted is not None:
        wrong, shown.warnings = configform.check(wanted, "", name)
        shown.problems += wrong
        shown.problems += _forbidden(site, old, wanted)
    if wanted is None or shown.problems:
        return _page(request, site, name, shown, 422)
    order = {"name": name, "config": wanted, "sha256": shown.digest}
    try:
        await site.spool.manager.ask("configure_queue", order)
    except RqError as error:
        site.audit.note(request, "configure_queue", name, outcome=str(error))
        shown.problems.append(Problem("", str(error)))
        return _page(request, site, name, shown, 422)
    site.audit.note(request, "configure_queue", name)
    path = with_query(f"q/{name}/config", **{"as": "json" if shown.as_json else ""})
    later = [key for key in _AT_START if old.get(key) != wanted.get(key)]
    told = f"; another {' and '.join(later)} counts after a restart of the queue" if later else ""
    return flash.redirect(request, site.url(path), f"The configuration is saved and in force{told}")


def _wanted(
    form: forms.Form, old: dict[str, Any], name: str
) -> tuple[_Shown, dict[str, Any] | None]:
    """What is to be shown if it is refused, and the configuration that is meant."""
    digest = form.text("digest")
    if form.text("as") == "json":
        text = form.text("text").replace("\r\n", "\n")
        raw, problems = configform.from_json(text, f"queue/{name}/config.json")
        wrong = problems if raw is None else []
        shown = _Shown(as_json=True, digest=digest, text=text, fields=configform.fields_of(old),
                       problems=wrong, fits=configform.fits_a_form(old))  # fmt: skip
        return shown, raw
    wanted, problems = configform.configured(old, form.fields)
    fields = configform.shown_again(form.fields)
    return _Shown(as_json=False, digest=digest, fields=fields, problems=problems), wanted


def _forbidden(site: Site, old: dict[str, Any], new: dict[str, Any]) -> list[Problem]:
    """Another program may be named over the web only where queues may be made over it."""
    if site.settings.allow_new_queue:
        return []
    return [
        Problem(key, 'cannot be changed over the web; set "allow_new_queue" in the main config')
        for key in sorted({*old, *new} - {"name"} - HARMLESS)
        if old.get(key) != new.get(key)
    ]
