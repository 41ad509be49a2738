"""The files that say how each peer is: ``var/relay/peers.json`` and ``var/relay/probes.json``.

Their format is described in docs/relay.md.  ``peers.json`` is written by the queue's process (`Desk`),
``probes.json`` by the service that probes; the latter also notes in ``peers.json`` that a peer
answers again, so whoever writes that file holds the lock beside it.  Both are replaced in one step and
need not last: what is lost in a crash is found out again.  A file that is missing or makes no sense
counts as empty.
"""

from __future__ import annotations

import calendar
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from time import strptime
from typing import Any

from rqcore import durable
from rqcore_relay.book import Peer

_MOST = 64 << 20
#: A peer that nothing was heard of for so long, and that nothing waits for, is forgotten.
_FORGET = 30 * 86_400


class Files:
    """The files of the instance in ``directory``; their own directory is made when it is missing."""

    def __init__(self, directory: str) -> None:
        self.folder = f"{directory}/var/relay"
        self.peers = f"{self.folder}/peers.json"
        self.probes = f"{self.folder}/probes.json"

    def make(self) -> None:
        """Make the directory.  Raises `OSError`."""
        durable.make_private_dir(os.path.dirname(self.folder))
        durable.make_private_dir(self.folder)

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else changes ``peers.json`` meanwhile; it is held for a moment only."""
        return durable.alone(f"{self.folder}/lock")


def read(path: str) -> dict[str, dict[str, Any]]:
    """What a file says of each peer."""
    try:
        peers = durable.read_object(path, _MOST).get("peers")
    except (OSError, ValueError):
        return {}
    if not isinstance(peers, dict):
        return {}
    return {name: entry for name, entry in peers.items() if isinstance(entry, dict)}


def described(peer: Peer) -> dict[str, Any]:
    """A peer as the file has it."""
    lines = {
        line.dest: {"messages": len(line.ids), "oldest": id_time(line.oldest())}
        for line in peer.lines.values()
    }
    error = {"text": peer.last_error, "at": peer.last_error_at} if peer.last_error else None
    return {
        "reachable": peer.reachable, "since": peer.since, "kind": peer.kind,
        "last_success": peer.last_success, "last_error": error, "failures": peer.failures,
        "next_try": peer.next_try or None,
        "running": len(peer.running), "waiting": sum(line["messages"] or 0 for line in lines.values()),
        "oldest": min((line["oldest"] or 0 for line in lines.values()), default=None),
        "destinations": lines, "turn": peer.turn(),
        "bytes": peer.bytes, "messages": peer.messages, "rate": peer.rate,
    }  # fmt: skip


def restored(name: str, entry: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The facts of a `Peer` from the file."""
    reachable = entry.get("reachable")
    error = entry.get("last_error")
    error = error if isinstance(error, dict) else {}
    return {
        "name": name, "reachable": reachable if isinstance(reachable, bool) else None,
        "since": number(entry, "since"), "kind": str(entry.get("kind") or ""),
        "last_success": number(entry, "last_success"),
        "last_error": str(error.get("text") or ""), "last_error_at": number(error, "at"),
        "failures": int(number(entry, "failures") or 0),
        # A clock that was set back must not make a peer wait for what was tomorrow.
        "next_try": min(number(entry, "next_try") or 0.0, now + 3600),
        "bytes": int(number(entry, "bytes") or 0), "messages": int(number(entry, "messages") or 0),
        "rate": number(entry, "rate"),
    }  # fmt: skip


def forgotten(facts: Mapping[str, Any], now: float) -> bool:
    """Was nothing heard of this peer for so long that it need not be shown any more?"""
    heard = max(facts[key] or 0 for key in ("since", "last_success", "last_error_at"))
    return bool(heard < now - _FORGET)


def id_time(msg_id: str) -> int | None:
    """When a message was made, by its id, in unix seconds; None when that cannot be told."""
    try:
        return calendar.timegm(strptime(msg_id[:16], "%Y%m%d.%H%M.%S"))
    except ValueError:
        return None


def number(entry: Mapping[str, Any], key: str) -> float | None:
    """A time or a size in what somebody wrote; None for what is none."""
    value = entry.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if 0 <= value < 1e18 else None  # noqa: PLR2004 - no time, no size is more
