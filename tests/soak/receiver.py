"""Two receivers of webhooks, in one server, that note what they are told: one of each form.

``/form`` takes RQ's own form, ``/standard`` the signed one, whose signature is checked.  They are moody:
each webhook may once be refused, hung up on, heard without an answer, or answered late.
"""

from __future__ import annotations

import base64
import collections
import hashlib
import hmac
import http.server
import json
import random
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, cast

from rqcore.testing import free_port

SECRET = b"0123456789abcdef0123456789abcdef"


@dataclass
class Account:
    """What the clients were told, what the receivers were told, and what was removed."""

    #: By short id: the queue of a message that was accepted.
    accepted: dict[str, str] = field(default_factory=dict)
    unanswered: int = 0
    #: By (short id, state): how often the form, and which ids of the standard form, said so.
    forms: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    signed: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    refused: int = 0
    killed: collections.Counter[str] = field(default_factory=collections.Counter)
    removed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Receiver(http.server.ThreadingHTTPServer):
    """See the head of this module."""

    daemon_threads = False

    def __init__(self, account: Account, seed: int, *, moody: bool) -> None:
        super().__init__(("127.0.0.1", free_port()), _Handler)
        self.account = account
        self.moods = random.Random(seed)
        self.moody = moody
        self.met: set[str] = set()
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def mood(self, webhook: str) -> str:
        """How this one is received."""
        with self.account.lock:
            if webhook in self.met or not self.moody:
                return "good"
            self.met.add(webhook)
            return self.moods.choice(("good",) * 12 + ("refuse", "hang up", "lose", "slow"))

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        receiver = cast("Receiver", self.server)
        account = receiver.account
        body = self.rfile.read(int(self.headers["content-length"]))
        standard = self.path == "/standard"
        told = _signed(self.headers, body) if standard else _form(body)
        mood = receiver.mood(f"{self.path} {told[0]} {told[1]}")
        if mood == "refuse":
            account.refused += 1
            self._answer(503)
            return
        if mood == "hang up":
            self.close_connection = True
            return
        with account.lock:
            if standard:
                ids = account.signed.setdefault(told[:2], set())
                ids.add(str(self.headers["webhook-id"]))
            else:
                account.forms[told[:2]] += 1
        if mood == "lose":  # it has arrived, and the sender will not know
            self.close_connection = True
            return
        if mood == "slow":
            time.sleep(0.3)  # the mood itself, not a wait for anything
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing: the account tells."""


def _form(body: bytes) -> tuple[str, str]:
    fields = urllib.parse.parse_qs(body.decode("ascii"), strict_parsing=True)
    assert fields["x_format"] == ["json"], fields
    message = json.loads(fields["payload"][0])
    return str(message["msg_id"]).rpartition("/")[2], str(message["state"])


def _signed(headers: Any, body: bytes) -> tuple[str, str]:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode("ascii")
    assert f"v1,{wanted}" in headers["webhook-signature"].split(), headers["webhook-signature"]
    event = json.loads(body)
    message = event["data"].get("message", event["data"])
    return str(message["msg_id"]).rpartition("/")[2], str(event["type"]).removeprefix("message.")
