"""Addresses of clients: what they are written like, and which networks they are in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks that a checked configuration names."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def plain(address: str) -> str:
    """The address as people write it: an IPv4 address that came over an IPv6 socket is one of IPv4."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return address


def is_inside(address: str, allowed: Iterable[Network]) -> bool:
    """Is this address in one of these networks?  What is no address is in none."""
    parsed = _parse(plain(address))
    return parsed is not None and any(parsed in network for network in allowed)


def is_loopback(address: str) -> bool:
    """Can only this machine itself reach this address?"""
    parsed = _parse(plain(address))
    return parsed is not None and parsed.is_loopback


def is_address(text: str) -> bool:
    """Is this an address and no name?"""
    return _parse(text) is not None


def behind(peer: str, forwarded: str, trusted: Iterable[Network]) -> str:
    """Who a trusted proxy speaks for: the last of ``X-Forwarded-For`` that is no trusted proxy itself.

    A peer that is not trusted speaks for itself, whatever it says; so does one that says nothing
    that is an address.
    """
    trusted = tuple(trusted)
    for hop in map(str.strip, reversed(forwarded.split(","))):
        if not is_inside(peer, trusted) or not is_address(hop):
            break
        peer = plain(hop)
    return peer


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
