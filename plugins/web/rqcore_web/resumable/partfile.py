"""The bytes of an upload that have come so far: a file that grows, over any number of requests.

Everything here blocks, and is called from threads: `PartFile.write`, `sync` and `close` one call at a
time; `catch_up` beside them.

MD5 and SHA-256 are taken of each block as it is written, and live in memory.  A service that was
started anew has lost them: then `PartFile` is *behind*, and `catch_up` reads what is there once more,
while new blocks are written already; the digests are known when it has caught up with them.

Every `_FLUSH` bytes the file is brought to the disk, every `_NOTE` bytes it is noted how far
(``on_synced``): after the end of a process all is there that was written, after that of a machine only
what was synced.

A write that fails leaves the file as it was before that block; where the system refuses even that (it
mounted the disk read-only, say), what is too much is cut off before the next bytes are written.  Errors
are the system's `OSError`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from rqcore import durable, unix
from rqcore.durable import Digest

_FLUSH = 32 << 20
_NOTE = 128 << 20
_READ = 1 << 20


class PartFile:
    """See the head of this module; ``size`` is how many bytes there are."""

    def __init__(
        self, path: str, size: int, synced: int, on_synced: Callable[[int], None]
    ) -> None:  # fmt: skip
        self.path = path
        self.size = size
        self._on_synced = on_synced
        self._fd = -1
        self._synced = self._noted = synced
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._behind = size > 0
        self._lock = threading.Lock()
        self._stopped = False

    def make(self) -> None:
        """Make the file; durable when its directory is."""
        os.close(durable.append_log(self.path, 0o600))

    def write(self, block: memoryview) -> None:
        """The next bytes."""
        if self._fd < 0:
            self._fit()
        fd, rest = self._open(), block
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError:
            os.ftruncate(fd, self.size)
            raise
        with self._lock:
            behind = self._behind
            if behind:
                self.size += len(block)
        if not behind:
            self._hash(block)
            self.size = self._hashed
        if self.size - self._synced >= _FLUSH:
            self.sync()
            if self.size - self._noted >= _NOTE:
                self._on_synced(self.size)
                self._noted = self.size

    def sync(self) -> None:
        """Bring all of it to the disk."""
        if self.size > self._synced:
            unix.fsync(self._open())
            self._synced = self.size

    def close(self) -> None:
        """Nobody writes for now."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def behind(self) -> bool:
        """Has what a former process wrote still to be read again?"""
        return self._behind

    @property
    def unread(self) -> int:
        """How many bytes have still to be read again before the digests are known."""
        return self.size - self._hashed

    def catch_up(self) -> None:
        """Read again what was written by a former process; returns when that is done, or on `stop`."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while not self._stopped:
                with self._lock:
                    if self._hashed >= self.size:
                        self._behind = False
                        return
                data = os.pread(fd, min(_READ, self.size - self._hashed), self._hashed)
                if not data:
                    raise OSError(5, "is shorter than it was", self.path)
                self._hash(data)
        finally:
            os.close(fd)

    def stop(self) -> None:
        """Have `catch_up` end soon: nobody needs the digests."""
        self._stopped = True

    def digest(self) -> Digest:
        """Of all that is there; it must not be behind."""
        assert self._hashed == self.size
        return Digest(self.size, self._md5.hexdigest(), self._sha256.hexdigest())

    def remove(self) -> None:
        """There is no such upload any more."""
        self._stopped = True
        self.close()
        durable.clear_away(self.path)

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = durable.append_log(self.path, 0o600)
        return self._fd

    def _fit(self) -> None:
        """What was counted, and no more, is what the next bytes come after."""
        fd = self._open()
        there = os.fstat(fd).st_size
        if there < self.size:
            self.close()
            raise OSError(5, "is shorter than it was", self.path)
        if there > self.size:
            try:
                os.ftruncate(fd, self.size)
            except OSError:
                self.close()
                raise

    def _hash(self, data: bytes | memoryview) -> None:
        self._md5.update(data)
        self._sha256.update(data)
        self._hashed += len(data)
