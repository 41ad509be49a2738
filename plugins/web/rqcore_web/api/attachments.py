"""The files that come with a message: put, removed, fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from rqcore_web import files, forms
from rqcore_web.api import attaching, operations, schemas
from rqcore_web.api.operations import (
    BYTES,
    IF_NONE_MATCH,
    Answer,
    Body,
    Operation,
    header,
    one,
    query,
)
from rqcore_web.problems import plain

if TYPE_CHECKING:
    from rqcore_web.api.call import Call

FILE = f"{operations.MESSAGE}/attachments/{{name}}"


async def put(call: Call) -> Response:
    """Attach the body as a file."""
    name, sha256 = attaching.name_of(call), attaching.announced_sha256(call)
    await attaching.check_prepared(call, call.queue, call.msg_id)
    return await attaching.take(call, name, sha256, forms.content_length(call.request))


async def get(call: Call) -> Response:
    """The bytes of a file, or a range of them."""
    name = _name(call)
    args = {"msg_id": call.msg_id, "even_down": True}
    message = await call.site.spool.ask(call.queue, "get_message", args)
    path = files.message_file(message, "attach", name)
    digests = message["_attachments"].get(name)
    response = files.file_response(call.request, path, filename=name, digests=digests)
    if response.status_code == 416:  # noqa: PLR2004 - a range that is not there
        detail = bytes(response.body).decode().strip()
        raise plain(416, detail, {"Content-Range": response.headers["content-range"]})
    return response


async def delete(call: Call) -> Response:
    """Take a file off a message."""
    name = _name(call)
    args = {"msg_id": call.msg_id, "name": name}
    await call.site.spool.ask(call.queue, "delete_attach_message", args)
    call.note("detach", call.queue, f"{call.msg_id} {name}")
    return Response(status_code=204)


def _name(call: Call) -> str:
    return files.raw_name(call.request)


OPERATIONS = (
    Operation(
        "putAttachment", "PUT", FILE, "attachments", "Attach a file to a prepared message", "enqueue",
        {201: one("Attachment", "it is attached, and on the disk", Location=operations.LOCATION)}, put,
        "The body is the file, of any size; it is streamed to the disk and hashed on the way. One of "
        "the same name is replaced. What cannot fit is refused before its first byte where its length "
        "was said.",
        (header("Repr-Digest", "what it has to have (RFC 9530): `sha-256=:BASE64:`"),),
        Body(None, (BYTES,)), (409,), refused="conflict",
    ),
    Operation(
        "getAttachment", "GET", FILE, "attachments", "Fetch a file of a message", "read",
        {200: Answer("the file", {BYTES: None}, {
            "ETag": "what If-None-Match takes", "Accept-Ranges": "bytes",
            "Repr-Digest": "its SHA-256 (RFC 9530)", "Content-Disposition": "its name",
         }),
         206: Answer("a range of it", {BYTES: None}, {"Content-Range": "which"}),
         304: Answer("it is as you know it")},
        get,
        parameters=(
            query("download", schemas.one_of(("0", "1"), "1: a browser is to save it")),
            header("Range", "one range of bytes: `bytes=0-99`, `bytes=-65536`"), IF_NONE_MATCH,
        ),
        problems=(416,),
    ),
    Operation(
        "deleteAttachment", "DELETE", FILE, "attachments", "Take a file off a prepared message",
        "enqueue", {204: Answer("it is gone")}, delete, problems=(409,), refused="conflict",
    ),
)  # fmt: skip
