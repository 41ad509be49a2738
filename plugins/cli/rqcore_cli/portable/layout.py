"""What an ``.rqmsg`` file is: the names in it, in which order, and what is refused.  Pure.

A plain tar.  Each message is a directory ``QUEUE/ID/`` in it, as it lies in the spool, between two files
that the spool does not have: ``rqmsg.json`` first, which tells what it is, and ``SHA256SUMS`` last, with
the digest of each file before it, as sha256sum(1) writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import time
from typing import Any

from rqcore.errors import RqError
from rqcore.message import attachment_name_problem, is_msg_id, queue_name_problem
from rqcore.words import id_time
from rqcore_cli.output import clean

SUFFIX = ".rqmsg"
FORMAT, VERSION = "rqmsg", 1
ABOUT, SUMS = "rqmsg.json", "SHA256SUMS"
STATES = ("prep", "que", "run", "done", "relayed", "err")
#: Files that belong to a message itself; ``pid`` and what begins with a dot are of the moment.
MSG, STATUS, DIGESTS = "msg", "status", "digests.json"
ATTACH, JOB = "attach/", "job/"
#: What is read into memory may be so long.
MAX_TEXT = 64 << 20
_MAX_NAME, _MAX_DEPTH = 255, 32
_MAX_SKEW = 86_400
_TOP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SUM = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)")


class ArchiveError(RqError):
    """A file that is no ``.rqmsg``, or a damaged or a hostile one."""


@dataclass(frozen=True, slots=True)
class About:
    """The content of ``rqmsg.json``: which message this is, the ``number``-th ``of`` so many."""

    queue: str
    msg_id: str
    state: str
    status: str
    full_id: str
    fields: Mapping[str, Any]
    number: int
    of: int

    def to_json(self) -> bytes:
        """The file."""
        about = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(about, indent=2).encode("ascii") + b"\n"


def read_about(data: bytes, queue: str, msg_id: str) -> About:
    """Read it, for the message in whose directory it lies.  Raises `ArchiveError`."""
    try:
        given = json.loads(data)
        if given["format"] != FORMAT or int(given["version"]) != VERSION:
            raise ArchiveError(
                f"it is of the format {given['format']!r}, version {given['version']!r}; "
                f"this rq reads {FORMAT}, version {VERSION}"
            )
        about = About(
            str(given["queue"]), str(given["msg_id"]), str(given["state"]), str(given["status"]),
            str(given["full_id"]), dict(given["fields"]), int(given["number"]), int(given["of"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ArchiveError(f"{ABOUT} of {queue}/{msg_id} makes no sense: {error!r}") from None
    if (about.queue, about.msg_id) != (queue, msg_id) or about.state not in STATES:
        whose = clean(f"{about.queue}/{about.msg_id}")
        raise ArchiveError(f"{ABOUT} of {queue}/{msg_id} is of {whose}")
    return about


def split(name: str) -> tuple[str, str, str]:
    """Queue, id and path of a member's name.  Raises `ArchiveError` for what no export writes."""
    queue, _, rest = name.partition("/")
    msg_id, _, path = rest.partition("/")
    if queue_name_problem(queue) is not None or not is_msg_id(msg_id) or not path:
        raise ArchiveError(f"{clean(name)!r} is no part of a message: QUEUE/ID/FILE")
    _check_path(name, path)
    return queue, msg_id, path


def _check_path(name: str, path: str) -> None:
    parts = path.split("/")
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if len(parts) > _MAX_DEPTH or max(sizes) > _MAX_NAME:
        raise ArchiveError(f"{clean(name)[:200]!r} is too long a path")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ArchiveError(f"{clean(name)!r} leads out of its directory")
    if path.startswith(ATTACH):
        problem = attachment_name_problem(path.removeprefix(ATTACH))
        if problem is not None:
            raise ArchiveError(f"{clean(name)!r}: {problem}")
    elif not path.startswith(JOB) and (len(parts) > 1 or not _TOP.fullmatch(path) or path == "pid"):
        raise ArchiveError(f"{clean(name)!r} is nothing that a message has")


def check_id(msg_id: str) -> None:
    """An id of the future would make all later ids of its queue begin there."""
    try:
        ahead = id_time(msg_id) - time()
    except ValueError:
        raise ArchiveError(
            f"{msg_id} is no time: take it in as a new message, by --again"
        ) from None
    if ahead > _MAX_SKEW:
        raise ArchiveError(
            f"{msg_id} is of the future: set the clock, or take it in as a new message, by --again"
        )


def sum_line(path: str, digest: str) -> bytes:
    """A line of ``SHA256SUMS``."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != path else ""
    return f"{mark}{digest}  {escaped}\n".encode("utf-8", "surrogateescape")


def read_sums(data: bytes) -> dict[str, str]:
    """Digests by path.  Raises `ArchiveError`."""
    sums = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        found = _SUM.fullmatch(line)
        if found is None:
            raise ArchiveError(f"{SUMS} has a line that sha256sum would not write: {clean(line)}")
        name = found["name"]
        if found["escaped"]:
            name = re.sub(r"\\(.)", lambda m: {"n": "\n", "r": "\r"}.get(m[1], m[1]), name)
        sums[name] = found["digest"]
    return sums


def order(path: str) -> tuple[int, str]:
    """Sorts the files of a message as they stand in the tar."""
    for rank, first in enumerate((MSG, STATUS, DIGESTS)):
        if path == first:
            return rank, path
    return (4 if path.startswith(ATTACH) else 5 if path.startswith(JOB) else 3), path
