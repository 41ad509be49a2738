"""What is to be done with one message, noted so that every run of it does the same.

`Job` is the message's directory as its script sees it.  Which copies are made is written down, durably,
before the first of them: dice that were thrown are not thrown again once a copy may exist, and rules
that change in between change nothing for this message.  Each copy has a note of its own, which
`rqcore.handover` keeps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rqcore import durable
from rqcore.client import QueueClient
from rqcore.durable import Digest
from rqcore.errors import RefusedError, RqError
from rqcore.handover import File
from rqcore.message import Message, load_message

_PLAN = "router.json"
_MOST = 1 << 24


@dataclass(frozen=True, slots=True)
class Plan:
    """The rule that took the message, and the destinations of its copies."""

    rule: str
    line: int
    action: str
    log: bool
    #: What the copies have as their count; the message's own grows when it is sent again.
    count: int
    copies: tuple[str, ...]

    @property
    def named(self) -> str:
        """The rule, for people."""
        return f"rule {self.rule!r} (line {self.line})" if self.line else "no rule matches"


class Job:
    """One message of the queue rq_router, in the script that runs for it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.folder = os.path.abspath(environ["RQ_MSG_DIR"])
        #: INSTANCE/queue/rq_router/run/ID/job
        self.directory = os.path.realpath(f"{self.folder}/../../../../..")
        self.queue = self.folder.rsplit("/", 4)[1]
        self.full_id = environ["RQ_FULL_MSG_ID"]
        self.orig_msg_id = environ["RQ_ORIG_MSG_ID"]
        #: The base URLs of this instance.
        self.names = (environ["RQ_HOST"], *environ["RQ_HOSTNAMES"].split())
        self._msg_id = environ["RQ_MSG_ID"]

    def message(self) -> Message:
        """The message.  Raises `RefusedError` when its file holds none."""
        try:
            return load_message(durable.read_file(f"{self.folder}/../msg", _MOST), self._msg_id)
        except ValueError as error:
            raise RefusedError(f"the message's file cannot be used: {error}") from error

    def attachments(self) -> list[File]:
        """The message's files, with their digests as far as its queue knows them."""
        try:
            names = sorted(os.listdir(f"{self.folder}/../attach"))
        except FileNotFoundError:
            return []
        known = self._digests() if names else {}
        root = os.path.dirname(self.folder)
        return [
            (name, f"{root}/attach/{name}", known.get(name)) for name in names if name[0] != "."
        ]

    def _digests(self) -> dict[str, Digest]:
        args = {"msg_id": self._msg_id, "even_down": True}
        try:
            with QueueClient(self.directory, self.queue) as client:
                found = client.ask("get_message", args)["_attachments"]
        except RqError as error:
            print(f"the attachments are read anew: {error}", flush=True)  # noqa: T201 - the message's log
            return {}
        return {name: Digest(a["size"], a["md5"], a["sha256"]) for name, a in found.items()}

    # Notes

    def note_of(self, number: int) -> str:
        """The path of the note of a copy."""
        return f"{self.folder}/router-copy-{number}.json"

    def begun(self) -> Plan | None:
        """The plan that was noted, if a copy may have been made by it; else a new one is as good."""
        try:
            plan = json.loads(durable.read_file(f"{self.folder}/{_PLAN}", _MOST))
            found = Plan(**{**plan, "copies": tuple(plan["copies"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise RefusedError(
                f"{self.folder}/{_PLAN} is not what was noted there, and copies may have been made; "
                "look for them, then remove it"
            ) from error
        made = any(os.path.lexists(self.note_of(number)) for number in range(len(found.copies)))
        return found if made else None

    def note(self, plan: Plan) -> None:
        """Write the plan down."""
        durable.write_file(f"{self.folder}/{_PLAN}", json.dumps(asdict(plan)).encode("ascii"))


def is_planned(queue_path: str, msg_id: str) -> bool:
    """Did a run of this message, which waits in ``que``, come so far as to note its plan?"""
    return os.path.lexists(f"{queue_path}/que/{msg_id}/job/{_PLAN}")
