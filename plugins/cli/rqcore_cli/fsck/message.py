"""One message's directory, looked at: is everything there, and is it what was put there?

Reads, and changes nothing.  A message may move to another state, or be deleted, at any moment while its
queue runs: then there is nothing to be found, which is no fault.  `examine` is called twice before
anybody believes it.  Raises `OSError` for what cannot be read for reasons that are not the message's.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rqcore import durable, unix
from rqcore.lifecycle import State
from rqcore.message import is_msg_id, load_message
from rqcore_cli.fsck.finding import Action, Finding

_MAX_FILE = 64 << 20
_OWN = {"msg", "status", "digests.json"}
#: Errors that tell of the file itself, not of the system.
_SPOILED = {errno.EISDIR, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Place:
    """A message's directory: ``running`` says whether its queue's process runs."""

    queue: str
    state: State
    msg_id: str
    path: str
    running: bool
    deep: bool

    def finding(self, kind: str, text: str, **more: Any) -> Finding:
        """Something about this message."""
        more.setdefault("path", self.path)
        return Finding(
            kind, text=text, queue=self.queue, state=str(self.state),
            msg_id=self.msg_id if is_msg_id(self.msg_id) else "", **more,
        )  # fmt: skip

    @property
    def aside(self) -> Action:
        """May a repair move it?  What a running queue runs is its own."""
        return "" if self.running and self.state is State.RUN else "aside"


def examine(place: Place) -> list[Finding]:
    """What is wrong with this message; nothing when it is not there any more."""
    try:
        names = set(os.listdir(place.path))
    except FileNotFoundError:
        return []
    found = list(_fields(place, names))
    if found and not os.path.lexists(place.path):
        return []
    if not found and "digests.json" in names:
        found += _attachments(place)
    if "status" in names:
        found += _status(place)
    if "pid" in names or place.state is State.RUN:
        found += _process(place)
    found += [
        place.finding("leftover", "what a write that was cut off has left", path=path,
                      action="" if place.running else "aside")
        for path in _temporaries(place, names)
    ]  # fmt: skip
    return found


def _fields(place: Place, names: set[str]) -> Iterator[Finding]:
    if "msg" not in names:
        if os.path.lexists(f"{place.path}/msg") or not os.path.lexists(place.path):
            return
        kind = "orphaned" if "job" in names else "half-written"
        has = ", ".join(sorted(names)) or "nothing"
        yield place.finding(kind, f"it has no file msg; there is: {has}", action=place.aside,
                            remedy=_of_running(place))  # fmt: skip
        return
    path = f"{place.path}/msg"
    try:
        load_message(durable.read_file(path, _MAX_FILE), place.msg_id)
    except FileNotFoundError:
        return
    except ValueError as error:
        text = f"its file msg is {error}"
    except OSError as error:
        if error.errno not in _SPOILED:
            raise
        text = f"its file msg cannot be read: {error.strerror}"
    else:
        return
    yield place.finding("unreadable", text, action=place.aside, remedy=_of_running(place))


def _of_running(place: Place) -> str:
    if place.aside:
        return ""
    return "its script runs: what becomes of it is seen when it ends; rq kill ends it"


def _attachments(place: Place) -> Iterator[Finding]:
    try:
        known = json.loads(durable.read_file(f"{place.path}/digests.json", _MAX_FILE))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        yield place.finding("bad-digests", "digests.json is no JSON object",
                            path=f"{place.path}/digests.json")  # fmt: skip
        return
    if place.state is State.RUN:  # its script may do with its files what it likes
        return
    for name, noted in known.items():
        if "/" in name or "\0" in name:
            continue
        problem = _attachment(place, name, noted)
        if problem is not None:
            yield problem


def _attachment(place: Place, name: str, noted: Any) -> Finding | None:
    path = f"{place.path}/attach/{name}"
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return _missing(place, name) if os.path.lexists(place.path) else None
    except OSError as error:
        return place.finding(
            "missing-attachment", f"{name!r} cannot be reached: {error.strerror}", action="aside"
        )
    try:
        size, mtime, sha256 = int(noted["size"]), int(noted["mtime_ns"]), str(noted["sha256"])
    except (KeyError, TypeError, ValueError):
        return None  # then nobody goes by it
    text = _change(path, info, size, sha256 if place.deep else "")
    if text:
        return place.finding("changed-attachment", f"{name!r} {text}", action="aside")
    if info.st_mtime_ns != mtime and not place.deep:
        return place.finding(
            "maybe-changed", f"{name!r} was written to, or touched, since it was attached",
            remedy=f"read it with: rq fsck --deep {place.queue}",
        )  # fmt: skip
    return None


def _missing(place: Place, name: str) -> Finding:
    if place.state is State.PREP:  # cut off while it was attached or removed: not answered
        text = "it was never wholly attached, or half removed; whoever did so was not told ok"
        return place.finding("leftover", f"digests.json tells of {name!r}: {text}")
    return place.finding("missing-attachment", f"{name!r} is not in attach/", action="aside")


def _change(path: str, info: os.stat_result, size: int, sha256: str) -> str:
    """What has become of an attached file; "" when nothing has."""
    if not stat.S_ISREG(info.st_mode):
        return "is no file any more"
    if info.st_size != size:
        return f"has {info.st_size} bytes; {size} were attached"
    found = durable.hash_file(path).sha256 if sha256 else ""
    if found != sha256:
        return f"has the SHA-256 {found}; what was attached has {sha256}"
    return ""


def _status(place: Place) -> Iterator[Finding]:
    try:
        found = json.loads(durable.read_file(f"{place.path}/status", _MAX_FILE))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        yield place.finding(
            "bad-status", "the file status is no JSON object", path=f"{place.path}/status"
        )


def _process(place: Place) -> Iterator[Finding]:
    pid = living(place.path)
    if place.state is State.RUN:
        if place.running:
            return
        if pid:
            yield place.finding(
                "alive", f"its script still runs as process {pid}, though its queue does not",
                remedy=f"the next start of the queue ends it; or end it now: kill {pid}",
            )  # fmt: skip
        else:
            yield place.finding("unfinished", "it was running when its queue ended",
                                remedy="it runs again when RQ is started: rq start")  # fmt: skip
    elif pid:
        yield place.finding(
            "alive", f"process {pid} runs for it, though it is in {place.state}",
            remedy=f"see what it does, and end it: kill {pid}",
        )  # fmt: skip
    elif os.path.lexists(f"{place.path}/pid"):
        yield place.finding("stale-pid", "its file pid names a process that is no more",
                            path=f"{place.path}/pid", action="aside")  # fmt: skip


def living(path: str) -> int:
    """The process that the message's file pid names, if it is still the same one; else 0."""
    try:
        content = durable.read_file(f"{path}/pid", 4096)
    except OSError:
        return 0
    first, _, second = content.decode("ascii", "replace").partition("\n")
    if not first.isdecimal() or not second.strip():
        return 0
    return int(first) if unix.process_start(int(first)) == second.strip() else 0


def _temporaries(place: Place, names: set[str]) -> list[str]:
    """Files that were written to be renamed, and never were, where nobody else writes."""
    ours = {f".{name}.tmp" for name in _OWN}
    if place.state is State.RUN and place.running:
        return []
    return [f"{place.path}/{name}" for name in sorted(ours & names)]
