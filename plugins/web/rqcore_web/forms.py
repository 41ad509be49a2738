"""Bodies of requests: read once, in one way, into fields and at most one file that streams past.

`read` takes JSON (an object), ``application/x-www-form-urlencoded`` and ``multipart/form-data``; no body
at all has no fields.  What the query of the URL says counts as fields too, and the body's win.

Names with brackets nest (`rqcore_web.formnames`); forms in parts are read by `rqcore_web.formparts`.

The bytes of a file are handed to a `Sink` as they come; all else must fit into ``most`` bytes, may have
so many fields, and is refused with a `BodyError` in words: 400 when it is malformed or ends early, 413
when it is too large, 415 for another kind of body.  A client that goes away raises Starlette's
`ClientDisconnect`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.multipart import parse_options_header

from rqcore_web.formnames import MAX_FIELDS, BodyError, nest, query_fields
from rqcore_web.formparts import FilePart, Parts, Sink, too_large
from rqcore_web.security.limits import expect_upload

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = [
    "MAX_FIELDS",
    "BodyError",
    "FilePart",
    "Form",
    "Sink",
    "content_length",
    "nest",
    "parse_json_object",
    "query_fields",
    "read",
]


@dataclass(slots=True)
class Form:
    """What a request said: its fields; the object, if the body was JSON; the file, if one came."""

    fields: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] | None = None
    file: FilePart | None = None

    def text(self, name: str, default: str = "") -> str:
        """A field that is text; a number or a truth value, as JSON has them, as it is written."""
        value = self.fields.get(name, default)
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value) if isinstance(value, str | int | float) else default

    def mapping(self, name: str) -> dict[str, Any] | None:
        """A field that is an object; None when it is not there, or is none."""
        value = self.fields.get(name)
        return value if isinstance(value, dict) else None


async def read(request: Request, most: int, sink: Sink | None = None) -> Form:
    """The form that a request brings.  Raises `BodyError`.

    Without a ``sink`` a file is refused.
    """
    fields = query_fields(request.scope["query_string"])
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        if sink is None:
            _check_length(request, most)
        expect_upload(request)  # the fields are counted here, the file by its sink
        parts = Parts(most, options.get(b"boundary", b""), sink)
        await parts.read(request.stream())
        return Form(nest([*fields, *parts.fields]), file=parts.file)
    body = await _whole(request, most)
    if not body:
        return Form(nest(fields))
    if kind == b"application/x-www-form-urlencoded":
        return Form(nest([*fields, *query_fields(body)]))
    if kind == b"application/json":
        document = parse_json_object(body)
        return Form({**nest(fields), **document}, document)
    shown = kind.decode("latin-1") or "a body without a Content-Type"
    raise BodyError(f"{shown} is not understood; send JSON or a form", 415)


def content_length(request: Request) -> int | None:
    """How long the body is, if that is said."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdecimal() else None


def _check_length(request: Request, most: int) -> None:
    """Refuse what is too long before its first byte is asked for."""
    if (content_length(request) or 0) > most:
        raise too_large(most)


async def _whole(request: Request, most: int) -> bytes:
    _check_length(request, most)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large(most)
    return bytes(body)


def parse_json_object(body: bytes, what: str = "the body") -> dict[str, Any]:
    """The object that this JSON is.  Raises `BodyError` with the reason."""
    try:
        found = json.loads(body.decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise BodyError(f"{what} is not JSON: nested too deeply") from None
    except ValueError as error:
        raise BodyError(f"{what} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BodyError(f'{what} must be a JSON object, such as {{"dest": "test"}}')
    return found
