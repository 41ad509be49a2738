"""Errors that callers can act on.

`RqError` is the one base: its text is a whole sentence for people (the thing, the reason, the
remedy), so a command line prints it without a traceback.  Anything else that escapes is a defect
and keeps its traceback.
"""

from __future__ import annotations


class RqError(Exception):
    """An expected failure, explained in words."""


class RefusedError(RqError):
    """A request that cannot be granted; its text goes to the asker as ``["fail", TEXT]``."""


class NotFoundError(RefusedError):
    """The message or queue that was named does not exist."""


class StoreError(RqError):
    """The spool cannot do what was asked of it: full, read-only, or damaged."""


class StoreLoadError(StoreError):
    """No store driver of that name can be loaded."""


class WireError(RqError):
    """A frame on a socket that is not of the protocol; it ends that connection."""


class UnreachableError(RqError):
    """Nobody answers at a socket: the instance or the queue does not run."""


class StartError(RqError):
    """The instance cannot start: wrong directory, already running, not writable."""
