"""Telling whoever started the instance how it is: systemd's notification protocol, sd_notify(3).

One datagram of ``KEY=VALUE`` lines to the socket that ``NOTIFY_SOCKET`` names; without it, nothing
is sent.  A name that begins with ``@`` is one in Linux's abstract namespace.

Whoever listens and does not read holds nobody up: what he has no room for is not sent; he is waited for
a moment only where it is more than a status or a sign of life.
"""

from __future__ import annotations

import contextlib
import os
import socket

_PATIENCE = 1.0


def notify(**fields: str) -> None:
    """Send these fields, such as ``READY="1"``; that nobody listens is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    important = fields.keys() - {"STATUS", "WATCHDOG"}
    text = "\n".join(f"{name}={value}" for name, value in fields.items())
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.settimeout(_PATIENCE if important else 0)
        sock.connect(address)
        sock.sendall(text.encode())
