"""A word to the queue that this process itself is: start these messages, which were held.

A plugin has no other way to have a message looked at again that it held: it asks as everybody does, by
the queue's socket.  Nothing here waits.  What cannot be sent now goes with the next call; answers are
not looked at, for a message that is gone, or runs already, needs no call.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Sequence

from rqcore.address import reachable
from rqcore.wire import encode


class Bell:
    """A connection to the queue's socket at ``path``, made when it is first needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self._unsent = b""

    def ring(self, msg_ids: Sequence[str]) -> None:
        """Send these to the front; the first of them starts first."""
        for msg_id in reversed(msg_ids):
            order = f"run_message {json.dumps({'msg_id': msg_id})}"
            self._unsent += encode(order.encode("ascii"))
        if not self._unsent:
            return
        try:
            sock = self._sock or self._connect()
            with contextlib.suppress(BlockingIOError):
                while sock.recv(1 << 16):
                    pass
                raise ConnectionResetError
            self._unsent = self._unsent[sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # not there yet, or ended: the next call begins anew
            if self._sock is not None:
                self._sock.close()
                self._sock = None

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            with reachable(self._path) as short:
                sock.connect(short)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        return sock
