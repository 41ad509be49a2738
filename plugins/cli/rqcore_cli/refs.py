"""Messages as people name them on the command line.

``test/ID``, ``/q/test/ID``, the message's URL, or its bare id, which is then looked for in all
queues.  Nothing is said about whether the message exists, save for a bare id.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from rqcore.errors import NotFoundError, RefusedError, RqError, UnreachableError
from rqcore.message import is_msg_id, parse_full_id
from rqcore_cli.app import App
from rqcore_cli.output import clean


@dataclass(frozen=True, slots=True)
class Ref:
    """A message of this instance."""

    queue: str
    msg_id: str

    def __str__(self) -> str:
        return f"{self.queue}/{self.msg_id}"


def ask(app: App, ref: Ref, command: str, **more: Any) -> Any:
    """Ask a message's queue for something about it.  As `App.ask`; errors name the message.

    A queue that is DOWN lets people look and clear up; the old verbs it refuses.
    """
    try:
        return app.ask(ref.queue, command, {"msg_id": ref.msg_id, "even_down": True, **more})
    except NotFoundError as error:
        if os.path.lexists(app.instance.queue_config_file(ref.queue)):
            raise NotFoundError(f"there is no message {ref}") from None
        raise error from None
    except RefusedError as error:
        raise RefusedError(f"{ref}: {explained(app, ref.queue, error)}") from None


def explained(app: App, queue: str, error: RefusedError) -> str:
    """The contract's refusal in a person's words, with the reason for which the queue is DOWN."""
    if str(error) != "status: DOWN":
        return str(error)
    reason = clean(app.instance.admin_reason(queue))
    if reason:
        return (
            f"queue {queue} is DOWN and refuses messages: {reason}; "
            f"put that right, then: rq queue up {queue}"
        )
    return f"queue {queue} is DOWN and refuses messages; bring it up with: rq queue up {queue}"


def split_ref(text: str) -> Ref | None:
    """The message that this text names with its queue; None when it names no queue."""
    address = parse_full_id(text)
    if address is not None:
        return Ref(address.queue, address.msg_id)
    queue, _, msg_id = text.partition("/")
    return Ref(queue, msg_id) if is_msg_id(msg_id) else None


def find_ref(app: App, text: str) -> Ref:
    """The message that this text names.  Raises `NotFoundError`."""
    ref = split_ref(text)
    if ref is not None:
        app.known(ref.queue)
        return ref
    if not is_msg_id(text):
        raise NotFoundError(
            f"{clean(text)} names no message; write QUEUE/ID as `rq ls` shows it, "
            "or the message's URL"
        )
    problem: RqError | None = None
    for name in app.instance.queue_names():
        try:
            app.ask(name, "get_message_state", {"msg_id": text, "even_down": True})
        except NotFoundError:
            continue
        except UnreachableError as error:
            problem = error
            continue
        return Ref(name, text)
    if problem is not None:
        raise problem
    raise NotFoundError(f"no queue has a message {text}")
