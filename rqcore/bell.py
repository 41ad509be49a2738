"""A word to the queue that this process itself is: start these messages, which were held.

A plugin has no other way to have a message looked at again that it held: it asks as everybody does, by
the queue's socket.  Nothing here waits.  What cannot be sent now goes with the next call; answers are
not looked at, for a message that is gone, or runs already, needs no call.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable

from rqcore.address import reachable
from rqcore.wire import encode


class Bell:
    """A connection to the queue's socket at ``path``, made when it is first needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self._frames: list[bytes] = []
        #: So many bytes of the first frame have been sent.
        self._sent = 0

    def ring(self, msg_ids: Iterable[str]) -> None:
        """Send these to the front; the first of them starts first."""
        for msg_id in reversed(list(msg_ids)):
            order = f"run_message {json.dumps({'msg_id': msg_id})}"
            self._frames.append(encode(order.encode("ascii")))
        if not self._frames:
            return
        for _ in range(2):  # a connection that has ended since is made anew
            try:
                self._send(self._sock or self._connect())
            except BlockingIOError:
                return
            except OSError:
                self.close()
            else:
                return

    def close(self) -> None:
        """Let go of the connection; what was not sent whole goes with the next one."""
        self._sent = 0
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while sock.recv(1 << 16):
                pass
            raise ConnectionResetError
        self._sent += sock.send(b"".join(self._frames)[self._sent :])
        while self._frames and self._sent >= len(self._frames[0]):
            self._sent -= len(self._frames.pop(0))

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
