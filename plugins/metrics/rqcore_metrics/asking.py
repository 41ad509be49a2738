"""Asks the manager and every queue at the same time, and waits no longer than it was told to.

A queue that hangs costs a scrape no more than that: the others have answered meanwhile.  Sockets as
everybody uses them (`rqcore.wire`); nothing is kept open.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rqcore import wire
from rqcore.address import reachable
from rqcore.errors import WireError

_READ = 1 << 16


@dataclass(slots=True)
class _Asked:
    sock: socket.socket
    wanted: int
    decoder: wire.Decoder = field(default_factory=wire.Decoder)
    answers: list[Any] = field(default_factory=list)


def ask_all(
    paths: Mapping[str, str], commands: Sequence[str], patience: float
) -> dict[str, list[Any]]:
    """The answers of each socket to these commands, in order.

    ``paths``: the sockets by a name of the caller's.  Who does not run, does not answer all of it
    within ``patience`` seconds, or does not make sense, is missing from the result.
    """
    deadline = monotonic() + patience
    request = b"".join(wire.encode(command.encode()) for command in commands)
    found: dict[str, list[Any]] = {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for name, path in paths.items():
            sock = _connected(path, request)
            if sock is not None:
                stack.callback(sock.close)
                asked = _Asked(sock, len(commands))
                selector.register(sock, selectors.EVENT_READ, (name, asked))
        while selector.get_map() and (left := deadline - monotonic()) > 0:
            for key, _ in selector.select(left):
                name, asked = key.data
                if not _heard(asked):
                    continue
                selector.unregister(asked.sock)
                if len(asked.answers) == asked.wanted:
                    found[name] = asked.answers
    return found


def _connected(path: str, request: bytes) -> socket.socket | None:
    """A socket that was asked; None when nobody is there, or is so busy that none can be opened."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        with reachable(path) as short:
            sock.connect(short)
        sent = sock.send(request)
    except OSError:
        sock.close()
        return None
    if sent < len(request):  # some bytes into an empty buffer: it never happens
        sock.close()
        return None
    return sock


def _heard(asked: _Asked) -> bool:
    """Read what is there; True when there is nothing more to come."""
    try:
        data = asked.sock.recv(_READ)
        payloads = asked.decoder.feed(data) if data else []
        asked.answers += [json.loads(payload) for payload in payloads]
    except BlockingIOError:
        return False
    except (OSError, WireError, ValueError):
        asked.answers.clear()
        return True
    return not data or len(asked.answers) >= asked.wanted
