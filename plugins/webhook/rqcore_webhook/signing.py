"""Standard Webhooks 1.0.0: secrets and signatures.

Pure.  A secret is ``whsec_`` and 24 to 64 random bytes in base64.  What is signed is
``ID.TIMESTAMP.BODY``, the body exactly as it is sent; the signature is ``v1,`` and the HMAC-SHA256 of
that in base64.  While a secret is changed for another, both sign: the header holds one signature for
each, separated by spaces.  (Signatures with ed25519, ``v1a``, are not made: the standard library has
none.)
"""

from __future__ import annotations

import base64
import binascii
import os

PREFIX = "whsec_"
LEAST, MOST = 24, 64
_NEW_BYTES = 32


def new_secret() -> str:
    """A fresh secret."""
    return PREFIX + base64.b64encode(os.urandom(_NEW_BYTES)).decode("ascii")


def key_of(secret: str) -> bytes:
    """The bytes of a secret.  Raises `ValueError` that says what is wrong, without showing it."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"a secret begins with {PREFIX}; make one with: rq webhook secret")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            f"what follows {PREFIX} is not base64; make one with: rq webhook secret"
        ) from None
    if not LEAST <= len(key) <= MOST:
        raise ValueError(
            f"a secret holds {LEAST} to {MOST} bytes, this one {len(key)}; "
            "make one with: rq webhook secret"
        )
    return key


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One signature."""
    import hashlib  # noqa: PLC0415 - only what sends needs it
    import hmac  # noqa: PLC0415

    signed = f"{webhook_id}.{timestamp}.".encode("ascii") + body
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


def headers(
    secrets: tuple[str, ...], webhook_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers of one attempt; without a secret there is no signature."""
    made = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp)}
    if secrets:
        made["webhook-signature"] = " ".join(
            signature(secret, webhook_id, timestamp, body) for secret in secrets
        )
    return made
