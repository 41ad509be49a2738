"""The instance as the site sees it: its queues and messages, asked of the running processes.

The three faces of the site (`rqcore_web.contract`, `rqcore_web.api`, `rqcore_web.pages`) have this in
common and nothing of each other.  Methods raise what `rqcore_web.asking` raises; a queue that does not
exist is a `NotFoundError` before anybody is asked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from rqcore.errors import NotFoundError, UnreachableError
from rqcore.instance import Instance
from rqcore.message import queue_name_problem
from rqcore_web.asking import DownError, Peer

#: The queues that RQ brings; lists show them after everybody's own.
SPECIAL = ("cleaner", "relay", "rq_router", "webhook")
STATES = ("prep", "que", "run", "done", "relayed", "err")
#: How a message comes in, by ``_method``: the command that a queue is given.
CREATING = {"commit": "create_message", "prep": "prep_message", "single_que": "single_que"}


class Spool:
    """See the head of this module."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.manager = Peer(str(instance.manager_socket), "the manager")
        self._queues: dict[str, Peer] = {}

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for peer in (self.manager, *self._queues.values()):
            peer.close()

    def exists(self, name: str) -> bool:
        """Is there a queue of this name?"""
        return queue_name_problem(name) is None and os.path.lexists(
            self.instance.queue_config_file(name)
        )

    def queue(self, name: str) -> Peer:
        """The queue's socket.  Raises `NotFoundError`."""
        if not self.exists(name):
            gone = self._queues.pop(name, None)
            if gone is not None:
                gone.close()
            raise NotFoundError(f"no such queue: {name}")
        peer = self._queues.get(name)
        if peer is None:
            peer = self._queues[name] = Peer(str(self.instance.queue_socket(name)), f"queue {name}")
        return peer

    async def ask(self, name: str, command: str, args: Mapping[str, Any] | None = None) -> Any:
        """Ask a queue for a ``["ok", VALUE]``; returns VALUE."""
        try:
            return await self.queue(name).ask(command, args)
        except DownError as error:
            error.queue, error.why = name, self.instance.admin_reason(name)
            raise

    def names(self) -> list[str]:
        """The queues: custom ones first, then the special ones, each sorted."""
        return sorted(self.instance.queue_names(), key=lambda name: (name in SPECIAL, name))

    async def describe(self, name: str) -> dict[str, Any]:
        """A queue as its process describes it; one that does not run, as far as it is known.

        ``running`` and ``counts`` are then empty and ``problem`` says why.
        """
        try:
            found: dict[str, Any] = await self.ask(name, "describe")
        except UnreachableError as error:
            return await self._silent(name, str(error))
        return {**found, "alive": True}

    async def _silent(self, name: str, why: str) -> dict[str, Any]:
        child = await self._child(name)
        return {
            "name": name, "alive": False, "status": "ERROR", "oper": "ERROR",
            "admin": self.instance.admin_state(name), "problem": child.get("problem") or why,
            "pid": 0, "uptime": 0, "counts": dict.fromkeys(STATES, 0), "workers": 0, "script": "",
            "running": [], "earliest_due": None, "next_wake": None,
        }  # fmt: skip

    async def _child(self, name: str) -> Mapping[str, Any]:
        try:
            manager = await self.manager.ask("describe")
        except UnreachableError:
            return {}
        for child in manager["children"]:
            if (child["kind"], child["name"]) == ("queue", name):
                return dict(child)
        return {}

    async def describe_all(self) -> list[dict[str, Any]]:
        """All queues, in the order of `names`."""
        return list(await asyncio.gather(*map(self.describe, self.names())))
