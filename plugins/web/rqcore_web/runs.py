"""Each message's runs, kept in its own directory: what the timeline of its page is made from.

``runs.jsonl`` in a message's directory has one line for each run that is over:

    {"began": UNIX, "ended": UNIX, "state": "done", "status": TEXT, "count": N}

``state`` is where the message went: ``done``, ``err``, ``relayed``, or ``que`` when it is to run again,
because it asked for that, or because its queue was stopped or killed; ``status`` tells which.

Written in the queue's process.  It is for people, so it is not brought to the disk: a disk that is
full, or a directory that a script has spoiled, loses a line of it, with a word in the log, and nothing
else.  It is one file and no directory of its own, since that would cost each message as much again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from time import time
from typing import TYPE_CHECKING, Any

from rqcore import durable

if TYPE_CHECKING:
    from rqcore.hookspecs import Outcome
    from rqcore.message import Message

_log = logging.getLogger(__name__)
_FILE = "runs.jsonl"
#: A message that is resent for ever keeps the latest so many bytes of its past, and half at least.
MAX_BYTES = 64 * 1024
_MAX_TEXT = 1000
_MAX_TIME = 1e11

#: When the runs of this process began, by the queue's directory and the message's id.
_began: dict[tuple[str, str], float] = {}


def began(queue_path: str, msg_id: str) -> None:
    """A run of this message begins now."""
    _began[queue_path, msg_id] = time()


def has_begun(queue_path: str, msg_id: str) -> bool:
    """Is this message known to run?"""
    return (queue_path, msg_id) in _began


def ended(queue_path: str, message: Message, outcome: Outcome) -> None:
    """Its script has ended; the message still lies in ``run``."""
    since = _began.pop((queue_path, message.msg_id), 0.0)
    folder = f"{queue_path}/run/{message.msg_id}"
    _note(folder, since, str(outcome.state), outcome.status, message.count)


def stopped(queue_path: str, message: Message) -> None:
    """It was ended because its queue stops, and lies in ``que`` again; or it was never begun."""
    since = _began.pop((queue_path, message.msg_id), None)
    if since is not None:
        folder = f"{queue_path}/que/{message.msg_id}"
        _note(folder, since, "que", "stopped with its queue", message.count)


def cut_off(queue_path: str, message: Message, since: float) -> None:
    """Its queue's process was killed; the message lies in ``que`` again."""
    folder = f"{queue_path}/que/{message.msg_id}"
    _note(folder, since, "que", "cut off: the queue's process ended before it", message.count)


def _note(folder: str, since: float, state: str, status: str, count: int) -> None:
    now = time()
    line = {
        "began": round(min(since or now, now), 3),
        "ended": round(now, 3),
        "state": state,
        "status": status[:_MAX_TEXT],
        "count": count,
    }
    try:
        _append(f"{folder}/{_FILE}", json.dumps(line).encode("ascii") + b"\n")
    except FileNotFoundError:
        _log.info("%s was taken away; its run is not noted", folder)
    except OSError as error:
        _log.warning("the run of %s is not noted: %s", folder, error)


def _append(path: str, line: bytes) -> None:
    fd = durable.append_log(path)
    try:
        size = os.fstat(fd).st_size
        if size + len(line) <= MAX_BYTES:
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return
    finally:
        os.close(fd)
    past = durable.read_file(path, 2 * MAX_BYTES)[-(MAX_BYTES // 2) :]
    durable.replace_unsynced(path, past[past.find(b"\n") + 1 :] + line)


def read_runs(folder: str) -> list[dict[str, Any]]:
    """The runs of the message in this directory, oldest first; lines that are damaged are left out.

    Each has ``began`` and ``ended`` (unix time, floats), ``state``, ``status`` (text) and ``count``.
    """
    try:
        data = durable.read_file(f"{folder}/{_FILE}", 2 * MAX_BYTES)
    except OSError:
        return []
    return [run for line in data.splitlines() if (run := _read(line)) is not None]


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        run = json.loads(line)
        times = [float(run[key]) for key in ("began", "ended")]
        if not all(0 <= moment < _MAX_TIME for moment in times):
            return None
        return {
            "began": times[0], "ended": times[1], "state": str(run["state"]),
            "status": str(run["status"])[:_MAX_TEXT], "count": int(run["count"]),
        }  # fmt: skip
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
