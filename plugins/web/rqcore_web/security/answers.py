"""What is said to those who are not let in, and what every answer carries for the browser's safety.

Below ``/api/`` a refusal is a problem document (RFC 9457), elsewhere a line of text.  A response that
has set one of the headers itself is left with its own: a script's output is served under a stricter
policy than ours (`rqcore_web.files`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.responses import Response

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Mapping[bytes, bytes] = {
    b"content-security-policy": CSP.encode("ascii"),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
#: A year, and only for this very name: what other names do is not for this site to say.
_HSTS = (b"strict-transport-security", b"max-age=31536000")

RawHeaders = list[tuple[bytes, bytes]]


@dataclass
class DeniedError(Exception):
    """The request goes no further: its status, the words for it, and headers of the answer."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(denied: DeniedError, path: str, request_id: str, *, api: bool) -> Response:
    """The answer to who asked for this path; ``api`` says that it is below the API's."""
    if not api:
        return Response(
            f"{denied.detail}\n", denied.status, denied.headers, "text/plain; charset=utf-8"
        )
    problem = {
        "type": "about:blank", "title": HTTPStatus(denied.status).phrase,
        "status": denied.status, "detail": denied.detail, "instance": path,
        "request_id": request_id,
    }  # fmt: skip
    return Response(json.dumps(problem), denied.status, denied.headers, "application/problem+json")


def safe(headers: RawHeaders, request_id: str, *, tls: bool) -> RawHeaders:
    """The headers of a response, with those that it must not lack."""
    present = {name.lower() for name, _ in headers}
    added = [(name, value) for name, value in HEADERS.items() if name not in present]
    if tls and _HSTS[0] not in present:
        added.append(_HSTS)
    if b"x-request-id" not in present:
        added.append((b"x-request-id", request_id.encode("ascii")))
    return [*headers, *added]
