"""A file of a message from now on: how long it is, and where its message stands, as it happens.

`follow` looks at once, and again whenever the file grows or is replaced (`rqcore_web.logwatch`) and
whenever its message changes its state or its queue comes back (`rqcore_web.events`); it gives what it
sees when that is another thing than before.  It ends when the message is final or gone.  A message moves
between directories, and ``job/`` goes with it; so the queue is asked for the path anew each time.  It is
not cleaned away meanwhile (`rqcore_web.reading`).  While
the queue's process does not answer, the last that was known of the message holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rqcore.errors import NotFoundError, RqError
from rqcore.lifecycle import FINAL
from rqcore_web import logfiles, reading
from rqcore_web.logfiles import Part

if TYPE_CHECKING:
    from rqcore_web.events import Event
    from rqcore_web.logwatch import Growth
    from rqcore_web.site import Site


@dataclass(frozen=True, slots=True)
class Named:
    """Which file is meant: queue, message, part, name."""

    queue: str
    msg_id: str
    part: Part
    name: str


@dataclass(frozen=True, slots=True)
class Seen:
    """``size`` is None while there is no file; ``identity`` is another one for another file.

    ``state`` is the message's, "" when it is gone; nothing follows when ``ended``.
    """

    folder: str
    state: str
    size: int | None
    identity: str

    @property
    def ended(self) -> bool:
        """Will nothing be written any more?"""
        return not self.state or self.state in FINAL


async def message_of(site: Site, queue: str, msg_id: str) -> dict[str, Any]:
    """The message as its queue knows it, also of a queue that is DOWN.  Raises `RqError`."""
    found: dict[str, Any] = await site.spool.ask(
        queue, "get_message", {"msg_id": msg_id, "even_down": True}
    )
    return found


def see(file: Named, folder: str, state: str) -> Seen:
    """The file as it is now."""
    sight = logfiles.look(folder, file.part, file.name)
    if sight is None:
        return Seen(folder, state, None, "")
    return Seen(folder, state, sight.size, sight.identity)


async def follow(site: Site, growth: Growth, file: Named, seen: Seen) -> AsyncGenerator[Seen, None]:
    """``seen`` as it is, then every change of it, to the end."""
    changed, moved = asyncio.Event(), asyncio.Event()

    def heard(event: Event) -> bool:
        return event.queue == file.queue and (
            event.type == "queue"
            or (event.type == "state" and event.data.get("msg_id") == file.msg_id)
        )

    async def listen(since: str) -> None:
        async for _ in site.hub.listen(heard, since=since):
            moved.set()
            changed.set()

    listening = asyncio.create_task(listen(site.hub.last_id))
    try:
        moved.set()
        told: Seen | None = None
        while True:
            with (
                reading.held(seen.folder),
                growth.watching(seen.folder, file.part, file.name, changed.set),
            ):
                watched = seen
                # Looked at after the watch began, so that no change falls in between.
                while (watched.folder, watched.identity) == (seen.folder, seen.identity):
                    changed.clear()
                    seen = await _again(site, file, seen, moved)
                    if seen != told:
                        yield seen
                        told = seen
                    if seen.ended:
                        return
                    if (watched.folder, watched.identity) == (seen.folder, seen.identity):
                        await changed.wait()
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


async def _again(site: Site, file: Named, seen: Seen, moved: asyncio.Event) -> Seen:
    folder, state = seen.folder, seen.state
    if moved.is_set():
        moved.clear()
        try:
            message = await message_of(site, file.queue, file.msg_id)
            folder, state = message["path"], message["state"]
        except NotFoundError:
            return Seen(folder, "", seen.size, seen.identity)
        except RqError:
            pass  # it does not run; the hub tells when it is back
    return see(file, folder, state)
