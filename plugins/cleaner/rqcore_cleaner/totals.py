"""What was removed in all: ``var/cleaner/totals.json`` of the instance.

    {"at": UNIX TIME of the last cleaning, "removed": {QUEUE: {"messages": N, "bytes": N}}}

Written at the end of each cleaning, in one step, under the lock beside it; read for metrics, pages and
checks.  A file that is missing or makes no sense counts as empty: it is for people, nothing is decided
by it.  One that cannot be written is left as it was, and the cleaning was none the worse.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from time import time
from typing import Any

from rqcore import durable

_MOST = 16 << 20


def folder(directory: str) -> str:
    """The directory of this plugin's own files."""
    return f"{directory}/var/cleaner"


def make_folder(directory: str) -> str:
    """The same, made where it is missing.  Raises `OSError`."""
    path = folder(directory)
    durable.make_private_dir(os.path.dirname(path))
    durable.make_private_dir(path)
    return path


def read(directory: str) -> dict[str, Any]:
    """``{"at": TIME or None, "removed": {QUEUE: {"messages", "bytes"}}}``."""
    try:
        found = json.loads(durable.read_file(f"{folder(directory)}/totals.json", _MOST))
        removed = {
            str(queue): {key: int(entry[key]) for key in ("messages", "bytes")}
            for queue, entry in found["removed"].items()
        }
        return {"at": float(found["at"]), "removed": removed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"at": None, "removed": {}}


def add(directory: str, queues: Mapping[str, tuple[int, int]]) -> None:
    """A cleaning came to its end; ``queues``: messages and bytes that were removed of each."""
    with contextlib.suppress(OSError):
        path = make_folder(directory)
        with durable.alone(f"{path}/lock"):
            removed = read(directory)["removed"]
            for queue, (messages, taken) in queues.items():
                entry = removed.setdefault(queue, {"messages": 0, "bytes": 0})
                entry["messages"] += messages
                entry["bytes"] += taken
            text = json.dumps({"at": round(time(), 3), "removed": removed})
            durable.write_file(f"{path}/totals.json", text.encode("ascii"))
