"""Who asks, and what he may do.

Every request that reaches a route carries a `Who` (`rqcore_web.security.guard` puts it there).  A route
says what it needs, before it does anything, with `need`.  Scopes grow: ``read`` looks, ``enqueue`` also
sends messages, ``operate`` also changes what becomes of them and the state of queues, ``admin`` also
makes, configures and deletes queues.

Who is limited to some queues sees no other: for him they do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from rqcore.config import OLD_COALESCE_KEYS
from rqcore.errors import NotFoundError, RefusedError
from rqcore_web.options import SCOPES

#: Keys of a queue's config that say how much and when, and never what is run: any admin may change
#: them; the others only where queues may be made over the web (``allow_new_queue``).
HARMLESS = frozenset(
    {"num_workers", "coalesce_params", "blocking_params", "schedule", "fsync", "ordering",
     "timeout", *OLD_COALESCE_KEYS}
)  # fmt: skip


class ForbiddenError(RefusedError):
    """Who asks is known, and may not do this."""


@dataclass(frozen=True, slots=True)
class Who:
    """A user, a token, or everybody; ``queues`` are the only ones he may touch, None for all."""

    name: str
    scope: str = "admin"
    queues: frozenset[str] | None = None

    def may(self, scope: str, queue: str = "") -> bool:
        """May he do what needs this scope, with this queue?"""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            return False
        return not queue or self.sees(queue)

    def sees(self, queue: str) -> bool:
        """May he know that there is this queue?  Lists and streams leave out what he may not."""
        return self.queues is None or queue in self.queues


def who(request: HTTPConnection) -> Who:
    """Who asks."""
    found: Who = request.state.who
    return found


def need(request: HTTPConnection, scope: str, queue: str = "") -> Who:
    """Who asks, if he may do what needs this scope.

    Raises `ForbiddenError`; for a queue that he may not know of, `NotFoundError`, in the very words
    for one that is not there.
    """
    asker = who(request)
    if queue and not asker.sees(queue):
        raise NotFoundError(f"no such queue: {queue}")
    if not asker.may(scope, queue):
        where = f" on queue {queue}" if queue else ""
        raise ForbiddenError(f"{asker.name} may not do this: it needs the scope {scope}{where}")
    return asker
