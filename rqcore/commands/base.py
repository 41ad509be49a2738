"""What all commands of a queue share: how they answer, and how they find what they are about.

A command is a method ``do_NAME`` that takes the `Request` and returns its answer.  An answer wrapped
in `Durable` is given only after this turn's changes are on the disk; if they cannot be brought there,
the answer is ``["fail", REASON]``.  `LATER` means that the method answers by itself.

Whatever goes wrong is answered: a `RefusedError` with its text, a system error with what it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rqcore.errors import NotFoundError, RefusedError, StoreError
from rqcore.lifecycle import State
from rqcore.message import is_msg_id, parse_full_id
from rqcore.queue import QueueProcess
from rqcore.server import Request
from rqcore.threads import Threads

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Durable:
    """An answer that is true once the disk has it."""

    value: Any


#: The answer of a command that answers by itself.
LATER = object()


class Commands:
    """Commands of a queue's process."""

    def __init__(self, queue: QueueProcess) -> None:
        self._queue = queue
        self._store = queue.store
        self._spool = queue.spool
        self._threads = Threads(queue.loop)

    def answer(self, request: Request, act: Callable[[], Any]) -> None:
        """Do it, and answer the request with what it returns or raises."""
        try:
            answer = act()
        except (RefusedError, StoreError) as error:
            answer = ["fail", str(error)]
        except OSError as error:
            answer = ["fail", system_error(error)]
        except Exception as error:  # noqa: BLE001 - a defect costs its asker an answer, no more
            _log.exception("the command %s failed", request.command)
            answer = ["fail", f"{request.command}: {type(error).__name__}: {error}"]
        if isinstance(answer, Durable):
            value = answer.value
            self._spool.after(
                lambda error: request.reply(
                    value if error is None else ["fail", _not_durable(error)]
                )
            )
        elif answer is not LATER:
            request.reply(answer)

    def found(self, request: Request) -> tuple[str, State]:
        """The message that the request names.  Raises `NotFoundError`."""
        msg_id = asked_id(request)
        state = self._store.find(msg_id)
        if state is None:
            raise NotFoundError("msg not found")
        return msg_id, state


def asked_id(request: Request) -> str:
    """The short id of the message that the request names, which need not exist."""
    given = request.fields().get("msg_id")
    if not given:
        raise RefusedError("lacking 'msg_id' field")
    return short_id(str(given))


def short_id(given: str) -> str:
    """The short id in an id, which may be a full one."""
    address = None if is_msg_id(given) else parse_full_id(given)
    return given if address is None else address.msg_id


def _not_durable(error: OSError) -> str:
    return (
        f"the disk does not take it: {error.strerror or error}; a new message was taken back, "
        "of anything else nobody knows whether it lasts: look before you ask again"
    )


def system_error(error: OSError) -> str:
    """A system error in words, for whoever asked for what it prevented."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"cannot be done: {error.strerror or error}{where}; the message was not accepted or changed"
    )
