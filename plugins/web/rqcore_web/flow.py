"""Bytes on their way to the disk: gathered to blocks, one written while the next one is received.

    flow = Flow(put)            # put(block): called in a thread, one call at a time
    await flow.write(data)      # for each piece that comes; waits when the disk is slower
    await flow.drain()          # all of it is written

At most two blocks are in memory, whatever the size.  What ``put`` raises is raised once, by the call
that notices; nothing is written after it.  A call that is cancelled loses no bytes: `drain` still
writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_Value = TypeVar("_Value")
_BLOCK = 1 << 20
#: More at once would only make the disk's head and the processor's caches run about.
_threads = ThreadPoolExecutor(8, thread_name_prefix="upload")


class Flow:
    """See the head of this module."""

    def __init__(self, put: Callable[[bytearray], None]) -> None:
        self._put = put
        self._block = bytearray()
        self._writing: asyncio.Future[None] | None = None
        self._failed = False

    async def write(self, data: bytes) -> None:
        """The next bytes."""
        self._block += data
        if len(self._block) >= _BLOCK:
            await self._hand_over()

    async def drain(self) -> None:
        """That was all: have it written.  ``put`` is called once at least, with nothing if need be."""
        await self._hand_over()
        await self._written()

    async def settle(self) -> None:
        """Wait until nothing is being written any more; what has not been handed over is dropped."""
        self._block.clear()
        self._failed = True
        await self._written()

    async def _hand_over(self) -> None:
        """Have the block written in a thread, once the one before is."""
        await self._written()
        block, self._block = self._block, bytearray()
        if not self._failed:
            self._writing = asyncio.ensure_future(in_thread(self._put, block))

    async def _written(self) -> None:
        writing = self._writing
        if writing is None:
            return
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._failed = True
            self._writing = None
            raise
        self._writing = None


async def in_thread(act: Callable[..., _Value], *args: Any) -> _Value:
    """Do it in one of the threads that write uploads."""
    return await asyncio.get_running_loop().run_in_executor(_threads, act, *args)
