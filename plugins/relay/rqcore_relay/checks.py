"""What ``rq doctor`` and ``rq check`` are told of the peers, and of what relay shows them.

Read from the files that the queue relay and its service keep, whether RQ runs or not.  A peer that is
down is no trouble of this machine as long as nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import time
from typing import Any

from rqcore.hookspecs import Check
from rqcore.secrecy import secret_check
from rqcore.words import span_in_words
from rqcore_relay.options import Options
from rqcore_relay.survey import survey

#: Seconds that a message may wait for a peer that is down before it is time to look there.
_STUCK = 3600.0


def checks(directory: str, options: Options) -> list[Check]:
    """Each peer that something waits for and that is down, else that all is well; and each secret."""
    rows = survey(directory)
    now = time()
    found = [_down(row, now) for row in rows if row["failures"] and row["waiting"]]
    found = found or [Check("relay", "ok", _all_well(len(rows)))]
    return [*found, *_secrets(directory, options)]


def _secrets(directory: str, options: Options) -> Iterator[Check]:
    """Each file that holds a token, once; and the config, where one stands there."""
    files = {peer.token_file: peer for peer in options.peers.values() if peer.token_file}
    for path, peer in files.items():
        yield secret_check(directory, path, "a token", peer.authorization)
    if any(peer.token or peer.password for peer in options.peers.values()):
        yield secret_check(
            directory, f"{directory}/config/config.json", "what relay shows its peers"
        )


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
