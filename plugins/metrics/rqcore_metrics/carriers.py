"""What brings families elsewhere: to Graphite by TCP, to StatsD by UDP, into a file.

Each is called by the service in a thread, never twice at once, may wait some seconds, and raises
`OSError` when it could not.  None of them holds more than a few megabytes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from rqcore import durable
from rqcore_metrics.hookspecs import Family
from rqcore_metrics.lines import Deltas, Naming, graphite
from rqcore_metrics.options import Graphite, StatsD, Textfile

_PATIENCE = 10.0
_LONGEST_PAUSE = 600.0
#: So much waits for a Graphite that cannot be reached; what is older is dropped.
MOST = 4 << 20


class Carrier(Protocol):
    """One of them."""

    @property
    def to(self) -> str:
        """Where it brings them, for people."""

    @property
    def waiting(self) -> int:
        """Bytes that wait to be brought."""

    @property
    def lost(self) -> int:
        """How many times the families were dropped, as too much waited."""

    def carry(self, families: Sequence[Family], now: float) -> None:
        """Bring them.  Raises `OSError`."""

    def retract(self) -> None:
        """There will be no more: said at once, also while `carry` is under way in its thread."""

    def close(self) -> None:
        """Let go of what is kept open; nobody carries any more."""


class GraphiteCarrier:
    """One connection, kept open; what cannot be sent waits, and is sent when Graphite is back.

    After a failure it is tried again with the next families, but not before a pause that grows from
    one interval to ten minutes.  TCP does not say what has arrived: after a connection was lost, the
    last families that were sent are sent again, which Graphite takes as the same values.
    """

    def __init__(self, options: Graphite, host: str) -> None:
        self._options = options
        self._naming = Naming(options.prefix, host, options.tags)
        self._waiting: deque[bytes] = deque()
        self._sent = b""
        self._sock: socket.socket | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._error: OSError | None = None
        self.lost = 0

    @property
    def to(self) -> str:
        return f"{self._options.host}:{self._options.port}"

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting))

    def carry(self, families: Sequence[Family], now: float) -> None:
        self._waiting.append(graphite(families, self._naming, now))
        while self.waiting > MOST and len(self._waiting) > 1:
            self._waiting.popleft()
            self.lost += 1
        if self._error is not None and monotonic() < self._not_before:
            raise self._error
        try:
            self._send()
        except OSError as error:
            self._disconnect()
            self._pause = min(_LONGEST_PAUSE, self._pause * 2 or self._options.interval)
            # A little less, so that the tick at its end is not a moment too early.
            self._not_before = monotonic() + self._pause * 0.9
            self._error = error
            raise
        self._pause, self._error = 0.0, None

    def _send(self) -> None:
        if self._sock is not None and _has_ended(self._sock):
            self._disconnect()
        if self._sock is None:
            address = self._options.host, self._options.port
            self._sock = socket.create_connection(address, timeout=_PATIENCE)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._sent:
                self._waiting.appendleft(self._sent)
                self._sent = b""
        while self._waiting:
            self._sock.sendall(self._waiting[0])
            self._sent = self._waiting.popleft()

    def _disconnect(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def retract(self) -> None:
        """What was sent is sent."""

    def close(self) -> None:
        self._disconnect()


def _has_ended(sock: socket.socket) -> bool:
    """Has the other end closed the connection?  What it says is of no interest."""
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(_PATIENCE)
    return True


class StatsDCarrier:
    """Datagrams, sent and forgotten; only that there is no such host, or no listener there, is seen."""

    waiting = 0
    lost = 0

    def __init__(self, options: StatsD, host: str) -> None:
        self._options = options
        self._deltas = Deltas(Naming(options.prefix, host, options.tags))

    @property
    def to(self) -> str:
        return f"{self._options.host}:{self._options.port}"

    def carry(self, families: Sequence[Family], now: float) -> None:  # noqa: ARG002 - StatsD knows the time
        packets, after = self._deltas.packets(families)
        found = socket.getaddrinfo(self._options.host, self._options.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(address)
            for packet in packets:
                sock.send(packet)
            refused = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if refused:
                raise OSError(refused, f"nobody listens there: {os.strerror(refused)}")
        self._deltas = after

    def retract(self) -> None:
        """What was sent is sent."""

    def close(self) -> None:
        """Nothing is kept open."""


class TextfileCarrier:
    """A file that is replaced in one step, and removed at the end, so that nobody reads old values."""

    waiting = 0
    lost = 0

    def __init__(self, options: Textfile) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._over = False

    @property
    def to(self) -> str:
        return self._options.path

    def carry(self, families: Sequence[Family], now: float) -> None:  # noqa: ARG002 - the file has its own
        from rqcore_metrics.exposition import exposition  # noqa: PLC0415 - for who needs it

        text, _ = exposition(families)
        with self._lock:
            if not self._over:
                durable.replace_unsynced(self._options.path, text)

    def retract(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._over = True
            os.unlink(self._options.path)

    def close(self) -> None:
        """Nothing is kept open."""
