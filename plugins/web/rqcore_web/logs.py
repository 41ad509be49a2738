"""The logs of messages: which there are, their bytes, their growth, what is in them, and their pages.

For what scripts left in ``job/``, ``stdio.log`` above all, and for attachments; under
``/api/v1/queues/QUEUE/messages/ID``:

    GET logs                     {"items": [{"name", "size", "modified", "url", "page"}]}
    GET logs/FILE                its bytes, or a range of them (`rqcore_web.files`)
    GET logs/FILE/events         server-sent events, see `_events`
    GET logs/FILE/search         {"matches": [{"offset", "line_offset"}], "next", "size"}, see `_search`
    GET attachments/FILE/events, attachments/FILE/search        the same for an attachment

and the contract's pages ``q/QUEUE/ID/tailviewlog/FILE`` (``job/``) and ``q/QUEUE/ID/tailview/FILE``
(attachments), with the viewer of ``static/log.js``.  Other pages show the same viewer with
``{% include "log_viewer.html" %}`` and what `viewer` returns.

A log that is not there yet is no error for the page and the events: its script has printed nothing.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rqcore.errors import NotFoundError, RefusedError
from rqcore_web import files, logfiles, logtext, reading, render, sse
from rqcore_web.access import need
from rqcore_web.logfiles import Part
from rqcore_web.logfollow import Named, Seen, follow, message_of, see
from rqcore_web.logsearch import MOST_MATCHES, Found, Query, search
from rqcore_web.logwatch import Growth
from rqcore_web.names import message_of as routed
from rqcore_web.problems import invalid, plain
from rqcore_web.site import Site

if TYPE_CHECKING:
    from starlette.requests import Request

#: Searches that run at once; each keeps a processor busy, the others wait their turn.
_SEARCHES = 2
#: One event carries so many bytes of text at most.
_PIECE = 64 << 10
_OFFSET_DIGITS = 18


class Logs:
    """The endpoints; see the head of this module."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._growth = Growth()
        self._searching = asyncio.Semaphore(_SEARCHES)

    async def listing(self, request: Request) -> Response:
        """The files of ``job/``."""
        queue, msg_id = request.path_params["queue"], request.path_params["msg_id"]
        need(request, "read", queue)
        message = await message_of(self._site, queue, msg_id)
        sights = await asyncio.to_thread(logfiles.listing, message["path"], Part.JOB)
        items = []
        for sight in sights:
            urls = _urls(self._site, Named(queue, msg_id, Part.JOB, sight.name))
            shown = os.fsencode(sight.name).decode("utf-8", "replace")
            items.append({
                "name": shown, "size": sight.size, "modified": sight.modified,
                "url": urls["log_url"], "page": urls["page_url"],
            })  # fmt: skip
        return JSONResponse({"items": items})

    async def content(self, request: Request) -> Response:
        """The bytes of a file of ``job/``."""
        _chosen(request, "download", ("", "0", "1"))
        file, message = await self._asked(request, Part.JOB)
        try:
            response = _content(request, file, message["path"])
        except NotFoundError:
            moved = await message_of(self._site, file.queue, file.msg_id)
            if moved["path"] == message["path"]:
                raise
            response = _content(request, file, moved["path"])
        if response.status_code == 416:  # noqa: PLR2004 - a range that is not there
            detail = bytes(response.body).decode().strip()
            raise plain(416, detail, {"Content-Range": response.headers["content-range"]})
        return response

    async def events(self, request: Request, part: Part) -> Response:
        """How long the file is, and its text if it is asked for, as it grows; see `_events`."""
        file, message = await self._asked(request, part, after=1)
        start: int | None = None
        # A client that comes again has seen all up to there.
        given = request.headers.get("last-event-id") or request.query_params.get("from", "")
        if given:
            start = _offset("from", given)
        seen = see(file, message["path"], message["state"])
        return sse.response(request, self._events(file, seen, start))

    async def _events(self, file: Named, seen: Seen, start: int | None) -> AsyncIterator[sse.Said]:
        """The stream: ``log`` at once and at every change, ``end`` as the last.

        Both have the same data:

            {"state": STATE or "" when it is gone, "size": BYTES or null, "file": IDENTITY}

        With a ``start`` (``from=OFFSET``) each comes after what was written from there on,
        ``text {"offset": WHERE, "text": TEXT}``, whose id is where to go on.  A file that was cut short
        or replaced is told from its beginning.
        """
        identity = seen.identity
        async with contextlib.aclosing(follow(self._site, self._growth, file, seen)) as changes:
            async for now in changes:
                if start is not None and now.size is not None:
                    if now.identity != identity or now.size < start:
                        start = 0
                    async for text, end in _texts(file, now, start):
                        yield str(end), "text", {"offset": start, "text": text}
                        start = end
                identity = now.identity
                data = {"state": now.state, "size": now.size, "file": now.identity}
                yield "", "end" if now.ended else "log", data

    async def search(self, request: Request, part: Part) -> Response:
        """Look for the text ``q``.

        ``from`` (a byte), ``direction`` (``forward`` or ``backward``), ``case`` (``1`` to regard it) and
        ``limit`` (of matches, 1 unless told) say how.  One request does a bounded piece of work:
        ``next`` is the ``from`` to go on with, null at the end; ``size`` is the file's now.
        """
        file, message = await self._asked(request, part, after=1)
        given = request.query_params
        forward = _chosen(request, "direction", ("forward", "backward")) == "forward"
        regard_case = _chosen(request, "case", ("0", "1")) == "1"
        try:
            query = Query(given.get("q", ""), ignore_case=not regard_case)
        except RefusedError as error:
            raise invalid([("q", str(error))]) from None
        at = _offset("from", given["from"]) if given.get("from") else None
        limit = _offset("limit", given.get("limit", "1"))
        if not 1 <= limit <= MOST_MATCHES:
            raise invalid([("limit", f"must be a number from 1 to {MOST_MATCHES}")])

        def work() -> tuple[Found, int]:
            with _reading(message["path"], file) as fd:
                size = os.fstat(fd).st_size
                found = search(
                    fd, query, (0 if forward else size) if at is None else at,
                    forward=forward, limit=limit,
                )  # fmt: skip
                return found, size

        async with self._searching:
            found, size = await asyncio.to_thread(work)
        return JSONResponse({
            "matches": [asdict(match) for match in found.matches], "next": found.next, "size": size,
        })  # fmt: skip

    async def page(self, request: Request, part: Part) -> Response:
        """The whole page of a file, by the contract's URL."""
        queue, msg_id = await routed(request)
        need(request, "read", queue)
        file = Named(queue, msg_id, part, _name(request, 0))
        message = await message_of(self._site, queue, msg_id)
        shown = await viewer(self._site, file.queue, message, part, file.name)
        if not shown["log_exists"] and not _may_come(file, message):
            raise NotFoundError(f"message {file.msg_id} has no file {file.name!r} in {part}/")
        return render.page(request, "log_page.html", queue=file.queue, message=message, **shown)

    async def _asked(
        self, request: Request, part: Part, after: int = 0
    ) -> tuple[Named, Mapping[str, Any]]:
        """Which file is asked for, and its message.  Raises `ForbiddenError`, `NotFoundError`."""
        given = request.path_params
        need(request, "read", given["queue"])
        file = Named(given["queue"], given["msg_id"], part, _name(request, after))
        return file, await message_of(self._site, file.queue, file.msg_id)


async def viewer(
    site: Site, queue: str, message: Mapping[str, Any],
    part: Part = Part.JOB, name: str = "stdio.log",
) -> dict[str, Any]:  # fmt: skip
    """What ``log_viewer.html`` is given; ``message`` is what ``get_message`` answers.

    ``log_tail`` is the end of the file as plain text, for readers without JavaScript; ``log_cut`` says
    whether there is more before it.
    """
    file = Named(queue, message["msg_id"], part, name)

    def read() -> tuple[Seen, str, int]:
        seen = see(file, message["path"], message["state"])
        if seen.size is None:
            return seen, "", 0
        try:
            with _reading(message["path"], file) as fd:
                return seen, *logtext.tail(fd)
        except NotFoundError:  # it moved on since
            return seen, "", 0

    seen, tail, start = await asyncio.to_thread(read)
    return {
        **_urls(site, file),
        "log_name": os.fsencode(name).decode("utf-8", "replace"),
        "log_part": str(part),
        "log_exists": seen.size is not None,
        "log_size": seen.size or 0,
        "log_state": seen.state,
        "log_ended": seen.ended,
        "log_identity": seen.identity,
        "log_tail": tail,
        "log_cut": start > 0,
    }


def _name(request: Request, after: int) -> str:
    """The file's name, so many steps before the path's end, with every byte that was sent."""
    path: bytes = request.scope["raw_path"]
    pieces = [piece for piece in path.split(b"/") if piece]
    return os.fsdecode(unquote_to_bytes(pieces[-1 - after]))


def _urls(site: Site, file: Named) -> dict[str, str]:
    message = f"{quote(file.queue, safe='')}/messages/{quote(file.msg_id, safe='')}"
    name = quote(os.fsencode(file.name), safe="")
    api = site.url(f"api/v1/queues/{message}")
    page = site.url(f"q/{quote(file.queue, safe='')}/{quote(file.msg_id, safe='')}")
    attached = file.part is Part.ATTACH
    base = f"{api}/attachments/{name}" if attached else f"{api}/logs/{name}"
    content = f"{page}/attach/{name}" if attached else base
    return {
        "log_url": content,
        "events_url": f"{base}/events",
        "search_url": f"{base}/search",
        "download_url": f"{content}?download=1",
        "page_url": f"{page}/{'tailview' if attached else 'tailviewlog'}/{name}",
    }


@contextlib.contextmanager
def _reading(folder: str, file: Named) -> Iterator[int]:
    """The file, to be read; its message stays meanwhile.  Raises `NotFoundError`, with the reason."""
    with reading.held(folder), contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(logfiles.opened(folder, file.part, file.name))
        except OSError as error:
            raise NotFoundError(
                f"message {file.msg_id} has no file {file.name!r} in {file.part}/ that can be read"
                + (f": {error.strerror}" if error.strerror else "")
            ) from None
        yield fd


async def _texts(file: Named, seen: Seen, start: int) -> AsyncIterator[tuple[str, int]]:
    """What was written up to the size that was seen, in pieces, each with its end."""
    while start < (seen.size or 0):
        try:
            text, end = await asyncio.to_thread(_text, file, seen, start)
        except NotFoundError:  # it moved on; where to is seen next
            return
        if end == start:  # the first bytes of a character: the others are still to come
            return
        yield text, end
        start = end


def _text(file: Named, seen: Seen, start: int) -> tuple[str, int]:
    """Text from an offset on, and where it ends: between two characters as long as more may come."""
    with _reading(seen.folder, file) as fd:
        data = os.pread(fd, _PIECE, start)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    final = seen.ended and start + len(data) >= (seen.size or 0)
    text = decoder.decode(data, final=final)
    return text, start + len(data) - len(decoder.getstate()[0])


def _content(request: Request, file: Named, folder: str) -> Response:
    if not logfiles.is_name(file.name):
        raise NotFoundError(f"no file can be named {file.name!r}")
    return files.file_response(
        request, f"{folder}/{file.part}/{file.name}", filename=file.name,
        content_type="text/plain; charset=utf-8",
    )  # fmt: skip


def _offset(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > _OFFSET_DIGITS:
        raise invalid([(name, f"must be a number from 0 up, not {text[:40]!r}")])
    return int(text)


def _chosen(request: Request, name: str, choice: tuple[str, ...]) -> str:
    """One of these words, the first where nothing is said."""
    given = request.query_params.get(name, choice[0])
    if given not in choice:
        words = ", ".join(word for word in choice if word)
        raise invalid([(name, f"must be one of {words}, not {given[:40]!r}")])
    return given


def _may_come(file: Named, message: Mapping[str, Any]) -> bool:
    """May a file that is not there be waited for?"""
    return file.part is Part.JOB and (
        file.name == "stdio.log" or message["state"] in ("prep", "que", "run")
    )


def routes(site: Site) -> list[BaseRoute]:
    """The routes, relative to the site's root."""
    logs = Logs(site)
    message = "/api/v1/queues/{queue}/messages/{msg_id}"
    found: list[BaseRoute] = [
        Route(f"{message}/logs", logs.listing),
        Route(f"{message}/logs/{{file}}", logs.content),
    ]
    for part, base, page in (
        (Part.JOB, "logs", "tailviewlog"), (Part.ATTACH, "attachments", "tailview"),
    ):  # fmt: skip
        found += [
            Route(f"{message}/{base}/{{file}}/events", partial(logs.events, part=part)),
            Route(f"{message}/{base}/{{file}}/search", partial(logs.search, part=part)),
            Route(f"/q/{{name}}/{{msg_id:message}}/{page}/{{file}}", partial(logs.page, part=part)),
        ]
    return found
