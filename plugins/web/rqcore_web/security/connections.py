"""How many connections there may be, and who has to make room.

There is room for ``most``.  When one more comes, the connection that has been waiting longest without
a complete request is closed for it: idle ones, and those that were sent half a request and no more.
So neither a thousand idle browsers nor a thousand half-sent requests keep anybody out.  Only when all
are at work the new one is told to come back (503), and when as many wait to be told so, it is closed.
"""

from __future__ import annotations

import logging
from typing import Protocol

_log = logging.getLogger(__name__)


class Connection(Protocol):
    """What the room knows of a connection."""

    def give_way(self) -> None:
        """Close: it is idle, and somebody else needs the place."""


class Room:
    """See the head of this module."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: set[Connection] = set()
        #: Those without a complete request, the one longest so first.
        self._idle: dict[Connection, None] = {}
        self._turned_away: set[Connection] = set()
        self._told = False

    def enter(self, connection: Connection) -> bool:
        """A connection was made.  Returns whether it is served."""
        if len(self._inside) >= self._most and self._idle:
            longest = next(iter(self._idle))
            self.leave(longest)
            longest.give_way()
        if len(self._inside) >= self._most:
            if not self._told:
                _log.warning("all %d connections are at work; further ones are refused", self._most)
            self._told = True
            self._turned_away.add(connection)
            if len(self._turned_away) > self._most:
                connection.give_way()
            return False
        self._told = False
        self._inside.add(connection)
        self._idle[connection] = None
        return True

    def works(self, connection: Connection) -> None:
        """It has sent a request."""
        self._idle.pop(connection, None)

    def rests(self, connection: Connection) -> None:
        """It was answered."""
        if connection in self._inside:
            self._idle[connection] = None

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._inside.discard(connection)
        self._idle.pop(connection, None)
        self._turned_away.discard(connection)
