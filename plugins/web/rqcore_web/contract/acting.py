"""What is done with one message: commit, delete, destroy, run now, clone; and its attachments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore.errors import NotFoundError, UnreachableError
from rqcore.message import attachment_name_problem
from rqcore_web import files, forms, uploads
from rqcore_web.access import need
from rqcore_web.asking import DownError, refusal
from rqcore_web.contract.answers import (
    Endpoint,
    decided,
    is_fine,
    outcome,
    reason_of,
    speaks_json,
)
from rqcore_web.forms import BodyError, Form
from rqcore_web.names import message_of
from rqcore_web.security.limits import expect_upload
from rqcore_web.site import site_of


@dataclass(frozen=True, slots=True)
class _Action:
    """What a queue is asked, who may have it done, what is then said; is the message still there?"""

    command: str
    scope: str
    done: str
    stays: bool = True


_ACTIONS = {
    "commit": _Action("commit_message", "enqueue", "Message committed successfully"),
    "delete": _Action("delete_message", "operate", "Message deleted successfully", stays=False),
    "destroy": _Action("destroy_message", "operate", "Message destroyed successfully", stays=False),
    "run_now": _Action("run_message", "operate", "Message sent to the front of the queue"),
    "clone": _Action("clone_message", "operate", "Message cloned successfully", stays=False),
}
#: What ``_method`` may be.
_METHODS = ("commit", "delete", "destroy", "run_now")


async def act(request: Request) -> Response:
    """``POST q/NAME/MSG_ID``: what ``_method`` says."""
    need(request, "enqueue")
    form = await forms.read(request, site_of(request).options.max_body)
    speaks_json(request, form)
    method = form.text("_method")
    if method not in _METHODS:
        raise BodyError(f"invalid _method: it may be {', '.join(_METHODS)}, not {method!r}")
    return await _do(request, form, method)


def doing(name: str) -> Endpoint:
    """``POST q/NAME/MSG_ID/clone`` and ``/run_now``."""

    async def do(request: Request) -> Response:
        need(request, "operate")
        form = await forms.read(request, site_of(request).options.max_body)
        speaks_json(request, form)
        return await _do(request, form, name)

    return do


async def _do(request: Request, form: Form, name: str) -> Response:
    action = _ACTIONS[name]
    queue, msg_id = await message_of(request)
    need(request, action.scope, queue)
    args: dict[str, Any] = {"msg_id": msg_id}
    if not request.state.speaks_json:
        args["even_down"] = True  # people may clear up what lies in a queue that is down
    answer = await site_of(request).spool.queue(queue).call(action.command, args)
    site_of(request).audit.note(request, name, queue, msg_id, outcome(answer))
    done = action.done
    if name == "clone" and is_fine(answer):
        done += f": {answer[1]}"
    to = f"q/{queue}/{msg_id}" if action.stays else f"q/{queue}"
    return await _told(request, form, queue, msg_id, answer, done, to)


async def _told(
    request: Request, form: Form, queue: str, msg_id: str, answer: Any, done: str, to: str = ""
) -> Response:  # fmt: skip
    """What was decided; if it was refused, people see why where they can look at what is there."""
    page = f"q/{queue}/{msg_id}"
    else_to = page
    if not is_fine(answer) and not request.state.speaks_json:
        args = {"msg_id": msg_id, "even_down": True}
        found = await site_of(request).spool.queue(queue).call("get_message_state", args)
        else_to = page if is_fine(found) else f"q/{queue}"
    return decided(request, form, answer, done=done, to=to or page, else_to=else_to)


async def attach(request: Request) -> Response:
    """``POST q/NAME/MSG_ID/attach/new``: a form in parts, with the file as ``filedata``."""
    site = site_of(request)
    queue, msg_id = await message_of(request)
    need(request, "enqueue", queue)
    state = await site.spool.queue(queue).call("get_message_state", {"msg_id": msg_id})
    silent = None if is_fine(state) else refusal(reason_of(state))
    if isinstance(silent, DownError | UnreachableError):
        raise silent
    expect_upload(request)
    if state != ["ok", "prep"]:
        # What is sent is not kept, but only its end says in which form to answer.
        form = await forms.read(request, site.options.max_body, _Nowhere())
        speaks_json(request, form)
        return await _attached(request, form, queue, msg_id, ["fail", "cannot find message"])
    async with uploads.incoming(site, forms.content_length(request)) as upload:
        form = await forms.read(request, site.options.max_body, upload)
        speaks_json(request, form)
        name = _filename(form)
        problem = attachment_name_problem(name)
        if problem is not None:
            answer: Any = ["fail", problem]
        else:
            args = (await upload.finish()).attach_to(msg_id, name)
            answer = await site.spool.queue(queue).call("attach_message", args)
        return await _attached(request, form, queue, msg_id, answer)


class _Nowhere:
    """Where the bytes of a file go that nobody can have."""

    async def write(self, data: bytes) -> None:
        """Forget them."""


def _filename(form: Form) -> str:
    file = form.file
    if file is None or file.field != "filedata":
        if "filedata" in form.fields:
            raise NotFoundError("Wrong input type for filedata param: it must be a file")
        raise NotFoundError("Missing required param filedata")
    if not file.filename:
        raise NotFoundError("Missing filename of uploaded file in filedata param")
    return file.filename


async def _attached(
    request: Request, form: Form, queue: str, msg_id: str, answer: Any
) -> Response:  # fmt: skip
    name = form.file.filename if form.file else ""
    site_of(request).audit.note(request, "attach", queue, f"{msg_id} {name}", outcome(answer))
    return await _told(request, form, queue, msg_id, answer, f"Attached {name} successfully")


async def detach(request: Request) -> Response:
    """``POST q/NAME/MSG_ID/attach/FILE`` with ``_method=delete``."""
    need(request, "enqueue")
    site = site_of(request)
    form = await forms.read(request, site.options.max_body)
    speaks_json(request, form)
    if form.text("_method") != "delete":
        raise BodyError(f"invalid _method: it may be delete, not {form.text('_method')!r}")
    queue, msg_id = await message_of(request)
    need(request, "enqueue", queue)
    name = files.raw_name(request)
    args = {"msg_id": msg_id, "attachment_name": name}
    answer = await site.spool.queue(queue).call("delete_attach_message", args)
    site.audit.note(request, "detach", queue, f"{msg_id} {name}", outcome(answer))
    return await _told(request, form, queue, msg_id, answer, "Attachment deleted successfully")
