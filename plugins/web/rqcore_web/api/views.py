"""Messages and queues as the API shows them; the schemas are in `rqcore_web.api.schemas`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rqcore_web.filters import id_time
from rqcore_web.site import Site

_QUEUE = (
    "name", "alive", "status", "admin", "oper", "problem", "pid", "uptime", "counts", "workers",
    "script", "running", "earliest_due", "next_wake",
)  # fmt: skip


def queue_url(site: Site, name: str) -> str:
    """Where a queue is, on this host."""
    return site.url(f"api/v1/queues/{quote(name, safe='')}")


def message_url(site: Site, queue: str, msg_id: str) -> str:
    """Where a message is, on this host."""
    return f"{queue_url(site, queue)}/messages/{quote(msg_id, safe='')}"


def queue(site: Site, described: Mapping[str, Any]) -> dict[str, Any]:
    """A queue, of what `Spool.describe` says of it."""
    found = {key: described[key] for key in _QUEUE}
    return {**found, "url": queue_url(site, described["name"])}


def item(site: Site, queue: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A message in a list, of an item of ``list_messages``."""
    return {**found, "queue": queue, "url": message_url(site, queue, found["msg_id"])}


def message(
    site: Site, queue: str, found: Mapping[str, Any], runs: list[dict[str, Any]]
) -> dict[str, Any]:
    """A message with all it has, of what ``get_message`` says of it."""
    kept = {key: value for key, value in found.items() if key not in ("path", "_attachments")}
    url = message_url(site, queue, found["msg_id"])
    attached = [
        {
            "name": name,
            **{key: about[key] for key in ("size", "md5", "sha256")},
            "url": f"{url}/attachments/{quote(name.encode('utf-8', 'surrogateescape'), safe='')}",
        }
        for name, about in found["_attachments"].items()
    ]
    return {
        **kept, "queue": queue, "url": url, "created_at": id_time(found["msg_id"]),
        "attachments": attached, "runs": runs,
    }  # fmt: skip


def created(site: Site, queue: str, full_id: str, mode: str) -> dict[str, Any]:
    """A message that was just made."""
    msg_id = full_id.rpartition("/")[2]
    return {
        "queue": queue, "msg_id": msg_id, "full_id": full_id,
        "state": "prep" if mode == "prep" else "que", "url": message_url(site, queue, msg_id),
    }  # fmt: skip
