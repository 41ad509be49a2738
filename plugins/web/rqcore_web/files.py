"""Files of messages, served over HTTP: attachments and logs, of any size, with flat memory.

`message_file` says which file of a message is meant; `file_response` answers a request for it.

- No path comes from outside: a name is checked by the kernel's own rule, it is looked up in the one
  directory that it belongs to, links are not followed, and only regular files are served.
- One range is served (206), also a suffix (``bytes=-65536``); one that begins behind the end is
  refused (416).  Several ranges, or none that can be read, are the whole file, as HTTP allows.
- ``If-None-Match`` and ``If-Modified-Since`` (304), ``If-Range``, ``HEAD``; ``Repr-Digest`` where the
  SHA-256 is known; ``?download=1`` names the file for saving.
- While it is sent, its message is not cleaned away (`rqcore_web.reading`).
- A file that grows is served up to the size that it had when the request came.  One that shrinks
  meanwhile ends the connection: the reader must notice that he has not got all of it.
- What a script wrote never becomes active content: only harmless types keep their name, all else is
  text or bytes, and every answer says so to the browser (``sandbox``, ``nosniff``).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import mimetypes
import os
import re
import stat
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

from starlette.responses import PlainTextResponse, Response

from rqcore.errors import NotFoundError
from rqcore.message import attachment_name_problem
from rqcore_web import reading

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

_BLOCK = 256 * 1024
_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII)
#: Beyond this many digits no file has such a byte.
_MAX_DIGITS = 18
#: What names stand for, the same on every machine: the system's own lists are not asked.
_TYPES = mimetypes.MimeTypes()
for _type, _suffix in (("image/webp", ".webp"), ("image/avif", ".avif")):
    _TYPES.add_type(_type, _suffix)
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
#: What a browser may show by itself: nothing in it can be a script, or it is not run.
_SHOWN = re.compile(
    r"image/(?:png|jpeg|gif|webp|avif|bmp)|audio/[\w.+-]+|video/[\w.+-]+|application/json"
)
#: What has a well-known use once it is saved.
_SAVED = re.compile(
    r"application/(?:pdf|zip|gzip|x-tar|x-xz|x-bzip2?|zstd|vnd\.[\w.+-]+)|image/tiff"
)


def message_file(message: Mapping[str, object], folder: str, name: str) -> str:
    """The path of a message's file: ``folder`` is ``attach`` or ``job``.  Raises `NotFoundError`.

    ``message`` is what ``get_message`` answers.
    """
    problem = attachment_name_problem(name)
    if problem is not None:
        raise NotFoundError(problem)
    return f"{message['path']}/{folder}/{name}"


def raw_name(request: Request) -> str:
    """The last part of a request's path, with every byte that was sent (`os.fsdecode`)."""
    path: bytes = request.scope["raw_path"]
    return os.fsdecode(unquote_to_bytes(path.rpartition(b"/")[2]))


def file_response(
    request: Request, path: str, *, filename: str, inline: bool = True,
    digests: Mapping[str, object] | None = None, content_type: str = "",
) -> Response:  # fmt: skip
    """The answer to a GET or HEAD of a file.  Raises `NotFoundError` when it is none, or is not there.

    ``digests`` is what ``get_message`` says of an attachment; ``inline`` False, or a ``download`` in the
    query, has the browser save it.  ``content_type`` stands for what the name would say.
    """
    fd = _open(path, filename)
    try:
        info = os.fstat(fd)
        kind = content_type or safe_type(filename)
        saved = not inline or kind == _BYTES or _SAVED.fullmatch(kind) is not None
        saved = saved or request.query_params.get("download", "0") not in ("", "0")
        sha256 = _known_sha256(digests, info.st_size)
        tag = sha256[:32] if sha256 else f"{info.st_ino:x}-{info.st_size:x}-{info.st_mtime_ns:x}"
        headers = {
            "etag": f'"{tag}"',
            "last-modified": formatdate(info.st_mtime, usegmt=True),
            "accept-ranges": "bytes",
            "cache-control": "private, no-cache",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox; default-src 'none'; img-src 'self'; media-src 'self'",
            "content-disposition": disposition(filename, "attachment" if saved else "inline"),
        }
        if sha256:
            digest = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
            headers["repr-digest"] = f"sha-256=:{digest}:"
        answer = _conditional(request, headers, info)
        if isinstance(answer, Response):
            return answer
        first, length, status = answer
        sent, fd = fd, -1
        held = reading.hold(os.path.dirname(os.path.dirname(path)))
        return _FileResponse((sent, held), first, length, status, headers, kind)
    finally:
        if fd >= 0:
            os.close(fd)


def safe_type(filename: str) -> str:
    """The content type of a file of this name, none that a browser would run."""
    guessed, encoding = _TYPES.guess_type(filename, strict=False)
    if encoding is not None:  # x.tar.gz: the bytes are those of the outer file
        return "application/gzip" if encoding == "gzip" else _BYTES
    if guessed is None or guessed == _BYTES:
        return _TEXT if filename.endswith((".log", ".out", ".err")) else _BYTES
    if _SHOWN.fullmatch(guessed) or _SAVED.fullmatch(guessed):
        return guessed
    # Pages, drawings, style sheets and programs too are shown as what they are written in.
    textual = guessed.startswith("text/") or guessed.endswith(("xml", "javascript", "json", "x-sh"))
    return _TEXT if textual else _BYTES


def disposition(filename: str, kind: str) -> str:
    """``Content-Disposition`` with a name in any letters (RFC 6266)."""
    plain = "".join(c if c.isascii() and c.isprintable() else "_" for c in filename)
    plain = plain.replace("\\", "_").replace('"', "_")
    value = f'{kind}; filename="{plain}"'
    if plain != filename:
        value += f"; filename*=UTF-8''{quote(os.fsencode(filename), safe='')}"
    return value


def _open(path: str, shown: str) -> int:
    """A descriptor of a regular file, reached through no link at the last two steps."""
    folder, name = os.path.split(path)
    try:
        parent = os.open(folder, _FLAGS | os.O_DIRECTORY)
        try:
            fd = os.open(name, _FLAGS, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        gone = {
            errno.ENOENT,
            errno.ENOTDIR,
            errno.ELOOP,
            errno.ENXIO,
            errno.EACCES,
            errno.ENAMETOOLONG,
        }
        if error.errno not in gone:
            raise
        raise NotFoundError(f"{shown!r} not found: {_why(error)}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotFoundError(f"{shown!r} not found: it is not a regular file")
    return fd


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a link, and links are not followed"
    return str(error.strerror).lower()


def _known_sha256(digests: Mapping[str, object] | None, size: int) -> str:
    if digests and digests.get("size") == size and isinstance(digests.get("sha256"), str):
        return str(digests["sha256"])
    return ""


def _conditional(
    request: Request, headers: dict[str, str], info: os.stat_result
) -> Response | tuple[int, int, int]:
    """A whole answer, or what is to be sent: the first byte, the number of bytes, the status."""
    asked = request.headers
    if "if-none-match" in asked:
        unchanged = _names(asked["if-none-match"], headers["etag"])
    else:
        unchanged = _not_newer(info, asked.get("if-modified-since"))
    if unchanged:
        return Response(status_code=304, headers=headers)
    size = info.st_size
    wanted = asked.get("range", "") if request.method == "GET" else ""
    if wanted and _still_the_same(asked.get("if-range"), headers):
        span = parse_range(wanted, size)
        if span == (0, 0):
            text = f"there are {size} bytes, and none of {wanted}\n"
            return PlainTextResponse(text, 416, headers={"content-range": f"bytes */{size}"})
        if span is not None:
            first, length = span
            headers["content-range"] = f"bytes {first}-{first + length - 1}/{size}"
            return first, length, 206
    return 0, size, 200


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The first byte and the number of bytes of a ``Range``; ``(0, 0)`` when the file has none of them.

    None for what is no single range of bytes: then the whole file is the answer.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found[1], found[2]
    if len(first) > _MAX_DIGITS or (not first and int(last[:_MAX_DIGITS]) == 0):
        return 0, 0
    if first and last and len(last) <= _MAX_DIGITS and int(last) < int(first):
        return None
    if not first:
        length = size if len(last) > _MAX_DIGITS else min(size, int(last))
        return size - length, length
    if int(first) >= size:
        return 0, 0
    end = size - 1 if not last or len(last) > _MAX_DIGITS else min(size - 1, int(last))
    return int(first), end - int(first) + 1


def _names(header: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags


def _not_newer(info: os.stat_result, date: str | None) -> bool:
    if date is None:
        return False
    with contextlib.suppress(ValueError):
        return int(info.st_mtime) <= parsedate_to_datetime(date).timestamp()
    return False


def _still_the_same(if_range: str | None, headers: Mapping[str, str]) -> bool:
    return if_range is None or if_range in (headers["etag"], headers["last-modified"])


class _FileResponse(Response):
    """So many bytes of an open file, which is closed at the end, whatever happens.

    ``opened`` is the file's descriptor, and the one that holds its message.
    """

    def __init__(
        self, opened: tuple[int, int], first: int, length: int, status: int,
        headers: Mapping[str, str], kind: str,
    ) -> None:  # fmt: skip
        super().__init__(None, status, dict(headers), kind)
        self.headers["content-length"] = str(length)
        self._fd, self._held = opened
        self._first = first
        self._length = length

    def __del__(self) -> None:
        """The answer was never sent."""
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        reading.let_go(self._held)
        self._held = -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; returns early when the client went away, or the file ended before its time."""
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            length = 0 if scope["method"] == "HEAD" else self._length
            position, end = self._first, self._first + length
            while position < end:
                block = await asyncio.to_thread(
                    os.pread, self._fd, min(_BLOCK, end - position), position
                )
                position += len(block)
                if not block or gone.done():
                    return
                if position < end:
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                else:
                    await send({"type": "http.response.body", "body": block})
            if not length:
                await send({"type": "http.response.body", "body": b""})
        finally:
            # A read that is under way in its thread reads nothing that anybody sees.
            gone.cancel()
            self._close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
