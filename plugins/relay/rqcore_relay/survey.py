"""All that is known of the peers, in one picture: for ``rq relay``, the page and the metrics.

Read from the files of `rqcore_relay.state`, which are there whether RQ runs or not; what is on its way
at the moment is asked of the queue relay, if it answers.
"""

from __future__ import annotations

from time import time
from typing import Any

from rqcore.client import QueueClient
from rqcore.errors import RqError
from rqcore_relay import state

_PATIENCE = 5.0


def survey(directory: str) -> list[dict[str, Any]]:
    """The peers, first those that are down, then those with the most waiting messages.

    Each is a dictionary as ``rq relay --json`` shows it; see docs/relay.md.
    """
    now = time()
    probes = state.read(state.Files(directory).probes)
    rows = [
        _row(name, entry, probes.get(name), now)
        for name, entry in state.read(state.Files(directory).peers).items()
    ]
    rows = [row for row in rows if _is_known(row)]
    return sorted(rows, key=lambda row: (not row["failures"], -row["waiting"], row["peer"]))


def picture(directory: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """The peers, and the transfers on their way; of those, none is when the queue does not answer."""
    moving = transfers(directory)
    rows = survey(directory)
    if moving is None:
        for row in rows:
            row["running"] = 0
    return rows, moving


def transfers(directory: str) -> list[dict[str, Any]] | None:
    """The messages on their way: ``msg_id``, ``dest``, ``status``, ``started_at``; None: not known."""
    try:
        with QueueClient(directory, "relay", timeout=_PATIENCE) as client:
            found = client.ask("describe")["running"]
    except (RqError, TimeoutError):
        return None
    keys = ("msg_id", "dest", "status", "started_at")
    return [{key: one[key] for key in keys} for one in found]


def _row(
    name: str, entry: dict[str, Any], probe: dict[str, Any] | None, now: float
) -> dict[str, Any]:
    facts = state.restored(name, entry, now)
    lines = entry.get("destinations")
    error = facts["last_error"]
    row = {
        "peer": name,
        **{key: facts[key] for key in ("reachable", "since", "kind", "failures")},
        "running": _count(entry, "running"), "waiting": _count(entry, "waiting"),
        "oldest": state.number(entry, "oldest"),
        "destinations": [
            {"dest": dest, "messages": _count(line, "messages"),
             "oldest": state.number(line, "oldest")}
            for dest, line in (lines if isinstance(lines, dict) else {}).items()
        ],
        **{key: facts[key] for key in ("messages", "bytes", "rate", "last_success")},
        "last_error": {"text": error, "at": facts["last_error_at"] or 0} if error else None,
        "next_try": facts["next_try"] or None,
        "probe": probe if facts["failures"] else None,
    }  # fmt: skip
    row["destinations"].sort(key=lambda line: (-line["messages"], line["dest"]))
    return row


def _count(entry: dict[str, Any], key: str) -> int:
    return int(state.number(entry, key) or 0)


def _is_known(row: dict[str, Any]) -> bool:
    """Did anything ever happen with this peer?"""
    return any(row[key] for key in ("since", "failures", "waiting", "running", "messages"))
