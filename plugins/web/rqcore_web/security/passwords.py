"""Passwords, hashed: what stands in the configuration in place of a password that people could read.

    scrypt$LOG2N$R$P$SALT$DIGEST        salt and digest in base64, without their "=" at the end

The cost stands in the text, so that it can be raised later and older ones go on working.  What costs
more than `_MOST_MEMORY` is refused: a typing error must not take the machine's memory.

Text that does not begin with ``scrypt$`` is a password in clear text, as RQ's old configs have them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import NamedTuple

PREFIX = "scrypt$"
#: About 0.1 s and 16 MB for each password that is tried.
_LOG_N, _R, _P = 14, 8, 1
_SALT, _DIGEST = 16, 32
_MOST_MEMORY = 128 << 20
_MOST_WORK = 1 << 24


class _Hashed(NamedTuple):
    log_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def digest_of(self, password: str) -> bytes:
        return hashlib.scrypt(
            password.encode("utf-8", "surrogateescape"), salt=self.salt, n=1 << self.log_n,
            r=self.r, p=self.p, maxmem=2 * _MOST_MEMORY, dklen=len(self.digest),
        )  # fmt: skip


def hash_password(password: str) -> str:
    """What is to stand in the configuration for this password; another text every time."""
    hashed = _Hashed(_LOG_N, _R, _P, secrets.token_bytes(_SALT), bytes(_DIGEST))
    parts = (_LOG_N, _R, _P, _encode(hashed.salt), _encode(hashed.digest_of(password)))
    return PREFIX + "$".join(map(str, parts))


def is_hashed(stored: str) -> bool:
    """Is this no clear text?"""
    return stored.startswith(PREFIX)


def is_password(password: str, stored: str) -> bool:
    """Is this the password that ``stored`` stands for?  May take a while: not for an event loop.

    What is damaged (`problem`) is nobody's password.
    """
    if not is_hashed(stored):
        return hmac.compare_digest(_bytes(password), _bytes(stored))
    hashed = _parse(stored)
    if isinstance(hashed, str):
        return False
    return hmac.compare_digest(hashed.digest_of(password), hashed.digest)


def problem(stored: str) -> str | None:
    """Why nobody can log in with this, or None."""
    found = _parse(stored) if is_hashed(stored) else None
    return found if isinstance(found, str) else None


def _parse(stored: str) -> _Hashed | str:
    parts = stored.removeprefix(PREFIX).split("$")
    try:
        log_n, r, p = (int(part) for part in parts[:3] if part.isascii() and part.isdecimal())
        salt, digest = (_decode(part) for part in parts[3:])
    except (ValueError, binascii.Error):
        return "is a damaged hash"
    if not (1 <= log_n < 32 and r >= 1 and p >= 1 and salt and len(digest) >= _DIGEST):  # noqa: PLR2004 - bits
        return "is a damaged hash"
    if (128 * r << log_n) > _MOST_MEMORY or (r * p << log_n) > _MOST_WORK:
        return f"is a hash that takes more than {_MOST_MEMORY >> 20} MB, or too long"
    return _Hashed(log_n, r, p, salt, digest)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
