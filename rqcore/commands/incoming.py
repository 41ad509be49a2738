"""How messages come in: created, prepared and committed, copied, cloned."""

from __future__ import annotations

import os
from dataclasses import replace
from time import time
from typing import Any

from rqcore.commands.base import Commands, Durable, asked_id, short_id
from rqcore.condition import Admin
from rqcore.durable import Digest
from rqcore.errors import NotFoundError, RefusedError
from rqcore.lifecycle import State, Step
from rqcore.message import Message, is_msg_id, parse_message
from rqcore.server import Request
from rqcore.store import Attached

_CLONEABLE = (State.DONE, State.RELAYED, State.ERR)


class Incoming(Commands):
    """See the head of this module."""

    def do_create_message(self, request: Request) -> Any:
        self._queue.check_open()
        return self._admitted(self._queue.admit(_draft(request), State.QUE))

    def do_prep_message(self, request: Request) -> Any:
        self._queue.check_open()
        return self._admitted(self._queue.admit(_draft(request), State.PREP))

    def do_reserve_id(self, _request: Request) -> Any:
        """An id for a message to come: whoever notes it first knows later whether it was made."""
        self._queue.check_open()
        return ["ok", self._queue.full_id(self._store.new_id())]

    def do_prep_reserved(self, request: Request) -> Any:
        """Prepare a message under an id that was reserved: once, however often it is asked for."""
        self._queue.check_open()
        args = request.fields()
        msg_id, fields = short_id(str(args.get("reserved_id"))), args.get("fields")
        if not is_msg_id(msg_id) or msg_id >= self._store.new_id():
            raise RefusedError(f"id {msg_id} was not reserved here; ask for one by reserve_id")
        if not isinstance(fields, dict):
            raise RefusedError("'fields' must be an object: the fields of the message")
        draft = replace(parse_message(fields, now=time()), msg_id=msg_id)
        state = self._store.find(msg_id)
        if state is None:
            return self._admitted(self._queue.admit(draft, State.PREP))
        if _told_apart_by(draft) != _told_apart_by(self._store.load(msg_id, state)):
            raise RefusedError(f"id {msg_id} is that of another message; reserve a new one")
        return Durable(["ok", self._queue.full_id(msg_id)])  # it may have come in this very turn

    def do_single_que(self, request: Request) -> Any:
        self._queue.check_open()
        draft = _draft(request)
        waiting = self._store.newest(State.QUE, 1)
        if waiting:
            # It may have come in this very turn.
            return Durable(["ok", self._queue.full_id(waiting[0])])
        return self._admitted(self._queue.admit(draft, State.QUE))

    def do_commit_message(self, request: Request) -> Any:
        self._queue.check_open()
        msg_id = asked_id(request)
        if self._store.find(msg_id) is not State.PREP:
            raise NotFoundError("cannot find message")
        message = self._store.load(msg_id, State.PREP)
        refusal = self._queue.hooks.check_commit(message, self._queue.info)
        if refusal is not None:
            raise RefusedError(refusal.reason)
        self._spool.move(message, Step.COMMIT, State.PREP, State.QUE)
        self._queue.committed(message, Step.COMMIT)
        return Durable(["ok", "msg commited"])

    def do_copy_message(self, request: Request) -> Any:
        """A script of this instance asked for a copy here (``dup``); the attachments are shared."""
        self._queue.check_open()
        if self._queue.condition.admin() is not Admin.UP:
            raise RefusedError(f"queue {self._queue.name} is {self._queue.condition.shown()}")
        args = request.fields()
        draft = parse_message(args["fields"], now=time())
        attached = [
            Attached(
                item["name"], item["path"], Digest(**item["digest"]) if item["digest"] else None
            )
            for item in args["attached"]
        ]
        if any(os.path.basename(item.name) != item.name for item in attached):
            raise RefusedError("an attachment's name leads out of its directory")
        return self._admitted(self._queue.admit(draft, State.QUE, attached))

    def do_clone_message(self, request: Request) -> Any:
        self._queue.check_open()
        msg_id, state = self.found(request)
        if state not in _CLONEABLE:
            raise RefusedError(f"cannot clone message in {state} state")
        source = self._store.load(msg_id, state)
        draft = replace(source, msg_id="", count=0, due=int(time()), cloned_from=msg_id, dups=())
        attached = self._store.attached(msg_id, state)
        return self._admitted(self._queue.admit(draft, State.QUE, attached))

    def _admitted(self, message: Message) -> Durable:
        return Durable(["ok", self._queue.full_id(message.msg_id)])


def _draft(request: Request) -> Message:
    return parse_message(request.fields(), now=time())


def _told_apart_by(message: Message) -> tuple[object, ...]:
    """What does not change in a message's life."""
    return (message.dest, message.src, *message.params)
