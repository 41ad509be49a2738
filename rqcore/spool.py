"""Changing a message's state: durably first, then told.

`Spool` is the one way by which a queue process changes what lies in its store.  Each change is made
at once; what follows from it (the answer to whoever asked, the facts for the hooks, the events for
the followers) waits until `settle` has made the whole turn's changes durable with one sync.  The
order of `after` is the order in which things are told.

If the disk refuses the sync, `after` callbacks get the error: askers are told "fail", and hooks are
told nothing, for nothing is certain.  A new message is taken back, since its sender will send it
again; the others stay where they are, and the queue goes on.  Whoever follows a message is told where
it lies now all the same: he would find it there, and else wait for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic

from rqcore.errors import NotFoundError
from rqcore.hooks import Hooks
from rqcore.hookspecs import QueueInfo
from rqcore.lifecycle import State, Step
from rqcore.message import Message
from rqcore.store import Attached, SpoolStore

_log = logging.getLogger(__name__)
After = Callable[[OSError | None], None]


class Spool:
    """See the head of this module."""

    def __init__(self, store: SpoolStore, hooks: Hooks, queue: QueueInfo) -> None:
        self.store = store
        self.hooks = hooks
        self.queue = queue
        #: Called with (message, old, new, step, status) once a change is durable, or stays
        #: though it is not; the status text is None where it is what it was.
        self.on_moved: (
            Callable[[Message, State | None, State | None, Step, str | None], None] | None
        ) = None
        self._after: list[After] = []

    def add(self, message: Message, state: State, attached: Sequence[Attached] = ()) -> None:
        """A new message; what it means (prepared, committed) is told by the caller's `after`."""
        self.store.add(message, state, attached)
        self.after(lambda error: None if error is None else self._take_back(message, state))
        step = Step.PREPARE if state is State.PREP else Step.CREATE
        self._tell_moved(message, None, state, step, "")

    def move(
        self, message: Message, step: Step, old: State, new: State,
        *, status: str | None = None, rewrite: bool = False,
    ) -> None:  # fmt: skip
        """Change a message's state; ``rewrite`` also stores its changed fields."""
        fields = message if rewrite else None
        self.store.move(message.msg_id, step, old, new, message=fields, status=status)
        self._tell_moved(message, old, new, step, status)

    def remove(self, message: Message, state: State) -> None:
        """Remove a message."""
        self.store.remove(message.msg_id, state)
        self._tell_moved(message, state, None, Step.DELETE, "")

    def after(self, callback: After) -> None:
        """Call back when all that was changed so far is durable, or cannot be made so."""
        self._after.append(callback)

    def fact(self, tell: Callable[[], None]) -> None:
        """Tell the hooks of a fact when it is one."""
        self._after.append(lambda error: tell() if error is None else None)

    def settle(self) -> None:
        """Make this turn's changes durable, then tell.  Called at the end of every turn."""
        if not self._after:
            return
        error: OSError | None = None
        try:
            began = monotonic()
            if self.store.sync():
                self.hooks.spool_synced(self.queue, monotonic() - began)
        except OSError as caught:
            error = caught
            _log.error("the disk does not take what was written: %s", error)
        # What is told may cause further changes; those are settled in a round of their own.
        waiting, self._after = self._after, []
        for callback in waiting:
            try:
                callback(error)
            except Exception:  # noqa: BLE001 - the others have still to be told
                _log.exception("telling of a change failed")
        self.hooks.spool_settled(self.queue)

    def _take_back(self, message: Message, state: State) -> None:
        try:
            self.store.remove(message.msg_id, state)
        except (OSError, NotFoundError) as error:
            _log.error("%s was refused, but stays in %s: %s", message.msg_id, state, error)

    @property
    def unsettled(self) -> bool:
        """Is there anything that waits for `settle`?"""
        return bool(self._after)

    def _tell_moved(
        self, message: Message, old: State | None, new: State | None, step: Step,
        status: str | None,
    ) -> None:  # fmt: skip
        def tell(error: OSError | None) -> None:
            if error is None:
                self.hooks.message_moved(message, self.queue, old, new, step)
            taken_back = error is not None and old is None
            if self.on_moved is not None and not taken_back:
                self.on_moved(message, old, new, step, status)

        self.after(tell)
