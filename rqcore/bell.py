"""A word to the queue that this process itself is: start these messages before all others.

A plugin has no other way to have a message looked at again that it held: it asks as everybody does,
by the queue's socket.  Nothing here waits.  What cannot be sent now is sent with the next call, and
answers are not looked at: a message that is gone, or runs already, needs no call.
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
        self._out = b""

    def ring(self, msg_ids: Iterable[str]) -> None:
        """Send these to the front, in this order of starting."""
        # Each that is sent to the front comes before those that were sent there earlier.
        for msg_id in reversed(list(msg_ids)):
            request = f"run_message {json.dumps({'msg_id': msg_id})}"
            self._out += encode(request.encode("ascii"))
        if self._out:
            self._send()

    def close(self) -> None:
        """Let go of the connection; what was not sent is sent by the next one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self) -> None:
        try:
            sock = self._connected()
            self._read_away(sock)
            self._out = self._out[sock.send(self._out) :]
        except BlockingIOError:
            pass  # it is busy; what is left goes with the next call
        except OSError:  # not there yet, or the connection was ended: begin anew at the next call
            self.close()

    def _connected(self) -> socket.socket:
        if self._sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                with reachable(self._path) as short:
                    sock.connect(short)
            except OSError:
                sock.close()
                raise
            self._sock = sock
        return self._sock

    def _read_away(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while sock.recv(1 << 16):
                pass
            raise ConnectionResetError
