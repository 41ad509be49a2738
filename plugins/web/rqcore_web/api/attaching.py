"""What all ways to attach a file have in common: its name, its message, its digest, its end."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rqcore.message import attachment_name_problem
from rqcore_web import files, uploads
from rqcore_web.api import views
from rqcore_web.problems import ProblemError, invalid, plain
from rqcore_web.security.limits import expect_upload

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore.durable import Digest
    from rqcore_web.api.call import Call
    from rqcore_web.uploads import Uploaded

_SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*([^,;]*)", re.IGNORECASE)
_BYTES = 32


def name_of(call: Call) -> str:
    """What the file is to be called.  Raises `ProblemError` for what cannot be a name."""
    name = files.raw_name(call.request)
    problem = attachment_name_problem(name)
    if problem is not None:
        raise invalid([("name", problem)])
    return name


async def check_prepared(call: Call, queue: str, msg_id: str) -> None:
    """It may be gigabytes: that the message takes none is said before they come.

    Raises `ProblemError`, and what the queue refuses.
    """
    state = await call.site.spool.ask(queue, "get_message_state", {"msg_id": msg_id})
    if state != "prep":
        raise ProblemError("conflict", f"message is in {state}; only one in prep takes attachments")


def announced_sha256(call: Call) -> str:
    """The SHA-256 that the file is to have, in hex, by ``Repr-Digest`` (RFC 9530); "" without.

    Raises `ProblemError`.
    """
    given = call.request.headers.get("repr-digest", "")
    found = _SHA256.search(given)
    if found is None:
        return ""
    text = found[1].strip()
    if len(text) > 2 and text[0] == text[-1] == ":":  # noqa: PLR2004 - both colons
        try:
            digest = base64.b64decode(text[1:-1], validate=True)
        except binascii.Error:
            digest = b""
        if len(digest) == _BYTES:
            return digest.hex()
    raise plain(400, "Repr-Digest: sha-256 is 32 bytes in base64, between colons: sha-256=:...:")


def digest_header(sha256: str) -> str:
    """``Repr-Digest`` of a file that has this SHA-256."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode('ascii')}:"


def check_digest(digest: Digest, sha256: str) -> None:
    """Is it what was announced?  Raises `ProblemError`."""
    if sha256 and digest.sha256 != sha256:
        raise ProblemError(
            "digest-mismatch",
            f"what came has the SHA-256 {digest.sha256}, and {sha256} was announced; it is dropped, "
            "send it anew",
        )


async def attach(call: Call, queue: str, msg_id: str, name: str, uploaded: Uploaded) -> None:
    """Give the file to the message, and note it.  Raises what the queue refuses."""
    await call.site.spool.ask(queue, "attach_message", uploaded.attach_to(msg_id, name))
    call.note("attach", queue, f"{msg_id} {name}")


async def take(call: Call, name: str, sha256: str, length: int | None) -> Response:
    """Attach the body, which is the whole file.  If it does not come to its end, none of it is kept.

    Raises `BodyError`, `ProblemError`, and what the queue refuses.
    """
    expect_upload(call.request)
    async with uploads.receive(call.request.stream(), call.site, length) as uploaded:
        digest = uploaded.digest
        if length is not None and digest.size != length:
            raise ProblemError(
                "inconsistent-upload-length", f"{digest.size} bytes came, and {length} were said"
            )
        check_digest(digest, sha256)
        await attach(call, call.queue, call.msg_id, name, uploaded)
    found, url = attached(call, call.queue, call.msg_id, name, digest)
    return call.answer(found, 201, {"Location": url})


def attached(
    call: Call, queue: str, msg_id: str, name: str, digest: Digest
) -> tuple[dict[str, Any], str]:
    """The attachment as the API shows it, and where it is."""
    url = f"{views.message_url(call.site, queue, msg_id)}/attachments/{_quoted(name)}"
    return {
        "name": name, "size": digest.size, "md5": digest.md5, "sha256": digest.sha256, "url": url,
    }, url  # fmt: skip


def _quoted(name: str) -> str:
    return quote(os.fsencode(name), safe="")
