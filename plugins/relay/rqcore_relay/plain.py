"""A far end that speaks the contract and no more, such as a Ruby RQ.

A message is prepared by ``DEST/new_message``, a file attached by ``RELAY_ID/attach/new``, the message
committed by ``RELAY_ID``, all as forms.  What counts is the JSON in the answer, ``["ok", X]`` or
``["fail", WHY]``, whatever the status of HTTP.

What the contract does not know cannot be had here: a file that was cut off is sent again from its
beginning, and a message whose commit was not answered arrives twice in the rare case that it is cleaned
away there before it is asked for.  Where it is still there, asking (``RELAY_ID.json``) tells whether it
was committed, and which files have come whole.

RELAY_ID's own address is asked, as the contract says; where it leads nowhere (a peer that does not know
its own name, or one behind a gateway), the destination's is.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from time import time
from urllib.parse import quote, urlencode

from rqcore.message import Address, parse_dest, parse_full_id
from rqcore_relay.http import Answer, Body, Http, Origin, Piece
from rqcore_relay.job import Attachment, Job
from rqcore_relay.peers import peer_name
from rqcore_relay.progress import Progress
from rqcore_relay.transfer import Standing, checked_id
from rqcore_relay.verdict import ForgottenError, TroubleError

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_GONE = "cannot find message"
#: What an RQ, or something before it, may say without a word of RQ's.
_IN_THE_WAY = {401, 403, 408, 413, 425, 429}
_SERVER_ERROR, _NO_METHOD = 500, 501
#: A peer may take the digest of a file when it has all of it: bytes per second that it reads at least.
_READS = 20_000_000


class PlainPeer:
    """A `rqcore_relay.transfer.Peer`; ``connect`` makes a connection to a base URL."""

    #: Nothing is known of such a peer's ways with two files at the same time.
    lanes = 1

    def __init__(self, job: Job, http: Http, connect: Callable[[str], Http]) -> None:
        self._job = job
        self._http = http
        self._connect = connect
        self._own: Http | None = None

    def prepare(self) -> str:
        job, peer = self._job, self._http.origin.url
        due = job.due() or 0.0
        if due > time():
            raise TroubleError(f"{peer} is not rqcore, and would run it too early", due - time())
        job.notes.count = job.count + 1
        fields = {**job.fields(), "_method": "prep"}
        body = urlencode({"x_format": "json", "mesg": json.dumps(fields)}).encode("ascii")
        address = parse_dest(job.url)
        assert address is not None  # else there would be no peer
        path = f"{self._http.origin.root}q/{quote(address.queue)}/new_message"
        answer = self._http.request("POST", path, {**_FORM, **job.trace()}, body)
        match answer.json():
            case ["ok", full_id]:
                return checked_id(full_id, peer)
            case _:
                raise _trouble(answer, peer)

    def standing(self, full_id: str, attachments: Iterable[Attachment]) -> Standing:
        http = self._at(full_id)
        message = http.request("GET", f"{_place(http, full_id)}.json").json()
        if not isinstance(message, dict) or not isinstance(message.get("state"), str):
            return Standing(prepared=True)  # it says no more: the next step will show
        if message["state"] != "prep":
            return Standing(prepared=False)
        there = message.get("_attachments")
        there = there if isinstance(there, dict) else {}
        return Standing(
            prepared=True,
            present=frozenset(
                item.name
                for item in attachments
                if isinstance(there.get(item.name), dict)
                and there[item.name].get("md5") == item.md5
            ),
        )

    def attach(self, full_id: str, attachment: Attachment, lane: int, progress: Progress) -> None:
        del lane
        http = self._at(full_id)
        fd = os.open(attachment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            boundary = os.urandom(16).hex()
            head, tail = _parts(boundary, full_id, attachment)
            body = Body(Piece(fd, 0, attachment.size), progress.add, head, tail)
            headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            path = f"{_place(http, full_id)}/attach/new"
            answer = http.request("POST", path, headers, body, attachment.size / _READS)
        finally:
            os.close(fd)
        match answer.json():
            case ["ok", str(text)]:
                md5 = text.partition("-")[0]
                if md5 != attachment.md5:
                    raise TroubleError(
                        f"{attachment.name} arrived damaged at {http.origin.url}: its MD5 there is "
                        f"{md5}, here {attachment.md5}"
                    )
            case _:
                raise self._refused(answer, http)

    def commit(self, full_id: str) -> None:
        http = self._at(full_id)
        body = urlencode({"_method": "commit", "x_format": "json"}).encode("ascii")
        answer = http.request("POST", _place(http, full_id), _FORM, body)
        match answer.json():
            case ["ok", *_]:
                return
            case _:
                raise self._refused(answer, http)

    def _refused(self, answer: Answer, http: Http) -> TroubleError:
        trouble = _trouble(answer, http.origin.url)
        said = answer.json()
        if isinstance(said, list) and said[:1] == ["fail"] and _GONE in answer.words():
            return ForgottenError(str(trouble), trouble.retry_after)
        return trouble

    def _at(self, full_id: str) -> Http:
        """The connection to where the prepared message lies."""
        if self._own is None:
            self._own = self._http
            base = peer_name(_address(full_id).base)
            if base is not None and Origin.of(base).place != self._http.origin.place:
                own = self._connect(base)
                # "localhost" as a far peer says it is not ours.
                if own.origin.is_loopback <= self._http.origin.is_loopback:
                    with contextlib.suppress(TroubleError):
                        own.open()
                        self._own = own
        return self._own


def _trouble(answer: Answer, peer: str) -> TroubleError:
    """What the peer said; where no RQ would say so, a word about that."""
    trouble = answer.trouble(peer)
    in_the_way = answer.status in _IN_THE_WAY or answer.status >= _SERVER_ERROR
    if isinstance(answer.json(), list) or (in_the_way and answer.status != _NO_METHOD):
        return trouble
    return TroubleError(f"{trouble}; is it an RQ, and is the URL right?", trouble.retry_after)


def _parts(boundary: str, full_id: str, attachment: Attachment) -> tuple[bytes, bytes]:
    """What stands before and after the file in a form in parts."""
    fields = {"msg_id": full_id, "x_format": "json", "pathname": attachment.name}
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    quoted = attachment.name.replace("\\", "\\\\").replace('"', '\\"')
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="filedata"; filename="{quoted}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode("utf-8", "surrogateescape"), f"\r\n--{boundary}--\r\n".encode("ascii")


def _address(full_id: str) -> Address:
    address = parse_full_id(full_id)
    assert address is not None  # it was looked at when it came
    return address


def _place(http: Http, full_id: str) -> str:
    address = _address(full_id)
    return f"{http.origin.root}q/{quote(address.queue)}/{address.msg_id}"
