"""Where a copy goes: the hosts of a route, and what they make of a message's destination.

Pure.  A host of a route is one of

- ``mq2`` or ``mq2:4444``: the host part of the destination becomes this one, with port 3333 unless
  told; a bare queue ``test`` becomes ``http://mq2:3333/q/test``;
- ``https://mq2.example.com/`` (any base URL): the destination's queue on that instance;
- ``http://mq2:3333/q/other``, a queue's URL: the whole destination;
- ``/q/other``: that queue of this instance.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from rqcore.errors import RefusedError
from rqcore.message import parse_dest

PORT = 3333
#: Never the end of a route: what the router sends there would come back to it.
ROUTER = "rq_router"
_PORTS = {"http": 80, "https": 443}
_BARE = re.compile(r"(?P<host>[\w-]+(?:\.[\w-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
_URL = re.compile(r"(?P<scheme>https?)://(?P<place>[^/]+)(?P<path>/.*)?", re.DOTALL)
_LAST_PORT = 65_535


def host_problem(text: str) -> str | None:
    """Why no copy can go there, in words; None when one can."""
    if text.startswith("/"):
        address = parse_dest(text)
        if address is None or address.base:
            return f"{text!r} names no queue of this instance; write /q/NAME"
        if address.queue == ROUTER:
            return f"{text!r} is where the message comes from; name another queue"
        return None
    url = _URL.fullmatch(text)
    if url is not None:
        known = base_of(text) is not None and (parse_dest(text) is not None or "/q/" not in text)
        return None if known else f"{text!r} is no URL of an instance or a queue"
    bare = _BARE.fullmatch(text)
    if bare is None or not 0 < int(bare["port"] or PORT) <= _LAST_PORT:
        return f"{text!r} is no host; write HOST, HOST:PORT, http://HOST:PORT/ or /q/NAME"
    return None


def destination(host: str, dest: str) -> str:
    """Where a message for ``dest`` goes when ``host``, which has no problem, is taken.

    Raises `RefusedError` when that depends on a ``dest`` that names no queue.
    """
    if host.startswith("/"):
        return host
    url = _URL.fullmatch(host)
    if url is not None and parse_dest(host) is not None:
        return host
    address = parse_dest(dest)
    if address is None:
        raise RefusedError(
            f"{dest} is no destination, so no host can take its place; "
            "a route with a whole URL could"
        )
    if url is not None:
        return f"{host.rstrip('/')}/q/{address.queue}"
    place = host if _BARE.fullmatch(host)["port"] else f"{host}:{PORT}"  # type: ignore[index]
    if not address.base:
        return f"http://{place}/q/{address.queue}"
    whole = _URL.fullmatch(dest)
    assert whole is not None
    return f"{whole['scheme']}://{place}{whole['path']}"


def base_of(url: str) -> str | None:
    """What instance a base URL, or the URL of a queue, names; None when it names none.

    ``http://host:port/root/`` in lower case, with its port: as rqcore-relay calls its peers.
    """
    address = parse_dest(url)
    try:
        parts = urlsplit(address.base if address is not None and address.base else url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment:
        return None
    if not url.isprintable() or " " in url or not re.fullmatch(r"[\w.~:%-]+", host):
        return None
    shown = f"[{host}]" if ":" in host else host
    root = "".join(f"{part}/" for part in parts.path.split("/") if part)
    return f"{parts.scheme}://{shown}:{_PORTS[parts.scheme] if port is None else port}/{root}"
