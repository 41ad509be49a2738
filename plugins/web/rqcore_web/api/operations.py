"""What an operation of the API is: one row says how it is routed, checked, allowed and documented.

The rows are gathered in `rqcore_web.api.table`; routes (`rqcore_web.api.routes`) and the OpenAPI
document (`rqcore_web.api.document`) are both made of them, so neither can say what the other does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rqcore_web.api import schemas
from rqcore_web.api.schemas import Schema

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore_web.api.call import Call

JSON = "application/json"
JSONL = "application/jsonl"
EVENTS = "text/event-stream"
BYTES = "application/octet-stream"
ROOT = "/api/v1"
QUEUE = f"{ROOT}/queues/{{queue}}"
MESSAGE = f"{QUEUE}/messages/{{msg_id}}"

Handler = Callable[["Call"], Awaitable["Response"]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something of the query or of the headers.  A list is written with commas."""

    name: str
    schema: Schema
    where: Literal["query", "header"] = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent: JSON that is as the schema says; where there is none, bytes that are streamed."""

    schema: Schema | None
    media_types: tuple[str, ...] = (JSON,)


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer; ``media`` has a schema for each kind that it may be (None for bytes)."""

    description: str
    media: Mapping[str, Schema | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One row.

    ``scope`` is what the asker needs (`rqcore_web.access`), for the queue of the path if there is one;
    "" lets everybody in.  ``refused`` is the kind of problem of what a queue refuses.  ``key`` says what
    an Idempotency-Key does (`rqcore_web.api.once`): "" nothing; ``planned``: the handler knows how to go
    on where a former one broke off; ``noted``: nobody knows that.  ``handler`` is None for what another
    room of the site answers at this path; it is here to be documented.
    """

    id: str
    method: str
    path: str
    tag: str
    summary: str
    scope: str
    answers: Mapping[int, Answer]
    handler: Handler | None = None
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    problems: tuple[int, ...] = ()
    refused: str = "refused"
    key: Literal["", "planned", "noted"] = ""

    @property
    def all_problems(self) -> tuple[int, ...]:
        """The statuses of the problems that it may answer with, beside those of every operation."""
        found = set(self.problems)
        if self.scope:
            found |= {401, 403}
        if "{queue}" in self.path:
            found |= {404, 503}
        if self.parameters:
            found |= {422}
        if self.body is not None:
            found |= {400, 413, 422}
            found |= {415} if self.body.schema is not None else {408, 507}
        if self.key:
            found |= {400, 409, 422}
        return tuple(sorted(found))


def one(schema: str, description: str, **headers: str) -> Answer:
    """A good answer that is one JSON value, by the name of its schema."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(description, {JSON: schemas.ref(schema)}, named)


def query(name: str, schema: Schema) -> Parameter:
    """A parameter of the query."""
    return Parameter(name, schema)


def header(
    name: str, description: str, *, required: bool = False, **more: Any
) -> Parameter:  # fmt: skip
    """A header that is heeded."""
    return Parameter(name, schemas.text(description, **more), "header", required)


LIMIT = query("limit", schemas.whole("at most so many", least=1, maximum=1000, default=50))
CURSOR = query(
    "cursor", schemas.text("where a former page ended (`next`)", pattern=schemas.ID_PATTERN)
)
LOCATION = "where it is now"
IF_NONE_MATCH = header("If-None-Match", "answer 304 if it still has this ETag")
#: What an Idempotency-Key may be.
KEY_PATTERN = "^[!-~]([ -~]{0,253}[!-~])?$"
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "1 to 255 characters of your own, new for each thing you want done: sending the same again with the "
    "same key does it once. The first answer is given again for 24 hours (header Idempotent-Replayed).",
    pattern=KEY_PATTERN,
)
