"""The body of a request: how long it may be, and how long its sender may be silent.

`Body` stands between the server and every route.  A body longer than ``max_body`` ends in a 413, at
once where the length is announced, else when it has come; a sender that is silent for longer than
``client_timeout`` in the middle of a body ends in a 408.  Both close the connection.  They are raised
as `HTTPException` in the route that reads, which needs to do nothing about it.

A route that takes files streams them to the disk, and knows its own limit: it says so with
`expect_upload` before it reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive

_CLOSE = {"Connection": "close"}


class Body:
    """A ``receive`` that counts; see the head of this module."""

    def __init__(
        self, receive: Receive, headers: Mapping[str, str], most: int, silence: float
    ) -> None:
        self._receive = receive
        self._silence = silence
        self._announced = int(headers.get("content-length") or 0)
        self._came = 0
        #: Nothing of it is to come any more, or nobody waits for it.
        self.over = False
        self.most: int | None = most

    async def __call__(self) -> Message:
        """The next piece."""
        if self.over:
            return await self._receive()
        self._check(self._announced)
        try:
            async with asyncio.timeout(self._silence):
                message = await self._receive()
        except TimeoutError:
            self.over = True
            detail = f"nothing came for {self._silence:g} seconds, and the body is not complete"
            raise HTTPException(408, detail, _CLOSE) from None
        self._came += len(message.get("body", b""))
        self.over = not message.get("more_body", False)
        self._check(self._came)
        return message

    def _check(self, size: int) -> None:
        if self.most is not None and size > self.most:
            self.over = True
            raise HTTPException(
                413,
                f"the body is longer than {self.most} bytes, more than this is made for; "
                "large data belongs into an attachment",
                _CLOSE,
            )


def expect_upload(request: HTTPConnection, most: int | None = None) -> None:
    """This request's body is streamed, and may be as long as this; None: the route counts itself."""
    body: Body | None = getattr(request.state, "incoming_body", None)
    if body is not None:
        body.most = most
