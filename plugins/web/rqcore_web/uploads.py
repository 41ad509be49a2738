"""Files that come in: streamed to the disk and hashed on the way, of any size, with flat memory.

    async with uploads.incoming(site, length) as upload:   # 413, 507: before the first byte
        form = await forms.read(request, most, upload)     # or: await upload.write(block) for each
        uploaded = await upload.finish()
        await site.spool.ask(queue, "attach_message", uploaded.attach_to(msg_id, name))

    async with uploads.receive(request.stream(), site, length) as uploaded: ...     # a bare body

The bytes are gathered to blocks of about a megabyte; one is written and hashed in a thread while the
next one is received, and the client is kept waiting when the disk is slower than the network.

An upload lies in ``site.tmp``, on the spool's file system, where the queue then links it.  Whatever
happens, the file is gone when the ``with`` block is left: client gone, disk full, service stopped.  What
a killed service left is removed by `clear_leftovers` when it starts again.

Refused with a `BodyError`: 413 above ``max_upload``; 507 when the upload, and those that are under way
beside it, would not leave ``keep_free`` bytes of the file system.  Where the length was said, that is
before the first byte; it is looked at again with each block, for others write to the disk too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rqcore import durable
from rqcore.durable import Digest, Incoming
from rqcore_web.forms import BodyError

if TYPE_CHECKING:
    from rqcore_web.site import Site

_Value = TypeVar("_Value")
_BLOCK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: More at once would only make the disk's head and the processor's caches run about.
_threads = ThreadPoolExecutor(8, thread_name_prefix="upload")


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

    #: What has been promised to the uploads under way, and has not come yet: bytes.
    promised = 0

    def __init__(self, site: Site, length: int | None) -> None:
        self._most = site.options.max_upload
        self._keep_free = site.options.keep_free
        self._folder = os.path.abspath(site.tmp)
        self._path = f"{self._folder}/{_prefix(site)}{secrets.token_hex(8)}"
        self._block = bytearray()
        self._received = 0
        self._file: Incoming | None = None
        self._writing: asyncio.Future[None] | None = None
        self._awaited = 0
        self._length = length
        if length is not None:
            self._refuse_too_much(length)
            self._explaining(self._refuse_unfit, length + Upload.promised)
            self._awaited = length
            Upload.promised += length

    async def write(self, data: bytes) -> None:
        """The next bytes.  Raises `BodyError`."""
        self._received += len(data)
        self._refuse_too_much(self._received)
        self._block += data
        if len(self._block) >= _BLOCK:
            await self._hand_over()

    async def finish(self) -> Uploaded:
        """That was all: bring it to the disk.  Raises `BodyError`."""
        await self._hand_over()
        await self._written()
        assert self._file is not None
        return Uploaded(self._path, await _in_thread(self._explaining, self._file.finish))

    async def discard(self) -> None:
        """Leave nothing behind."""
        Upload.promised -= self._awaited
        self._awaited = 0
        try:
            if self._writing is not None:
                with contextlib.suppress(BodyError):  # told already, or of no interest any more
                    await self._writing
        finally:
            if self._file is not None:
                await _in_thread(self._file.discard)

    async def _hand_over(self) -> None:
        """Have the block written in a thread, once the one before is."""
        await self._written()
        block, self._block = self._block, bytearray()
        came = min(self._awaited, len(block))
        self._awaited -= came
        Upload.promised -= came
        self._writing = asyncio.ensure_future(_in_thread(self._explaining, self._put, block))

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    def _put(self, block: bytearray) -> None:
        # One whose length nobody knew must leave alone what others were promised.
        self._refuse_unfit(len(block) + (Upload.promised if self._length is None else 0))
        if self._file is None:
            self._file = Incoming(self._path)
        self._file.write(memoryview(block))

    def _explaining(self, act: Callable[..., _Value], *args: Any) -> _Value:
        try:
            return act(*args)
        except OSError as error:
            status = 507 if error.errno in _FULL else 503
            raise BodyError(f"{self._folder} takes no more: {error.strerror}", status) from error

    def _refuse_too_much(self, size: int) -> None:
        if size > self._most:
            raise BodyError(
                f"the upload is too large: at most {self._most} bytes are taken (max_upload)", 413
            )

    def _refuse_unfit(self, size: int) -> None:
        found = os.statvfs(self._folder)
        room = found.f_bavail * found.f_frsize
        if size + self._keep_free > room:
            raise BodyError(
                f"no room for the upload: {self._folder} has {room} bytes free, of which "
                f"{self._keep_free} are kept (keep_free), and {size} are needed", 507,
            )  # fmt: skip


@contextlib.asynccontextmanager
async def incoming(site: Site, length: int | None) -> AsyncIterator[Upload]:
    """A file on its way, of this length if it is known; see the head of this module."""
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
        if name.startswith(_prefix(site)):
            durable.clear_away(os.path.join(site.tmp, name))


def _prefix(site: Site) -> str:
    """How this instance's uploads are named: several instances may have the same ``tmpdir``."""
    place = os.path.realpath(site.instance.directory)
    return f"rq-upload-{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}-"


async def _in_thread(act: Callable[..., _Value], *args: Any) -> _Value:
    return await asyncio.get_running_loop().run_in_executor(_threads, act, *args)
