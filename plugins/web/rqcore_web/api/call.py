"""One request to the API, read and checked: what handlers are given, and how they answer.

Everything that is wrong with a request is told at once, as a problem with all mistakes: 400 for what
cannot be read, 415 for another media type, 422 for what is not as the schema says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore_web import access
from rqcore_web.api import checking
from rqcore_web.api.checking import Mistake
from rqcore_web.api.once import Once
from rqcore_web.api.operations import JSON, Operation, Parameter
from rqcore_web.problems import ProblemError, invalid, plain
from rqcore_web.site import Site

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})(?:$|[,;\s])", re.ASCII)
#: Nobody waits longer for a state; whoever wants to asks again.
MAX_WAIT = 120


@dataclass(slots=True)
class Call:
    """See the head of this module; ``query`` has every parameter that was sent or has a default."""

    request: Request
    site: Site
    operation: Operation
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    once: Once | None = None
    #: The handler does not know of all that it was asked for whether it was done.
    unsure: bool = False

    @property
    def queue(self) -> str:
        """The queue that the path names."""
        return str(self.request.path_params["queue"])

    @property
    def msg_id(self) -> str:
        """The message that the path names."""
        return str(self.request.path_params["msg_id"])

    def need(self, scope: str, queue: str) -> None:
        """Beside what the operation needs: may the asker do this with that queue?"""
        access.need(self.request, scope, queue)

    def sees(self, queue: str) -> bool:
        """May the asker know of this queue?"""
        return access.who(self.request).sees(queue)

    def note(self, action: str, queue: str = "", subject: str = "", outcome: str = "ok") -> None:
        """Write it into the audit log."""
        self.site.audit.note(self.request, action, queue, subject, outcome)

    @property
    def wait(self) -> int:
        """How many seconds the asker would wait (``Prefer: wait=N``); 0 when he said nothing of it."""
        found = _WAIT.search(self.request.headers.get("prefer", ""))
        return min(int(found[1]), MAX_WAIT) if found else 0

    def url(self, path: str) -> str:
        """The path of something of the API on this host."""
        return self.site.url(f"api/v1/{path}")

    def answer(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The value as JSON."""
        return json_answer(value, status, headers)

    def cached(self, value: Any) -> Response:
        """The value as JSON, or 304 when the asker has it already."""
        data = encode(value)
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()[:32]}"',
            "Cache-Control": "private, no-cache",
        }
        if named(self.request.headers.get("if-none-match", ""), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(data, 200, headers, JSON)


def encode(value: Any) -> bytes:
    """JSON, in ASCII: text may hold what no other encoding takes."""
    return json.dumps(value).encode("ascii") + b"\n"


def json_answer(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer that is not to be kept by anybody."""
    return Response(encode(value), status, {"Cache-Control": "no-store", **(headers or {})}, JSON)


def named(tags: str, tag: str) -> bool:
    """Is this ETag among those of an ``If-Match`` or ``If-None-Match``?"""
    listed = [one.strip().removeprefix("W/") for one in tags.split(",")]
    return tag in listed or listed == ["*"]


async def read(request: Request, site: Site, operation: Operation) -> Call:
    """The request, checked.  Raises `ProblemError`, and what reading a body does."""
    query, mistakes = read_query(request, operation)
    body = None
    if operation.body is not None and operation.body.schema is not None:
        body = await _read_json(request, operation.body.media_types)
        mistakes += checking.check(operation.body.schema, body)
    if mistakes:
        raise invalid(mistakes)
    return Call(request, site, operation, query, body)


def read_query(request: Request, operation: Operation) -> tuple[dict[str, Any], list[Mistake]]:
    """The parameters, defaults filled in, and what is wrong with them."""
    known = {one.name: one.schema for one in operation.parameters if one.where == "query"}
    found = {name: schema["default"] for name, schema in known.items() if "default" in schema}
    mistakes: list[Mistake] = []
    given = request.query_params.multi_items()
    for name, value in given:
        if name not in known:
            told = f"known are {', '.join(known)}" if known else "none is known"
            mistakes.append((name[:80], f"is no parameter of this; {told}"))
        elif sum(other == name for other, _ in given) > 1:
            mistakes.append((name, "is given more than once"))
        else:
            found[name] = _parsed(known[name], value)
            mistakes += [
                (f"{name}{at}", why) for at, why in checking.check(known[name], found[name])
            ]
    return found, mistakes


def _parsed(schema: Mapping[str, Any], value: str) -> Any:
    """The value that this text of a query stands for; the text itself when it stands for none."""
    kind = schema["type"]
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    if kind == "array":
        return [part.strip() for part in value.split(",")] if value else []
    return value


async def _read_json(request: Request, media_types: tuple[str, ...]) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in media_types:
        raise plain(
            415, f"{kind or 'a body without a Content-Type'} is not understood; send "
            + " or ".join(media_types), {"Accept": ", ".join(media_types)},
        )  # fmt: skip
    data = await request.body()
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise plain(400, f"the body is not UTF-8, from byte {error.start} on") from None
    except RecursionError:
        raise plain(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise plain(400, f"the body is not JSON: {error}") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number that JSON knows")


def parameters(operation: Operation, where: str) -> tuple[Parameter, ...]:
    """The operation's parameters of one place."""
    return tuple(one for one in operation.parameters if one.where == where)


def precondition_failed(detail: str, etag: str) -> ProblemError:
    """412: the asker changes another version than there is."""
    return ProblemError("precondition-failed", detail, headers={"ETag": etag})
