"""Each message's runs, kept in its own directory: what the timeline of its page is made from.

``plugins/web/runs.jsonl`` in a message's directory has one line for each run that ended:

    {"began": UNIX, "ended": UNIX, "state": "done", "status": TEXT, "count": N}

Written in the queue's process, while the message still lies in ``run``; it is for people, so it is
not brought to the disk, and a disk that is full loses a line of it and nothing else.
"""

from __future__ import annotations

import json
import os
from time import time
from typing import TYPE_CHECKING, Any

from rqcore import durable

if TYPE_CHECKING:
    from rqcore.hookspecs import Outcome
    from rqcore.message import Message

_FILE = "plugins/web/runs.jsonl"
#: A message that is resent for ever keeps so many bytes of its past.
_MAX_BYTES = 256 * 1024

_began: dict[tuple[str, str], float] = {}


def began(queue_path: str, msg_id: str) -> None:
    """A run of this message begins now."""
    _began[queue_path, msg_id] = time()


def ended(queue_path: str, message: Message, outcome: Outcome) -> None:
    """The run ended; the message lies in ``run``.  Raises `OSError`."""
    now = time()
    line = {
        "began": round(_began.pop((queue_path, message.msg_id), now), 3),
        "ended": round(now, 3),
        "state": str(outcome.state),
        "status": outcome.status[:1000],
        "count": message.count,
    }
    folder = f"{queue_path}/run/{message.msg_id}"
    durable.make_private_dir(f"{folder}/plugins")
    durable.make_private_dir(f"{folder}/plugins/web")
    fd = durable.append_log(f"{folder}/{_FILE}")
    try:
        if os.fstat(fd).st_size < _MAX_BYTES:
            os.write(fd, json.dumps(line).encode("ascii") + b"\n")
    finally:
        os.close(fd)


def read_runs(folder: str) -> list[dict[str, Any]]:
    """The runs of the message in this directory, oldest first; lines that are damaged are left out."""
    try:
        data = durable.read_file(f"{folder}/{_FILE}", 2 * _MAX_BYTES)
    except OSError:
        return []
    found = []
    for line in data.splitlines():
        try:
            run = json.loads(line)
        except ValueError:
            continue
        if isinstance(run, dict) and isinstance(run.get("began"), int | float):
            found.append(run)
    return found
