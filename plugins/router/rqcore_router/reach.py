"""Which instances are known to be unreachable: rqcore-relay keeps ``var/relay/peers.json``.

Its format is described in docs/relay.md.  Where there is none, or one that says nothing of an instance,
that instance counts as reachable: who is only suspected loses no messages.
"""

from __future__ import annotations

import json
import logging
import os

from rqcore import durable

_log = logging.getLogger(__name__)
_MOST = 16 * 1024 * 1024


def unreachable(directory: str | os.PathLike[str]) -> frozenset[str]:
    """The base URLs (`rqcore_router.hosts.base_of`) of what cannot be reached from this instance."""
    path = f"{os.fspath(directory)}/var/relay/peers.json"
    try:
        peers = json.loads(durable.read_file(path, _MOST))["peers"]
        return frozenset(name for name, peer in peers.items() if peer.get("reachable") is False)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _log.warning("%s cannot be used, every host counts as reachable: %s", path, error)
        return frozenset()
