"""Changes to the main config by a command: everything else in the file stays as it is.

Keys keep their order, the file is put in place in one step, durably, and is then for its owner alone
(0600).  Refused with a `RefusedError`: a file of somebody else (the instance could not read it any
more), one that was changed meanwhile, and a change after which the config would be wrong.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rqcore import durable
from rqcore.config import parse_instance
from rqcore.errors import RefusedError, RqError
from rqcore.schema import MAX_BYTES, decode_json


def change(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Have ``edit`` change the config.  Raises `ConfigError` for a file that is wrong already."""
    path = os.path.realpath(file)  # a link stays one
    refuse_foreign(path)
    before = _read(path)
    raw, _ = decode_json(before, str(file))
    parse_instance(raw, str(file))
    assert isinstance(raw, dict)
    edit(raw)
    parse_instance(raw, str(file))
    text = json.dumps(raw, indent=2, ensure_ascii=False) + "\n"
    if _read(path) != before:
        raise RefusedError(f"{file} was changed meanwhile; do it again")
    try:
        durable.write_file(path, text.encode("utf-8", "surrogateescape"), mode=0o600)
    except OSError as error:
        raise RqError(f"{file} cannot be written: {error.strerror}") from error


def refuse_foreign(path: str | Path) -> None:
    """Raise `RefusedError` for a file of somebody else; one that is not there is nobody's."""
    try:
        owner = os.stat(path).st_uid
    except OSError:
        return
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = str(owner)
        raise RefusedError(
            f"{path} belongs to {name}; do this as {name}: sudo -u {name} rq web ..."
        )


def _read(path: str) -> bytes:
    try:
        return durable.read_file(path, MAX_BYTES)
    except OSError as error:
        raise RqError(f"{path} cannot be read: {error.strerror}") from error
