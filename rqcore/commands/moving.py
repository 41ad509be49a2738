"""Moving messages along: run now, retry, destroy, delete."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from time import time
from typing import Any

from rqcore import durable
from rqcore.commands.base import Commands, Durable
from rqcore.errors import RefusedError
from rqcore.lifecycle import State, Step
from rqcore.server import Request


class Moving(Commands):
    """See the head of this module."""

    def do_run_message(self, request: Request) -> Any:
        msg_id, state = self.found(request)
        if state is State.RUN:
            return ["fail", "msg already running"]
        if state is not State.QUE or not self._queue.schedule.front(msg_id):
            return ["fail", "msg not in runnable state"]
        self._queue.look()
        return ["ok", "msg sent to front of run queue"]

    def do_retry_message(self, request: Request) -> Any:
        """From ``err`` back to ``que``, with everything it left in ``job/``; its count begins anew."""
        self._queue.check_open()
        msg_id, state = self.found(request)
        if state is not State.ERR:
            raise RefusedError(f"message is in {state}; only one in err can be retried")
        message = replace(self._store.load(msg_id, state), count=0, due=int(time()), dups=())
        self._spool.move(message, Step.RETRY, State.ERR, State.QUE, rewrite=True)
        self._queue.committed(message, Step.RETRY)
        return Durable(["ok", "msg sent to run again"])

    def do_destroy_message(self, request: Request) -> Any:
        msg_id, state = self.found(request)
        run = self._queue.work.runs.get(msg_id)
        if run is None:
            raise RefusedError(f"message is in {state}, nothing runs; delete it instead")
        run.end("destroy", self._queue.settings.kill_grace)
        return ["ok", "msg destroyed"]

    def do_delete_message(self, request: Request) -> Any:
        """``{"msg_id"}``, and with ``"state"`` only if it still is in that one."""
        msg_id, state = self.found(request)
        if state is State.RUN:
            raise RefusedError("message is running; destroy it first (rq kill)")
        wanted = request.fields().get("state")
        if wanted not in (None, state):  # it was where the asker has seen it
            raise RefusedError(f"message is in {state}, no longer in {wanted}")
        message = self._store.load(msg_id, state)
        refusal = self._queue.hooks.check_removal(message, self._queue.info)
        if refusal is not None:
            raise RefusedError(refusal.reason)
        self._spool.remove(message, state)
        for path in self._store.take_trash():
            self._threads.run(partial(durable.clear_away, path), lambda _: None)
        if state is State.QUE:
            self._queue.schedule.discard(msg_id)
        self._spool.fact(lambda: self._queue.hooks.message_removed(msg_id, self._queue.info, state))
        return Durable(["ok", "msg deleted"])
