"""May anybody but RQ read a file that holds a secret?  For the checks of plugins and commands.

`secret_check` looks at the file's mode, its owner, and the directories on the way to it within the
instance: what nobody else can get at there is hidden well enough, wherever the instance lies.  A file
of the instance's owner is for its owner alone; one that belongs to somebody else (a key that root
keeps for several services) may be read by a group, for that is how RQ gets it.

It looks, and touches nothing; the `fix` takes the others' rights away, and is offered where the file is
the instance's owner's, who then still can read it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable

from rqcore import durable
from rqcore.errors import RqError
from rqcore.hookspecs import Check

_OTHERS, _GROUP = stat.S_IROTH | stat.S_IWOTH, stat.S_IRGRP | stat.S_IWGRP


def secret_check(
    directory: str, path: str, holds: str, read: Callable[[], object] | None = None
) -> Check:
    """How well a secret of the instance in ``directory`` is hidden; its name is ``secret PATH``.

    ``holds`` says what is in there: ``"a token"``.  ``read`` reads it and raises `RqError` or `OSError`
    for content that cannot be used; it is not called by who could not know.
    """
    name = f"secret {_shown(directory, path)}"
    owner = os.stat(directory).st_uid
    knows = os.geteuid() in (0, owner)
    try:
        if read is not None and knows:
            read()
        info = os.stat(path)
    except PermissionError as error:
        if not knows:
            return Check(name, "ok", "you cannot look at it, as it should be")
        return _unusable(name, path, error.strerror)
    except OSError as error:
        return _unusable(name, path, error.strerror)
    except RqError as error:
        text, _, remedy = str(error).rpartition("; ")
        return Check(name, "critical", text or str(error), remedy)
    mode = stat.S_IMODE(info.st_mode)
    wanted = mode & ~(0o077 if info.st_uid == owner else 0o027)
    who = _readers(_ways(directory, os.path.realpath(path)), info.st_gid, mode & ~wanted)
    if not who:
        return Check(name, "ok", "nobody else can read it")
    text = f"{who} can read {path}, which holds {holds}"
    if info.st_uid != owner:
        return Check(name, "warning", text, f"as {_user(info.st_uid)}: chmod {wanted:o} {path}")

    def fix() -> str:
        durable.set_mode_unsynced(path, wanted)
        return f"{path} is {wanted:o} now"

    return Check(name, "warning", text, f"chmod {wanted:o} {path}", fix)


def _shown(directory: str, path: str) -> str:
    return os.path.relpath(path, directory) if path.startswith(f"{directory}/") else path


def _unusable(name: str, path: str, reason: str | None) -> Check:
    remedy = "put it there, or correct its owner and mode"
    return Check(name, "critical", f"{path} cannot be read: {reason}", remedy)


def _readers(ways: list[int], gid: int, too_much: int) -> str:
    """Who can get at it that should not; "" when nobody can.  Who can write it makes it his own."""
    if too_much & _OTHERS and all(way & stat.S_IXOTH for way in ways):
        return "everybody"
    if too_much & _GROUP and all(way & (stat.S_IXGRP | stat.S_IXOTH) for way in ways):
        return f"group {_group(gid)}"
    return ""


def _ways(directory: str, path: str) -> list[int]:
    """The modes of the directories on the way to it: from the instance's down, or its own alone."""
    path = os.path.dirname(path)
    modes = [os.stat(path).st_mode]
    top = os.path.realpath(directory)
    while path.startswith(f"{top}/"):
        path = os.path.dirname(path)
        modes.append(os.stat(path).st_mode)
    return modes


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
