"""Whose an instance is: what root makes in somebody else's RQ could not use.

For commands that write into the directory themselves.  Root would follow that user's links, too: what
may be written where is decided by who owns it, so such a command is to be run as that user.
"""

from __future__ import annotations

import os
import pwd

from rqcore.errors import RefusedError
from rqcore.instance import Instance


def require_owner(instance: Instance, queue: str = "") -> None:
    """Raises `RefusedError` for root where the instance, or this queue of it, is another user's."""
    path = instance.queue_dir(queue) if queue else instance.directory
    owner = os.stat(path).st_uid
    if os.geteuid() == 0 != owner:
        name = user_name(owner)
        raise RefusedError(
            f"{path} belongs to {name}, and RQ could not use what root makes there; "
            f"do it as that user: sudo -u {name} rq --dir {instance.directory} ..."
        )


def user_name(uid: int) -> str:
    """The user's name, ``#UID`` where there is none: sudo takes both."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
