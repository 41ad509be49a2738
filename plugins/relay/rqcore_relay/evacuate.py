"""One waiting message after the other leaves its queue for ``relay``, and with it the machine.

For each, in this order, and each step durable before the next:

    1  note      an id of relay is reserved, and noted with what is to come with the message
    2  copy      a message under this id is prepared in relay; attachments are linked
    3  original  is deleted, if it still waits in que
    4  commit    the copy is committed: relay carries it to the peer
    5  done      the note is removed

Until 3 the copy is in ``prep``, where nothing runs, and from 3 on there is no original: so whatever is
killed when, the message runs in one place.  `Evacuation.resume` takes up what was cut off, by the notes:
a copy that is whole, and whose original is gone, is committed; where the original has run meanwhile (its
queue was resumed) the copy is dropped.  The notes lie in ``var/relay/evacuate/``; one process at a time.

Blocking.  Raises `RqError` when relay refuses, or does not answer: then all that is left stays where it
is.  What is wrong with one message alone is an `OutcomeError`: it stays, and the others go.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from time import time
from typing import Any, Self

from rqcore import durable
from rqcore.client import QueueClient
from rqcore.errors import NotFoundError, RefusedError, RqError
from rqcore_relay.job import DUE_NOTE

RELAY = "relay"
#: In the ``job/`` of a copy: it is one of ours, whoever comes later and waits for it.
OURS = "relay-evacuated"
_NOT_FOUND = ["fail", "msg not found"]
_MAX_NOTE = 1 << 20
#: Made anew with the copy, or of no meaning elsewhere.
_LEFT_OUT = {"msg_id", "full_id", "state", "status", "path", "_attachments", "dups", "cloned_from"}


class OutcomeError(RqError):
    """One message cannot be handed over; the text says why.  It is where it was."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted of a message: where it lies, which copy it has, and its files' SHA-256 by name."""

    queue: str
    msg_id: str
    copy: str
    dest: str
    attachments: Mapping[str, str] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The copy's short id."""
        return self.copy.rpartition("/")[2]


class Evacuation:
    """Hands messages of the instance in ``directory`` to its relay; see the head of this module.

    ``rich``: the peer is rqcore, which can be given a message before it is due.  Else it waits here.
    """

    def __init__(self, directory: str, *, rich: bool = False) -> None:
        self._rich = rich
        self._directory = directory
        self._folder = f"{directory}/var/relay/evacuate"
        self._clients: dict[str, QueueClient] = {}
        self._lock = -1

    def __enter__(self) -> Self:
        path = self._directory
        for name in ("var", "relay", "evacuate"):
            path = f"{path}/{name}"
            durable.make_private_dir(path)
        lock = durable.lock_file(f"{self._folder}/lock", b"")
        if lock is None:
            raise RefusedError("another rq evacuate is at work here; wait until it has ended")
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()
        os.close(self._lock)

    def client(self, queue: str) -> QueueClient:
        """A connection to a queue, for as long as this takes."""
        if queue not in self._clients:
            self._clients[queue] = QueueClient(self._directory, queue)
        return self._clients[queue]

    # What was cut off

    def notes(self) -> Iterator[Note]:
        """Messages that an evacuation has begun with, and not come to the end."""
        for name in sorted(durable.children(self._folder)):
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError):
                    yield self._read(f"{self._folder}/{name}")

    def resume(self) -> list[str]:
        """Bring what was cut off to its end; returns the ids of the copies that were committed."""
        return [copy for note in list(self.notes()) if (copy := self._resume(note))]

    def _resume(self, note: Note) -> str:
        copy = self._look(RELAY, note.short)
        state = self._state(note)
        if copy is not None and copy["state"] == "prep":
            if state == "que":
                return ""  # it is come upon again in its queue
            if state or not _is_whole(copy, note):
                self._drop(note)
                return ""
            self._commit(note)
            return note.short
        if copy is None and state == "que":
            return ""
        self._forget(note)
        return note.short if copy is not None else ""

    def _state(self, note: Note) -> str:
        """Where the original is; "" when it is gone, or its queue is."""
        if not os.path.lexists(f"{self._directory}/queue/{note.queue}/config.json"):
            return ""
        found = self._look(note.queue, note.msg_id)
        return "" if found is None else str(found["state"])

    # One message

    def hand(self, queue: str, msg_id: str, dest: str) -> str:
        """Hand over a message that waits in que; returns the short id of its copy in relay.

        "" when it does not wait there any more.
        """
        message = self._look(queue, msg_id)
        if message is None or message["state"] != "que":
            return ""
        note = self._noted(queue, msg_id, dest, message["_attachments"])
        self._copy(note, message)
        try:
            self.client(queue).ask(
                "delete_message", {"msg_id": msg_id, "state": "que", "even_down": True}
            )
        except NotFoundError:  # deleted or taken away at this very moment
            self._drop(note)
            return ""
        except RefusedError as error:
            self._drop(note)
            raise OutcomeError(f"{queue}/{msg_id} stays: {error}") from None
        self._commit(note)
        return note.short

    def _noted(self, queue: str, msg_id: str, dest: str, attached: Mapping[str, Any]) -> Note:
        files = {name: str(item["sha256"]) for name, item in attached.items()}
        path = self._path(queue, msg_id)
        with contextlib.suppress(FileNotFoundError):
            known = self._read(path)
            if known.dest == dest and known.attachments == files:
                return known
            self._drop(known)
        note = Note(queue, msg_id, str(self.client(RELAY).ask("reserve_id")), dest, files)
        durable.write_file(path, json.dumps(asdict(note)).encode("ascii"))
        return note

    def _copy(self, note: Note, message: Mapping[str, Any]) -> None:
        fields = {key: value for key, value in message.items() if key not in _LEFT_OUT}
        fields["dest"] = note.dest
        if str(fields.get("orig_msg_id", "")).startswith(f"{note.dest}/"):
            fields["orig_msg_id"] = (
                ""  # it came from there: relay would take its way back for a loop
            )
        early = self._rich and fields["due"] > time()
        if early:
            fields["due"] = int(time())
        relay = self.client(RELAY)
        relay.ask("prep_reserved", {"reserved_id": note.copy, "fields": fields})
        copy = self._look(RELAY, note.short)
        present = copy["_attachments"] if copy is not None else {}
        if copy is not None:
            job = f"{copy['path']}/job"
            durable.make_private_dir(job)
            durable.replace_unsynced(f"{job}/{OURS}", b"")
            if early:
                durable.write_file(f"{job}/{DUE_NOTE}", str(message["due"]).encode("ascii"))
        for name, item in message["_attachments"].items():
            if name in present and present[name]["sha256"] == item["sha256"]:
                continue
            digest = {key: item[key] for key in ("size", "md5", "sha256")}
            args = {"msg_id": note.copy, "name": name, "pathname": item["path"], "digest": digest}
            relay.ask("attach_message", args)

    def _commit(self, note: Note) -> None:
        self.client(RELAY).ask("commit_message", {"msg_id": note.copy})
        self._forget(note)

    def _drop(self, note: Note) -> None:
        """There shall be no copy, if it has not gone already."""
        args = {"msg_id": note.short, "state": "prep", "even_down": True}
        try:
            self.client(RELAY).ask("delete_message", args)
        except RefusedError:  # it is not in prep any more; or a plugin keeps it
            copy = self._look(RELAY, note.short)
            if copy is not None and copy["state"] == "prep":
                return  # whoever comes next finds it by its note, and makes no other
        self._forget(note)

    def _look(self, queue: str, msg_id: str) -> dict[str, Any] | None:
        answer = self.client(queue).call("get_message", {"msg_id": msg_id, "even_down": True})
        match answer:
            case ["ok", dict() as message]:
                return message
            case _ if answer == _NOT_FOUND:
                return None
            case ["fail", reason]:
                raise OutcomeError(f"{queue}/{msg_id} cannot be looked at: {reason}")
            case _:
                raise OutcomeError(f"{queue}/{msg_id} cannot be looked at: {answer!r}")

    # The notes

    def _path(self, queue: str, msg_id: str) -> str:
        return f"{self._folder}/{queue}.{msg_id}.json"

    def _read(self, path: str) -> Note:
        try:
            return Note(**json.loads(durable.read_file(path, _MAX_NOTE)))
        except (ValueError, TypeError):
            raise RefusedError(
                f"{path} is not what was noted here; see what lies in prep of relay, and remove it"
            ) from None

    def _forget(self, note: Note) -> None:
        durable.remove_quietly(self._path(note.queue, note.msg_id))


def _is_whole(copy: Mapping[str, Any], note: Note) -> bool:
    there = {name: item["sha256"] for name, item in copy["_attachments"].items()}
    return there == dict(note.attachments)
