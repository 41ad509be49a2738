"""How the peers are, as metrics: for rqcore-metrics, and as Prometheus reads it (text format 0.0.4).

Pure.  The counters count since the instance was made, over all restarts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rqcore.faces import Family

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Name, type, help, and the key of the survey that holds the value.
_METRICS = (
    ("up", "gauge", "Whether the peer was reached by the last transfer.", "reachable"),
    ("backlog", "gauge", "Messages that wait for the peer.", "waiting"),
    ("oldest_timestamp_seconds", "gauge", "When the oldest of them was made.", "oldest"),
    ("running", "gauge", "Transfers to the peer that are on their way.", "running"),
    ("failures", "gauge", "How often in a row the peer was not reached.", "failures"),
    ("messages_total", "counter", "Messages that the peer took.", "messages"),
    ("bytes_total", "counter", "Bytes of attachments that were sent to the peer.", "bytes"),
    ("last_success_timestamp_seconds", "gauge", "When it last took a message.", "last_success"),
)


def families(rows: Iterable[Mapping[str, Any]]) -> list[Family]:
    """The metrics of these peers (`rqcore_relay.survey`); what is not known is left out."""
    rows = list(rows)
    return [
        Family(
            f"rqcore_relay_{name}", kind, about,
            [({"peer": row["peer"]}, float(row[key])) for row in rows if row[key] is not None],
        )
        for name, kind, about, key in _METRICS
    ]  # fmt: skip


def exposition(rows: Iterable[Mapping[str, Any]]) -> str:
    """The same as text, for the page of relay itself."""
    lines = []
    for family in families(rows):
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        lines += [
            f'{family.name}{{peer="{_escaped(labels["peer"])}"}} {_value(value)}'
            for labels, value in family.samples
        ]
    return "\n".join([*lines, ""])


def _value(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
