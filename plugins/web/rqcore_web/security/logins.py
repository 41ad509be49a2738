"""Who asks, by what he shows: a user's password (Basic) or a token (Bearer).

A password is checked against its slow hash once; that it was right is remembered, in memory and under
a key of this process, for as long as the stored hash is the same.  The hashing runs in two threads of
its own; requests that show the same password at the same time wait for one check.  When many wait
already, further ones are refused for a moment (503).  Who fails is slowed down by his address (429);
what is remembered as right is never slowed down, so somebody else's guessing keeps no known user out.

A token in place of Basic's password is taken too, with any user name, for tools that know only Basic.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from time import monotonic

from rqcore_web.access import Who
from rqcore_web.security import passwords, tokens
from rqcore_web.security.answers import DeniedError
from rqcore_web.security.standing import Standing
from rqcore_web.security.throttle import FREE, Throttle

_log = logging.getLogger(__name__)
_THREADS = 2
_MOST_WAITING = 64
_REMEMBERED = 1000
#: Who shows nothing, where nobody has to.
ANONYMOUS = Who("anonymous")


class Logins:
    """See the head of this module."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._checking: dict[bytes, asyncio.Task[bool]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "password")
        self._throttle = Throttle()

    async def who(
        self, standing: Standing, authorization: str | None, address: str, *, everybody: bool
    ) -> Who:
        """Who shows this.  Raises `DeniedError`; ``everybody`` may come in who shows nothing."""
        scheme, _, value = (authorization or "").partition(" ")
        match scheme.lower():
            case "bearer":
                return self._token(standing, value.strip(), address)
            case "basic" if standing.users or standing.tokens:
                user, password = _basic(value)
                if password.startswith(tokens.PREFIX):
                    return self._token(standing, password, address)
                if standing.users:
                    return await self._user(standing, user, password, address)
        if everybody:
            return ANONYMOUS
        raise _denied(
            standing, "log in first: this site asks for a user's password, or for a token"
        )

    # Tokens

    def _token(self, standing: Standing, text: str, address: str) -> Who:
        found = standing.tokens.get(tokens.digest(text))
        if found is not None and not found.expired(datetime.now(UTC)):
            queues = None if found.queues is None else frozenset(found.queues)
            return Who(f"token:{found.name}", found.scope, queues)
        _note_failure(self._attempt(address), address)
        reason = "this token is not valid: it is unknown, was removed, or has expired"
        raise _denied(standing, reason, 'Bearer error="invalid_token"')

    # Users

    async def _user(self, standing: Standing, user: str, password: str, address: str) -> Who:
        stored = standing.users.get(user)
        who = Who(user, standing.roles.get(user, "admin"))
        mark = self._mark(user, password, stored or "")
        if stored is not None and mark in self._right:
            self._right.move_to_end(mark)
            return who
        checking = self._checking.get(mark)
        if checking is None:
            checking = self._begin(standing, mark, password, stored, address)
        # One that gives up leaves the check to the others.
        if not await asyncio.shield(checking):
            raise _denied(standing, "the name or the password is wrong")
        return who

    def _begin(
        self, standing: Standing, mark: bytes, password: str, stored: str | None, address: str
    ) -> asyncio.Task[bool]:
        if len(self._checking) >= _MOST_WAITING:
            raise DeniedError(503, "too many log in at this moment", {"Retry-After": "2"})
        count = self._attempt(address)
        right = self._is_right(password, stored, costly=_costly(standing))
        check = self._check(mark, right, address, count)
        task = self._checking[mark] = asyncio.get_running_loop().create_task(check)
        task.add_done_callback(lambda _: self._checking.pop(mark, None))
        return task

    async def _check(self, mark: bytes, answer: Awaitable[bool], address: str, count: int) -> bool:
        if not await answer:
            _note_failure(count, address)
            return False
        self._throttle.succeeded(address)
        self._right[mark] = None
        while len(self._right) > _REMEMBERED:
            self._right.popitem(last=False)
        return True

    async def _is_right(self, password: str, stored: str | None, *, costly: bool) -> bool:
        if not costly:
            return passwords.is_password(password, stored or secrets.token_urlsafe())
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _is_right, password, stored)

    def _mark(self, *parts: str) -> bytes:
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hmac.digest(self._key, text, "sha256")

    def _attempt(self, address: str) -> int:
        """Count it as failed until it turns out right; returns how many did.

        Raises `DeniedError` when it is too early.
        """
        now = monotonic()
        wait = self._throttle.wait(address, now)
        if wait > 0:
            raise DeniedError(
                429,
                "too many attempts to log in failed from your address; wait a little",
                {"Retry-After": str(math.ceil(wait))},
            )
        return self._throttle.attempt(address, now)


def _note_failure(count: int, address: str) -> None:
    if count > FREE:
        _log.warning("%d attempts to log in failed from %s; it is slowed down", count, address)


def _basic(value: str) -> tuple[str, str]:
    """The user and the password; of what is damaged, ones that nobody has."""
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return "", ""
    user, _, password = text.partition(":")
    return user, password


def _costly(standing: Standing) -> bool:
    """Is any password hashed?  Then a name that is not known takes as long as one that is."""
    return any(map(passwords.is_hashed, standing.users.values()))


def _is_right(password: str, stored: str | None) -> bool:
    if stored is not None and not passwords.is_hashed(stored):
        passwords.is_password(password, _decoy())  # so long do the others take
    return passwords.is_password(password, stored or _decoy())


@lru_cache(maxsize=1)
def _decoy() -> str:
    """The hash of a password that nobody knows."""
    return passwords.hash_password(secrets.token_urlsafe())


def _denied(standing: Standing, reason: str, bearer: str = "") -> DeniedError:
    """401, with every way to log in that there is."""
    realm = standing.realm.replace("\\", "\\\\")
    challenges = []
    if standing.users or standing.tokens:
        challenges.append(f'Basic realm="{realm}", charset="UTF-8"')
    if standing.tokens or bearer or not standing.users:
        challenges.append(bearer or f'Bearer realm="{realm}"')
    return DeniedError(401, reason, {"WWW-Authenticate": ", ".join(challenges)})
