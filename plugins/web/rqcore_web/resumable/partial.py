"""One upload on its way, over any number of requests.

    async with partial.turn() as turn:           # whoever sent bytes until now lets go
        await partial.receive(stream, turn)      # raises what reading and writing raise
        digest = await partial.finish()          # all of it is on the disk

One request at a time works on an upload.  A newer one takes over: its client would not come if the
older connection were any good, and a connection that is cut may look alive for a minute.  The older
one ends with the problem ``upload-taken-over``; what it has brought is kept, and counts.  Which is older
is told by `Partial.arrived`: one that was still being looked at when a newer one came brings nothing,
so an offset that was told holds.  One whose
bytes have all been counted, and that is finishing, is not disturbed: the newer one waits for it, but
who only asks for the offset is told.

Room on the disk (`rqcore_web.space`) is promised for all that is to come, while a request is under way
and for ``client_timeout`` seconds after it, so that a cut for a moment does not lose it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from rqcore_web.flow import Flow, in_thread
from rqcore_web.formnames import BodyError
from rqcore_web.problems import ProblemError
from rqcore_web.resumable.partfile import PartFile
from rqcore_web.space import Space
from rqcore_web.uploads import Uploaded

if TYPE_CHECKING:
    from rqcore.durable import Digest
    from rqcore_web.resumable.record import Record, Records
    from rqcore_web.site import Site

#: How long a request waits for bytes to be read again before it says so.
_PATIENCE = 20.0
#: How often listeners are told how far it is, in seconds.
_TOLD_EVERY = 0.5
#: Reading again what a former service has written takes the disk and a processor.
_readers = ThreadPoolExecutor(2, thread_name_prefix="reread")
_CLOSE = {"Connection": "close"}


class Turn:
    """One request's time with an upload; ``counted``: it brings no bytes any more, all are written."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.counted = asyncio.Event()
        self._reading: asyncio.Future[None] | None = None
        self._why: ProblemError | None = None

    def give_way(self, why: ProblemError) -> None:
        """Bring no more bytes."""
        self._why = self._why or why
        if self._reading is not None:
            self._reading.cancel()

    async def read(self, work: Coroutine[None, None, None]) -> None:
        """Do this, and let go of it when somebody else needs the upload."""
        if self._why is not None:
            work.close()
            raise self._why
        self._reading = asyncio.ensure_future(work)
        try:
            await self._reading
        except asyncio.CancelledError:
            if self._why is not None:
                raise self._why from None
            raise
        finally:
            self._reading = None


class Partial:
    """See the head of this module; made by `rqcore_web.resumable.shelf`."""

    def __init__(self, site: Site, records: Records, record: Record, size: int) -> None:
        self._hub = site.hub
        self._told = 0.0
        self._telling: asyncio.TimerHandle | None = None
        self.record = record
        self.touched = time()
        self._records = records
        self._patience = site.options.client_timeout
        self._space = Space(site)
        self._lease: asyncio.TimerHandle | None = None
        self._file = PartFile(records.path(record.uid), size, record.synced, self._synced)
        self._turn: Turn | None = None
        self._arrivals = self._newest = 0
        self._catching: asyncio.Future[None] | None = None
        self._gone: Exception | None = None

    @property
    def offset(self) -> int:
        """How many bytes have come."""
        return self._file.size

    @property
    def complete(self) -> bool:
        """Is it attached?"""
        return self.record.digest is not None

    @property
    def active(self) -> bool:
        """Is a request under way that works on it?"""
        return self._turn is not None

    @property
    def busy(self) -> bool:
        """Is a request under way that works on it, or was there one a moment ago?"""
        return self._turn is not None or self._lease is not None

    @property
    def left(self) -> int | None:
        """How many bytes are to come; None while nobody knows."""
        return None if self.record.length is None else self.record.length - self.offset

    def view(self) -> dict[str, Any]:
        """What is told of it."""
        record = self.record
        return {
            "id": record.uid, "queue": record.queue, "msg_id": record.msg_id, "name": record.name,
            "offset": self.offset, "length": record.length, "complete": self.complete,
            "active": self.active, "who": record.who, "created_at": record.created,
            "touched_at": self.touched,
        }  # fmt: skip

    def tell(self, *, soon: bool = False) -> None:
        """Tell how far it is: now, or ``soon``, when that was told a moment ago."""
        wait = self._told + _TOLD_EVERY - monotonic() if soon else 0.0
        if wait > 0:
            if self._telling is None:
                self._telling = asyncio.get_running_loop().call_later(wait, self.tell)
            return
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._told = monotonic()
        told = {**self.view(), "over": self._gone is not None}
        self._hub.mention("upload", self.record.queue, told)

    # Whose turn it is

    def arrived(self) -> int:
        """A request came; its number tells whether it is older than another."""
        self._arrivals += 1
        return self._arrivals

    @contextlib.asynccontextmanager
    async def turn(self, arrival: int | None = None) -> AsyncIterator[Turn]:
        """Be the one who works on it, for the request of this number, or for one that comes now.

        Raises why it is gone, if it is, and `ProblemError` when a newer request has come.
        """
        arrival = arrival or self.arrived()
        self._newest = max(self._newest, arrival)
        while self._turn is not None and arrival == self._newest:
            self._turn.give_way(_taken_over())
            await self._turn.over.wait()
        if self._gone is not None:
            raise self._gone
        if arrival < self._newest:
            raise _taken_over()
        turn = self._turn = Turn()
        try:
            yield turn
        finally:
            self.touched = time()
            self._turn = None
            turn.counted.set()
            turn.over.set()
            self.tell()

    async def settled(self) -> int:
        """The offset that holds: whoever brings bytes now lets go, and who came before brings none.

        Raises why it is gone, if it is.
        """
        self._newest = self.arrived()
        while self._turn is not None and not self._turn.counted.is_set():
            self._turn.give_way(_taken_over())
            await self._turn.counted.wait()
        if self._gone is not None:
            raise self._gone
        self.touched = time()
        self._begin_reading_again()
        return self.offset

    async def end(self, why: Exception) -> None:
        """There is no such upload any more, for this reason; nothing of it stays."""
        self._gone = self._gone or why
        while self._turn is not None:
            self._turn.give_way(_taken_over(str(why)))
            await self._turn.over.wait()
        self._stop_lease()
        await in_thread(self._remove)
        self.tell()

    def stop(self) -> None:
        """The service ends: what came stays."""
        self._file.stop()
        self._stop_lease()
        if self._telling is not None:
            self._telling.cancel()

    def _remove(self) -> None:
        self._records.remove(self.record.uid)
        self._file.remove()

    # The bytes

    def make(self) -> None:
        """Begin to exist, durably.  Blocks.  Raises `OSError`."""
        self._file.make()
        self._records.write(self.record)

    def promise(self, size: int) -> None:
        """Have room for so many bytes, for as long as somebody brings them.  Raises `BodyError`."""
        self._stop_lease()
        self._space.promise(size, self.offset)
        self._rest()

    async def receive(self, stream: AsyncIterator[bytes], turn: Turn) -> None:
        """Take the bytes, as far as they come and as there may be.

        Whatever ends it, what has come is kept.  Raises what reading raises, `BodyError` for the disk,
        and `ProblemError` when there are too many or somebody took over.
        """
        self._keep()
        self._begin_reading_again()
        flow = Flow(self._put)
        try:
            try:
                await turn.read(self._read(stream, flow))
            finally:
                await asyncio.shield(asyncio.ensure_future(self._let_go(flow, turn)))
        except BodyError:
            self._stop_lease()  # it cannot go on now: others may have the room
            raise

    async def _read(self, stream: AsyncIterator[bytes], flow: Flow) -> None:
        came, length = self.offset, self.record.length
        async for data in stream:
            came += len(data)
            self._space.refuse_too_much(came)
            self._space.came(len(data))
            self.tell(soon=True)
            if length is not None and came > length:
                await flow.write(data[: length - came])
                raise ProblemError(
                    "inconsistent-upload-length", f"more came than the {length} bytes that were said",
                    headers=_CLOSE,
                )  # fmt: skip
            await flow.write(data)

    async def _let_go(self, flow: Flow, turn: Turn) -> None:
        try:
            await flow.drain()
        finally:
            turn.counted.set()
            await in_thread(self._file.close)
            self._rest()

    def _put(self, block: bytearray) -> None:
        self._space.check(len(block))
        self._space.explaining(self._file.write, memoryview(block))

    def _synced(self, size: int) -> None:
        self.record.synced = size
        self._records.write(self.record)

    # All of it

    async def finish(self) -> Digest:
        """Bring all of it to the disk.  Raises `BodyError`; `ProblemError` while it is read again."""
        await in_thread(self._space.explaining, self._sync)
        self._begin_reading_again()
        if self._catching is not None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await asyncio.shield(self._catching)
            except TimeoutError:
                raise self._checking() from None
            except OSError as error:
                raise ProblemError("storage", f"what came cannot be read again: {error}") from error
        return self._file.digest()

    def _sync(self) -> None:
        try:
            self._file.sync()
        finally:
            self._file.close()

    def _begin_reading_again(self) -> None:
        """What a former service has written, if there is any."""
        if (
            self._file.behind
            and not self.complete
            and (self._catching is None or self._catching.done())
        ):
            loop = asyncio.get_running_loop()
            self._catching = loop.run_in_executor(_readers, self._file.catch_up)
            self._catching.add_done_callback(_heard)

    def _checking(self) -> ProblemError:
        detail = (
            f"all bytes are here; the last {self._file.unread} of them are still read again after a "
            "restart, for their digests: ask again, with an empty body"
        )
        return ProblemError("upload-checking", detail, headers={"Retry-After": "5"})

    async def attached(self, digest: Digest) -> None:
        """It belongs to the message now.  Raises `OSError`."""
        self._stop_lease()
        self.record.length = digest.size
        self.record.digest = {
            "size": digest.size, "md5": digest.md5, "sha256": digest.sha256,
        }  # fmt: skip
        await in_thread(self._write_complete)

    def _write_complete(self) -> None:
        self._records.write(self.record)
        self._file.remove()

    def attachable(self, digest: Digest) -> Uploaded:
        """What the queue is to be told of it."""
        return Uploaded(self._file.path, digest)

    async def save(self) -> None:
        """Keep what has become known of it.  Raises `BodyError`."""
        await in_thread(self._space.explaining, self._records.write, self.record)

    # Room

    def _keep(self) -> None:
        if self._lease is not None:
            self._lease.cancel()
            self._lease = None

    def _rest(self) -> None:
        self._keep()
        self._lease = asyncio.get_running_loop().call_later(self._patience, self._stop_lease)

    def _stop_lease(self) -> None:
        self._keep()
        self._space.release()


def _taken_over(why: str = "") -> ProblemError:
    detail = why or "a newer request works on this upload; what this one has brought is kept"
    return ProblemError("upload-taken-over", detail, headers=_CLOSE)


def _heard(future: asyncio.Future[None]) -> None:
    """Its failure is told to whoever finishes the upload; if nobody does, nobody minds."""
    if not future.cancelled():
        future.exception()
