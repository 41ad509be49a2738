"""The site's secret: what signs that which the site gives away and takes back (cookies, cursors).

32 random bytes in ``var/web/secret``, for the owner's eyes only (0600), made when it is first asked
for and kept across restarts.  It never leaves this process: what is signed is signed with a key that
is derived from it for one purpose, so that a signature made for one is worth nothing for another.

A file that is not what was written is replaced by a new secret, with a word in the log: all that it
costs is that signatures made before are not believed any more.  Raises `StartError` where the file
can be neither read nor written.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from pathlib import Path

from rqcore import durable
from rqcore.errors import StartError

_log = logging.getLogger(__name__)
_SIZE = 32
_FOR_ALL = 0o077


def key(var: Path, purpose: str) -> bytes:
    """The key for one purpose, 32 bytes; ``var`` is the site's directory for what it keeps."""
    return hmac.digest(_secret(var / "secret"), purpose.encode(), "sha256")


def _secret(path: Path) -> bytes:
    remedy = f"correct the owner and mode of {path} and of its directory, or remove the file"
    try:
        found = durable.read_file(path, _SIZE + 1)
        if len(found) == _SIZE:
            if os.stat(path).st_mode & _FOR_ALL:
                os.chmod(path, 0o600)
                _log.warning("%s could be read by others; now only its owner may", path)
            return found
        _log.warning(
            "%s is damaged and is made anew; messages under way to browsers are lost", path
        )
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    made = secrets.token_bytes(_SIZE)
    try:
        durable.write_file(path, made, mode=0o600)
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}; {remedy}") from error
    return made
