"""The outbox: what is to be told, from the moment it is certain until a webhook message has it.

``var/webhook/outbox`` of the instance holds one file for each thing that is to be told:

    end.ID.QUEUE.wait    a message is about to end; written through to the disk before it leaves ``run``
    TIME.KEY.go          to be told now: it has ended, or is no end at all

and beside them ``note.NAME.N`` (how far webhook N of a file has been handed over, `rqcore.handover`)
and ``body.NAME.N`` (a payload that is too large for a parameter).  A file is one JSON object, `Entry`.

The rules, by which nothing is lost and nothing doubled, wherever a process is killed:

1. `Outbox.hold` writes ``.wait`` before the message moves; one that the same message left earlier is
   replaced, for that end did not come true.  (queue's process, `rqcore_webhook.clerk`)
2. When the move is durable, `Outbox.release` makes it a ``.go`` of a name that is never used again.
3. Killed between the two: when the queue starts again, a ``.wait`` whose message is neither in ``run``
   nor in ``que`` has come true, and is released; another one waits for the message's next end.
4. ``.go`` is handed over to the queue webhook, each webhook with its own note, and is then removed,
   with the directory synced, before the notes are.  (the service, `rqcore_webhook.dispatch`)  Killed
   in between, it is handed over again, and the notes say what has been.

The functions raise `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from time import time_ns
from typing import Any

from rqcore import durable

_MOST = 256 << 20
WAIT, GO = ".wait", ".go"
#: The service looks when a file of this name comes.
POKE = "poke"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook: to whom, what it is called, what is sent."""

    endpoint: str
    url: str
    event: str
    body: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What one file holds.

    ``key`` makes the ids by which receivers know a webhook again; ``at`` is when it happened, unix
    seconds; ``queue`` and ``msg_id`` whom it is about (``msg_id`` empty: the queue itself).
    """

    key: str
    at: float
    queue: str
    msg_id: str
    webhooks: tuple[Webhook, ...]
    trace: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The file's content: each body once, for many webhooks may have the same."""
        bodies = {webhook.body: None for webhook in self.webhooks}
        places = {body: place for place, body in enumerate(bodies)}
        webhooks = [{**asdict(one), "body": places[one.body]} for one in self.webhooks]
        told = {name: getattr(self, name) for name in ("key", "at", "queue", "msg_id", "trace")}
        return json.dumps({**told, "webhooks": webhooks, "bodies": list(bodies)}).encode("ascii")


def new_key() -> str:
    """What no other entry has."""
    return os.urandom(12).hex()


def webhook_id(key: str, number: int) -> str:
    """The id of one webhook of an entry: the same however often it is sent; without a dot."""
    return f"msg_{key}_{number}"


class Outbox:
    """The outbox of the instance in ``directory``."""

    def __init__(self, directory: str) -> None:
        self.folder = f"{directory}/var/webhook/outbox"

    def make(self) -> None:
        """Make the directory."""
        path = os.path.dirname(os.path.dirname(self.folder))
        for folder in (path, f"{path}/webhook", self.folder):
            with contextlib.suppress(FileExistsError):
                durable.make_dir(folder)

    # A queue's process

    def hold(self, entry: Entry) -> None:
        """A message is about to end: durable when this returns."""
        path = self._waiting(entry.queue, entry.msg_id)
        try:
            durable.write_file(path, entry.to_json())
        except FileNotFoundError:
            self.make()
            durable.write_file(path, entry.to_json())

    def release(self, queue: str, msg_id: str, key: str) -> None:
        """It has ended: to be told now."""
        durable.rename_unsynced(self._waiting(queue, msg_id), self._going(key))

    def forget(self, queue: str, msg_id: str) -> None:
        """It will never end, for it was removed."""
        durable.remove_quietly(self._waiting(queue, msg_id))

    def put(self, entry: Entry, *, lasting: bool = False) -> None:
        """To be told now; ``lasting``: durable when this returns."""
        write = durable.write_file if lasting else durable.replace_unsynced
        try:
            write(self._going(entry.key), entry.to_json())
        except FileNotFoundError:
            self.make()
            write(self._going(entry.key), entry.to_json())

    def left(self, queue: str) -> Iterator[Entry]:
        """What waits of this queue."""
        end = f".{_short(queue)}{WAIT}"
        for name in list(durable.children(self.folder)):
            if name.endswith(end) and not name.startswith("."):
                entry = self.read(name)
                if entry is not None and entry.queue == queue:
                    yield entry

    def poke(self) -> None:
        """Have the service look: what it could not hand over may be welcome now."""
        with contextlib.suppress(FileNotFoundError):
            durable.replace_unsynced(f"{self.folder}/{POKE}", b"")

    # The service

    def ready(self) -> list[str]:
        """The names of what is to be told now, as it happened."""
        return sorted(
            name
            for name in durable.children(self.folder)
            if name.endswith(GO) and not name.startswith(".")
        )

    def pending(self) -> int:
        """How much has not become a webhook message yet."""
        return sum(
            name.endswith((GO, WAIT)) and not name.startswith(".")
            for name in durable.children(self.folder)
        )

    def read(self, name: str) -> Entry | None:
        """What a file holds; None when it is gone, or holds nothing that makes sense."""
        try:
            return _entry(json.loads(durable.read_file(f"{self.folder}/{name}", _MOST)))
        except (
            FileNotFoundError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
        ):
            return None
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EFBIG):  # no file, or one of another size
                return None
            raise

    def set_aside(self, name: str) -> None:
        """A hand has spoiled it: keep it under a name that stops nobody."""
        with contextlib.suppress(FileNotFoundError):
            durable.rename_unsynced(f"{self.folder}/{name}", f"{self.folder}/{name}.bad")

    def note(self, name: str, number: int) -> str:
        """The path of the note about one webhook."""
        return f"{self.folder}/note.{name}.{number}"

    def body_file(self, name: str, number: int, body: str) -> str:
        """Write a payload of its own file; returns its path."""
        path = f"{self.folder}/body.{name}.{number}"
        durable.write_file(path, body.encode("utf-8", "surrogateescape"))
        return path

    def told(self, name: str, count: int) -> None:
        """All ``count`` webhooks of a file have been handed over."""
        durable.remove_file(f"{self.folder}/{name}")
        for number in range(count):
            durable.remove_quietly(self.note(name, number))
            durable.remove_quietly(f"{self.folder}/body.{name}.{number}")

    def tidy(self) -> None:
        """Remove notes and bodies whose file is gone: a kill came before they were removed."""
        names = set(durable.children(self.folder))
        for name in names:
            kind, _, rest = name.partition(".")
            if kind in ("note", "body") and rest.rpartition(".")[0] not in names:
                durable.remove_quietly(f"{self.folder}/{name}")

    def _waiting(self, queue: str, msg_id: str) -> str:
        return f"{self.folder}/end.{msg_id}.{_short(queue)}{WAIT}"

    def _going(self, key: str) -> str:
        return f"{self.folder}/{time_ns():020d}.{key}{GO}"


def entry_of(
    *, at: float, queue: str, msg_id: str, webhooks: tuple[Webhook, ...], message: Any = None
) -> Entry:
    """A new entry, with the trace context that the message carries, if it carries one."""
    trace = {
        name: value
        for name in ("traceparent", "tracestate")
        if isinstance(value := getattr(message, name, ""), str) and value
    }
    return Entry(new_key(), at, queue, msg_id, webhooks, trace)


def _entry(found: dict[str, Any]) -> Entry:
    """The entry of this JSON.  Raises what is caught above, for a hand may have been in it."""
    bodies = [_text(body) for body in found["bodies"]]
    webhooks = tuple(
        Webhook(
            _text(one["endpoint"]), _text(one["url"]), _text(one["event"]), bodies[one["body"]]
        )
        for one in found["webhooks"]
    )  # fmt: skip
    given = found["trace"]
    trace = {name: _text(given[name]) for name in ("traceparent", "tracestate") if given.get(name)}
    key, queue, msg_id = (_text(found[name]) for name in ("key", "queue", "msg_id"))
    return Entry(key, float(found["at"]), queue, msg_id, webhooks, trace)


def _text(value: object) -> str:
    """Text that a message and a path can hold, if need be in the clothes of bytes."""
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(f"{value!r:.100} is no text")
    value.encode("utf-8", "surrogateescape")
    return value


def _short(queue: str) -> str:
    """A queue's name as part of a file's, whose own may be as long as a file's may be."""
    return hashlib.sha256(queue.encode("utf-8", "surrogateescape")).hexdigest()[:12]
