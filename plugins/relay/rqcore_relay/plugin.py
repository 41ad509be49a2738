"""What the kernel loads by the entry point ``rqcore: relay``.

It brings the queue ``relay``, whose script carries messages to other machines, and names it for
every destination that is a URL.  Every process of an instance loads this module, so it imports
nothing that is not needed in all of them.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rqcore.hookspecs import InstanceInfo, hookimpl
from rqcore.message import parse_dest
from rqcore_relay.options import Options, parse_options

if TYPE_CHECKING:
    from rqcore.message import Message

#: The queue that this plugin brings.
QUEUE = "relay"

_options = Options()


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Take the options, or refuse them with all that is wrong."""
    global _options  # noqa: PLW0603 - a plugin is a module, and these are its options
    _options = parse_options(options, f"{instance.directory}/config/config.json")


@hookimpl
def rq_register_queues(instance: InstanceInfo) -> list[Mapping[str, Any]]:  # noqa: ARG001 - by the hook
    """Bring the queue relay, with the script that is installed beside this plugin."""
    script = os.path.join(sysconfig.get_path("scripts"), "rq-relay")
    return [{"name": QUEUE, "script": script, "num_workers": _options.num_workers}]


@hookimpl
def rq_resolve_destination(dest: str, message: Message) -> str | None:
    """Every URL goes through relay; a queue of this instance does so when ``force_remote`` is set."""
    address = parse_dest(dest)
    if address is None:
        return None
    if address.base or (message.force_remote and address.queue != QUEUE):
        return QUEUE
    return None
