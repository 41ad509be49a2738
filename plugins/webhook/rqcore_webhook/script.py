"""``rq-webhook``: the script of the queue webhook, one process for each attempt to tell somebody.

A message of that queue is: param1 the URL, param2 what is sent, param3 the endpoint's name in the
config (empty: the URL stands for itself, in the form of RQ), param4 the event and the webhook's id.
One that somebody else put there, with param1 and param2 alone, is sent in the form of RQ, as the
contract has it.

It posts, leaves what it saw in ``job/`` (a line in ``attempts.jsonl``, and ``webhook-result.json`` for
the queue's process), and tells RQ on descriptor 3: ``done``, ``resend SECONDS-REASON`` or ``fail
REASON``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from rqcore import __version__
from rqcore.errors import RqError
from rqcore_webhook import verdict
from rqcore_webhook.options import Endpoint, Options, read_options
from rqcore_webhook.signing import headers as signed_headers

if TYPE_CHECKING:
    from rqcore_webhook.post import Reply

_PIPE = 3
#: The attachment that stands in for a param2 that is too large.
PAYLOAD = "payload"


@dataclass(frozen=True, slots=True)
class Request:
    """One webhook, ready to be sent: ``url``, ``headers`` and the bytes of the body."""

    url: str
    headers: Mapping[str, str]
    body: bytes


def main() -> int:
    """Send the message of this environment."""
    if "RQ_MSG_DIR" not in os.environ:
        sys.stderr.write("rq-webhook is the script of the queue webhook: RQ runs it\n")
        return 2
    _send(os.environ)
    return 0


def _send(environ: Mapping[str, str]) -> None:
    folder = environ["RQ_MSG_DIR"]
    with open(f"{folder}/../msg", encoding="utf-8", errors="surrogateescape") as file:
        message: dict[str, Any] = json.load(file)
    name, url = str(message.get("param3") or ""), str(message.get("param1") or "")
    webhook_id = str(message.get("param4") or "").rpartition(" ")[2]
    count = int(environ.get("RQ_COUNT") or 0)
    queue = os.path.basename(os.path.dirname(os.path.dirname(os.path.dirname(folder))))
    standard, reply = False, None
    later = True  # a config that is being corrected, or a file with secrets, fails no webhook
    try:
        options = read_options(os.path.realpath(f"{folder}/../../../../.."))
        endpoint = options.endpoints.get(name)
        if name and endpoint is None:
            later = False
            raise RqError(
                f"there is no endpoint {name} in the config; bring it back (plugins.webhook.endpoints)"
            )
        standard = endpoint is not None and endpoint.format == "standard"
        payload = _payload(message, folder)
        request = prepare(endpoint, url, payload, webhook_id or environ["RQ_MSG_ID"], environ)
        attempt, reply = attempt_it(request, options, endpoint)
    except RqError as error:
        attempt = verdict.Attempt(None, str(error), refused=True, later=later)
    _note(folder, attempt, reply, webhook_id)
    line = verdict.line(
        attempt, count, f"{queue}/{environ['RQ_MSG_ID']}", standard=standard, random=_random
    )
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode("utf-8", "replace"))
    with contextlib.suppress(BrokenPipeError):
        os.write(_PIPE, f"{line}\n".encode("utf-8", "surrogateescape"))


def prepare(
    endpoint: Endpoint | None, url: str, payload: bytes, webhook_id: str, environ: Mapping[str, str]
) -> Request:
    """What is to be sent now.  Raises `RqError` when the endpoint's secrets cannot be read."""
    headers = {"User-Agent": f"rqcore-webhook/{__version__}"}
    if endpoint is not None:
        headers |= endpoint.headers
    for name in ("traceparent", "tracestate"):
        value = environ.get(name.upper(), "")
        if value and value.isascii() and value.isprintable():
            headers[name] = value
    if endpoint is not None and endpoint.format == "standard":
        headers["Content-Type"] = "application/json"
        secrets = endpoint.all_secrets()
        headers |= signed_headers(secrets, webhook_id, int(time()), payload)
        return Request(endpoint.url, headers, payload)
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    form = urlencode({"x_format": "json", "payload": payload}).encode("ascii")
    return Request(url if endpoint is None else endpoint.url, headers, form)


def attempt_it(
    request: Request, options: Options, endpoint: Endpoint | None
) -> tuple[verdict.Attempt, Reply | None]:
    """Post it; returns how that ended, and the answer if there was one."""
    from rqcore_webhook.post import PostError, Way, post  # noqa: PLC0415 - heavy, and only here

    way = Way(options.networks, options.timeout)
    if endpoint is not None:
        way = Way(options.networks, endpoint.timeout, endpoint.ca, endpoint.verify)
    try:
        reply = post(request.url, request.headers, request.body, way)
    except PostError as error:
        return verdict.Attempt(None, str(error), refused=error.refused), None
    return (
        verdict.Attempt(
            reply.status, reply.error,
            verdict.retry_after(reply.headers, time()) if reply.error else None,
            abort=reply.headers.get("webhook-delivery") == "abort-message",
        ),
        reply,
    )  # fmt: skip


def _payload(message: Mapping[str, Any], folder: str) -> bytes:
    payload = str(message.get("param2") or "")
    if payload:
        return payload.encode("utf-8", "surrogateescape")
    try:
        with open(f"{folder}/../attach/{PAYLOAD}", "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _note(folder: str, attempt: verdict.Attempt, reply: Reply | None, webhook_id: str) -> None:
    """Leave word of it; a disk that is full has no room for it, and the webhook does not need it."""
    facts = attempt.facts()
    told = {
        "at": round(time(), 3), "status": attempt.status, "result": attempt.result,
        "ms": reply.ms if reply else None, "address": reply.address if reply else "",
        "error": attempt.error, "excerpt": reply.excerpt if reply else "", "webhook_id": webhook_id,
    }  # fmt: skip
    with contextlib.suppress(OSError):
        with open(f"{folder}/{verdict.ATTEMPTS_FILE}", "a", encoding="ascii") as file:
            file.write(f"{json.dumps(told)}\n")
        temporary = f"{folder}/.{verdict.RESULT_FILE}.tmp"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(json.dumps({**facts, "ms": told["ms"]}))
        os.rename(temporary, f"{folder}/{verdict.RESULT_FILE}")


def _random() -> float:
    """From 0 to 1; the library's takes longer to load than a webhook takes."""
    return int.from_bytes(os.urandom(4), "big") / (1 << 32)
