"""A far end that is rqcore: nothing arrives twice, and nothing that has arrived is sent again.

A message is prepared and committed under a key of its own (``Idempotency-Key``), which is in the notes
before the first request: a request whose answer was lost is sent again and answered alike.  When the
peer cannot tell any more whether the message was committed, it is given up in words, never sent again.

A file is announced with its length and digest, so that the peer refuses before the first byte, and then
brought by a resumable upload (draft-ietf-httpbis-resumable-upload): after a cut the peer says how far it
has come.  A cut in the midst of a file is got over here as long as files come on: a connection is
tried for half a minute before the message goes back to wait for its next try.
"""

from __future__ import annotations

import binascii
import json
import os
from collections.abc import Callable, Iterable
from time import sleep
from urllib.parse import quote, urlsplit

from rqcore.message import parse_dest, parse_full_id
from rqcore_relay.http import Answer, Body, Http, Piece
from rqcore_relay.job import Attachment, Job, Upload
from rqcore_relay.progress import Progress
from rqcore_relay.transfer import Standing, checked_id, unexpected
from rqcore_relay.verdict import CutError, ForgottenError, GivenUpError, TroubleError, one_line

#: Smaller files are sent at once: sending one again costs less than asking how far it has come.
_SMALL = 256 << 10
#: Seconds between the tries to go on after a cut.
_PAUSES = (0.1, 0.4, 1.0, 2.0, 4.0, 8.0, 16.0)
#: How often the peer may send us to another offset before that is no answer any more.
_MAX_MOVES = 5
#: What the peer does with a file when it has all of it, at least: bytes per second.
_READS = 50_000_000
_OK, _CREATED, _NO_CONTENT = 200, 201, 204
_NOT_FOUND, _CONFLICT = 404, 409
#: What a peer says of a key whose message is not there any more, or was another one.
_KEY_IS_SPENT = {"key-outcome-unknown", "key-reused"}


class RichPeer:
    """A `rqcore_relay.transfer.Peer`; ``connect`` makes further connections to it."""

    def __init__(self, job: Job, http: Http, connect: Callable[[], Http], lanes: int) -> None:
        self.lanes = lanes
        self._job = job
        self._connect = connect
        self._https = [http]
        self._peer = http.origin.url
        self._api = f"{http.origin.root}api/v1"

    def prepare(self) -> str:
        job, notes = self._job, self._job.notes
        if not notes.key:
            notes.key, notes.count, notes.kind = os.urandom(16).hex(), job.count + 1, "rqcore"
            job.note()
        address = parse_dest(job.url)
        assert address is not None  # else there would be no peer
        fields = {**job.fields(), **job.trace(), "mode": "prep", "routed": True}
        due = job.due()
        if due is not None:
            fields["due"] = due
        body = json.dumps(fields).encode("ascii")
        headers = {"Content-Type": "application/json", "Idempotency-Key": notes.key}
        path = f"{self._api}/queues/{quote(address.queue)}/messages"
        answer = self._https[0].request("POST", path, headers, body)
        if answer.status not in {_OK, _CREATED}:
            if answer.problem in _KEY_IS_SPENT:
                raise ForgottenError(str(answer.trouble(self._peer)))
            raise answer.trouble(self._peer)
        made = answer.json()
        return checked_id(made.get("full_id") if isinstance(made, dict) else made, self._peer)

    def standing(self, full_id: str, attachments: Iterable[Attachment]) -> Standing:
        answer = self._https[0].request("GET", self._message(full_id))
        if answer.status == _NOT_FOUND and answer.problem:
            if self._job.notes.committing:
                raise GivenUpError(
                    f"the message may have arrived as {full_id}, which is not there any more; if it "
                    "has not, clone this one to send it again"
                )
            raise ForgottenError(f"{self._peer} answers: {answer.words()}")
        message = answer.json()
        if answer.status != _OK:
            raise answer.trouble(self._peer)
        if not isinstance(message, dict) or not isinstance(message.get("attachments"), list):
            raise unexpected(self._peer, repr(message))
        if message.get("state") != "prep":
            return Standing(prepared=False)
        there = {
            item.get("name"): (item.get("size"), item.get("sha256"))
            for item in message["attachments"]
            if isinstance(item, dict)
        }
        return Standing(
            prepared=True,
            present=frozenset(
                item.name
                for item in attachments
                if there.get(item.name) == (item.size, item.sha256)
            ),
        )

    def attach(self, full_id: str, attachment: Attachment, lane: int, progress: Progress) -> None:
        http = self._lane(lane)
        fd = os.open(attachment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sending = _Sending(self._job, http, f"{self._message(full_id)}/attachments", attachment)
            sending.bring(fd, progress)
        finally:
            os.close(fd)

    def commit(self, full_id: str) -> None:
        job = self._job
        if not job.notes.committing:
            job.notes.committing = full_id
            job.note()
        headers = {"Idempotency-Key": f"{job.notes.key}-commit"}
        path = f"{self._message(full_id)}/commit"
        answer = self._https[0].request("POST", path, headers)
        if answer.status != _OK and self.standing(full_id, ()).prepared:
            raise answer.trouble(self._peer)

    def _message(self, full_id: str) -> str:
        address = parse_full_id(full_id)
        assert address is not None  # it was looked at when it came
        return f"{self._api}/queues/{quote(address.queue)}/messages/{address.msg_id}"

    def _lane(self, lane: int) -> Http:
        if lane == 0:
            return self._https[0]
        # Only this lane's thread makes it, and a list takes an append from any thread.
        http = self._connect()
        self._https.append(http)
        return http


class _Sending:
    """One file on its way."""

    def __init__(self, job: Job, http: Http, folder: str, attachment: Attachment) -> None:
        self._job = job
        self._http = http
        self._peer = http.origin.url
        self._file = attachment
        self._path = f"{folder}/{quote(os.fsencode(attachment.name), safe='')}"
        digest = binascii.b2a_base64(bytes.fromhex(attachment.sha256), newline=False).decode(
            "ascii"
        )
        self._about = {"Upload-Length": str(attachment.size), "Repr-Digest": f"sha-256=:{digest}:"}
        #: How many bytes of it `Progress` counts as being there.
        self._counted = 0
        self._moves = 0

    def bring(self, fd: int, progress: Progress) -> None:
        """Bring it there, over as many cuts as it takes while it comes on."""
        if self._file.size <= _SMALL:
            self._at_once(fd, progress)
            return
        pauses = iter(_PAUSES)
        furthest = -1
        while True:
            try:
                upload, offset, complete = self._where(progress)
                if complete:
                    return
                if offset > furthest:
                    furthest, pauses = offset, iter(_PAUSES)
                if self._append(fd, upload, offset, progress):
                    return
            except CutError as error:
                pause = next(pauses, None)
                if pause is None or furthest < 0:
                    raise
                progress.halted(f"it goes on soon: {one_line(error)}")
                sleep(pause)

    def _at_once(self, fd: int, progress: Progress) -> None:
        headers = {**self._about, "Upload-Complete": "?1"}
        body = Body(Piece(fd, 0, self._file.size), progress.add)
        self._arrived(self._http.request("POST", self._path, headers, body))

    def _where(self, progress: Progress) -> tuple[Upload, int, bool]:
        """The upload, begun now or before, how far it is, and whether that is all."""
        upload = self._job.notes.uploads.get(self._file.name)
        if upload is None or (upload.size, upload.mtime_ns) != (
            self._file.size,
            self._file.mtime_ns,
        ):
            return self._begin(), 0, False
        answer = self._http.request("HEAD", upload.url)
        if answer.status == _NOT_FOUND:
            self._count(0, progress)
            return self._begin(), 0, False
        if answer.status != _NO_CONTENT:
            raise answer.trouble(self._peer)
        offset = self._offset(answer)
        self._count(offset, progress)
        return upload, offset, answer.headers.get("upload-complete") == "?1"

    def _begin(self) -> Upload:
        answer = self._http.request("POST", self._path, {**self._about, "Upload-Complete": "?0"})
        url = urlsplit(answer.headers.get("location", "")).path
        if answer.status != _CREATED or not url:
            raise answer.trouble(self._peer)
        former = self._job.notes.uploads.get(self._file.name)
        upload = Upload(url, self._file.size, self._file.mtime_ns, former.sent if former else 0)
        self._job.notes.uploads[self._file.name] = upload
        self._job.note()
        return upload

    def _append(self, fd: int, upload: Upload, offset: int, progress: Progress) -> bool:
        """Send the rest; is the file there?  Else the peer wants it from elsewhere."""
        at = offset

        def sent(count: int) -> None:
            nonlocal at
            self._counted += count
            again = max(0, min(upload.sent, at + count) - at)
            at += count
            upload.sent = max(upload.sent, at)
            progress.add(count, again)

        headers = {
            "Content-Type": "application/partial-upload", "Upload-Offset": str(offset),
            "Upload-Complete": "?1", **self._about,
        }  # fmt: skip
        size = self._file.size
        body = Body(Piece(fd, offset, size - offset), sent)
        answer = self._http.request("PATCH", upload.url, headers, body, size / _READS)
        if answer.status in {_CONFLICT, _NOT_FOUND} and self._moves < _MAX_MOVES:
            self._moves += 1
            return False
        self._arrived(answer)
        return True

    def _arrived(self, answer: Answer) -> None:
        name = self._file.name
        if answer.status != _CREATED:
            if answer.problem == "digest-mismatch":  # what came is dropped there
                self._job.notes.uploads.pop(name, None)
            raise answer.trouble(self._peer)
        there = answer.json()
        if not isinstance(there, dict) or there.get("sha256") != self._file.sha256:
            raise TroubleError(f"{name} arrived damaged at {self._peer}: it answers {there!r}")

    def _offset(self, answer: Answer) -> int:
        text = answer.headers.get("upload-offset", "")
        if not text.isdecimal() or int(text) > self._file.size:
            raise unexpected(self._peer, f"Upload-Offset: {text}")
        return int(text)

    def _count(self, there: int, progress: Progress) -> None:
        progress.found(there - self._counted)
        self._counted = there
