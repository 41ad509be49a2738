"""Files that come in: streamed to the disk and hashed on the way, of any size, with flat memory.

    async with uploads.incoming(site, length) as upload:   # 413, 507: before the first byte
        form = await forms.read(request, most, upload)     # or: await upload.write(block) for each
        uploaded = await upload.finish()
        await site.spool.ask(queue, "attach_message", uploaded.attach_to(msg_id, name))

    async with uploads.receive(request.stream(), site, length) as uploaded: ...     # a bare body

A block is written and hashed in a thread while the next one is received, and the client is kept waiting
when the disk is slower than the network (`rqcore_web.flow`).

An upload lies in ``site.tmp``, on the spool's file system, where the queue then links it.  Whatever
happens, the file is gone when the ``with`` block is left: client gone, disk full, service stopped.  What
a killed service left is removed by `clear_leftovers` when it starts again.

What is too large or does not fit is refused as `rqcore_web.space` has it: where the length was said,
before the first byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rqcore import durable
from rqcore.durable import Digest, Incoming
from rqcore_web.flow import Flow, in_thread
from rqcore_web.formnames import BodyError
from rqcore_web.space import Space

if TYPE_CHECKING:
    from rqcore_web.site import Site


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that has come and is durable; it is there until the ``with`` block is left."""

    path: str
    digest: Digest

    def attach_to(self, msg_id: str, name: str) -> dict[str, Any]:
        """What ``attach_message`` is to be told, so that it reads nothing again."""
        digest = {
            "size": self.digest.size, "md5": self.digest.md5, "sha256": self.digest.sha256,
        }  # fmt: skip
        return {"msg_id": msg_id, "pathname": self.path, "name": name, "digest": digest}


class Upload:
    """A file on its way; made by `incoming`.  A `rqcore_web.forms.Sink`."""

    def __init__(self, site: Site, length: int | None) -> None:
        self._space = Space(site)
        self._path = f"{self._space.folder}/{prefix(site, 'upload')}{secrets.token_hex(8)}"
        self._flow = Flow(self._put)
        self._received = 0
        self._file: Incoming | None = None
        if length is not None:
            self._space.promise(length)

    async def write(self, data: bytes) -> None:
        """The next bytes.  Raises `BodyError`."""
        self._received += len(data)
        self._space.refuse_too_much(self._received)
        self._space.came(len(data))
        await self._flow.write(data)

    async def finish(self) -> Uploaded:
        """That was all: bring it to the disk.  Raises `BodyError`."""
        await self._flow.drain()
        assert self._file is not None
        return Uploaded(self._path, await in_thread(self._space.explaining, self._file.finish))

    async def discard(self) -> None:
        """Leave nothing behind."""
        self._space.release()
        try:
            with contextlib.suppress(BodyError):  # told already, or of no interest any more
                await self._flow.settle()
        finally:
            if self._file is not None:
                await in_thread(self._file.discard)

    def _put(self, block: bytearray) -> None:
        self._space.check(len(block))
        self._space.explaining(self._write, block)

    def _write(self, block: bytearray) -> None:
        if self._file is None:
            self._file = Incoming(self._path)
        self._file.write(memoryview(block))


@contextlib.asynccontextmanager
async def incoming(site: Site, length: int | None) -> AsyncIterator[Upload]:
    """A file on its way, of this length if it is known; see the head of this module."""
    if length is not None:
        await site.shelf.make_room(length)
    upload = Upload(site, length)
    try:
        yield upload
    finally:
        # Whoever waits for it may be cancelled; what it does is done all the same.
        await asyncio.shield(asyncio.ensure_future(upload.discard()))


@contextlib.asynccontextmanager
async def receive(
    stream: AsyncIterator[bytes], site: Site, length: int | None
) -> AsyncIterator[Uploaded]:
    """A body that is a file; see the head of this module."""
    async with incoming(site, length) as upload:
        async for data in stream:
            await upload.write(data)
        yield await upload.finish()


def clear_leftovers(site: Site) -> None:
    """Remove what a service of this instance left that was killed; none may be running."""
    for name in durable.children(site.tmp):
        if name.startswith(prefix(site, "upload")):
            durable.clear_away(os.path.join(site.tmp, name))


def prefix(site: Site, kind: str) -> str:
    """How this instance's uploads are named: several instances may have the same ``tmpdir``."""
    place = os.path.realpath(site.instance.directory)
    return f"rq-{kind}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}-"
