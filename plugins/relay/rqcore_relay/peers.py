"""What a peer is called: one name for each far end, however a destination spells it.

Pure.  A peer is the base URL of an instance, such as ``http://mq2.example.com:3333/``: scheme and
host in lower case, the port always there, a slash at the end, no user or password in it.  Options,
state and everything that people are shown speak of peers by this name.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from rqcore.message import parse_dest

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[\w.~:%-]+")


def peer_name(url: str) -> str | None:
    """The peer whose base URL this is; None for what is no base URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or not _HOST.fullmatch(host):
        return None
    if parts.query or parts.fragment:
        return None
    shown = f"[{host}]" if ":" in host else host
    path = "/".join(
        quote(part, "%:@!$&'()*+,;=~", errors="surrogatepass")
        for part in parts.path.split("/")
        if part
    )
    root = f"{path}/" if path else ""
    return f"{parts.scheme}://{shown}:{_PORTS[parts.scheme] if port is None else port}/{root}"


def peer_of(dest: str) -> str | None:
    """The peer that a message's ``dest`` leads to; None when it names no other instance.

    Any ``http://…/q/NAME`` has a peer, this very host's too: by its name alone nobody knows who
    answers there.
    """
    address = parse_dest(dest)
    if address is None or not address.base:
        return None
    return peer_name(address.base)
