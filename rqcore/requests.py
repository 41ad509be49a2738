"""What can be asked of a queue by its socket: the contract's commands, and those of our own client.

The commands themselves are in `rqcore.commands`, by subject.  A queue that is DOWN refuses all the
contract's commands about one message.  Our own tools say ``"even_down": true`` where an operator may
look and clear up all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rqcore.commands.about import About
from rqcore.commands.attachments import Attachments
from rqcore.commands.incoming import Incoming
from rqcore.commands.looking import Looking
from rqcore.commands.moving import Moving
from rqcore.condition import Admin
from rqcore.server import Request

#: Refused while the queue is DOWN ...
_WHEN_DOWN = {
    "create_message", "single_que", "prep_message", "attach_message", "delete_attach_message",
    "commit_message", "get_message", "get_message_state", "get_message_status", "delete_message",
    "destroy_message", "run_message", "clone_message", "retry_message", "copy_message",
    "reserve_id", "prep_reserved",
}  # fmt: skip
#: ... but for whoever says that he knows.
_EVEN_DOWN = {
    "get_message", "get_message_state", "get_message_status", "delete_message", "destroy_message",
}  # fmt: skip


class Requests(About, Incoming, Attachments, Looking, Moving):
    """See the head of this module."""

    def handle(self, request: Request) -> None:
        """Answer a request, now or later, exactly once."""
        method: Callable[[Request], Any] | None = getattr(self, f"do_{request.command}", None)
        if method is None or not request.command.isidentifier():
            request.reply(["ERROR"])
        elif self._refused_when_down(request):
            request.reply(["fail", "status: DOWN"])
        else:
            self.answer(request, lambda: method(request))

    def _refused_when_down(self, request: Request) -> bool:
        if request.command not in _WHEN_DOWN:
            return False
        if self._queue.condition.admin() is not Admin.DOWN:
            return False
        known = isinstance(request.args, dict) and request.args.get("even_down") is True
        return not (known and request.command in _EVEN_DOWN)
