"""The access log: a line of JSON for each request, ``log/access.jsonl`` of the instance.

    {"at": "2026-03-01T08:00:00.123Z", "id": REQUEST_ID, "from": ADDRESS, "who": NAME,
     "method": "GET", "path": "/q/test", "status": 200, "bytes": 1234, "ms": 1.2, "agent": "curl/8"}

It holds no secret: no query string, no header but ``User-Agent``, no body.  ``status`` is 0 when the
client went away before it was answered; ``who`` is empty for who was not let in.  A health check that
finds nothing wrong leaves no line.  The file may be rotated at any time (`rqcore_web.security.lines`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from rqcore_web.security.lines import LineLog, timestamp

_log = logging.getLogger(__name__)
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that is over; ``size`` is that of the answer's body, in bytes."""

    request_id: str
    address: str
    who: str
    method: str
    path: str
    agent: str
    status: int
    size: int
    seconds: float


class AccessLog:
    """See the head of this module.  ``enabled`` False writes nothing."""

    def __init__(self, file: Path, *, enabled: bool) -> None:
        self._lines = LineLog(file) if enabled else None
        self._told = False

    def note(self, visit: Visit) -> None:
        """A request is over.  A line that cannot be written is lost, with one word in the log."""
        if self._lines is None:
            return
        line = {
            "at": timestamp(), "id": visit.request_id, "from": visit.address, "who": visit.who,
            "method": visit.method, "path": visit.path[:_LONGEST], "status": visit.status,
            "bytes": visit.size, "ms": round(visit.seconds * 1000, 1),
            "agent": visit.agent[:_LONGEST],
        }  # fmt: skip
        try:
            self._lines.write(line)
            self._told = False
        except OSError as error:
            if not self._told:
                _log.warning("%s cannot be written: %s", self._lines.file, error)
            self._told = True
