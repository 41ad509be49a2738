"""The steps of a transfer, the same for every kind of far end: prepare, attach, commit.

A far end is a `Peer`.  What has been noted decides where a run begins: with nothing, with a message that
is prepared (its attachments are looked at, and only those that miss are sent), or with nothing left to
do because it is committed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from rqcore.message import parse_full_id
from rqcore_relay.job import Attachment, Job
from rqcore_relay.progress import Progress
from rqcore_relay.verdict import ForgottenError, TroubleError


@dataclass(frozen=True, slots=True)
class Standing:
    """How the prepared message stands at the peer: is it in ``prep``, and what has come whole?"""

    prepared: bool
    present: frozenset[str] = frozenset()


class Peer(Protocol):
    """A far end.  Every method raises what `rqcore_relay.verdict` has."""

    #: How many attachments it takes at a time.
    lanes: int

    def prepare(self) -> str:
        """Have the message prepared; returns the full id that it got there."""

    def standing(self, full_id: str, attachments: Iterable[Attachment]) -> Standing:
        """How a message stands that a former run prepared."""

    def attach(self, full_id: str, attachment: Attachment, lane: int, progress: Progress) -> None:
        """Bring one file there, whole and seen to be so; ``lane`` is a connection of its own."""

    def commit(self, full_id: str) -> None:
        """Let it run."""


def carry(job: Job, peer: Peer, attachments: list[Attachment], progress: Progress) -> str:
    """Carry the message there, whatever is done already; returns its full id there."""
    try:
        full_id, standing = _prepared(job, peer, attachments)
    except ForgottenError:  # what a former run prepared is gone
        job.forget()
        full_id, standing = _prepared(job, peer, attachments)
    if not standing.prepared:
        return full_id
    missing = []
    for item in attachments:
        if item.name in standing.present:
            progress.found(item.size)
        else:
            missing.append(item)
    _attach_all(peer, full_id, missing, progress)
    peer.commit(full_id)
    return full_id


def _prepared(job: Job, peer: Peer, attachments: list[Attachment]) -> tuple[str, Standing]:
    """The message that is prepared, now or before, and how it stands."""
    full_id, fresh = job.relay_id, False
    if not full_id:
        fresh = not job.notes.key  # with a key, what a former run prepared is told again
        full_id = peer.prepare()
        job.prepared(full_id)
    return full_id, Standing(prepared=True) if fresh else peer.standing(full_id, attachments)


def _attach_all(
    peer: Peer, full_id: str, attachments: list[Attachment], progress: Progress
) -> None:
    """Side by side as far as the peer takes them so; what stops one stops all."""
    lanes = min(peer.lanes, len(attachments))
    if lanes <= 1:
        for item in attachments:
            peer.attach(full_id, item, 0, progress)
        return
    # The largest first: then none is left alone at the end.
    waiting = sorted(attachments, key=lambda item: item.size)
    failures: list[BaseException] = []

    def work(lane: int) -> None:
        try:
            while not failures:
                try:
                    item = waiting.pop()
                except IndexError:
                    return
                peer.attach(full_id, item, lane, progress)
        except BaseException as error:  # noqa: BLE001 - raised again where all lanes have ended
            failures.append(error)
            progress.stop()

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def checked_id(answered: object, peer: str) -> str:
    """A full id as a peer answered it.  Raises `TroubleError` when it is none."""
    if isinstance(answered, str) and answered.isprintable() and " " not in answered:
        address = parse_full_id(answered)
        if address is not None and address.base:
            return answered
    raise unexpected(peer, repr(answered))


def unexpected(peer: str, what: str) -> TroubleError:
    """The peer said something that no RQ says."""
    return TroubleError(f"{peer} answers {what!r}, which no RQ says; is it one?")
