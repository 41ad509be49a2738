"""``dup``: a script asks for a copy of its message in another queue.

The queue that is to have it is asked by its socket, without waiting (`rqcore.outgoing`), also when it
is the script's own.  It takes the fields, and the attachments as further links to the same files, so
a copy of gigabytes costs nothing.  Where the copy goes is asked of the plugins first: one that
carries messages to other machines names the queue from which it does.

The script is answered ``ok FULL_ID`` when the copy is durable, ``fail REASON`` otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time
from typing import TYPE_CHECKING, Any

from rqcore import pipe
from rqcore.errors import RefusedError
from rqcore.lifecycle import State
from rqcore.message import Message, parse_dest
from rqcore.outgoing import request
from rqcore.store import Attached

if TYPE_CHECKING:
    from rqcore.queue import QueueProcess
    from rqcore.run import Run

_PATIENCE = 30.0


def copy_elsewhere(queue: QueueProcess, run: Run, dup: pipe.Dup) -> None:
    """Do what the script asks, and answer it."""

    def answered(answer: Any) -> None:
        match answer:
            case ["ok", str(new_id)]:
                queue.hooks.message_dup(run.message, queue.info, new_id, dup.dest)
                run.answer(pipe.answer_ok(new_id))
            case ["fail", reason]:
                run.answer(pipe.answer_fail(str(reason)))
            case _:
                run.answer(pipe.answer_fail(f"the queue answered {answer!r}"))

    try:
        _ask(queue, run.message, dup, answered)
    except (RefusedError, OSError) as error:
        answered(["fail", str(error)])


def _ask(
    queue: QueueProcess, message: Message, dup: pipe.Dup, answered: Callable[[Any], None]
) -> None:
    target = _target(queue, message, dup.dest)
    attached = queue.store.attached(message.msg_id, State.RUN)
    copy = {**message.to_fields(), "dest": dup.dest, "count": 0, "due": time() + dup.delay}
    args = {
        "fields": copy,
        "attached": [{"name": a.name, "path": a.path, "digest": _digest(a)} for a in attached],
    }
    path = str(queue.instance.queue_socket(target))
    request(queue.loop, path, "copy_message", args, answered, _PATIENCE)


def _target(queue: QueueProcess, message: Message, dest: str) -> str:
    target = queue.hooks.resolve_destination(dest, message, "dup")
    if target is None:
        address = parse_dest(dest)
        if address is None:
            raise RefusedError(f"{dest} is no queue and no URL of one")
        if address.base:
            raise RefusedError(f"no plugin carries messages to {address.base} (rqcore-relay would)")
        target = address.queue
    if not queue.instance.queue_config_file(target).exists():
        raise RefusedError(f"there is no queue {target}")
    return target


def _digest(item: Attached) -> Mapping[str, Any] | None:
    digest = item.digest
    if digest is None:
        return None
    return {"size": digest.size, "md5": digest.md5, "sha256": digest.sha256}
