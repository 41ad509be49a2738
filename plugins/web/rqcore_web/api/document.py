"""The OpenAPI document, made of the table of operations: what it says is what is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from rqcore_web import __version__, problems
from rqcore_web.api import schemas
from rqcore_web.api.operations import BYTES, Answer, Operation, Parameter

if TYPE_CHECKING:
    from rqcore_web.api.schemas import Schema

_IN_PATH = re.compile(r"\{(\w+)\}")
_FILE = r"^[^./~?\[\]%|$&<>\x00-\x1f\x7f][^/~?\[\]%|$&<>\x00-\x1f\x7f]{0,254}$"
_PATH_PARAMETERS = {
    "queue": schemas.text("name of a queue", pattern="^[A-Za-z0-9_-]{1,128}$"),
    "msg_id": schemas.text("id of a message", pattern=schemas.ID_PATTERN),
    "name": schemas.text("name of a file", pattern=_FILE),
    "file": schemas.text("name of a file", pattern=_FILE),
    "job": schemas.text("id of a job", pattern="^[0-9a-f]+-[0-9]+$"),
    "upload": schemas.text("id of an upload", pattern="^[0-9a-f]{32}$"),
}
#: What holds for all of it.
RULES = (
    "Errors are application/problem+json (RFC 9457), with the types that are listed below.",
    "Lists go from the newest to the oldest. Of the next page, next is the cursor, and Link the URL.",
    "There are no offsets: pages stay where they are while messages come and go.",
    "Times are unix times in seconds. The id of a message begins with its time, in UTC.",
    "What is sent with an Idempotency-Key is done once, however often it is sent.",
    "Scopes grow: with read one looks, and with enqueue also sends messages.",
    "With operate one changes what becomes of them, and the states of queues.",
    "With admin one also makes, configures and deletes queues.",
)
_TAGS = {
    "instance": "The instance as a whole",
    "queues": "Queues, their configs and states",
    "messages": "Messages, sent, looked at and moved along",
    "attachments": "The files that come with a message",
    "uploads": "Attachments that go on where they were cut off",
    "logs": "What scripts print",
    "bulk": "One thing done to many messages",
    "events": "What happens, as it happens",
    "health": "For whoever watches from outside; needs no authentication",
}


def document(operations: Iterable[Operation], server: str) -> dict[str, Any]:
    """The document; ``server`` is the URL of the site's root, without a slash at its end."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "RQ", "version": __version__, "summary": "A queueing and messaging service",
            "description": _about(), "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server or "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "security": [{"token": []}, {"password": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }  # fmt: skip


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id, "tags": [operation.tag], "summary": operation.summary,
    }  # fmt: skip
    if operation.description:
        found["description"] = operation.description
    parameters = [_path_parameter(name) for name in _IN_PATH.findall(operation.path)]
    parameters += map(_parameter, operation.parameters)
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        body: Schema = {} if operation.body.schema is None else {"schema": operation.body.schema}
        content = dict.fromkeys(operation.body.media_types, body)
        found["requestBody"] = {"required": True, "content": content}
    answers = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    told = {str(status): _problem(status) for status in operation.all_problems}
    found["responses"] = {**answers, **told, "default": _problem(0)}
    if operation.scope:
        found["x-scope"] = operation.scope
    else:
        found["security"] = []
    return found


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = dict(parameter.schema)
    description = schema.pop("description", "")
    found: dict[str, Any] = {"name": parameter.name, "in": parameter.where, "schema": schema}
    if description:
        found["description"] = description
    if parameter.required:
        found["required"] = True
    if schema["type"] == "array":
        found |= {"style": "form", "explode": False}
    return found


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.description}
    if answer.media:
        found["content"] = {kind: _media(kind, schema) for kind, schema in answer.media.items()}
    if answer.headers:
        found["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in answer.headers.items()
        }
    return found


def _media(kind: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is not None:
        return {"schema": schema}
    return {} if kind == BYTES else {"schema": {"type": "string"}}


def _problem(status: int) -> dict[str, Any]:

    description = HTTPStatus(status).phrase if status else "anything else that went wrong"
    return {
        "description": description,
        "content": {problems.MEDIA_TYPE: {"schema": schemas.ref("Problem")}},
    }


def _about() -> str:
    """In Markdown, as OpenAPI has it."""
    rules = [f"* {rule}" for rule in RULES]
    rows = [
        f"| `{problems.type_of(name)}` | {status} | {title} |"
        for name, (status, title) in problems.KINDS.items()
    ]
    return "\n".join(
        ["Everything that RQ can be asked over HTTP, for programs.", "", *rules, "",
         "| type | status | title |", "| --- | --- | --- |", *rows]
    )  # fmt: skip
