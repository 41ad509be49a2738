"""How often each queue's process ended without having been asked to: ``var/metrics/exits.json``.

Written by the manager, which notices, and read by whoever exports.  A file that cannot be read counts
as empty; one that cannot be written costs the count of that one failure, which is logged.
"""

from __future__ import annotations

import json
import logging
import os

from rqcore import durable
from rqcore_metrics.book import complain, make_folder

_log = logging.getLogger(__name__)
_MOST = 1 << 20


def read(directory: str) -> dict[str, int]:
    """By queue, how often; empty when nothing is known."""
    try:
        known = json.loads(durable.read_file(_path(directory), _MOST))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        complain(_path(directory), error)
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: count for name, count in known.items() if type(count) is int}


def failed(directory: str, queue: str) -> None:
    """This queue's process ended by itself, or was killed."""
    known = read(directory)
    known[queue] = known.get(queue, 0) + 1
    _write(directory, known)


def forget(directory: str, queue: str) -> None:
    """There is no such queue any more."""
    known = read(directory)
    if known.pop(queue, None) is not None:
        _write(directory, known)


def _write(directory: str, known: dict[str, int]) -> None:
    path = _path(directory)
    try:
        make_folder(os.path.dirname(path))
        durable.replace_unsynced(path, json.dumps(known).encode())
    except OSError as error:
        _log.warning("%s cannot be written: %s", path, error)


def _path(directory: str) -> str:
    return os.path.join(directory, "var", "metrics", "exits.json")
