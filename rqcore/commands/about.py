"""About the queue itself: is it there, how is it, how does it stop."""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import time
from typing import Any

from rqcore.commands.base import LATER, Commands, short_id
from rqcore.lifecycle import State
from rqcore.message import Message
from rqcore.server import Request


class About(Commands):
    """See the head of this module."""

    def do_ping(self, _: Request) -> Any:
        return ["pong"]

    def do_uptime(self, _: Request) -> Any:
        return [int(time() - self._queue.started_at)]

    def do_config(self, _: Request) -> Any:
        return ["ok", dict(self._queue.info.config)]

    def do_status(self, _: Request) -> Any:
        self._queue.condition.check_script()
        return [self._queue.condition.admin(), self._queue.condition.oper]

    def do_num_messages(self, _: Request) -> Any:
        counts = self._store.counts()
        order = (State.PREP, State.QUE, State.RUN, State.DONE, State.RELAYED, State.ERR)
        return {state: counts[state] for state in order}

    def do_shutdown(self, _: Request) -> Any:
        self._queue.stop(self._queue.settings.stop_grace)
        return ["ok"]

    def do_describe(self, request: Request) -> Any:
        """Everything that a page or a table shows of the queue, in one answer."""
        queue = self._queue
        queue.condition.check_script()
        return ["ok", {
            "name": queue.name, **queue.describe_condition(), "pid": os.getpid(),
            "uptime": int(time() - queue.started_at), "counts": self.do_num_messages(request),
            "corrupt": self._store.set_aside(),
            "workers": queue.config.num_workers, "script": queue.config.script,
            "running": [self._running(run.message, run.process.pid, run.status, run.started_at)
                        for run in queue.work.runs.values()],
            "earliest_due": queue.schedule.earliest_due(), "next_wake": queue.next_wake(),
            "wakeups": queue.loop.wakeups,
        }]  # fmt: skip

    def _running(
        self, message: Message, pid: int, status: str, started_at: float
    ) -> Mapping[str, Any]:
        return {
            "msg_id": message.msg_id, "pid": pid, "status": status, "dest": message.dest,
            "started_at": started_at,
        }  # fmt: skip

    def do_plugins(self, _: Request) -> Any:
        """How this process's plugins fare: calls, errors and time of each hook."""
        return ["ok", self._queue.hooks.report()]

    def do_subscribe(self, request: Request) -> Any:
        args = request.fields()
        msg_id = short_id(str(args["msg_id"])) if args.get("msg_id") else ""
        connection = request.connection
        request.reply(["ok", "subscribed"])
        self._queue.followers.add(connection, msg_id, log=bool(args.get("log")))
        return LATER
