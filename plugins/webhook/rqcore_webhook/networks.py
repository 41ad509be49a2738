"""Where a webhook may go: decided by the address that is connected to, never by a name.

Pure.  `Networks.refusal` says why an address may not be connected to, in words, or "".  Rules, the
first that fits counts:

1. it lies in one of ``allow``: yes;
2. it lies in one of ``deny``, or is link-local, a cloud's metadata service, or multicast: no;
3. by ``mode``: ``internal`` (the default) yes; ``public`` yes when it is reachable from anywhere;
   ``none`` no.

An IPv4 address in the clothes of an IPv6 one (``::ffff:``, ``64:ff9b::``, 6to4) is judged as both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Mode = Literal["internal", "public", "none"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MODES: tuple[Mode, ...] = ("internal", "public", "none")
#: Where machines of a cloud are told their own secrets; nobody sends webhooks there on purpose.
BUILT_IN: tuple[tuple[Network, str], ...] = (
    (ipaddress.ip_network("169.254.0.0/16"), "link-local, where clouds keep a machine's secrets"),
    (ipaddress.ip_network("fe80::/10"), "link-local"),
    *(
        (ipaddress.ip_network(address), "a cloud's metadata service")
        for address in (
            "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
        )
    ),
)  # fmt: skip
#: Their last 32 bits are an IPv4 address: of a translation, or by the oldest of all schemes.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CARRIERS = (ipaddress.ip_network("64:ff9b:1::/48"), ipaddress.ip_network("::/96"))
#: Not public, though not every Python knows.
_NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("fec0::/10"), *_CARRIERS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Networks:
    """See the head of this module."""

    mode: Mode = "internal"
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    def refusal(self, text: str) -> str:
        """Why this address (as text, perhaps with a scope) may not be connected to; "" if it may."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return f"{text} is no address"
        for meant in _meant(address):
            why = self._refusal(meant)
            if why:
                return f"{text} {why}"
        return ""

    def _refusal(self, address: Address) -> str:
        if any(address in network for network in self.allow):
            return ""
        for network in self.deny:
            if address in network:
                return f"lies in {network}, which is denied"
        for network, what in BUILT_IN:
            if address in network:
                return f"is {what}"
        if address.is_multicast:
            return "is a multicast address"
        if self.mode == "none":
            return "lies in no network that is allowed"
        if self.mode == "public" and not _is_public(address):
            return "is no public address"
        return ""


def _is_public(address: Address) -> bool:
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def parse_network(text: object) -> Network | None:
    """The network, or single address, that is written so; None when it is none."""
    try:
        return ipaddress.ip_network(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _meant(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address that it carries.

    One that only carries another is judged by that alone.
    """
    if isinstance(address, ipaddress.IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    else:
        if any(address in network for network in _CARRIERS):
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.sixtofour is not None:
            yield address.sixtofour
        yield address
