"""One request to another process's socket, without waiting for it.

A queue process asks another queue to take a copy of a message.  It must never stand still for that:
the other one may be busy asking it the same.  So the request goes out on the event loop, and its
answer, or the reason why there is none, comes to a callback, within ``timeout`` seconds in any case.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from rqcore.address import reachable
from rqcore.loop import Loop
from rqcore.server import Connection

_RETRY = 0.05


def request(
    loop: Loop, path: str, command: str, args: Mapping[str, Any],
    callback: Callable[[Any], None], timeout: float,
) -> None:  # fmt: skip
    """Ask; ``callback`` gets the answer, or ``["fail", REASON]``, exactly once."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        with reachable(path) as short:
            sock.connect(short)
    except BlockingIOError:
        # The other one has not yet accepted those who came before us, and nothing tells when.
        sock.close()
        left = timeout - _RETRY
        if left > 0:
            loop.after(_RETRY, lambda: request(loop, path, command, args, callback, left))
        else:
            loop.soon(lambda: callback(["fail", f"{path} is too busy"]))
        return
    except OSError as error:
        sock.close()
        reason = f"nobody answers at {path}: {error.strerror}"
        loop.soon(lambda: callback(["fail", reason]))
        return
    _Outgoing(loop, sock, callback, timeout).send(command, args)


class _Outgoing:
    def __init__(
        self, loop: Loop, sock: socket.socket, callback: Callable[[Any], None], timeout: float
    ) -> None:
        self._callback: Callable[[Any], None] | None = callback
        self._timer = loop.after(timeout, lambda: self._done(["fail", "no answer in time"]))
        self._connection = Connection(
            loop, sock, self._on_payload, lambda: self._done(["fail", "the queue went away"])
        )

    def send(self, command: str, args: Mapping[str, Any]) -> None:
        self._connection.send_bytes(f"{command} {json.dumps(args)}".encode("ascii"))

    def _on_payload(self, payload: bytes) -> None:
        self._done(json.loads(payload))

    def _done(self, answer: Any) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            self._timer.cancel()
            self._connection.close()
            callback(answer)
