"""Attachments that go on where they were cut off, as draft-ietf-httpbis-resumable-upload has it.

    POST   …/messages/ID/attachments/NAME   begins an upload: 201 and its Location
    PATCH  /api/v1/uploads/UID              the bytes from Upload-Offset on
    HEAD   /api/v1/uploads/UID              how many have come: Upload-Offset
    DELETE /api/v1/uploads/UID              never mind
    OPTIONS /api/v1/uploads                 is it known here, and what is the most?  Upload-Limit

The last bytes come with ``Upload-Complete: ?1``; the answer is the attachment then, and it is on the
disk.  Asked the same again, with no byte more, it is answered the same: who lost the answer finds out.

An upload may be used by whoever may attach to its message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from rqcore.durable import Digest
from rqcore.errors import NotFoundError
from rqcore_web import access, forms
from rqcore_web.api import attaching, operations, schemas
from rqcore_web.api.attachments import FILE
from rqcore_web.api.operations import BYTES, JSON, ROOT, Answer, Body, Operation, header, one
from rqcore_web.problems import ProblemError, plain
from rqcore_web.resumable.shelf import MAX_AGE
from rqcore_web.security.limits import expect_upload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rqcore_web.api.call import Call
    from rqcore_web.resumable.partial import Partial

PARTIAL = "application/partial-upload"
_WHOLE = re.compile(r"[0-9]{1,15}", re.ASCII)
_TRUTH = {"?0": False, "?1": True}


async def discover(call: Call) -> Response:
    """Say that this is known here."""
    return Response(status_code=204, headers=_limit(call))


async def begin(call: Call) -> Response:
    """Begin an upload; its first bytes, or all of them, may come along."""
    name, length = attaching.name_of(call), _number(call, "upload-length")
    complete = _complete(call)
    sha256, body = attaching.announced_sha256(call), forms.content_length(call.request)
    if complete and body is not None and length not in (None, body):
        raise _inconsistent(f"{body} bytes are all of it, and Upload-Length says {length}")
    if length is not None and body is not None and body > length:
        raise _inconsistent(f"{body} bytes come, and Upload-Length says {length}")
    await attaching.check_prepared(call, call.queue, call.msg_id)
    expect_upload(call.request)
    if complete:
        response = await attaching.take(call, name, sha256, length if body is None else body)
        await call.site.shelf.replace(call.queue, call.msg_id, name)
        response.headers["Upload-Complete"] = "?1"
        return response
    partial = await call.site.shelf.create(
        call.queue, call.msg_id, name, length, sha256, access.who(call.request).name
    )
    if body != 0:
        async with partial.turn() as turn:
            await partial.receive(call.request.stream(), turn)
    url = call.url(f"uploads/{partial.record.uid}")
    headers = {**_limit(call), "Location": url, **_progress(partial)}
    return call.answer(_view(call, partial), 201, headers)


async def append(call: Call) -> Response:
    """The bytes from an offset on."""
    partial = _found(call)
    arrival = partial.arrived()
    kind = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != PARTIAL:
        shown = kind or "a body without a Content-Type"
        raise plain(415, f"{shown} is not understood; send {PARTIAL}", {"Accept-Patch": PARTIAL})
    offset, complete = _number(call, "upload-offset"), _complete(call)
    if offset is None:
        raise plain(400, "Upload-Offset is missing: where do these bytes begin?")
    length, sha256 = _number(call, "upload-length"), attaching.announced_sha256(call)
    if not partial.complete:
        await _check_prepared(call, partial)
    async with partial.turn(arrival) as turn:
        if offset != partial.offset:
            raise _elsewhere(partial, offset)
        body = forms.content_length(call.request)
        await _agree(call, partial, length, sha256, body, complete=complete)
        if body != 0 and not partial.complete:
            expect_upload(call.request)
            await partial.receive(call.request.stream(), turn)
        turn.counted.set()
        if not complete:
            return Response(status_code=204, headers=_progress(partial))
        if partial.left:
            raise _inconsistent(
                f"this was to be the end, and {partial.offset} of {partial.record.length} bytes came"
            )
        return await _finished(call, partial)


async def _check_prepared(call: Call, partial: Partial) -> None:
    record = partial.record
    try:
        await attaching.check_prepared(call, record.queue, record.msg_id)
    except NotFoundError:
        await call.site.shelf.drop(partial, "its message is not there any more")
        raise


async def _agree(
    call: Call, partial: Partial, length: int | None, sha256: str, body: int | None, *, complete: bool
) -> None:  # fmt: skip
    """What is said of the whole has to be true, and to fit.  Raises `ProblemError`, `BodyError`."""
    record = partial.record
    said = partial.offset + body if complete and body is not None else length
    if length is not None and said != length:
        raise _inconsistent(f"Upload-Length says {length}, and with these bytes there are {said}")
    if None not in (said, record.length) and said != record.length:
        raise _inconsistent(f"the upload was begun with {record.length} bytes; now it has {said}")
    whole = said if record.length is None else record.length
    if body is not None and whole is not None and partial.offset + body > whole:
        raise _inconsistent(f"with these bytes there are more than the {whole} that were said")
    wanted = body if whole is None else whole - partial.offset
    if wanted and not partial.complete:
        await call.site.shelf.make_room(wanted)
        partial.promise(wanted)
    if record.length is None and whole is not None:
        record.length = whole
        await partial.save()
    if complete:
        record.sha256 = sha256 or record.sha256


async def _finished(call: Call, partial: Partial) -> Response:
    record = partial.record
    if record.digest is None:
        digest = await partial.finish()
        try:
            attaching.check_digest(digest, record.sha256)
            uploaded = partial.attachable(digest)
            await attaching.attach(call, record.queue, record.msg_id, record.name, uploaded)
        except (ProblemError, NotFoundError) as error:
            # Another digest, or no message: all else may be better when it is asked for again.
            call.site.shelf.drop_soon(partial, str(error))
            raise
        await partial.attached(digest)
    else:
        digest = Digest(**record.digest)
    found, url = attaching.attached(call, record.queue, record.msg_id, record.name, digest)
    return call.answer(found, 201, {"Location": url, **_progress(partial)})


async def offset(call: Call) -> Response:
    """How far it is; whoever is bringing bytes now lets go."""
    partial = _found(call)
    await partial.settled()
    headers = {**_progress(partial), **_limit(call), "Cache-Control": "no-store"}
    if partial.record.digest is not None:
        headers["Repr-Digest"] = attaching.digest_header(partial.record.digest["sha256"])
    return Response(status_code=204, headers=headers)


async def show(call: Call) -> Response:
    """An upload; whoever is bringing bytes goes on."""
    return call.answer(_view(call, _found(call)))


async def list_all(call: Call) -> Response:
    """The uploads that are known."""
    items = [_view(call, one) for one in call.site.shelf.all() if call.sees(one.record.queue)]
    return call.answer({"items": items})


async def cancel(call: Call) -> Response:
    """Forget an upload."""
    await call.site.shelf.drop(_found(call), "it was cancelled")
    return Response(status_code=204)


def _found(call: Call) -> Partial:
    """The upload that the path names, for whom its queue is there.

    Raises `NotFoundError`, `ForbiddenError`.
    """
    partial = call.site.shelf.get(str(call.request.path_params["upload"]))
    if not call.sees(partial.record.queue):
        raise NotFoundError(f"no such upload: {partial.record.uid}")
    call.need(call.operation.scope, partial.record.queue)
    return partial


def _view(call: Call, partial: Partial) -> dict[str, Any]:
    return {**partial.view(), "url": call.url(f"uploads/{partial.record.uid}")}


def _progress(partial: Partial) -> dict[str, str]:
    found = {
        "Upload-Offset": str(partial.offset),
        "Upload-Complete": "?1" if partial.complete else "?0",
    }
    if partial.record.length is not None:
        found["Upload-Length"] = str(partial.record.length)
    return found


def _limit(call: Call) -> Mapping[str, str]:
    return {"Upload-Limit": f"max-size={call.site.options.max_upload}, max-age={MAX_AGE}"}


def _number(call: Call, name: str) -> int | None:
    given = call.request.headers.get(name)
    if given is None:
        return None
    if _WHOLE.fullmatch(given.strip()) is None:
        raise plain(400, f"{name.title()} must be a whole number of bytes, not {given[:40]!r}")
    return int(given)


def _complete(call: Call) -> bool:
    given = call.request.headers.get("upload-complete", "").strip()
    if given not in _TRUTH:
        what = f"not {given[:40]!r}" if given else "and is missing"
        raise plain(
            400, f"Upload-Complete must be ?1 when these bytes are the last ones, else ?0, {what}"
        )
    return _TRUTH[given]


def _elsewhere(partial: Partial, provided: int) -> ProblemError:
    return ProblemError(
        "mismatching-upload-offset",
        f"{partial.offset} bytes have come, so the next ones begin there, not at {provided}",
        headers=_progress(partial),
        more={"expected-offset": partial.offset, "provided-offset": provided},
    )


def _inconsistent(detail: str) -> ProblemError:
    return ProblemError("inconsistent-upload-length", detail)


_UPLOADS = f"{ROOT}/uploads"
_UPLOAD = f"{_UPLOADS}/{{upload}}"
_LENGTH = header("Upload-Length", "how many bytes there are altogether", pattern="^[0-9]{1,15}$")
_DIGEST = header("Repr-Digest", "what it has to have (RFC 9530): `sha-256=:BASE64:`")
_COMPLETE = header(
    "Upload-Complete", "`?1`: these bytes are the last ones; `?0`: more are to come", required=True,
    pattern=r"^\?[01]$",
)  # fmt: skip
_TOLD = {
    "Upload-Offset": "how many bytes have come", "Upload-Complete": "`?1` when it is attached",
    "Upload-Length": "how many there will be, once that is known",
}  # fmt: skip
_LIMITS = {"Upload-Limit": "`max-size` of a file in bytes, `max-age` of an upload in seconds"}

OPERATIONS = (
    Operation(
        "beginUpload", "POST", FILE, "uploads", "Begin an upload of an attachment", "enqueue",
        {201: Answer(
            "it has begun, and goes on at `Location`; or, with `?1`, it is attached, and the answer is "
            "the `Attachment`", {JSON: None}, {"Location": operations.LOCATION, **_TOLD, **_LIMITS},
         )},
        begin,
        "What cannot be (no room, too large, the message is not in `prep`) is told now. The body may be "
        "empty, or the first bytes; with `Upload-Complete: ?1` it is all of the file, which then cannot "
        "be resumed. Another upload of the same attachment is forgotten.",
        (_COMPLETE, _LENGTH, _DIGEST), Body(None, (BYTES,)), (409,), refused="conflict",
    ),
    Operation(
        "discoverUploads", "OPTIONS", _UPLOADS, "uploads", "Ask whether uploads can be resumed here",
        "enqueue", {204: Answer("they can", headers=_LIMITS)}, discover,
    ),
    Operation(
        "listUploads", "GET", _UPLOADS, "uploads", "List the uploads that are known", "read",
        {200: one("UploadList", "those under way, and those that are complete while their message is "
                  "in prep")}, list_all,
    ),
    Operation(
        "showUpload", "GET", _UPLOAD, "uploads", "Show how far an upload is", "read",
        {200: one("Upload", "the upload; who is sending it is not disturbed")}, show, problems=(404,),
    ),
    Operation(
        "offsetOfUpload", "HEAD", _UPLOAD, "uploads", "Ask where to go on with an upload", "enqueue",
        {204: Answer("it goes on at `Upload-Offset`",
                     headers={**_TOLD, **_LIMITS, "Repr-Digest": "of a complete one (RFC 9530)"})},
        offset,
        "A request that is still sending bytes of it is ended, so that the offset holds.",
        problems=(404,),
    ),
    Operation(
        "appendToUpload", "PATCH", _UPLOAD, "uploads", "Go on with an upload", "enqueue",
        {204: Answer("these bytes have come", headers=_TOLD),
         201: Answer("that was all: it is attached, and on the disk",
                     {JSON: schemas.ref("Attachment")}, {"Location": operations.LOCATION, **_TOLD})},
        append,
        "The bytes begin at `Upload-Offset`, which has to be what has come: else 409, with where to go "
        "on. A request that is still sending bytes of it is ended, and what it brought counts. What "
        "came before the connection broke is kept. The last request has `Upload-Complete: ?1`; it may "
        "be sent again with an empty body when its answer was lost.",
        (header("Upload-Offset", "where these bytes begin", required=True, pattern="^[0-9]{1,15}$"),
         _COMPLETE, _LENGTH, _DIGEST),
        Body(None, (PARTIAL,)), (404, 409, 415, 503), refused="conflict",
    ),
    Operation(
        "cancelUpload", "DELETE", _UPLOAD, "uploads", "Forget an upload and what has come of it",
        "enqueue", {204: Answer("it is gone; a file that is attached stays")}, cancel, problems=(404,),
    ),
)  # fmt: skip
