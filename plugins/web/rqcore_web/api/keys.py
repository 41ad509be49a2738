"""What requests with an Idempotency-Key came to, on disk: a restart of the service forgets nothing.

``var/web/idempotency.jsonl``, one object per line, of which the later ones add to the earlier:

    {"key": DIGEST, "print": DIGEST, "at": UNIX}        a request began
    {"key": DIGEST, "plan": {"0": FULL_ID}}             the message that stands for its part 0
    {"key": DIGEST, "answer": {"status", "headers", "body"}}
    {"key": DIGEST, "gone": true}                       it was refused: as if it had never been

A key is known by a digest of it, of who used it and of what it was for; neither it nor what was sent is
kept.  `Keys.write` returns when the line is on the disk; lines that come together go there together.

An entry is kept for 24 hours, and the newest `MOST` of them, or as many as fit into `MOST_BYTES` of
answers: an older one is forgotten, and its key counts as new.  The file is written anew when most of it
is of no use any more.  A line that cannot be read, such as the last one of a crash, is passed over.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from rqcore import durable, unix

_log = logging.getLogger(__name__)
RETENTION = 24 * 3600
MOST = 10_000
MOST_BYTES = 32 << 20
#: The file may be so much longer than what it holds.
_SLACK = 1 << 20


@dataclass(slots=True)
class Entry:
    """What is known of one key; ``plan`` has full ids by the part of the request they stand for."""

    key: str
    print: str
    at: float
    plan: dict[str, str] = field(default_factory=dict)
    answer: dict[str, Any] | None = None
    #: A request is being carried out with it, by this very process.
    running: bool = False
    #: It is on the disk: a request with it began, perhaps in a former process.
    written: bool = False
    size: int = 0

    def lines(self) -> list[dict[str, Any]]:
        """All that has to be kept of it."""
        found: list[dict[str, Any]] = [{"key": self.key, "print": self.print, "at": self.at}]
        found += [{"key": self.key, "plan": self.plan}] if self.plan else []
        found += [{"key": self.key, "answer": self.answer}] if self.answer is not None else []
        return found


class Keys:
    """See the head of this module."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: dict[str, Entry] = {}
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._live = 0
        self._length = 0
        self._load()

    # Looking

    def get(self, key: str) -> Entry | None:
        """The entry of this key, if it is still known."""
        entry = self._entries.get(key)
        if entry is not None and not entry.running and entry.at < time() - RETENTION:
            self.forget(entry)
            return None
        return entry

    def new(self, key: str, fingerprint: str) -> Entry:
        """An entry for a key that is not known; it is on the disk only after a `write`."""
        entry = Entry(key, fingerprint, time(), running=True)
        self._entries[key] = entry
        self._make_room()
        return entry

    # Changing

    async def write(self, entry: Entry, **more: Any) -> None:
        """Add this to the entry, durably.  Raises `OSError`; then it is as it was."""
        lines = [] if entry.written else entry.lines()[:1]
        lines += [{"key": entry.key, **more}] if more else []
        await self._append(b"".join(map(_line, lines)))
        entry.written = True
        self._apply(entry, more)

    async def finish(self, entry: Entry, answer: dict[str, Any]) -> None:
        """This is the answer from now on; where the disk does not take it, until the service ends."""
        try:
            await self.write(entry, answer=answer)
        except OSError as error:
            _log.warning("%s: %s; an answer is not kept over a restart", self._file, error)
            self._apply(entry, {"answer": answer})
        entry.running = False

    async def drop(self, entry: Entry) -> None:
        """The request came to nothing: its key counts as new."""
        self.forget(entry)
        if entry.written:
            try:
                await self._append(_line({"key": entry.key, "gone": True}))
            except OSError as error:
                _log.warning("%s: %s; a key is kept that could be forgotten", self._file, error)

    def _apply(self, entry: Entry, more: Mapping[str, Any]) -> None:
        entry.plan.update(more.get("plan", {}))
        entry.answer = more.get("answer", entry.answer)
        size = sum(len(_line(line)) for line in entry.lines())
        if entry.key in self._entries:
            self._live += size - entry.size
        entry.size = size

    def forget(self, entry: Entry) -> None:
        """The key counts as new, as long as this process lives."""
        if self._entries.pop(entry.key, None) is not None:
            self._live -= entry.size

    def _make_room(self) -> None:
        """Entries lie in the order in which they came: the first are the oldest."""
        for entry in list(self._entries.values()):
            old = entry.at < time() - RETENTION
            if not old and len(self._entries) <= MOST and self._live <= MOST_BYTES:
                return
            if not entry.running:
                self.forget(entry)

    # The file

    def _load(self) -> None:
        try:
            data = durable.read_file(self._file, 4 * MOST_BYTES)
        except FileNotFoundError:
            durable.touch_file(self._file)
            return
        except OSError as error:
            _log.error("%s cannot be read, and the keys in it are not known: %s", self._file, error)
            return
        for line in data.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                _log.warning("%s: a line cannot be read: %.60r", self._file, line)
        self._length = len(data)
        self._make_room()
        if data and not data.endswith(b"\n"):
            # A crash cut a line short, and the next must not be joined to it: have it all written anew.
            self._length = 2 * self._live + _SLACK + 1

    def _take(self, line: Mapping[str, Any]) -> None:
        key = str(line["key"])
        known = self._entries.get(key)
        if known is not None and ("print" in line or line.get("gone")):
            self.forget(known)
            known = None
        if "print" in line:
            known = Entry(key, str(line["print"]), float(line["at"]), written=True)
            self._entries[key] = known
        if known is not None:
            self._apply(known, line)

    async def _append(self, data: bytes) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            data = b"".join(data for data, _ in taken)
            try:
                if self._length > 2 * self._live + _SLACK:
                    kept = self._kept()
                    await asyncio.to_thread(durable.write_file, self._file, kept + data, mode=0o600)
                    self._length = len(kept) + len(data)
                else:
                    await asyncio.to_thread(_append, self._file, data)
                    self._length += len(data)
            except OSError as error:
                for _, done in taken:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in taken:
                    if not done.done():
                        done.set_result(None)

    def _kept(self) -> bytes:
        """All that is on the disk and still of use."""
        entries = [entry for entry in self._entries.values() if entry.written]
        return b"".join(_line(line) for entry in entries for line in entry.lines())


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _append(file: Path, data: bytes) -> None:
    fd = durable.append_log(file)
    try:
        size = os.fstat(fd).st_size
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(file))
            unix.fsync(fd)
        except OSError:
            # Half a line would spoil the next one.
            os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)
