"""Server-sent events: one response that goes on for as long as the client listens.

`response` makes it of an async iterator of ``(id, event, data)``: ``id`` and ``event`` may be "" for
none, ``data`` is text or anything that JSON knows, "" for an id alone.  What a client does not take is
not asked for: the iterator waits.  When nothing happens a comment is sent every ``keep_alive`` seconds,
so that proxies keep the connection and a client that is gone is noticed.

It ends when the iterator does, when the client goes, and when the site stops; the iterator is closed in
each case.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rqcore_web.events import Hub

#: How long a browser waits before it connects again, in milliseconds.
_RETRY = 2000
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy would hold back what it thinks too little to send
}

Said = tuple[str, str, Any]


def response(request: Request, events: AsyncIterator[Said], *, keep_alive: float = 15) -> Response:
    """The events, as the answer to this request."""
    if request.method == "HEAD":
        return Response(headers=_HEADERS)
    return _Stream(events, request.app.state.site.hub, keep_alive)


def encode(said: Said) -> bytes:
    """One event as it is sent."""
    name, event, data = said
    text = data if isinstance(data, str) else json.dumps(data)
    lines = [f"id: {name}"] if name else []
    lines += [f"event: {event}"] if event else []
    lines += [f"data: {line}" for line in text.splitlines()]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


class _Stream(Response):
    """The response; all that it waits for ends with it."""

    def __init__(self, events: AsyncIterator[Said], hub: Hub, keep_alive: float) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._hub = hub
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, for as long as there is somebody to answer to."""
        ends = [asyncio.create_task(_gone(receive)), asyncio.create_task(_stopped(self._hub))]
        coming: asyncio.Task[Said] | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send(send, f"retry: {_RETRY}\n\n".encode())
            while True:
                coming = coming or asyncio.create_task(_next(self._events))
                done, _ = await asyncio.wait(
                    (coming, *ends),
                    timeout=self._keep_alive,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if done.intersection(ends):
                    break
                if not done:
                    await _send(send, b": still here\n\n")
                elif coming.exception() is None:
                    await _send(send, encode(coming.result()))
                    coming = None
                elif isinstance(coming.exception(), StopAsyncIteration):
                    break
                else:
                    coming.result()  # raises it
            await send({"type": "http.response.body", "body": b""})
        finally:
            waiting = [*ends, *([] if coming is None else [coming])]
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            if isinstance(self._events, AsyncGenerator):
                await self._events.aclose()


async def _send(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _next(events: AsyncIterator[Said]) -> Said:
    return await anext(events)


async def _gone(receive: Receive) -> None:
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stopped(hub: Hub) -> None:
    """Returns when the site stops."""
    async for _ in hub.listen(lambda _: False):
        pass
