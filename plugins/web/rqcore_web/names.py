"""Which queue and which message a URL means.

In router mode (there is a file ``config/rq_router_rules.*``) every queue's name but ``relay`` and
``cleaner`` stands for ``rq_router``, whether there is a queue of that name or not: whatever comes in
passes the rules.  Where the queue itself is looked at (its state, lists of its messages, its config), a
queue that is there is shown all the same, and so is a message that only the named queue has.

A message's id may be given short or full; of a full one the last part counts, wherever it points.
"""

from __future__ import annotations

import glob
import os

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request

from rqcore.errors import NotFoundError
from rqcore.message import is_msg_id
from rqcore_web.site import Site, site_of
from rqcore_web.spool import STATES

ROUTER = "rq_router"
_NEVER_ROUTED = ("relay", "cleaner")


class _MessageId(StringConvertor):
    """A message's id in a path: short, or a full one, whose slashes have become single ones."""

    regex = "(?:(?:https?:/(?:[^/]+/)+)?q/[^/]+/)?[^/]+"


class _State(StringConvertor):
    """The name of a state."""

    regex = "|".join(STATES)


register_url_convertor("message", _MessageId())
register_url_convertor("state", _State())


def is_routed(site: Site) -> bool:
    """Is this a router: does it pass on what it gets, by rules?"""
    folder = glob.escape(os.fspath(site.instance.config_dir))
    return bool(glob.glob(f"{folder}/rq_router_rules.*"))


def taking(site: Site, name: str) -> str:
    """The queue that takes what is sent to this one.  Raises `NotFoundError`."""
    if is_routed(site) and name not in _NEVER_ROUTED:
        name = ROUTER
    return _existing(site, name)


def shown(request: Request) -> str:
    """The queue that this request looks at.  Raises `NotFoundError`."""
    site, name = site_of(request), str(request.path_params["name"])
    return name if site.spool.exists(name) else taking(site, name)


async def message_of(request: Request) -> tuple[str, str]:
    """The queue and the short id of the message that this request is about, which need not exist.

    Raises `NotFoundError` when there is no such queue.
    """
    site, name = site_of(request), str(request.path_params["name"])
    msg_id = str(request.path_params["msg_id"]).rpartition("/")[2]
    queue = taking(site, name)
    if queue != name and site.spool.exists(name) and is_msg_id(msg_id):
        try:
            await site.spool.ask(queue, "get_message_state", {"msg_id": msg_id, "even_down": True})
        except NotFoundError:
            queue = name
    return queue, msg_id


def _existing(site: Site, name: str) -> str:
    if not site.spool.exists(name):
        raise NotFoundError(f"no such queue: {name}")
    return name
