"""What ``rq doctor`` and ``rq check`` are told of the rules.  Reads them, and changes nothing."""

from __future__ import annotations

from rqcore.hookspecs import Check
from rqcore_router.files import Reader

_NAME = "router rules"


def checks(directory: str) -> list[Check]:
    """One that says how the rules are; none where messages are not routed."""
    standing = Reader(directory).look()
    if not standing.file:
        return []
    if not standing.problems:
        return [Check(_NAME, "ok", f"{standing.file} is good")]
    remedy = f"correct it; rq verify_rules --path {standing.file} --verbose says all that is wrong"
    if standing.rules is not None:
        text = f"{standing.reason}; the last good ones stay in force"
        return [Check(_NAME, "warning", text, remedy)]
    text = f"{standing.reason}; queue rq_router is DOWN and refuses messages"
    return [Check(_NAME, "critical", text, remedy)]
