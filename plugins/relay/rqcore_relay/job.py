"""The message that is to be carried, and the notes about how far that has come.

A script is told about its message by the environment and by ``../msg``.  Its notes lie in the message's
``job/``, where they survive every kill, a resend and ``rq retry``:

``relay_id``           the full id that the peer gave the prepared message (the contract's file)
``relay.json``         what only rqcore needs to go on: `Notes`
``relay-result.json``  how the last run ended, for the plugin in the queue's process; see docs/relay.md

Each is replaced in one step.  What a power cut must not take away is on the disk before the step that
it is noted for; the rest survives a kill, which is all that it has to.  Notes that cannot be written are
an `OSError`; a damaged ``relay.json`` counts as none, for ``relay_id`` alone is the contract's, and what
a plain peer gets twice is what it always got twice.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import time
from typing import Any

from rqcore.errors import RqError
from rqcore.trace import carried
from rqcore_relay.verdict import TroubleError

_PARAMS = ("param1", "param2", "param3", "param4")


@dataclass(slots=True)
class Attachment:
    """A file of the message; the digests are in hex."""

    name: str
    path: str
    size: int
    mtime_ns: int
    md5: str
    sha256: str


@dataclass(slots=True)
class Upload:
    """An attachment on its way: where it goes on, and of which file it is a part."""

    url: str
    size: int
    mtime_ns: int
    #: How far it had come when a run ended in words; 0 where that is not known.
    sent: int = 0


@dataclass(slots=True)
class Notes:
    """See the head of this module.  ``key`` names this transfer to a peer that is rqcore."""

    key: str = ""
    kind: str = ""
    #: The count that the peer was told: the same in every try, or it would be another request.
    count: int = 0
    #: When the first try of this series began, unix time.
    first: float = 0.0
    #: The full id at the peer, from before its commit was asked for: it may be committed.
    committing: str = ""
    #: The full id of what was certainly committed.
    committed: str = ""
    uploads: dict[str, Upload] = field(default_factory=dict)


#: In ``job/``: unix time, as text, when the message is due at the other end.
DUE_NOTE = "relay-due"


class Job:
    """One message of the queue relay, in the script that runs for it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.folder = os.path.abspath(environ["RQ_MSG_DIR"])
        parts = self.folder.rsplit("/", 5)  # INSTANCE/queue/relay/run/ID/job
        #: The instance's directory, and the queue that this script runs for.
        self.directory = os.path.realpath(f"{self.folder}/../../../../..")
        self.queue = parts[-4]
        self.msg_id = environ["RQ_MSG_ID"]
        self.orig_msg_id = environ.get("RQ_ORIG_MSG_ID", "")
        self.count = int(environ.get("RQ_COUNT") or 0)
        self.force_remote = environ.get("RQ_FORCE_REMOTE") == "1"
        #: The base URLs of this instance, its own first.
        self.names = [environ["RQ_HOST"], *environ.get("RQ_HOSTNAMES", "").split()]
        with open(f"{self.folder}/../msg", encoding="utf-8", errors="surrogateescape") as file:
            self.message: dict[str, Any] = json.load(file)
        self.dest = str(self.message["dest"])
        self.max_count = int(self.message.get("max_count", 15))
        self._lock = threading.Lock()
        self.notes = self._read_notes()
        if not self.notes.first or not self.count:  # a first try, also after "rq retry"
            self.notes.first = time()

    def fields(self) -> dict[str, Any]:
        """The message as the other end gets it."""
        given = self.message
        return {
            "dest": self.url or self.dest, "src": given.get("src", ""),
            "count": self.notes.count, "max_count": self.max_count,
            **{name: given.get(name, "") for name in _PARAMS},
            "post_run_webhook": given.get("post_run_webhook", []),
            "orig_msg_id": self.orig_msg_id,
        }  # fmt: skip

    def due(self) -> float | None:
        """When the message is due at the other end, if it is carried before that (`rq evacuate`)."""
        try:
            with open(f"{self.folder}/{DUE_NOTE}", encoding="ascii") as file:
                return float(file.read(64))
        except (FileNotFoundError, ValueError):
            return None

    def trace(self) -> dict[str, str]:
        """The trace that the message belongs to: fields for rqcore, headers for everybody else."""
        return carried(self.message)

    @property
    def url(self) -> str:
        """The destination's URL: of a bare queue, that of this instance's, if it must go that way."""
        if "://" in self.dest:
            return self.dest.rstrip("/")
        queue = self.dest.rstrip("/").rpartition("/")[2]
        return f"{self.names[0]}q/{queue}" if self.force_remote else ""

    # The notes

    @property
    def relay_id(self) -> str:
        """The full id of the message that the peer has prepared; empty when there is none."""
        try:
            with open(f"{self.folder}/relay_id", encoding="utf-8") as file:
                return file.read(4096).strip() or self.notes.committing
        except FileNotFoundError:
            return self.notes.committing

    def prepared(self, full_id: str) -> None:
        """Note where the prepared message lies; a peer that knows our key would tell it again."""
        self._write("relay_id", full_id.encode(), sync=self.notes.kind == "plain")

    def note(self, *, sync: bool = True) -> None:
        """Write `notes`, by default through to the disk."""
        with self._lock:
            self._write("relay.json", json.dumps(asdict(self.notes)).encode(), sync=sync)

    def forget(self) -> None:
        """Nothing of this transfer lies at a peer any more: the next run begins anew."""
        self._remove("relay_id")
        self.notes = Notes(kind=self.notes.kind, first=self.notes.first)
        self.note()

    def arrived(self, full_id: str) -> None:
        """It is committed; what was prepared is no more."""
        self.notes.committed = full_id
        self.notes.uploads = {}
        self.note(sync=self.notes.kind == "plain")  # others can tell again that it was committed
        self._remove("relay_id")

    def end(self, result: Mapping[str, Any]) -> None:
        """Leave the plugin word of how this run ended."""
        self._write("relay-result.json", json.dumps({**result, "at": time()}).encode(), sync=False)

    def attachments(self) -> list[Attachment]:
        """The message's files, with digests.  Raises `TroubleError` when one cannot be read."""
        folder = f"{self.folder}/../attach"
        try:
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except FileNotFoundError:
            return []
        # What else a hand may have put there is no attachment.
        names = [name for name in names if os.path.isfile(f"{folder}/{name}")]
        return self._described(os.path.realpath(folder), names) if names else []

    def _described(self, folder: str, names: list[str]) -> list[Attachment]:
        known = self._digests()
        found = []
        for name in names:
            path = f"{folder}/{name}"
            info = os.stat(path)
            about = known.get(name)
            if about is None or about["size"] != info.st_size:
                from rqcore.durable import hash_file  # noqa: PLC0415 - hardly ever needed

                digest = hash_file(path)
                about = {"md5": digest.md5, "sha256": digest.sha256}
            found.append(
                Attachment(
                    name, path, info.st_size, info.st_mtime_ns, about["md5"], about["sha256"]
                )
            )
        return found

    def _digests(self) -> Mapping[str, Any]:
        """What the queue knows about the files: it took their digests when they came."""
        from rqcore.client import QueueClient  # noqa: PLC0415 - not every message has files

        try:
            with QueueClient(self.directory, self.queue) as client:
                args = {"msg_id": self.msg_id, "even_down": True}
                found: Mapping[str, Any] = client.ask("get_message", args)["_attachments"]
                return found
        except (RqError, OSError) as error:
            raise TroubleError(f"the own queue does not tell what is attached: {error}") from error

    def _read_notes(self) -> Notes:
        try:
            with open(f"{self.folder}/relay.json", "rb") as file:
                given = json.load(file)
            uploads = {name: Upload(**about) for name, about in given.pop("uploads").items()}
            return Notes(**given, uploads=uploads)
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return Notes()

    def _write(self, name: str, data: bytes, *, sync: bool) -> None:
        temporary = f"{self.folder}/.{name}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), temporary)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, f"{self.folder}/{name}")
        if sync:
            folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/{name}")
