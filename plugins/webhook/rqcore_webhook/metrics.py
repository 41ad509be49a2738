"""What rqcore-metrics exports of webhooks; a family is what its hook ``rq_collect_metrics`` asks for.

Reads a file.  Bare URLs are counted together, under the endpoint "".
"""

from __future__ import annotations

from rqcore.faces import Family
from rqcore_webhook.health import RESULTS
from rqcore_webhook.options import Options
from rqcore_webhook.outbox import Outbox
from rqcore_webhook.words import rows


def families(directory: str, options: Options) -> list[Family]:
    """All of them."""
    found = rows(directory, options)
    counted: dict[tuple[str, str], int] = {}
    up, missed, success, latency = [], [], [], []
    for row in found:
        endpoint = "" if "://" in row["target"] else row["target"]
        for result in RESULTS:
            key = (endpoint, result)
            counted[key] = counted.get(key, 0) + row["attempts"].get(result, 0)
        if not endpoint:
            continue
        label = {"endpoint": endpoint}
        up.append((label, float(row["status"] != "disabled" and not row["failures"])))
        missed.append((label, float(row["missed"])))
        if row["last_success"] is not None:
            success.append((label, float(row["last_success"])))
        if row["last_ms"] is not None:
            latency.append((label, row["last_ms"] / 1000))
    attempts = [
        ({"endpoint": endpoint, "result": result}, float(count))
        for (endpoint, result), count in counted.items()
    ]
    waiting: list[tuple[dict[str, str], float]] = [({}, float(Outbox(directory).pending()))]
    return [
        Family("rqcore_webhook_attempts_total", "counter",
               "Attempts to deliver a webhook, by how they ended.", attempts),
        Family("rqcore_webhook_endpoint_up", "gauge",
               "1 while the endpoint takes what it is sent, 0 while it fails or is disabled.", up),
        Family("rqcore_webhook_missed", "gauge",
               "Events that were not kept for a disabled endpoint.", missed),
        Family("rqcore_webhook_last_success_timestamp_seconds", "gauge",
               "When the endpoint last took a webhook.", success),
        Family("rqcore_webhook_last_duration_seconds", "gauge",
               "How long the last answer took.", latency),
        Family("rqcore_webhook_outbox_entries", "gauge",
               "Events that are not queued as webhooks yet.", waiting),
    ]  # fmt: skip
