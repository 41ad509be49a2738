"""The far end of a transfer: which kind it is, the connections to it, and the way the message takes.

What kind a peer is, is found out by asking it, once for each prepared message: rqcore answers ``OPTIONS
api/v1/uploads`` with 204 and its ``Upload-Limit``.  Whoever answers something else speaks the contract.
An answer that says nothing about the peer (it is overloaded, a gateway stands in for it, nobody may ask)
is trouble: taking rqcore for a plain peer would give its exactness away.
"""

from __future__ import annotations

from typing import Self

from rqcore_relay import transfer
from rqcore_relay.http import Answer, Http, Origin
from rqcore_relay.job import Attachment, Job
from rqcore_relay.options import Options
from rqcore_relay.peers import peer_name
from rqcore_relay.progress import Progress
from rqcore_relay.verdict import TroubleError

_NO_CONTENT, _BAD = 204, 400
#: How web servers tell somebody who does not speak TLS to them.
_WANTS_TLS = (b"https server", b"https port", b"ssl-enabled server")
_SILENT_ABOUT_ITSELF = {408, 425, 429, 502, 503, 504}


class FarEnd:
    """The peer with this name (`rqcore_relay.peers`); ``kind`` as in the result."""

    def __init__(self, job: Job, peer: str, options: Options) -> None:
        self.kind = job.notes.kind if job.relay_id else ""
        self._job = job
        self._peer = peer
        self._options = options
        self._opened: list[Http] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for http in self._opened:
            http.close()

    @property
    def answered(self) -> bool:
        """Has the peer ever answered?"""
        return any(http.answered for http in self._opened)

    def carry(self, attachments: list[Attachment], progress: Progress) -> str:
        """Carry the message there; returns its full id there."""
        http = self.connect(self._peer)
        if not self.kind:
            self.kind = "plain" if self._job.relay_id else self._ask(http)
            if self.kind == "plain" and self._job.notes.key:
                self._job.forget()  # it was rqcore when it was asked before; it knows no key any more
            self._job.notes.kind = self.kind
        peer: transfer.Peer
        if self.kind == "rqcore":
            from rqcore_relay.rich import RichPeer  # noqa: PLC0415 - only one of the two is needed

            lanes = self._options.parallel
            peer = RichPeer(self._job, http, lambda: self.connect(self._peer), lanes)
        else:
            from rqcore_relay.plain import PlainPeer  # noqa: PLC0415 - as above

            peer = PlainPeer(self._job, http, self.connect)
        return transfer.carry(self._job, peer, attachments, progress)

    def connect(self, base: str) -> Http:
        """Another connection."""
        http = Http(Origin.of(base), self._options, self._options.peer(peer_name(base) or base))
        self._opened.append(http)
        return http

    def _ask(self, http: Http) -> str:
        answer = http.request("OPTIONS", f"{http.origin.root}api/v1/uploads")
        if answer.status in {401, 403}:
            raise TroubleError(
                f"{self._peer} does not let us in: {answer.words()}; give a token or a user for it in "
                "the options of relay (peers)"
            )
        if answer.status in _SILENT_ABOUT_ITSELF:
            raise answer.trouble(self._peer)
        if 300 <= answer.status < 400:  # noqa: PLR2004 - the redirects
            where = answer.headers.get("location", "another address")
            raise TroubleError(f"{self._peer} sends us to {where}; send messages there")
        if answer.status == _BAD and any(word in answer.body.lower() for word in _WANTS_TLS):
            raise TroubleError(
                f"{self._peer} speaks https there; write https{self._peer.removeprefix('http')}…"
            )
        return "rqcore" if is_rqcore(answer) else "plain"


def is_rqcore(answer: Answer) -> bool:
    """Is this how rqcore answers ``OPTIONS api/v1/uploads``?"""
    return answer.status == _NO_CONTENT and "upload-limit" in answer.headers
