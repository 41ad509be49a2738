"""Files that come with a message: attached and removed while it is in ``prep``."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import Any

from rqcore import durable
from rqcore.commands.base import LATER, Commands, Durable, asked_id
from rqcore.durable import Digest
from rqcore.errors import NotFoundError, RefusedError
from rqcore.hookspecs import Attachment
from rqcore.lifecycle import State
from rqcore.message import attachment_name_problem
from rqcore.server import Request

#: Files up to this size are read at once; hashing longer ones is left to a thread.
_READ_AT_ONCE = 256 * 1024


class Attachments(Commands):
    """See the head of this module."""

    def do_attach_message(self, request: Request) -> Any:
        self._queue.check_open()
        args = request.fields()
        msg_id = asked_id(request)
        if self._store.find(msg_id) is not State.PREP:
            raise NotFoundError("cannot find message")
        path = args.get("pathname")
        if not isinstance(path, str) or not path or "\0" in path:
            raise RefusedError("lacking 'pathname' field: the absolute path of the file to attach")
        name = args.get("name") or os.path.basename(path)
        problem = attachment_name_problem(name)
        if problem is not None:
            raise RefusedError(problem)
        known = _known_digest(args.get("digest"))
        size = _attachable_size(path)
        staged = self._store.staging()

        def take() -> Digest:
            return durable.take_file(path, staged, known)

        def taken(result: Digest | Exception) -> None:
            self.answer(request, lambda: self._attach(msg_id, name, staged, result))

        if size <= _READ_AT_ONCE:
            return self._attach(msg_id, name, staged, take())
        # Also one whose digest is known: where it cannot be linked, it is copied after all.
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
        msg_id, state = self.found(request)
        if state is not State.PREP:
            raise RefusedError(f"message is in {state}; only one in prep can lose attachments")
        problem = attachment_name_problem(name)
        if problem is not None:
            raise RefusedError(problem)
        self._store.detach(msg_id, state, str(name))
        return Durable(["ok", "Attachment deleted successfully"])


def _known_digest(given: Any) -> Digest | None:
    """What a client says who wrote the file himself, hashed it on the way, and made it durable."""
    if given is None:
        return None
    try:
        return Digest(int(given["size"]), str(given["md5"]), str(given["sha256"]))
    except (KeyError, TypeError, ValueError):
        raise RefusedError("'digest' must be an object with size, md5 and sha256") from None


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
