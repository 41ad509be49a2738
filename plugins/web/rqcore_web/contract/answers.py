"""How RQ's clients are answered: JSON as Ruby wrote it, lines of text, or a way on with a message.

Programs are answered what the queue said, ``["ok", X]`` or ``["fail", WHY]``, with status 200 either
way: the Ruby relay looks at the status first.  Only what the queue never decided has another status: 503
when it is DOWN or does not run, 404 when there is no such queue, 400 and 413 for a body that cannot be
read, 403, 507.  People are sent on (303) to a page that says what happened.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from rqcore.errors import NotFoundError, RqError, UnreachableError
from rqcore_web import flash
from rqcore_web.access import ForbiddenError
from rqcore_web.asking import DownError, refusal
from rqcore_web.forms import BodyError, Form
from rqcore_web.site import site_of

if TYPE_CHECKING:
    pass

Endpoint = Callable[[Request], Awaitable[Response]]

#: When to ask again for a queue that is being started.
_SOON = "2"
#: What is told now is another thing soon, and some URLs show browsers a page.
_FRESH = {"cache-control": "no-cache", "vary": "accept"}


def endpoint(act: Endpoint) -> Endpoint:
    """A route of the contract: what it raises is answered as its clients expect."""

    async def answered(request: Request) -> Response:
        try:
            return await act(request)
        except (RqError, ClientDisconnect) as error:
            status, headers = _status(error), {}
            if isinstance(error, UnreachableError):
                headers["Retry-After"] = _SOON
            if _tells_program(request):
                return as_json(["fail", str(error)], status, headers)
            raise HTTPException(status, str(error), headers) from error

    return answered


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON as Ruby's ``to_json`` writes it: without spaces, letters as they are."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        data = text.encode()
    except UnicodeEncodeError:  # bytes that are no text travel as lone surrogates
        data = json.dumps(value, separators=(",", ":")).encode("ascii")
    return Response(data, status, {**_FRESH, **(headers or {})}, "application/json")


def as_text(lines: list[str]) -> Response:
    """Lines of text, as shell scripts read them."""
    text = "".join(f"{line}\n" for line in lines)
    return Response(text, 200, _FRESH, "text/plain")


def speaks_json(request: Request, form: Form, default: str = "html") -> bool:
    """Does this request want JSON?  ``default`` is what counts when it does not say."""
    said = form.text("x_format") or ("json" if form.document is not None else default)
    request.state.speaks_json = said != "html" if default == "json" else said == "json"
    return bool(request.state.speaks_json)


def is_browser(request: Request) -> bool:
    """Is it a person's browser that shows what it gets?"""
    return "text/html" in request.headers.get("accept", "")


def decided(
    request: Request, form: Form, answer: Any, *, done: str, to: str, else_to: str = "",
    default: str = "html",
) -> Response:  # fmt: skip
    """Answer what a queue or the manager decided: to a program, or to people by a page.

    ``done`` is said when it was done, on the page at ``to``; ``else_to`` is where the reason is told
    why it was not (the same page if it is not given).  Both are paths below the root, and give way to
    the form's ``back``.
    """
    program = speaks_json(request, form, default)
    fine = is_fine(answer)
    reason = "" if fine else reason_of(answer)
    error = None if fine else refusal(reason)
    if isinstance(error, DownError | UnreachableError) and (program or not is_browser(request)):
        raise error
    if program:
        return as_json(answer)
    site = site_of(request)
    target = site.url(to if fine or not else_to else else_to)
    return flash.redirect(
        request, flash.local_path(form.text("back"), target), done if fine else reason, ok=fine
    )


def is_fine(answer: Any) -> bool:
    """Did the queue, or the manager, do it?"""
    return isinstance(answer, list) and answer[:1] in (["ok"], ["success"])


def reason_of(answer: Any) -> str:
    """Why it was not done, in words."""
    if isinstance(answer, list) and len(answer) > 1 and answer[0] == "fail":
        return str(answer[1])
    return f"this was answered: {answer!r}"


def outcome(answer: Any) -> str:
    """What the audit log says of it."""
    return "ok" if is_fine(answer) else reason_of(answer)


def _tells_program(request: Request) -> bool:
    """Is an error to be told as JSON?  A form that could not be read has not said so."""
    said = getattr(request.state, "speaks_json", None)
    if said is not None:
        return bool(said)
    return request.method == "POST" and not is_browser(request)


def _status(error: Exception) -> int:
    if isinstance(error, BodyError):
        return error.status
    kinds = (ForbiddenError, 403), (NotFoundError, 404), (DownError, 503), (UnreachableError, 503)
    return next((status for kind, status in kinds if isinstance(error, kind)), 400)
