"""Handing a message to another queue of this instance, in two phases, safe to be run again.

    new_id = hand_over(directory, "images", fields, attachments, "handover.json")

For scripts that pass a message on: it is prepared in the other queue, its attachments are linked (a
copy of gigabytes costs nothing where a link can be made), and it is committed.  How far this has come
is kept in ``note``, a file that belongs to this one handing over, durable before each step that
counts.  Killed at any instruction and run again with the same note, the message is handed over once:

- its id is noted, and it is not there: it is prepared under that id;
- prepared, and not committed: it is taken up, and only the attachments that miss are attached;
- committed: its id is returned, whatever has become of it since.

Nothing is left of what did not come to its end but a message in ``prep``, which the same note finds.
Blocking; not for two processes with the same note at the same time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rqcore import durable
from rqcore.client import QueueClient
from rqcore.durable import Digest
from rqcore.errors import NotFoundError, RefusedError, UnreachableError

#: The kernel's own word for a message that is not there.
_NOT_FOUND = ["fail", "msg not found"]
_MAX_NOTE = 1 << 16

#: An attachment: its name, the file's path, and its digest where that is known (it is then not read).
File = tuple[str, str, Digest | None]


class UnknownOutcomeError(RefusedError):
    """It may have been handed over, and nobody can tell any more; the text names the message."""


@dataclass(frozen=True, slots=True)
class _Note:
    """How far it has come: the message's full id, and whether it may have been committed."""

    queue: str
    full_id: str
    committing: bool


def hand_over(
    directory: str | os.PathLike[str], queue: str, fields: Mapping[str, Any],
    attachments: Sequence[File], note: str | os.PathLike[str],
) -> str:  # fmt: skip
    """Hand a message to ``queue`` of the instance in ``directory``; returns its new full id.

    ``fields`` are those that `rqcore.message.parse_message` takes.  Raises `NotFoundError` when there
    is no such queue; `RefusedError` when it refuses (it is DOWN, a plugin says no), as
    `UnknownOutcomeError` when nobody can tell any more whether it was committed; `UnreachableError`
    when the queue does not answer; `OSError` when the note cannot be written.
    """
    if not os.path.lexists(f"{os.fspath(directory)}/queue/{queue}/config.json"):
        raise NotFoundError(f"there is no queue {queue}; make it, or send to another one")
    with QueueClient(directory, queue) as client:
        try:
            return _hand_over(client, queue, fields, attachments, note)
        except TimeoutError:
            raise UnreachableError(f"queue {queue} does not answer; it may be busy") from None


def _hand_over(
    client: QueueClient, queue: str, fields: Mapping[str, Any],
    attachments: Sequence[File], note: str | os.PathLike[str],
) -> str:  # fmt: skip
    known = _read(note)
    found = None if known is None else _look(client, known)
    if known is not None and found is None and known.committing:
        raise UnknownOutcomeError(
            f"the message may have arrived as {known.full_id}, which is not there any more; "
            "if it has not, send it again"
        )
    if known is not None and found is not None and found["state"] != "prep":
        return known.full_id
    if known is None:
        known = _Note(queue, client.ask("reserve_id"), committing=False)
        _write(note, known)
    if found is None:
        client.ask("prep_reserved", {"reserved_id": known.full_id, "fields": fields})
    present = found["_attachments"] if found is not None else {}
    for name, path, digest in attachments:
        if not _is_attached(present.get(name), path):
            args = {
                "msg_id": known.full_id, "name": name, "pathname": os.path.abspath(path),
                "digest": None if digest is None else asdict(digest),
            }  # fmt: skip
            client.ask("attach_message", args)
    _write(note, _Note(queue, known.full_id, committing=True))
    client.ask("commit_message", {"msg_id": known.full_id})
    return known.full_id


def _look(client: QueueClient, known: _Note) -> dict[str, Any] | None:
    """The message as it is now, also in a queue that is DOWN; None when there is none."""
    answer = client.call("get_message", {"msg_id": known.full_id, "even_down": True})
    match answer:
        case ["ok", dict() as message]:
            return message
        case _ if answer == _NOT_FOUND:
            return None
        case _:
            raise RefusedError(f"{known.full_id} cannot be looked at: {answer!r}")


def _is_attached(present: Mapping[str, Any] | None, path: str) -> bool:
    """Is it the same file?  A copy, where no link could be made, is attached again."""
    try:
        return present is not None and os.path.samefile(present["path"], path)
    except FileNotFoundError:
        return False


def _read(note: str | os.PathLike[str]) -> _Note | None:
    try:
        return _Note(**json.loads(durable.read_file(note, _MAX_NOTE)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UnknownOutcomeError(
            f"{os.fspath(note)} is not what was noted here: a message may have been handed over; "
            "look for it, and remove this file if there is none"
        ) from None


def _write(note: str | os.PathLike[str], what: _Note) -> None:
    durable.write_file(note, json.dumps(asdict(what)).encode("ascii"))
