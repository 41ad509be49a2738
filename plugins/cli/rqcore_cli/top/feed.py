"""A follower of one socket that is read when the caller's selector says so, and never waited for."""

from __future__ import annotations

import json
import socket
from typing import Any

from rqcore import wire
from rqcore.address import reachable
from rqcore.errors import UnreachableError, WireError

#: So long a connection may take, in seconds: on one machine it takes none.
_CONNECT = 2.0
_BLOCK = 1 << 18


class Feed:
    """Subscribed to a queue or to the manager, and asking it to describe itself.

    Raises `UnreachableError` when nobody answers at this path.
    """

    def __init__(self, path: str) -> None:
        self._decoder = wire.Decoder()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(_CONNECT)
            with reachable(path) as short:
                self._sock.connect(short)
            self._sock.sendall(wire.encode(b"subscribe {}") + wire.encode(b"describe"))
            self._sock.setblocking(False)
        except OSError as error:
            self._sock.close()
            raise UnreachableError(f"nobody answers at {path}: {error}") from error

    def fileno(self) -> int:
        """For a selector."""
        return self._sock.fileno()

    def describe(self) -> None:
        """Ask for a description; it comes as others do.  Raises `UnreachableError`."""
        try:
            self._sock.sendall(wire.encode(b"describe"))
        except OSError as error:
            raise UnreachableError(f"it went away: {error}") from error

    def read(self) -> list[Any]:
        """What has come: events are objects, descriptions are told apart by `description`.

        Raises `UnreachableError` when the other end is gone.
        """
        try:
            data = self._sock.recv(_BLOCK)
        except BlockingIOError:
            return []
        except OSError as error:
            raise UnreachableError(f"it went away: {error}") from error
        if not data:
            raise UnreachableError("it went away")
        try:
            return [json.loads(payload) for payload in self._decoder.feed(data)]
        except (WireError, ValueError) as error:
            raise UnreachableError(f"it speaks another protocol: {error}") from error

    def close(self) -> None:
        """Hear no more."""
        self._sock.close()


def description(answer: Any) -> dict[str, Any] | None:
    """What ``describe`` was answered; None for an event, or another answer."""
    if isinstance(answer, list) and len(answer) > 1 and isinstance(answer[1], dict):
        found: dict[str, Any] = answer[1]
        return found
    return None
