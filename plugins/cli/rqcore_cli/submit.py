"""Where a message goes that is sent from here.

The plugins are asked first, by way of the manager, which has them loaded.  When none answers, a
queue of this instance is taken as it is named, and a URL goes to the queue ``relay``, if there is
one: it carries messages to other machines.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rqcore.errors import NotFoundError, RefusedError
from rqcore.message import parse_dest
from rqcore_cli.app import App
from rqcore_cli.output import clean

RELAY = "relay"


def is_url(dest: str) -> bool:
    """Does this name a queue of an instance by its URL?"""
    return dest.startswith(("http://", "https://"))


def target_queue(app: App, fields: Mapping[str, Any]) -> str:
    """The queue of this instance that takes the message.

    Raises `NotFoundError` when there is none, `RefusedError` for a ``dest`` that names nothing.
    """
    dest = str(fields["dest"])
    named = app.ask_manager("resolve_destination", dict(fields))
    if named is not None:
        return app.known(str(named))
    address = parse_dest(dest)
    if address is None:
        raise RefusedError(
            f"{clean(dest)} is no destination; write NAME, /q/NAME or http://HOST:PORT/q/NAME"
        )
    if not address.base:
        return app.known(address.queue)
    if not os.path.lexists(app.instance.queue_config_file(RELAY)):
        raise NotFoundError(
            f"nothing here carries messages to {clean(address.base)}: there is no queue relay; "
            "install rqcore-relay, then: rq restart"
        )
    return RELAY
