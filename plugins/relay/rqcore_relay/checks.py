"""What ``rq doctor`` and ``rq check`` are told of the peers.

Read from the files that the queue relay and its service keep, whether RQ runs or not.  A peer that is
down is no trouble of this machine as long as nothing waits for it.
"""

from __future__ import annotations

from time import time
from typing import Any

from rqcore.hookspecs import Check
from rqcore.words import span_in_words
from rqcore_relay.survey import survey

#: Seconds that a message may wait for a peer that is down before it is time to look there.
_STUCK = 3600.0


def checks(directory: str) -> list[Check]:
    """One for each peer that something waits for and that is down; else one that all is well."""
    rows = survey(directory)
    down = [row for row in rows if row["failures"] and row["waiting"]]
    if down:
        now = time()
        return [_down(row, now) for row in down]
    return [Check("relay", "ok", _all_well(len(rows)))]


def _all_well(peers: int) -> str:
    return "nothing waits for a machine that is down" if peers else "nothing was relayed yet"


def _down(row: dict[str, Any], now: float) -> Check:
    waits = now - (row["oldest"] or now)
    messages = "1 message waits" if row["waiting"] == 1 else f"{row['waiting']:,} messages wait"
    error = row["last_error"]
    reason = f": {error['text']}" if error else ""
    return Check(
        f"peer {row['peer']}",
        "critical" if waits > _STUCK else "warning",
        f"{messages} for {row['peer']}, the oldest for {span_in_words(waits)}{reason}",
        "see there whether RQ runs; what waits goes by itself when it is back (rq relay shows all)",
    )
