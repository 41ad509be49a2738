"""The guard at the door: every request passes here before anything of the site, every answer after.

In this order a request is looked at: is its address allowed (``allowed_ips``)?  Is it well-formed?
Does it ask for the site by its name, and directly, where nobody has to log in?  Was it forged by a
page of somebody else (`browsers`)?  Who asks (`logins`)?  `rqcore_web.access` says then what he may
do.  The health of the site is everybody's to ask.

Every answer gets a request id (``X-Request-Id``; a proxy's own is kept), the headers of `answers`, and
a line in the access log.  What a route fails with is logged with the id, and is a 500 if nothing was
answered yet; the server goes on.  What is still under way when the service has to end is answered with
503 if nothing was answered yet, and else cut off (`protocol`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from http import HTTPStatus
from time import monotonic

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rqcore_web.access import Who
from rqcore_web.durations import durations
from rqcore_web.paths import below
from rqcore_web.security import addresses, browsers
from rqcore_web.security.accesslog import AccessLog, Visit
from rqcore_web.security.answers import DeniedError, refusal, safe
from rqcore_web.security.limits import Body
from rqcore_web.security.listening import is_local
from rqcore_web.security.logins import ANONYMOUS, Logins
from rqcore_web.security.standing import Standing, Watch
from rqcore_web.security.tokens import TOKENS_FILE
from rqcore_web.site import Site

_log = logging.getLogger(__name__)
#: What everybody may ask who gets past ``allowed_ips``: is the site well?  The answers hold no content.
HEALTH = frozenset(
    f"{prefix}/{name}" for prefix in ("", "/api/v1") for name in ("livez", "readyz", "healthz")
)
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CLOSE = {"Connection": "close"}
_COME_BACK = {**_CLOSE, "Retry-After": "5"}
_NOBODY = Who("nobody", "read", frozenset())


class Guard:
    """See the head of this module."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site
        #: Does only this machine itself reach the site?
        self._local = is_local(site.settings.addr)
        instance = site.instance
        self._watch = Watch(instance.config_file, instance.config_dir / TOKENS_FILE)
        self._logins = Logins()
        self._access_log = AccessLog(
            instance.log_dir / "access.jsonl", enabled=site.options.access_log
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, send, self._site)
        try:
            await self._pass(passage, receive)
        except ClientDisconnect:
            pass  # who went away in the middle is told nothing
        except asyncio.CancelledError:
            passage.stopped()
            if passage.status:
                raise
            detail = "the web service is being stopped; come back when it runs again"
            await passage.refuse(DeniedError(503, detail, _COME_BACK), receive)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next request is served
            passage.failed(error)
            if not passage.status:
                detail = f"this failed; the log says why, by the name {passage.id}"
                await passage.refuse(DeniedError(500, detail), receive)
        finally:
            if passage.is_noteworthy():
                self._access_log.note(passage.account())

    async def _pass(self, passage: _Passage, receive: Receive) -> None:
        options = self._site.options
        scope, headers = passage.scope, passage.headers
        try:
            who = await self._admit(scope, headers, passage.path)
        except DeniedError as denied:
            await passage.refuse(denied, receive)
            return
        body = Body(receive, headers, options.max_body, options.client_timeout)
        state = {"who": who, "request_id": passage.id, "incoming_body": body}
        scope.setdefault("state", {}).update(state)
        passage.body = body
        await self._app(scope, body, passage.send)

    async def _admit(self, scope: Scope, headers: Headers, path: str) -> Who:
        """Who asks, if he may come in.  Raises `DeniedError`."""
        standing = self._watch.now()
        _check_address(scope, headers, standing)
        _check_form(scope, headers)
        if path in HEALTH and scope["method"] in browsers.SAFE:
            return _NOBODY
        forged = browsers.forged(scope["method"], headers, standing.origins)
        if forged:
            raise DeniedError(403, forged)
        open_to_all = standing.authentication == "none"
        who = await self._logins.who(
            standing, headers.get("authorization"), address_of(scope),
            everybody=not standing.users and (open_to_all or self._local),
        )  # fmt: skip
        if who is ANONYMOUS and not open_to_all:
            _check_local(headers, standing)
        return who


class _Passage:
    """One request on its way in, and its answer on the way out."""

    def __init__(self, scope: Scope, send: Send, site: Site) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.path = below(site.root, scope["path"]) or scope["path"]
        given = self.headers.get("x-request-id", "")
        self.id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        self.status = 0
        self.body: Body | None = None
        self._size = 0
        self._began = monotonic()
        self._send = send

    async def send(self, message: Message) -> None:
        """Part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            seconds = monotonic() - self._began
            durations.note(self.path, self.scope["method"], self.status, seconds)
            if self.body is not None:
                self.body.over = True  # nobody has to wait for the rest of the request any more
            tls = self.scope["scheme"] == "https"
            headers = safe(list(message.get("headers", [])), self.id, tls=tls)
            message = {**message, "headers": headers}
        else:
            self._size += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, denied: DeniedError, receive: Receive) -> None:
        """Answer that it goes no further."""
        api = self.path.startswith("/api/")
        answer = refusal(denied, self.scope["path"], self.id, api=api)
        await answer(self.scope, receive, self.send)

    def failed(self, error: Exception) -> None:
        """Note what a route failed with."""
        method, path = self.scope["method"], self.scope["path"]
        _log.error("request %s: %s %s failed", self.id, method, path, exc_info=error)

    def stopped(self) -> None:
        """Note that the service ends, and waits for it no longer."""
        method, path = self.scope["method"], self.scope["path"]
        _log.info("request %s: %s %s is ended, as the service is", self.id, method, path)

    def is_noteworthy(self) -> bool:
        """Does the access log want to know?  Of health checks only when something is wrong."""
        return self.path not in HEALTH or self.status != HTTPStatus.OK

    def account(self) -> Visit:
        """What the access log says of it."""
        who: Who | None = self.scope.get("state", {}).get("who")
        return Visit(
            self.id, address_of(self.scope), who.name if who else "", self.scope["method"],
            self.scope["path"], self.headers.get("user-agent", ""), self.status, self._size,
            monotonic() - self._began,
        )  # fmt: skip


def address_of(scope: Scope) -> str:
    """The client's address; empty when it has gone."""
    client = scope.get("client")
    return addresses.plain(client[0]) if client else ""


def _check_address(scope: Scope, headers: Headers, standing: Standing) -> None:
    """Take a trusted proxy's word for whom it asks, and let in only who is allowed."""
    address = address_of(scope)
    if addresses.is_inside(address, standing.proxies):
        forwarded = ",".join(headers.getlist("x-forwarded-for"))
        address = addresses.behind(address, forwarded, standing.proxies)
        scope["client"] = (address, 0)
        if headers.get("x-forwarded-proto") == "https":
            scope["scheme"] = "https"
    if standing.allowed and not addresses.is_inside(address, standing.allowed):
        raise DeniedError(403, f"your address {address} is not among those that may connect")


def _check_form(scope: Scope, headers: Headers) -> None:
    hosts = headers.getlist("host")
    if len(hosts) > 1 or (not hosts and scope["http_version"] != "1.0"):
        raise DeniedError(400, "a request says once which Host it is for", _CLOSE)
    path = scope["path"]
    if _CONTROL.search(path) or any(part in (".", "..") for part in path.split("/")):
        raise DeniedError(400, "the path holds control characters, or leads out of its directory")


def _check_local(headers: Headers, standing: Standing) -> None:
    """Where nobody has to log in, only who is on this machine may ask, and not by a stranger's page."""
    strange = browsers.strange_host(headers.get("host"), standing.hosts)
    if strange:
        raise DeniedError(403, strange)
    proxy = browsers.forwarding(headers)
    if proxy:
        raise DeniedError(
            403,
            f"a proxy asks for somebody else ({proxy.title()}), and nobody has to log in here: make a "
            'user with "rq web passwd NAME", or set "plugins.web.authentication" to "none"',
        )
