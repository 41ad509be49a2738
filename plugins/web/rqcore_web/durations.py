"""How long the site takes to answer, by route: counted in its process, given to rqcore-metrics.

Counted is the time until an answer begins; a download, or a log that is followed, may then go on for
hours.  A route is the path with ``{…}`` for what is a name or an id, so that there are few of them;
whatever the site does not know is ``other``.  It counts since the service was started.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

#: Upper bounds in seconds.
BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.inf)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: The first part of what there is at the root, by its name alone.
_FIRST = frozenset(
    {"", "q.txt", "q.json", "q", "errors", "plugins", "search", "new_queue", "new_queue_link",
     "delete_queue", "metrics", "livez", "readyz", "healthz"}
)  # fmt: skip
#: What stands behind a queue, or behind a message.
_OF_QUEUE = frozenset(
    {"config", "config.json", "new_message", "adminoper", "restart", "prep.json", "que.json",
     "run.json", "done.json", "relayed.json", "err.json"}
)  # fmt: skip
_OF_MESSAGE = frozenset(
    {"state.json", "clone", "run_now", "attach", "log", "tailview", "tailviewlog"}
)
#: Of the API: what a name or an id stands behind, and all other parts.
_NAMED = {"queues": "{queue}", "messages": "{id}", "jobs": "{job}", "uploads": "{upload}",
          "logs": "{file}", "attachments": "{file}"}  # fmt: skip
_OF_API = frozenset(
    {*_NAMED, "messages:batch", "messages:bulk", "clone", "commit", "config", "docs", "down",
     "effective", "events", "healthz", "history", "kill", "livez", "openapi.json", "pause", "plugins",
     "readyz", "restart", "resume", "retry", "run", "schedule", "search", "up"}
)  # fmt: skip
_OF_PAGES = frozenset({"search", "help", "jobs", "errors", "q", "static"})


class Distribution(NamedTuple):
    """How values spread: pairs of an upper bound and how many were at most that; the sum of all."""

    buckets: list[tuple[float, float]]
    total: float


class Family(NamedTuple):
    """Metrics of one name, as the hook ``rq_collect_metrics`` of rqcore-metrics wants them."""

    name: str
    kind: str
    help: str
    samples: list[tuple[dict[str, str], Distribution]]


class Durations:
    """See the head of this module.  Counting is for one thread; any may look."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], list[int]] = {}
        self._sums: dict[tuple[str, str, int], float] = {}

    def note(self, path: str, method: str, status: int, seconds: float) -> None:
        """An answer has begun; ``path`` is the one below the site's root."""
        key = route_of(path), method if method in _METHODS else "other", status
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = [0] * len(BOUNDS)
        counts[bisect_left(BOUNDS, seconds)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + seconds

    def families(self) -> list[Family]:
        """What was counted; nothing where no site is."""
        samples = [
            (
                {"route": route, "method": method, "code": str(status)},
                Distribution(
                    list(zip(BOUNDS, accumulate(list(counts)), strict=True)),
                    self._sums.get((route, method, status), 0.0),
                ),
            )
            for (route, method, status), counts in list(self._counts.items())
        ]
        about = "How long the site took until its answer began."
        name = "rqcore_http_request_duration_seconds"
        return [Family(name, "histogram", about, samples)] if samples else []


#: One process has one site.
durations = Durations()


def route_of(path: str) -> str:
    """The route that a path belongs to, for people; one of some dozens."""
    parts = path.split("/")[1:] or ["*"]
    first = parts[0]
    known = "other"
    if first == "q" and len(parts) > 1:
        known = _of_queue(parts)
    elif first == "api":
        known = _of_api(parts)
    elif first == "-" and len(parts) > 1:
        known = f"/-/{parts[1]}" if parts[1] in _OF_PAGES else "/-/{plugin}"
    elif first in _FIRST and len(parts) == 1:
        known = f"/{first}"
    return known


def _of_queue(parts: list[str]) -> str:
    if len(parts) == 2:  # noqa: PLR2004 - q/NAME
        return "/q/{queue}"
    if parts[2] in _OF_QUEUE:
        return f"/q/{{queue}}/{parts[2]}"
    if len(parts) > 3 and parts[3] in _OF_MESSAGE:  # noqa: PLR2004 - q/NAME/ID/WHAT
        return f"/q/{{queue}}/{{id}}/{parts[3]}"
    return "/q/{queue}/{id}"


def _of_api(parts: list[str]) -> str:
    shown: list[str] = []
    for part in parts[2:]:
        if shown and shown[-1] in _NAMED:
            shown.append(_NAMED[shown[-1]])
        elif part in _OF_API and part not in shown:
            shown.append(part)
        else:
            return "/api"
    return "/".join(["/api/v1", *shown]) if parts[1:2] == ["v1"] else "/api"
