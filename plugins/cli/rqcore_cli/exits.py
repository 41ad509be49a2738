"""Exit statuses: what a script that calls ``rq`` can tell apart.

RQ's old verbs know only 0 and 1 (`rqcore_cli.oldverbs`).  ``rq up`` becomes the manager, and ends
with its status.
"""

from __future__ import annotations

from enum import IntEnum

from rqcore.errors import NotFoundError, RefusedError, RqError, UnreachableError

#: The contract's words for a message that is not there; every other refusal is one.
_NOT_FOUND = ("msg not found", "cannot find message", "no such queue")


class CallError(RqError):
    """What was asked for cannot be meant so; the text says it better than a line of usage."""


class Exit(IntEnum):
    """The statuses, as docs/cli.md lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    TIMEOUT = 124
    INTERRUPTED = 130


def exit_status(error: RqError) -> Exit:
    """The status that tells this error."""
    match error:
        case CallError():
            return Exit.USAGE
        case NotFoundError():
            return Exit.NOT_FOUND
        case RefusedError():
            return Exit.REFUSED
        case UnreachableError():
            return Exit.UNREACHABLE
        case _:
            return Exit.FAILED


def sharpened(error: RefusedError) -> RefusedError:
    """The same error, as `NotFoundError` where its text says so: a socket carries only texts."""
    if isinstance(error, NotFoundError) or not str(error).startswith(_NOT_FOUND):
        return error
    return NotFoundError(str(error))
