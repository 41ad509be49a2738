"""What can be asked of a queue by its socket: the contract's commands, and those of our own client.

Each command is a method `do_NAME` that returns its answer.  An answer wrapped in `Durable` is given
only after this turn's changes are on the disk; if they cannot be brought there, the answer is
``["fail", REASON]``.  `LATER` means that the method answers by itself.

Whatever goes wrong is answered: a `RefusedError` with its text, a system error with what it was.

A queue that is DOWN refuses all the contract's commands about one message.  Our own tools say
``"even_down": true`` where an operator may look and clear up all the same.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from time import time
from typing import Any

from rqcore import durable
from rqcore.condition import Admin
from rqcore.durable import Digest
from rqcore.errors import NotFoundError, RefusedError, StoreError
from rqcore.hookspecs import Attachment
from rqcore.lifecycle import State, Step
from rqcore.message import (
    Message,
    attachment_name_problem,
    is_msg_id,
    parse_full_id,
    parse_message,
)
from rqcore.queue import QueueProcess
from rqcore.server import Request
from rqcore.store import Attached
from rqcore.threads import Threads

_log = logging.getLogger(__name__)
_STATES = {state.value: state for state in State}
#: Files up to this size are read at once; hashing longer ones is left to a thread.
_READ_AT_ONCE = 256 * 1024
_MAX_LIST = 1000
#: One `list_messages` looks at so many messages at most, found or not.
_MAX_LOOKED_AT = 500
_CLONEABLE = (State.DONE, State.RELAYED, State.ERR)
#: Refused while the queue is DOWN ...
_WHEN_DOWN = {
    "create_message", "single_que", "prep_message", "attach_message", "delete_attach_message",
    "commit_message", "get_message", "get_message_state", "get_message_status", "delete_message",
    "destroy_message", "run_message", "clone_message", "retry_message", "copy_message",
}  # fmt: skip
#: ... but for whoever says that he knows.
_EVEN_DOWN = {
    "get_message", "get_message_state", "get_message_status", "delete_message", "destroy_message",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Durable:
    """An answer that is true once the disk has it."""

    value: Any


LATER = object()


class Requests:
    """See the head of this module."""

    def __init__(self, queue: QueueProcess) -> None:
        self._queue = queue
        self._store = queue.store
        self._spool = queue.spool
        self._threads = Threads(queue.loop)

    def handle(self, request: Request) -> None:
        """Answer a request, now or later, exactly once."""
        method: Callable[[Request], Any] | None = getattr(self, f"do_{request.command}", None)
        if method is None or not request.command.isidentifier():
            request.reply(["ERROR"])
        elif self._refused_when_down(request):
            request.reply(["fail", "status: DOWN"])
        else:
            self._answer(request, lambda: method(request))

    def _refused_when_down(self, request: Request) -> bool:
        if request.command not in _WHEN_DOWN:
            return False
        if self._queue.condition.admin() is not Admin.DOWN:
            return False
        known = isinstance(request.args, dict) and request.args.get("even_down") is True
        return not (known and request.command in _EVEN_DOWN)

    def _answer(self, request: Request, act: Callable[[], Any]) -> None:
        try:
            answer = act()
        except (RefusedError, StoreError) as error:
            answer = ["fail", str(error)]
        except OSError as error:
            answer = ["fail", _system_error(error)]
        except Exception as error:  # noqa: BLE001 - a defect costs its asker an answer, no more
            _log.exception("the command %s failed", request.command)
            answer = ["fail", f"{request.command}: {type(error).__name__}: {error}"]
        if isinstance(answer, Durable):
            value = answer.value
            self._spool.after(
                lambda error: request.reply(
                    value if error is None else ["fail", _system_error(error)]
                )
            )
        elif answer is not LATER:
            request.reply(answer)

    # About the queue

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
            "name": queue.name, "status": queue.condition.shown(),
            "admin": queue.condition.admin(), "oper": queue.condition.oper,
            "problem": queue.condition.problem or queue.work.pause_reason, "pid": os.getpid(),
            "uptime": int(time() - queue.started_at), "counts": self.do_num_messages(request),
            "workers": queue.config.num_workers, "script": queue.config.script,
            "running": [self._running(run.message, run.process.pid, run.status)
                        for run in queue.work.runs.values()],
            "next_wake": queue.next_wake(), "wakeups": queue.loop.wakeups,
        }]  # fmt: skip

    def _running(self, message: Message, pid: int, status: str) -> Mapping[str, Any]:
        return {"msg_id": message.msg_id, "pid": pid, "status": status, "dest": message.dest}

    def do_plugins(self, _: Request) -> Any:
        """How this process's plugins fare: calls, errors and time of each hook."""
        return ["ok", self._queue.hooks.report()]

    # Coming in

    def do_create_message(self, request: Request) -> Any:
        self._queue.check_open()
        return self._admitted(self._queue.admit(_draft(request), State.QUE))

    def do_prep_message(self, request: Request) -> Any:
        self._queue.check_open()
        return self._admitted(self._queue.admit(_draft(request), State.PREP))

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
        msg_id = _msg_id(request)
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
            Attached(item["name"], item["path"], Digest(**item["digest"]) if item["digest"] else None)
            for item in args["attached"]
        ]
        return self._admitted(self._queue.admit(draft, State.QUE, attached))

    def do_clone_message(self, request: Request) -> Any:
        self._queue.check_open()
        msg_id, state = self._found(request)
        if state not in _CLONEABLE:
            raise RefusedError(f"cannot clone message in {state} state")
        source = self._store.load(msg_id, state)
        draft = replace(
            source, msg_id="", count=0, due=int(time()), cloned_from=msg_id, dups=()
        )
        attached = self._store.attached(msg_id, state)
        return self._admitted(self._queue.admit(draft, State.QUE, attached))

    def _admitted(self, message: Message) -> Durable:
        return Durable(["ok", self._queue.full_id(message.msg_id)])

    # Attachments

    def do_attach_message(self, request: Request) -> Any:
        self._queue.check_open()
        args = request.fields()
        msg_id = _msg_id(request)
        if self._store.find(msg_id) is not State.PREP:
            raise NotFoundError("cannot find message")
        path = args.get("pathname")
        if not isinstance(path, str) or not path or "\0" in path:
            raise RefusedError("lacking 'pathname' field: the absolute path of the file to attach")
        name = args.get("name") or os.path.basename(path)
        problem = attachment_name_problem(name)
        if problem is not None:
            raise RefusedError(problem)
        size = _attachable_size(path)
        staged = self._store.staging()

        def take() -> Digest:
            return durable.take_file(path, staged)

        def taken(result: Digest | Exception) -> None:
            self._answer(request, lambda: self._attach(msg_id, name, staged, result))

        if size <= _READ_AT_ONCE:
            return self._attach(msg_id, name, staged, take())
        self._threads.run(take, taken)
        return LATER

    def _attach(self, msg_id: str, name: str, staged: str, result: Digest | Exception) -> Any:
        if isinstance(result, Exception):
            raise result
        try:
            if self._store.find(msg_id) is not State.PREP:
                raise NotFoundError("cannot find message")
            message = self._store.load(msg_id, State.PREP)
            attachment = Attachment(name, result.size, result.md5, result.sha256, staged)
            refusal = self._queue.hooks.check_attachment(message, attachment, self._queue.info)
            if refusal is not None:
                raise RefusedError(refusal.reason)
            self._store.attach(msg_id, State.PREP, name, staged, result)
        except BaseException:
            durable.remove_quietly(staged)
            raise
        final = replace(
            attachment, path=f"{self._store.directory(msg_id, State.PREP)}/attach/{name}"
        )
        self._spool.fact(
            lambda: self._queue.hooks.message_attached(message, final, self._queue.info)
        )
        return Durable(["ok", f"{result.md5}-Attached successfully"])

    def do_delete_attach_message(self, request: Request) -> Any:
        name = request.fields().get("attachment_name") or request.fields().get("name")
        msg_id, state = self._found(request)
        if state is not State.PREP:
            raise RefusedError(f"message is in {state}; only one in prep can lose attachments")
        problem = attachment_name_problem(name)
        if problem is not None:
            raise RefusedError(problem)
        self._store.detach(msg_id, state, str(name))
        return Durable(["ok", "Attachment deleted successfully"])

    # Looking

    def do_get_message(self, request: Request) -> Any:
        msg_id, state = self._found(request)
        unread = [a for a in self._store.attached(msg_id, state) if a.digest is None]
        if not unread:
            return ["ok", self._described(msg_id, state)]

        def read() -> list[tuple[str, Digest]]:
            return [(item.name, durable.hash_file(item.path)) for item in unread]

        def done(result: list[tuple[str, Digest]] | Exception) -> None:
            self._answer(request, lambda: self._noted(msg_id, result))

        self._threads.run(read, done)
        return LATER

    def _noted(self, msg_id: str, result: list[tuple[str, Digest]] | Exception) -> Any:
        if isinstance(result, Exception):
            raise result
        state = self._store.find(msg_id)
        if state is None:
            raise NotFoundError("msg not found")
        for name, digest in result:
            self._store.note_digest(msg_id, state, name, digest)
        return ["ok", self._described(msg_id, state)]

    def _described(self, msg_id: str, state: State) -> dict[str, Any]:
        attachments = {
            item.name: {
                "md5": item.digest.md5, "sha256": item.digest.sha256,
                "size": item.digest.size, "path": item.path,
            }
            for item in self._store.attached(msg_id, state)
            if item.digest is not None
        }  # fmt: skip
        return {
            **self._summary(msg_id, state),
            "path": self._store.directory(msg_id, state),
            "_attachments": attachments,
        }

    def _summary(self, msg_id: str, state: State) -> dict[str, Any]:
        message = self._store.load(msg_id, state)
        return {
            **message.to_fields(),
            "full_id": self._queue.full_id(msg_id),
            "state": state,
            "status": self._status(msg_id, state),
        }

    def _status(self, msg_id: str, state: State) -> str:
        main = self._queue.schedule.set_aside_by(msg_id) if state is State.QUE else None
        text = f"set aside as duplicate of {main}" if main else self._store.status(msg_id, state)
        return f"{state} - {text}" if text else str(state)

    def do_get_message_state(self, request: Request) -> Any:
        return ["ok", self._found(request)[1]]

    def do_get_message_status(self, request: Request) -> Any:
        return ["ok", self._status(*self._found(request))]

    def do_messages(self, request: Request) -> Any:
        args = request.fields()
        state = _STATES.get(str(args.get("state")))
        if state is None:
            return ["fail", f"invalid or missing 'state' field ({args.get('state', '')})"]
        ids = self._store.newest(state, _limit(args, _MAX_LIST), str(args.get("before") or ""))
        return list(self._items(state, ids))

    def _items(self, state: State, ids: list[str]) -> Iterator[dict[str, Any]]:
        """The contract's items: what is shown of a message depends on its state."""
        for msg_id in ids:
            item: dict[str, Any] = {"msg_id": msg_id}
            try:
                if state in (State.QUE, State.RUN, State.RELAYED):
                    message = self._store.load(msg_id, state)
                    item["dest"] = message.dest
                    if state is State.QUE:
                        item["due"] = message.due
                    else:
                        item["status"] = self._store.status(msg_id, state)
                if state is State.RELAYED:
                    item["new_msg"] = item["status"].rpartition(" ")[2]
            except (NotFoundError, StoreError):
                continue  # taken away or spoiled by hand since it was listed
            yield item

    def do_list_messages(self, request: Request) -> Any:
        """A page of a state, newest first, of those whose fields hold ``text``, if it is given.

        Answers ``{"items": [...], "next": ID}``; ``next`` is where to go on (``before``), null at the
        end.  A page may be empty and not the last: no request looks at too many messages.
        """
        args = request.fields()
        state = _STATES.get(str(args.get("state")))
        if state is None:
            raise RefusedError(f"invalid or missing 'state' field ({args.get('state', '')})")
        limit, text = _limit(args, _MAX_LIST), str(args.get("text") or "").lower()
        ids = self._store.newest(state, min(_MAX_LOOKED_AT, limit if not text else _MAX_LOOKED_AT),
                                 str(args.get("before") or ""))  # fmt: skip
        items: list[dict[str, Any]] = []
        last = ""
        for msg_id in ids:
            last = msg_id
            try:
                item = self._summary(msg_id, state)
            except (NotFoundError, StoreError) as error:
                item = {"msg_id": msg_id, "state": state, "status": f"unreadable: {error}"}
            if not text or any(text in str(value).lower() for value in item.values()):
                items.append(item)
                if len(items) == limit:
                    break
        return ["ok", {"items": items, "next": last or None}]

    # Moving along

    def do_run_message(self, request: Request) -> Any:
        msg_id, state = self._found(request)
        if state is State.RUN:
            return ["fail", "msg already running"]
        if state is not State.QUE or not self._queue.schedule.front(msg_id):
            return ["fail", "msg not in runnable state"]
        self._queue.look()
        return ["ok", "msg sent to front of run queue"]

    def do_retry_message(self, request: Request) -> Any:
        """From ``err`` back to ``que``, with everything it left in ``job/``; its count begins anew."""
        self._queue.check_open()
        msg_id, state = self._found(request)
        if state is not State.ERR:
            raise RefusedError(f"message is in {state}; only one in err can be retried")
        message = replace(self._store.load(msg_id, state), count=0, due=int(time()), dups=())
        self._spool.move(message, Step.RETRY, State.ERR, State.QUE, rewrite=True)
        self._queue.committed(message, Step.RETRY)
        return Durable(["ok", "msg sent to run again"])

    def do_destroy_message(self, request: Request) -> Any:
        msg_id, state = self._found(request)
        run = self._queue.work.runs.get(msg_id)
        if run is None:
            raise RefusedError(f"message is in {state}, nothing runs; delete it instead")
        run.end("destroy", self._queue.settings.kill_grace)
        return ["ok", "msg destroyed"]

    def do_delete_message(self, request: Request) -> Any:
        msg_id, state = self._found(request)
        if state is State.RUN:
            raise RefusedError("message is running; destroy it first")
        message = self._store.load(msg_id, state)
        refusal = self._queue.hooks.check_removal(message, self._queue.info)
        if refusal is not None:
            raise RefusedError(refusal.reason)
        if state is State.QUE:
            self._queue.schedule.discard(msg_id)
        self._spool.remove(message, state)
        self._spool.fact(
            lambda: self._queue.hooks.message_removed(msg_id, self._queue.info, state)
        )
        return Durable(["ok", "msg deleted"])

    # Following

    def do_subscribe(self, request: Request) -> Any:
        args = request.fields()
        msg_id = _short_id(str(args["msg_id"])) if args.get("msg_id") else ""
        connection = request.connection
        request.reply(["ok", "subscribed"])
        self._queue.followers.add(connection, msg_id, log=bool(args.get("log")))
        return LATER

    def _found(self, request: Request) -> tuple[str, State]:
        msg_id = _msg_id(request)
        state = self._store.find(msg_id)
        if state is None:
            raise NotFoundError("msg not found")
        return msg_id, state


def _draft(request: Request) -> Message:
    return parse_message(request.fields(), now=time())


def _msg_id(request: Request) -> str:
    given = request.fields().get("msg_id")
    if not given:
        raise RefusedError("lacking 'msg_id' field")
    return _short_id(str(given))


def _short_id(given: str) -> str:
    address = None if is_msg_id(given) else parse_full_id(given)
    return given if address is None else address.msg_id


def _limit(args: Mapping[str, Any], most: int) -> int:
    try:
        return max(1, min(most, int(args.get("limit") or most)))
    except (TypeError, ValueError):
        raise RefusedError(f"'limit' must be a whole number, not {args['limit']!r}") from None


def _attachable_size(path: str) -> int:
    try:
        info = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise RefusedError(f"No such file {path} to attach to message") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be attached: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode):
        kind = "a directory" if stat.S_ISDIR(info.st_mode) else "not a regular file"
        raise RefusedError(f"{path} cannot be attached: it is {kind}")
    return info.st_size


def _system_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"cannot be done: {error.strerror or error}{where}; the message was not accepted or changed"
