"""What went wrong, as RFC 9457 has it: ``application/problem+json`` for everything under ``/api``.

    {"type": "urn:rqcore:problem:queue-down", "title": "The queue is DOWN", "status": 503,
     "detail": "status: DOWN (test: its disk is being changed)", "queue": "test",
     "reason": "its disk is being changed", "instance": "/api/v1/queues/test/messages",
     "errors": [{"field": "param1", "message": "must be text, not a number"}],
     "request_id": "5f0c2a9e61b7d384"}

``type`` is one of `KINDS` (`type_of`), or ``about:blank`` where the status says it all.  ``errors`` is
there where parts of what was sent are wrong, ``field`` being where: ``schedule[2].cron``, or "" for the
whole.  ``queue`` and ``reason`` belong to ``queue-down``: the first line of ``config/NAME.down``.
``request_id`` is what the logs call the request.
`answer` makes one of any error; a defect keeps its traceback in the log and tells none of it.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from rqcore.config import ConfigError
from rqcore.errors import NotFoundError, RqError, UnreachableError
from rqcore_web.access import ForbiddenError
from rqcore_web.asking import DownError
from rqcore_web.forms import BodyError

_log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
_URN = "urn:rqcore:problem:"
#: Types that others know too: draft-ietf-httpbis-resumable-upload has them registered.
_REGISTERED = "https://iana.org/assignments/http-problem-types#"
REGISTERED = frozenset({"mismatching-upload-offset", "inconsistent-upload-length"})

#: Every type of problem but ``about:blank``: its status and its title.
KINDS = {
    "invalid": (422, "What was sent is not valid"),
    "refused": (422, "Refused"),
    "conflict": (409, "Not possible in this state"),
    "queue-down": (503, "The queue is DOWN"),
    "queue-unreachable": (503, "The queue does not answer"),
    "instance-unreachable": (503, "RQ does not answer"),
    "storage": (503, "The disk does not take it"),
    "no-space": (507, "There is no space left"),
    "not-ready": (503, "RQ is not ready"),
    "creation-off": (403, "Queues cannot be made or given programs over the web"),
    "key-invalid": (400, "The idempotency key cannot be used"),
    "key-in-use": (409, "A request with this idempotency key is still under way"),
    "key-reused": (422, "This idempotency key was used for another request"),
    "key-outcome-unknown": (409, "Nobody knows what became of the first request with this key"),
    "precondition-missing": (428, "Say which version you change"),
    "precondition-failed": (412, "It was changed meanwhile"),
    "mismatching-upload-offset": (409, "The upload is at another offset"),
    "inconsistent-upload-length": (400, "The upload has another length"),
    "upload-taken-over": (409, "Another request works on the upload"),
    "too-many-uploads": (503, "Too many uploads are under way"),
    "upload-checking": (503, "All has come, and is still being checked"),
    "digest-mismatch": (422, "Another digest came than was announced"),
}  # fmt: skip

#: How a queue says that the system did not let it; see `rqcore.commands.base`.
_SYSTEM = ("cannot be done: ", "the disk does not take it: ")
#: The system's numbers for that.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: A body whose length has no more digits is read to its end, whatever comes of it.
_SHORT = 5
#: When to try again what is just being started; it may take less.
_SOON = 2


@dataclass(slots=True)
class ProblemError(Exception):
    """A problem, ready to be told; ``more`` is added to its members."""

    kind: str
    detail: str
    errors: Iterable[Mapping[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    status: int = 0

    def body(self, instance: str) -> dict[str, Any]:
        """The problem as JSON knows it."""
        status, title = KINDS.get(self.kind) or (self.status, HTTPStatus(self.status).phrase)
        errors = [dict(error) for error in self.errors]
        return {
            "type": type_of(self.kind), "title": title,
            "status": self.status or status, "detail": self.detail, "instance": instance,
            **({"errors": errors} if errors else {}), **self.more,
        }  # fmt: skip


def type_of(kind: str) -> str:
    """The type as it is told: a URI."""
    if not kind:
        return "about:blank"
    return f"{_REGISTERED if kind in REGISTERED else _URN}{kind}"


def plain(status: int, detail: str, headers: Mapping[str, str] | None = None) -> ProblemError:
    """A problem that needs no type of its own."""
    return ProblemError("", detail, status=status, headers=headers or {})


def invalid(errors: Iterable[tuple[str, str]]) -> ProblemError:
    """What was sent is wrong at these places: (field, message)."""
    listed = [{"field": name, "message": message} for name, message in errors]
    told = [f"{e['field']}: {e['message']}" if e["field"] else e["message"] for e in listed[:3]]
    more = f" (and {len(listed) - 3} more)" if len(listed) > 3 else ""  # noqa: PLR2004 - as above
    return ProblemError("invalid", "; ".join(told) + more, listed)


def asked(request: Request) -> str:
    """The path that was asked for, as the asker knows it: with the site's root."""
    return str(request.app.state.site.url(request.scope["path"].lstrip("/")))


def concerns(request: Request) -> bool:
    """Is this a request of a program, which is to be told by a problem?"""
    path = request.scope["path"]
    return bool(path == "/api" or path.startswith("/api/"))


async def answer(request: Request, error: Exception, refused: str = "refused") -> Response:
    """What the asker is told of this error; ``refused`` as in `of`."""
    problem = of(error, refused)
    if isinstance(error, UnreachableError):
        problem = await _unreachable(request, error)
    if problem is None:
        name, path = _request_id(request), request.url.path
        _log.error("request %s: %s %s failed", name, request.method, path, exc_info=error)
        problem = plain(500, "the web service failed at this; its log has the reason")
    return respond(request, problem)


def respond(request: Request, problem: ProblemError) -> Response:
    """The answer that tells this problem."""
    body = {**problem.body(asked(request)), "request_id": _request_id(request)}
    data = json.dumps(body, indent=2).encode("ascii") + b"\n"
    headers = {"Cache-Control": "no-store", **problem.headers}
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or len(length) > _SHORT:
        # It would all be read and thrown away before the next request.
        headers["Connection"] = "close"
    return Response(data, body["status"], headers, MEDIA_TYPE)


def _request_id(request: Request) -> str:
    """What the logs and the answer's ``X-Request-Id`` call this request."""
    return str(getattr(request.state, "request_id", ""))


def of(error: Exception, refused: str = "refused") -> ProblemError | None:
    """The problem that this error is; None for a defect.

    ``refused`` is the kind of what a queue or the manager refuses for a reason of its own.
    """
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, BodyError):
        return plain(error.status, str(error), {"Connection": "close"})
    if isinstance(error, RqError):
        return _of_ours(error, refused)
    if isinstance(error, HTTPException):
        return plain(error.status_code, error.detail, error.headers)
    if isinstance(error, ClientDisconnect):
        return plain(400, "the request ended before all of it had come")
    if isinstance(error, OSError) and error.errno in FULL:
        return ProblemError("no-space", str(error))
    return None


def _of_ours(error: RqError, refused: str) -> ProblemError:
    text = str(error)
    for kind, status in ((ForbiddenError, 403), (NotFoundError, 404)):
        if isinstance(error, kind):
            return plain(status, text)
    if isinstance(error, DownError):
        # Its operator took it down, and nobody knows for how long: no Retry-After.
        return _down(error)
    if isinstance(error, UnreachableError):
        return ProblemError("instance-unreachable", text, headers=_retry_after())
    if isinstance(error, ConfigError):
        return invalid((p.key, f"{p.reason}; {p.remedy}") for p in error.problems)
    if text.startswith(_SYSTEM):
        full = any(os.strerror(number) in text for number in FULL)
        return ProblemError("no-space" if full else "storage", text)
    return ProblemError(refused, text)


def _down(error: DownError) -> ProblemError:
    """With the queue's name and its operator's reason, as far as they are known."""
    known = {"queue": error.queue, "reason": error.why}
    told = ": ".join(part for part in (error.queue, error.why) if part)
    detail = f"{error} ({told})" if told else str(error)
    more = {name: value for name, value in known.items() if value}
    return ProblemError("queue-down", detail, more=more)


def unsure(error: Exception) -> bool:
    """Does this error leave open whether what was asked for was done?"""
    if isinstance(error, ProblemError):
        return error.kind == "key-outcome-unknown"
    if isinstance(error, RqError):
        return isinstance(error, UnreachableError) or str(error).startswith(_SYSTEM)
    return True


async def _unreachable(request: Request, error: UnreachableError) -> ProblemError:
    """Whether and when to try again depends on what the manager does about it."""
    name = request.path_params.get("queue", "")
    site = request.app.state.site
    try:
        manager = await site.spool.manager.ask("describe")
    except UnreachableError as silent:
        return ProblemError("instance-unreachable", str(silent), headers=_retry_after())
    for child in manager["children"]:
        if (child["kind"], child["name"]) == ("queue", name) and child["state"] == "failed":
            return ProblemError("queue-unreachable", f"{error}: {child['problem']}")
    kind = "queue-unreachable" if name else "instance-unreachable"
    return ProblemError(kind, str(error), headers=_retry_after())


def _retry_after() -> dict[str, str]:
    return {"Retry-After": str(_SOON)}
