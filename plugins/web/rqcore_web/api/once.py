"""Doing what a request with an Idempotency-Key asks for once, however often it is sent.

    400  the key is empty, too long, or not in plain letters
    409  the first request with it is still under way (``Retry-After``), or nobody knows how it ended
    422  it was used for something else: another body, another query
    else the stored answer, with ``Idempotent-Replayed: true``

A key belongs to who used it and to the operation.  Only what was done is kept: a request that was
refused (a queue that is DOWN, a field that is wrong) can be sent again with the same key.

What if the service, or the machine, dies in the middle?

A message that is to stay in ``prep`` gets its id first: that is written down durably, and then the
message is prepared under it.  So there is never a second one.

A message that is created with a key is created in two steps, as `relay` does it: it is prepared, its id
is written down durably, and only then it is committed (``planned``).  A crash before the id is written
leaves a message in ``prep`` that never runs (the cleaner removes it), and the request, sent again,
begins anew.  A crash after it: the request, sent again, finds the message by its id, commits it if it is
still in ``prep``, and answers as if nothing had happened.  So the message runs once.  Only when it is
not there at all any more (deleted, or done and cleaned away) nobody knows, and the answer is 409.

A message that is committed with a key is known by its id.  That the commit began is written down before;
a request that finds this written, and the message not in ``prep`` any more, knows that it was done.

Other operations (``noted``: making a queue, cloning, ``single_que``, starting a job) have no such id.
That they began is written down before, their answer after.  If the service dies between the two, nobody
knows whether it was done, and 409 says so: look, and send it with a new key if it was not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from rqcore_web import access
from rqcore_web.api.keys import Entry, Keys
from rqcore_web.api.operations import KEY_PATTERN
from rqcore_web.problems import FULL, ProblemError

if TYPE_CHECKING:
    from starlette.requests import Request

HEADER = "idempotency-key"
_KEPT_HEADERS = ("location", "etag", "content-type")


class Once:
    """One request with a key, for as long as it is carried out; made by `begin`."""

    def __init__(self, keys: Keys, entry: Entry) -> None:
        self._keys = keys
        self._entry = entry

    @property
    def planned(self) -> Mapping[str, str]:
        """The full ids of messages that a former try has prepared, by the part they stand for."""
        return self._entry.plan

    async def plan(self, ids: Mapping[str, str]) -> None:
        """Write down which messages stand for parts of the request.  Raises `ProblemError`."""
        await self._write(plan=dict(ids))

    async def begun(self) -> None:
        """Write down that it begins.  Raises `ProblemError`, also if it did once before."""
        if await self.resumed():
            raise ProblemError(
                "key-outcome-unknown",
                "the web service ended while it carried out the first request with this key; look "
                "whether that was done, and send it with a new key if it was not",
            )

    async def resumed(self) -> bool:
        """Did a former try begin?  If not, write down that this one does.  Raises `ProblemError`."""
        if self._entry.written:
            return True
        await self._write()
        return False

    async def _write(self, **more: Any) -> None:
        try:
            await self._keys.write(self._entry, **more)
        except OSError as error:
            kind = "no-space" if error.errno in FULL else "storage"
            detail = f"nothing was done, for the key cannot be kept: {error.strerror}"
            raise ProblemError(kind, detail) from error

    async def done(self, response: Response) -> None:
        """It was done: this is the answer, from now on."""
        kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        body = bytes(response.body).decode("ascii")
        answer = {"status": response.status_code, "headers": kept, "body": body}
        await self._keys.finish(self._entry, answer)

    async def refused(self) -> None:
        """Nothing was done."""
        self._entry.running = False
        await self._keys.drop(self._entry)

    def unknown(self) -> None:
        """Nobody knows whether it was done."""
        self._entry.running = False
        if not self._entry.written:
            self._keys.forget(self._entry)


def begin(keys: Keys, request: Request, body: bytes) -> Once | Response | None:
    """The request's key taken, or the answer that it had; None where there is no key.

    Raises `ProblemError`.
    """
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    key = _spelled(given)
    who = access.who(request).name
    name = _digest(who, request.method, request.url.path, key)
    fingerprint = _digest(request.url.query, body.decode("latin-1"))
    entry = keys.get(name)
    if entry is None:
        return Once(keys, keys.new(name, fingerprint))
    if entry.print != fingerprint:
        raise ProblemError("key-reused", "what is sent with it now is not what was sent first")
    if entry.running:
        raise ProblemError(
            "key-in-use",
            "wait for the answer to the first, or ask again",
            headers={"Retry-After": "1"},
        )
    if entry.answer is None:
        entry.running = True
        return Once(keys, entry)
    answer = entry.answer
    headers = {**answer["headers"], "Idempotent-Replayed": "true", "Cache-Control": "no-store"}
    return Response(answer["body"].encode("ascii"), answer["status"], headers)


def _spelled(given: list[str]) -> str:
    """The key, letter by letter: quotes around it are part of it."""
    key = given[0].strip()
    if len(given) > 1 or re.fullmatch(KEY_PATTERN, key) is None:
        raise ProblemError(
            "key-invalid", "give one key, of 1 to 255 plain letters, digits and signs"
        )
    return key


def _digest(*parts: str) -> str:
    """One digest of several texts, whatever is in them."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode("utf-8", "surrogateescape")).digest())
    return whole.hexdigest()
