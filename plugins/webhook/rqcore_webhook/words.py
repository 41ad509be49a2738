"""How a target is, in words that the command and the pages share.

Pure.  `rows` joins what is configured, what is known and what is disabled to one list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import time
from typing import Any
from urllib.parse import urlsplit

from rqcore import durable
from rqcore_webhook.health import Files, Health
from rqcore_webhook.options import Options
from rqcore_webhook.verdict import ATTEMPTS_FILE

_MOST = 1 << 20
#: What `status` says, and the badge of the site for it.
BADGES = {
    "ok": "UP", "not tried yet": "PAUSE", "failing": "DOWN", "paused": "PAUSE", "refused": "DOWN",
    "disabled": "DOWN",
}  # fmt: skip


def rows(directory: str, options: Options) -> list[dict[str, Any]]:
    """One object for each target: the endpoints of the config first, then hosts of bare URLs."""
    files = Files(directory)
    known = files.read()
    found = []
    for name, endpoint in options.endpoints.items():
        gone = files.disabled(name)
        about = {
            "target": name, "url": without_secrets(endpoint.url), "format": endpoint.format,
            "events": list(endpoint.events), "queues": list(endpoint.queues),
        }  # fmt: skip
        found.append(_row(about, known.get(name, Health()), gone, files.missed(name)))
    for name in sorted(known):
        if "://" in name:
            about = {"target": name, "url": "", "format": "form", "events": [], "queues": []}
            found.append(_row(about, known[name], None, 0))
    return found


def status(health: Health, disabled: Mapping[str, Any] | None, now: float) -> str:
    """One of `BADGES`."""
    if disabled is not None:
        return "disabled"
    if health.throttled_until is not None and health.throttled_until > now:
        return "paused"
    if health.refused:
        return "refused"
    if health.failures:
        return "failing"
    return "not tried yet" if health.last_success is None else "ok"


def without_secrets(url: str) -> str:
    """The URL without a password, and without its query, where tokens are."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return url
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def _row(
    about: dict[str, Any], health: Health, disabled: Mapping[str, Any] | None, missed: int
) -> dict[str, Any]:
    return {
        **about, "status": status(health, disabled, time()),
        "last_success": health.last_success, "last_failure": health.last_failure,
        "failing_since": health.failing_since, "failures": health.failures,
        "last_error": health.last_error, "last_status": health.last_status,
        "last_ms": health.last_ms, "throttled_until": health.throttled_until,
        "disabled": disabled, "missed": missed, "attempts": health.attempts,
    }  # fmt: skip


def not_kept(count: int) -> str:
    """``3 events were not kept``."""
    return "1 event was not kept" if count == 1 else f"{count:,} events were not kept"


def attempts(folder: str) -> list[dict[str, Any]]:
    """The attempts of a webhook message that lies in ``folder``, the oldest first."""
    return json_lines(f"{folder}/job/{ATTEMPTS_FILE}")


def json_lines(path: str) -> list[dict[str, Any]]:
    """The objects that a file holds, one a line; lines that make no sense are left out."""
    try:
        lines = durable.read_file(path, _MOST).splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            one = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(one, dict):
            found.append(one)
    return found
