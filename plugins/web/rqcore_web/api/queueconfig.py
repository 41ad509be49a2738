"""A queue's config: as it is written, as it counts, and changed.

Whoever can say which program a queue runs can run any program here.  So the keys that say it can only
be changed where queues may be made over the web (``allow_new_queue``); `HARMLESS` ones by any admin.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from rqcore import durable
from rqcore.config import OLD_COALESCE_KEYS, ConfigError, decode_json, parse_queue
from rqcore.errors import RefusedError
from rqcore.schema import MAX_BYTES
from rqcore_web.access import HARMLESS
from rqcore_web.api import operations, schemas
from rqcore_web.api.call import named, precondition_failed
from rqcore_web.api.operations import (
    IF_NONE_MATCH,
    JSON,
    Answer,
    Body,
    Operation,
    header,
    one,
)
from rqcore_web.problems import ProblemError, invalid

if TYPE_CHECKING:
    from rqcore_web.api.call import Call

#: What a queue's process takes only when it starts.
_AT_START = ("store", "fsync")
_CHANGED = "the config was changed meanwhile"
_MERGE = "application/merge-patch+json"


def checked(config: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """What is to be warned of.  Raises `ConfigError` with all that is wrong."""
    _, warnings = parse_queue(config, "config", name)
    return [{"field": one.key, "message": f"{one.reason}; {one.remedy}"} for one in warnings]


async def show(call: Call) -> Response:
    """The config as it is written."""
    data, tag = await _written(call)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if named(call.request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    config = _decoded(data, headers)
    return call.answer(config, headers=headers)


async def effective(call: Call) -> Response:
    """The config as the queue's process goes by it."""
    return call.cached(await call.site.spool.ask(call.queue, "config"))


async def replace(call: Call) -> Response:
    """Put another config in its place."""
    data, tag = await _matched(call)
    return await _configure(call, call.body, _known(data), tag)


async def change(call: Call) -> Response:
    """Change some keys."""
    data, tag = await _matched(call)
    old = _decoded(data, {"ETag": tag})
    return await _configure(call, merged(old, call.body), old, tag)


def merged(old: Any, patch: Any) -> Any:
    """What a merge patch makes of it (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


async def _configure(
    call: Call, config: dict[str, Any], old: Mapping[str, Any], tag: str
) -> Response:
    name = call.queue
    if config.get("name") not in (None, name):
        raise invalid([("name", f"must stay {name}: a queue cannot be renamed")])
    warnings = checked(config, name)
    _refuse_programs(call, config, old)
    warnings += [
        {"field": key, "message": f"another {key} counts after a restart of the queue"}
        for key in _AT_START
        if config.get(key) != old.get(key)
    ]
    order = {"name": name, "config": config, "sha256": tag.strip('"')}
    try:
        await call.site.spool.manager.ask("configure_queue", order)
    except RefusedError as error:
        call.note("configure", name, outcome=str(error))
        if str(error).startswith(_CHANGED):
            raise precondition_failed(str(error), (await _written(call))[1]) from error
        raise
    changed = sorted(key for key in {*config, *old} if config.get(key) != old.get(key))
    call.note("configure", name, ", ".join(changed))
    _, now = await _written(call)
    return call.answer({"queue": name, "warnings": warnings}, headers={"ETag": now})


def _refuse_programs(call: Call, config: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    if call.site.settings.allow_new_queue:
        return
    # Whether the name is written in it makes no difference.
    changed = {key for key in {*config, *old} - {"name"} if config.get(key) != old.get(key)}
    if changed - HARMLESS:
        keys = ", ".join(sorted(changed - HARMLESS))
        raise ProblemError(
            "creation-off",
            f"{keys}: can be changed only where queues may be made over the web, for it may say which "
            f'program is run; set "allow_new_queue": true in {call.site.instance.config_file}, or '
            f"change {call.site.instance.queue_config_file(call.queue)} and reload",
        )


async def _written(call: Call) -> tuple[bytes, str]:
    """The bytes of the config file, and its ETag."""
    call.site.spool.queue(call.queue)
    file = call.site.instance.queue_config_file(call.queue)
    try:
        data = await asyncio.to_thread(durable.read_file, file, MAX_BYTES)
    except OSError as error:
        raise ProblemError("conflict", f"{file} cannot be read: {error.strerror}") from error
    return data, f'"{hashlib.sha256(data).hexdigest()}"'


async def _matched(call: Call) -> tuple[bytes, str]:
    """The config, if the asker says that it is the one that he changes."""
    data, tag = await _written(call)
    given = call.request.headers.get("if-match", "")
    if not given:
        raise ProblemError(
            "precondition-missing",
            "send If-Match with the ETag of the config that you change, or with * for whatever it is",
            headers={"ETag": tag},
        )
    if not named(given, tag):
        raise precondition_failed(f"{_CHANGED}; look at it again", tag)
    return data, tag


def _decoded(data: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The config in the file; what is none can still be replaced, and the ETag for that is told."""
    try:
        config, _ = decode_json(data, "config.json")
        if not isinstance(config, dict):
            raise ProblemError("conflict", "config.json holds no JSON object", headers=headers)
    except ConfigError as error:
        detail = f"the config cannot be read, put another one in its place: {error}"
        raise ProblemError("conflict", detail, headers=headers) from error
    return config


def _known(data: bytes) -> dict[str, Any]:
    try:
        return _decoded(data, {})
    except ProblemError:
        return {}


_PATH = f"{operations.QUEUE}/config"
_ETAG = "what If-Match takes"
_IF_MATCH = header(
    "If-Match",
    "the ETag of the config that you change; `*` for whatever it is",
    required=True,
    minLength=1,
)
_NOTE = (
    "Checked, written durably (a link to a file elsewhere stays one) and in force when it is answered; "
    "what runs is not disturbed. Keys other than "
    + ", ".join(f"`{key}`" for key in sorted(HARMLESS.difference(OLD_COALESCE_KEYS)))
    + " can be changed only where the main config has `allow_new_queue`: they may say which program "
    "is run."
)  # fmt: skip
OPERATIONS = (
    Operation(
        "showConfig", "GET", _PATH, "queues", "Show a queue's config as it is written", "read",
        {200: Answer("config.json", {JSON: schemas.ref("Config")}, {"ETag": _ETAG}),
         304: Answer("it is as you know it")},
        show, parameters=(IF_NONE_MATCH,), problems=(409,),
    ),
    Operation(
        "showEffectiveConfig", "GET", f"{_PATH}/effective", "queues",
        "Show a queue's config as it counts, every default filled in", "read",
        {200: Answer("as its process goes by it", {JSON: schemas.ref("Config")}, {"ETag": "as ever"}),
         304: Answer("it is as you know it")},
        effective, parameters=(IF_NONE_MATCH,),
    ),
    Operation(
        "replaceConfig", "PUT", _PATH, "queues", "Replace a queue's config", "admin",
        {200: one("Configured", "it is in force", ETag=_ETAG)}, replace, _NOTE, (_IF_MATCH,),
        Body(schemas.ref("Config")), (409, 412, 428),
    ),
    Operation(
        "changeConfig", "PATCH", _PATH, "queues", "Change some keys of a queue's config", "admin",
        {200: one("Configured", "it is in force", ETag=_ETAG)}, change,
        "A merge patch (RFC 7396). " + _NOTE, (_IF_MATCH,),
        Body(schemas.ref("ConfigChange"), (_MERGE, JSON)), (409, 412, 428),
    ),
)  # fmt: skip
