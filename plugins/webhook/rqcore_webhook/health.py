"""How each target is: the files under ``var/webhook`` that say so, for everybody to read.

``health.json`` is written by the queue webhook's process (`rqcore_webhook.desk`), replaced in one
step; it need not last, what is lost in a crash is found out again.  A target is an endpoint of the
config, by its name, or the host of bare URLs, as ``http://host:port``.

``disabled/NAME`` exists while an endpoint is disabled: that file alone decides.  It is a JSON object
with ``at``, ``reason`` and ``by``; `enable` removes it.  ``missed/NAME`` has as many bytes as there
were events that were not kept for it meanwhile.

A file that is missing or makes no sense counts as empty.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from time import time
from typing import Any
from urllib.parse import urlsplit

from rqcore import durable

_MOST = 16 << 20
#: A host that nothing was heard of for so long is forgotten, and of all hosts so many are kept.
_FORGET, _KEEP = 30 * 86_400, 500
RESULTS = ("success", "failure", "throttled", "refused")


@dataclass
class Health:
    """What is known of one target; times are unix seconds, None where it never was."""

    failures: int = 0
    failing_since: float | None = None
    last_success: float | None = None
    last_failure: float | None = None
    last_error: str = ""
    last_status: int | None = None
    last_ms: float | None = None
    throttled_until: float | None = None
    throttles: int = 0
    disabled: bool = False
    #: The last one was not sent, for our own rules forbid it.
    refused: bool = False
    attempts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))

    def heard(self) -> float:
        """When it was last heard of, good or bad."""
        return max(self.last_success or 0.0, self.last_failure or 0.0)


class Files:
    """The files of the instance in ``directory``."""

    def __init__(self, directory: str) -> None:
        self.folder = f"{directory}/var/webhook"
        self.health = f"{self.folder}/health.json"
        #: Each target as the file has it: with each attempt only one is another.
        self._texts: dict[str, str] = {}

    def make(self) -> None:
        """Make the directories.  Raises `OSError`."""
        path = os.path.dirname(self.folder)
        for folder in (path, self.folder, f"{self.folder}/disabled", f"{self.folder}/missed"):
            durable.make_private_dir(folder)

    def read(self) -> dict[str, Health]:
        """What is known of all targets."""
        try:
            targets = durable.read_object(self.health, _MOST).get("targets")
        except (OSError, ValueError):
            return {}
        if not isinstance(targets, dict):
            return {}
        return {
            name: _restored(entry) for name, entry in targets.items() if isinstance(entry, dict)
        }

    def write(self, known: dict[str, Health], *changed: str) -> None:
        """Replace ``health.json``; ``changed`` names what is another, none all.  Raises `OSError`.

        Hosts that nothing was heard of for long are forgotten, in ``known`` too.
        """
        now = time()
        hosts = [name for name in known if "://" in name]
        if len(hosts) > _KEEP or not changed:
            hosts.sort(key=lambda name: known[name].heard(), reverse=True)
            for number, name in enumerate(hosts):
                if number >= _KEEP or known[name].heard() < now - _FORGET:
                    del known[name]
                    self._texts.pop(name, None)
        for name in changed or known:
            if name in known:
                entry = json.dumps(asdict(known[name]))
                self._texts[name] = f"{json.dumps(name)}: {entry}"
        body = ",\n".join(self._texts.values())
        data = f'{{"targets": {{\n{body}\n}}, "at": {now:.3f}}}\n'.encode("ascii")
        try:
            durable.replace_unsynced(self.health, data)
        except FileNotFoundError:
            self.make()
            durable.replace_unsynced(self.health, data)

    # Disabled endpoints

    def disabled(self, name: str) -> dict[str, Any] | None:
        """Since when and why an endpoint is disabled; None when it is not."""
        path = f"{self.folder}/disabled/{name}"
        if not name or not durable.exists(path):
            return None
        try:
            found = durable.read_object(path, 1 << 16)
        except (OSError, ValueError):
            found = {}
        reason = found.get("reason")
        return {
            "at": _number(found.get("at")), "by": str(found.get("by") or "hand"),
            "reason": str(reason) if reason else "no reason is given",
        }  # fmt: skip

    def disable(self, name: str, reason: str, by: str) -> None:
        """Send nothing to it any more.  Durable.  Raises `OSError`."""
        data = json.dumps({"at": time(), "reason": reason, "by": by}).encode("ascii") + b"\n"
        self.make()
        durable.write_file(f"{self.folder}/disabled/{name}", data)

    def enable(self, name: str) -> None:
        """Send to it again.  Durable.  Raises `OSError`."""
        durable.remove_quietly(f"{self.folder}/missed/{name}")
        with contextlib.suppress(FileNotFoundError):
            durable.remove_file(f"{self.folder}/disabled/{name}")

    def miss(self, name: str) -> None:
        """An event was not kept for a disabled endpoint.  Raises `OSError`."""
        fd = durable.append_log(f"{self.folder}/missed/{name}")
        try:
            os.write(fd, b".")
        finally:
            os.close(fd)

    def missed(self, name: str) -> int:
        """How many events were not kept for an endpoint since it was disabled."""
        try:
            return os.stat(f"{self.folder}/missed/{name}").st_size
        except OSError:
            return 0


def target_of(endpoint: str, url: str) -> str:
    """The name of a webhook's target."""
    if endpoint:
        return endpoint
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "://"
    host = parts.hostname or ""
    return f"{parts.scheme}://[{host}]:{port}" if ":" in host else f"{parts.scheme}://{host}:{port}"


def _restored(entry: Mapping[str, Any]) -> Health:
    counted = entry.get("attempts")
    counted = counted if isinstance(counted, dict) else {}
    health = Health(
        failures=int(_number(entry.get("failures")) or 0),
        failing_since=_number(entry.get("failing_since")),
        last_success=_number(entry.get("last_success")),
        last_failure=_number(entry.get("last_failure")),
        last_error=str(entry.get("last_error") or ""),
        last_ms=_number(entry.get("last_ms")),
        throttled_until=_number(entry.get("throttled_until")),
        throttles=int(_number(entry.get("throttles")) or 0),
        disabled=entry.get("disabled") is True,
        refused=entry.get("refused") is True,
        attempts={name: int(_number(counted.get(name)) or 0) for name in RESULTS},
    )
    status = _number(entry.get("last_status"))
    health.last_status = None if status is None else int(status)
    return health


def _number(value: object) -> float | None:
    """A time or a number in what somebody may have written; None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if 0 <= value < 1e15 else None  # noqa: PLR2004 - no time, no count is more
