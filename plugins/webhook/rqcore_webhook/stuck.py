"""``relay.stuck``: messages wait, for long, for a machine that relay does not reach.

Part of the service ``webhook``.  What relay knows stands in ``var/relay/peers.json``, whose format
docs/relay.md has; nothing else of relay is used, and without it this sleeps.  Every change of that
file is looked at, a moment later; a timer waits only while a machine is down that something waits for.

A machine is told of once while it is down: ``var/webhook/stuck.json`` remembers which were.  Nothing
is read while no endpoint asks for the event.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from time import time
from typing import Any

from rqcore import durable
from rqcore.errors import RqError
from rqcore.loop import Loop, Timer
from rqcore.watch import Change, Watcher
from rqcore_webhook import clerk
from rqcore_webhook.options import Options, read_options
from rqcore_webhook.outbox import Outbox

_log = logging.getLogger(__name__)
EVENT = "relay.stuck"
_QUEUE, _FILE = "relay", "peers.json"
#: The file changes with each transfer; it is read so often at most, in seconds.
_LOOK_EVERY = 1.0
_MOST = 64 << 20


class Stuck:
    """See the head of this module."""

    def __init__(self, loop: Loop, watching: Watcher, directory: str) -> None:
        self._loop = loop
        self._watching = watching
        self._directory = directory
        self._outbox = Outbox(directory)
        self._memory = f"{directory}/var/webhook/stuck.json"
        self._soon = False
        self._timer: Timer | None = None
        self._watched = False
        watching.members(f"{directory}/var", self._var_changed)
        self._watch()

    def _var_changed(self, change: Change) -> None:
        if change.name == _QUEUE:
            self._watch()

    def _watch(self) -> None:
        """Watch relay's directory, once there is one."""
        if self._watched:
            return
        with contextlib.suppress(FileNotFoundError):
            self._watching.members(f"{self._directory}/var/{_QUEUE}", self._changed)
            self._watched = True
            self.look_soon()

    def _changed(self, change: Change) -> None:
        if change.name == _FILE and change.arrived:
            self.look_soon()

    def look_soon(self) -> None:
        """Look in a moment."""
        if not self._soon:
            self._soon = True
            self._loop.after(_LOOK_EVERY, self.look)

    def look(self) -> None:
        """See who is down, and for how long."""
        self._soon = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            options = read_options(self._directory)
        except RqError:  # the reload has said so
            return
        if not any(EVENT in endpoint.events for endpoint in options.endpoints.values()):
            return
        try:
            self._look(options)
        except OSError as error:
            _log.warning("who relay cannot reach is not told: %s", error)
            self.look_soon()

    def _look(self, options: Options) -> None:
        now, told = time(), _json(self._memory)
        down = {
            name: peer
            for name, peer in _peers(f"{self._directory}/var/{_QUEUE}/{_FILE}").items()
            if peer.get("reachable") is False
        }
        known = {name: told[name] for name in told if name in down}
        wait = None
        for name, peer in down.items():
            since = peer.get("since")
            since = float(since) if isinstance(since, int | float) else now
            left = since + options.relay_stuck_after - now
            if name in known or not peer.get("waiting"):
                continue
            if left > 0:
                wait = left if wait is None else min(wait, left)
                continue
            known[name] = since
            self._tell(options, name, peer, since)
        if known != told:
            durable.replace_unsynced(self._memory, json.dumps(known).encode("ascii"))
        if wait is not None:
            self._timer = self._loop.after(wait + 0.01, self.look)

    def _tell(self, options: Options, name: str, peer: Mapping[str, Any], since: float) -> None:
        error = peer.get("last_error")
        data = {
            "queue": _QUEUE, "peer": name, "since": since, "waiting": peer.get("waiting"),
            "oldest": peer.get("oldest"),
            "reason": error.get("text") if isinstance(error, Mapping) else None,
        }  # fmt: skip
        clerk.tell(self._outbox, options, EVENT, _QUEUE, data, contextlib.nullcontext)


def _peers(path: str) -> dict[str, dict[str, Any]]:
    peers = _json(path).get("peers")
    if not isinstance(peers, dict):
        return {}
    return {name: peer for name, peer in peers.items() if isinstance(peer, dict)}


def _json(path: str) -> dict[str, Any]:
    """The object that a file holds; an empty one when it is missing, or makes no sense."""
    if not os.path.exists(path):
        return {}
    try:
        return durable.read_object(path, _MOST)
    except (FileNotFoundError, ValueError):
        return {}
