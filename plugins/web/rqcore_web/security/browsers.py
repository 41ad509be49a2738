"""Requests that a browser was made to send by a page of somebody else: how they are told.

A browser adds the user's password to every request for this site, whoever's page caused it.  So what
changes something (any method but GET, HEAD and OPTIONS) must come from a page of this site, by the
browser's own word: ``Sec-Fetch-Site``, which no page can write; without it ``Origin``, else
``Referer``, compared with ``Host``.  What has none of these is no browser: curl, scripts, the Ruby RQ.

A site without authentication has no password that would be missing in a request under a stranger's
name, so a page could have its own host name lead to 127.0.0.1 (DNS rebinding) and then read everything
as its own site.  There the name that was asked for must be one of this site.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from rqcore_web.security.addresses import is_address

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": 80, "https": 443}
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")

#: A scheme, a host and a port.
Origin = tuple[str, str, int]


def forged(method: str, headers: Mapping[str, str], ours: Collection[Origin]) -> str | None:
    """Why this request was not made by a page of this site, in words; None when it is fine.

    ``ours`` are the origins under which this site is known beside the ``Host`` of the request.
    """
    if method in SAFE:
        return None
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site in ("same-origin", "none"):
            return None
        return f"a page of another site made your browser send this (Sec-Fetch-Site: {site[:20]})"
    for name in ("origin", "referer"):
        value = headers.get(name)
        if value is not None:
            if _is_ours(value, headers.get("host", ""), ours):
                return None
            return (
                f"a page of another site made your browser send this ({name.title()} is not this "
                'site; if it is, under another name, add that to "hostnames" in the main config)'
            )
    return None


def origin(url: str) -> Origin | None:
    """The origin of a URL; None for what has none (``null``, ``about:blank``)."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def host_of(header: str) -> str:
    """The name in a ``Host`` header, without the port; empty for what is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def strange_host(header: str | None, known: Collection[str]) -> str | None:
    """Why this site is not asked by this name, in words; None when it is.

    Addresses cannot be rebound, and HTTP/1.0 names nobody.
    """
    if header is None:
        return None
    name = host_of(header)
    if is_address(name) or name == "localhost" or name.endswith(".localhost") or name in known:
        return None
    return (
        "this site is not known by the name that was asked for; add it to "
        '"hostnames" in the main config, or ask for 127.0.0.1'
    )


def forwarding(headers: Mapping[str, str]) -> str | None:
    """The header by which a proxy says that it asks for somebody else; None when it came directly."""
    return next((name for name in _FORWARDED if name in headers), None)


def _is_ours(url: str, host: str, ours: Collection[Origin]) -> bool:
    found = origin(url)
    if found is None:
        return False
    return found in ours or found == origin(f"{found[0]}://{host}")
