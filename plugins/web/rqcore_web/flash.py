"""A message for people, carried over a redirect: shown once, on the page that the redirect leads to.

It travels in a signed cookie that lives a minute, so that nobody can put words into the site's mouth.
`take` gives a message out once; a reload of the page shows it no more.  What was given out is
remembered by this process alone: after a restart within that minute it may be shown a second time.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import Response

from rqcore.errors import StartError
from rqcore_web.security.keys import key

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from rqcore_web.site import Site

_log = logging.getLogger(__name__)
_COOKIE = "rq_flash"
_SECONDS = 60
#: A browser keeps 4096 bytes of a cookie; signed and in base64, a text takes up half as much again.
_MAX_BYTES = 2000
_SEE_OTHER = 303
#: Characters of a URL that stay as they are; what else there is becomes %XX.
_SAFE = ":/%#?=@[]!$&'()*+,;"

#: The latest messages that were given out.
_shown: deque[str] = deque(maxlen=10_000)


def redirect(request: HTTPConnection, path: str, text: str, ok: bool = True) -> Response:  # noqa: FBT001, FBT002 - reads as "redirect with this text, all well or not"
    """An answer that leads to ``path`` (on this host, the site's root included), with a message."""
    site: Site = request.app.state.site
    answer = Response(status_code=_SEE_OTHER, headers={"location": quote(path, safe=_SAFE)})
    try:
        cookie = _sign(site, text, ok=ok)
    except StartError as error:  # what the message tells of has happened all the same
        _log.warning("a message is not shown (%s): %s", text, error)
        return answer
    answer.set_cookie(
        _COOKIE, cookie, max_age=_SECONDS, path=site.root, httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


def take(request: HTTPConnection) -> tuple[str, bool] | None:
    """The message that this request brings, and whether it is a good one; None the second time."""
    cookie = request.cookies.get(_COOKIE)
    if not cookie:
        return None
    site: Site = request.app.state.site
    body, _, signature = cookie.partition(".")
    try:
        if not hmac.compare_digest(signature.encode(), _signature(site, body).encode()):
            return None
        made_at, once, ok, text = json.loads(base64.urlsafe_b64decode(body + "=="))
    except (ValueError, StartError):  # signed by another release; or nothing can be checked
        return None
    if once in _shown or not 0 <= time.time() - made_at <= _SECONDS:
        return None
    _shown.append(once)
    return str(text), bool(ok)


def local_path(given: object, default: str) -> str:
    r"""``given`` if it is a path on this very host, else ``default``: where a form asks to go back to.

    A browser takes ``//host`` and ``/\host`` for another host, and leaves out control characters.
    """
    if not isinstance(given, str) or not given.startswith("/") or "\\" in given:
        return default
    return given if not given.startswith("//") and given.isprintable() else default


def _sign(site: Site, text: str, *, ok: bool) -> str:
    short = text.encode("utf-8", "replace")[:_MAX_BYTES].decode("utf-8", "ignore")
    said = [int(time.time()), secrets.token_urlsafe(9), ok, short]
    raw = json.dumps(said, ensure_ascii=False).encode()
    body = _base64(raw)
    return f"{body}.{_signature(site, body)}"


def _signature(site: Site, body: str) -> str:
    return _base64(hmac.digest(key(site.var, "flash"), body.encode(), "sha256"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
