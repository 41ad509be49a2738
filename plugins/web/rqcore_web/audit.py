"""The audit log: who did what, when, from where; one line of JSON for each change made by the web.

``log/audit.jsonl`` of the instance:

    {"at": "2026-03-01T08:00:00.123Z", "request": ID, "who": NAME, "from": ADDRESS,
     "action": "delete", "queue": NAME, "subject": MSG_ID, "outcome": "ok" or the reason}

``who`` is a user's name, ``token:NAME``, or ``anonymous`` where nobody has to log in; ``request`` is
what the answer's ``X-Request-Id`` and the access log call the request.  The file may be rotated at any
time (`rqcore_web.security.lines`).  A disk that is full loses the line, with a word in the log that
holds it, and refuses nobody.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rqcore_web.access import who
from rqcore_web.security.lines import LineLog, timestamp

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

_log = logging.getLogger(__name__)
#: A message's parameters may be megabytes, and a reason may quote them.
_LONGEST = 2000


class Audit:
    """See the head of this module."""

    def __init__(self, file: Path) -> None:
        self._lines = LineLog(file)

    def note(
        self, request: HTTPConnection, action: str, queue: str = "", subject: str = "",
        outcome: str = "ok",
    ) -> None:  # fmt: skip
        """Somebody did something, or tried to."""
        line = {
            "at": timestamp(),
            "request": getattr(request.state, "request_id", ""),
            "who": who(request).name,
            "from": request.client.host if request.client else "",
            "action": action,
            "queue": queue,
            "subject": subject[:_LONGEST],
            "outcome": outcome[:_LONGEST],
        }
        try:
            self._lines.write(line)
        except OSError as error:
            _log.warning(
                "%s cannot be written: %s; it would say: %s", self._lines.file, error, line
            )
