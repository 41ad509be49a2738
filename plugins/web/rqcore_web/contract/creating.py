"""``POST q/NAME/new_message``: messages come in, in every form that RQ's clients write.

A JSON object; a form with ``mesg=<json>`` and ``x_format=json`` (or without it); a form with
``mesg[dest]=…`` and ``x_format=html``, which is what pages send.  Inside the message ``_method`` says
whether it is queued (``commit``, the usual), kept open for attachments (``prep``), or only queued when
nothing else is (``single_que``).

Beyond the contract a form in parts may bring one file (``filedata``): then the message is prepared, the
file attached, and the message committed, so that it is never seen without it.
"""

from __future__ import annotations

import re
from time import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rqcore.message import attachment_name_problem
from rqcore.trace import carried
from rqcore_web import forms, uploads
from rqcore_web.access import need
from rqcore_web.contract.answers import decided, is_fine, outcome, reason_of, speaks_json
from rqcore_web.due import parse_due
from rqcore_web.forms import BodyError, Form
from rqcore_web.names import taking
from rqcore_web.security.limits import expect_upload
from rqcore_web.site import site_of
from rqcore_web.spool import CREATING

#: What a queue takes itself: unix time, or nothing.
_NUMBER = re.compile(r"[0-9.]*")


async def new_message(request: Request) -> Response:
    """Make a message of what was sent."""
    site, name = site_of(request), str(request.path_params["name"])
    need(request, "enqueue", name)
    queue = taking(site, name)
    if not request.headers.get("content-type", "").startswith("multipart/"):
        form = await forms.read(request, site.options.max_body)
        return await _create(request, queue, form, None)
    expect_upload(request)
    async with uploads.incoming(site, forms.content_length(request)) as upload:
        form = await forms.read(request, site.options.max_body, upload)
        return await _create(request, queue, form, upload)


async def _create(
    request: Request, queue: str, form: Form, upload: uploads.Upload | None
) -> Response:
    speaks_json(request, form, "json")
    fields = _fields(form)
    if form.text("x_format") == "html":
        problem = _read_due(fields)
        if problem:
            return decided(
                request, form, ["fail", problem], done="", default="json",
                to=f"q/{queue}", else_to=f"q/{queue}/new_message",
            )  # fmt: skip
    if not fields.get("traceparent"):
        fields |= carried(request.headers)
    method = fields.pop("_method", "commit")
    if not isinstance(method, str) or method not in CREATING:
        raise BodyError(f"invalid _method: it may be {', '.join(CREATING)}, not {method!r}")
    if form.file is not None and upload is not None:
        answer = await _create_with_file(request, queue, fields, method, form.file, upload)
    else:
        answer = await _call(request, queue, CREATING[method], fields)
    made = str(answer[1]).rpartition("/")[2] if is_fine(answer) else ""
    site_of(request).audit.note(request, method, queue, made, outcome(answer))
    done = f"Created message {answer[1]}" if made else ""
    return decided(
        request, form, answer, done=done, default="json",
        to=f"q/{queue}/{made}", else_to=f"q/{queue}/new_message",
    )  # fmt: skip


def _read_due(fields: dict[str, Any]) -> str:
    """A page's form has the time as people write it; what is wrong with it, or nothing."""
    due = fields.get("due")
    if not isinstance(due, str) or _NUMBER.fullmatch(due):
        return ""
    try:
        fields["due"] = parse_due(due, time())
    except ValueError as error:
        return str(error)
    return ""


def _fields(form: Form) -> dict[str, Any]:
    if form.document is not None:
        return dict(form.document)
    given = form.fields.get("mesg")
    if isinstance(given, str):
        return forms.parse_json_object(given.encode("utf-8", "surrogateescape"), "mesg")
    if isinstance(given, dict):
        return dict(given)
    raise BodyError(
        "mesg is missing: send the message as mesg=<json>, mesg[dest]=..., or a JSON body"
    )


async def _create_with_file(
    request: Request, queue: str, fields: dict[str, Any], method: str, file: forms.FilePart,
    upload: uploads.Upload,
) -> Any:  # fmt: skip
    if method == "single_que":
        raise BodyError("single_que takes no file: the message may be there already")
    problem = attachment_name_problem(file.filename)
    if problem is not None:
        return ["fail", problem]
    uploaded = await upload.finish()
    answer = await _call(request, queue, "prep_message", fields)
    if not is_fine(answer):
        return answer
    msg_id = str(answer[1]).rpartition("/")[2]
    args = uploaded.attach_to(msg_id, file.filename)
    then = await _call(request, queue, "attach_message", args)
    if is_fine(then) and method == "commit":
        then = await _call(request, queue, "commit_message", {"msg_id": msg_id})
    if is_fine(then):
        return answer
    # Nobody knows of the message yet, and without its file it is not what was meant.
    await _call(request, queue, "delete_message", {"msg_id": msg_id})
    return ["fail", reason_of(then)]


async def _call(request: Request, queue: str, command: str, args: dict[str, Any]) -> Any:
    return await site_of(request).spool.queue(queue).call(command, args)
