"""How the pushes go: ``var/metrics/pushes.json``, written by the service, read by whoever asks.

For each push, by its name in the options:

    to         where it goes
    every      its interval, in seconds
    at         when it was last tried, as unix time
    ok         when it last worked; null for never
    error      why it did not work the last time, empty when it did
    since      when it began to fail; null while it works
    waiting    bytes that wait
    lost       how many times the values of one interval were dropped
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from rqcore import durable
from rqcore_metrics.book import complain, make_folder
from rqcore_metrics.hookspecs import Family

_MOST = 1 << 20
_KEYS: Mapping[str, tuple[type, ...]] = {
    "to": (str,), "every": (int, float), "at": (int, float), "ok": (int, float, type(None)),
    "error": (str,), "since": (int, float, type(None)), "waiting": (int,), "lost": (int,),
}  # fmt: skip


def path(directory: str) -> str:
    """Where the file lies."""
    return os.path.join(directory, "var", "metrics", "pushes.json")


def read(directory: str) -> dict[str, dict[str, Any]]:
    """By push, how it goes; empty where nobody knows.  What does not make sense is left out."""
    try:
        known = json.loads(durable.read_file(path(directory), _MOST))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        complain(path(directory), error)
        return {}
    if not isinstance(known, dict):
        return {}
    return {name: one for name, one in known.items() if _is_whole(one)}


def _is_whole(one: object) -> bool:
    return isinstance(one, dict) and all(
        type(one.get(key)) in kinds for key, kinds in _KEYS.items()
    )


def write(directory: str, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Say how they go.  Raises `OSError`."""
    make_folder(os.path.dirname(path(directory)))
    durable.replace_unsynced(path(directory), json.dumps(known, indent=1).encode() + b"\n")


def families(directory: str) -> list[Family]:
    """The same as metrics, for those who can still be reached."""
    known = read(directory)
    up = Family("rqcore_metrics_push_up", "gauge", "Did the last push work?")
    lost = Family(
        "rqcore_metrics_push_lost_total", "counter", "Intervals whose values were dropped."
    )
    for name, one in known.items():
        up.samples.append(({"push": name}, float(not one["error"])))
        lost.samples.append(({"push": name}, one["lost"]))
    return [up, lost]
