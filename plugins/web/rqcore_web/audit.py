"""The audit log: who did what, when, from where; one line of JSON for each change made by the web.

``log/audit.jsonl`` of the instance:

    {"at": "2026-03-01T08:00:00.123Z", "who": NAME, "from": ADDRESS, "action": "delete",
     "queue": NAME, "subject": MSG_ID, "outcome": "ok" or the reason}

A line is written by one ``write``; the file is opened anew when somebody has moved it (logrotate).
A disk that is full loses the line, with a word in the log, and refuses nobody.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rqcore import durable
from rqcore_web.access import who

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

_log = logging.getLogger(__name__)


class Audit:
    """See the head of this module."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def note(
        self, request: HTTPConnection, action: str, queue: str = "", subject: str = "",
        outcome: str = "ok",
    ) -> None:  # fmt: skip
        """Somebody did something, or tried to."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "who": who(request).name,
            "from": request.client.host if request.client else "",
            "action": action,
            "queue": queue,
            "subject": subject,
            "outcome": outcome,
        }
        try:
            fd = durable.append_log(self._file)
            try:
                os.write(fd, json.dumps(line).encode("ascii") + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            _log.warning("%s cannot be written: %s; it would say: %s", self._file, error, line)
