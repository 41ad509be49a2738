"""A distribution's plugins, one a module and one an object in it."""

from __future__ import annotations

from rqcore.hookspecs import QueueInfo, Reject, hookimpl
from rqcore.message import Message


@hookimpl
def rq_check_message(message: Message, queue: QueueInfo) -> Reject | None:
    """Refuse what is meant for nobody."""
    return Reject("nobody") if message.param1 == "nobody" else None


class Counter:
    """Counts messages that are done."""

    def __init__(self) -> None:
        self.done = 0

    @hookimpl
    def rq_message_done(self) -> None:
        """Count one."""
        self.done += 1


counter = Counter()
