"""A destination that is this very instance: the message is handed over by the queue's socket.

`here` says whether it is.  Nothing is copied where a link can be made, and nobody needs a web service.
"""

from __future__ import annotations

import json
import socket

from rqcore.errors import RqError
from rqcore_relay.job import Attachment, Job
from rqcore_relay.peers import peer_name, peer_of
from rqcore_relay.verdict import GivenUpError, TroubleError

_ANY = {"", "0.0.0.0", "::", "*"}  # noqa: S104 - nothing is bound here
_NOTE = "relay-local.json"


def here(job: Job) -> str | None:
    """The queue of this instance that the message goes to; None when it goes elsewhere.

    A base URL is this instance's if it is one of its names, or if it has this instance's port and root
    and a host that leads to an address at which this instance listens.
    """
    queue = job.dest.rstrip("/").rpartition("/")[2]
    if "://" not in job.dest:
        return None if job.force_remote else queue
    if job.force_remote:
        return None
    peer = peer_of(job.dest)
    names = {peer_name(name) for name in job.names}
    if peer in names:
        return queue
    own = job.names[0]
    return queue if peer is not None and leads_here(peer, own, job.directory) else None


def hand_over(job: Job, queue: str, attachments: list[Attachment]) -> str:
    """Hand it over; returns its new full id.  Raises `TroubleError`, `GivenUpError`."""
    from rqcore.durable import Digest  # noqa: PLC0415 - only what stays here needs them
    from rqcore.handover import UnknownOutcomeError  # noqa: PLC0415
    from rqcore.handover import hand_over as hand  # noqa: PLC0415

    if not job.notes.count:
        job.notes.count, job.notes.kind = job.count + 1, "local"
        job.note()
    files = [
        (item.name, item.path, Digest(item.size, item.md5, item.sha256)) for item in attachments
    ]
    try:
        fields = {**job.fields(), **job.trace()}
        return hand(job.directory, queue, fields, files, f"{job.folder}/{_NOTE}")
    except UnknownOutcomeError as error:
        raise GivenUpError(str(error)) from error
    except RqError as error:
        raise TroubleError(f"queue {queue}: {error}") from error


def leads_here(peer: str, own_url: str, directory: str) -> bool:
    """Is this peer the instance in ``directory``, by its port, its root, and its addresses?"""
    from urllib.parse import urlsplit  # noqa: PLC0415 - as above

    own, other = urlsplit(own_url), urlsplit(peer)
    if (own.port or 80, own.path) != (other.port, other.path):
        return False
    theirs = _addresses(other.hostname or "")
    listens = _listens(directory)
    if listens in _ANY:
        return any(_is_own(family, address) for family, address in theirs)
    return bool({address for _, address in theirs} & {a for _, a in _addresses(listens)})


def _listens(directory: str) -> str:
    """The address of the web service, as the main config has it."""
    with open(f"{directory}/config/config.json", encoding="utf-8") as file:
        return str(json.load(file).get("addr") or "127.0.0.1")


def _addresses(host: str) -> set[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()  # whoever connects there is told why
    return {(int(family), str(address[0])) for family, *_, address in found}


def _is_own(family: int, address: str) -> bool:
    """Does the system let us have this address?  Then it is one of this machine's."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True
