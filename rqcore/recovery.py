"""Scripts that outlived their queue process.

A script whose queue process was killed goes on, but nobody can hear its verdict any more, so its
message has to run again; and no message may run twice at once.  `end_scripts` therefore ends what is
left before the message goes back to ``que``: SIGTERM to the process groups, SIGKILL after the grace.

They are found by the message's ``pid`` file, which holds the pid and the time when that process
began, so that a stranger who was given the same pid later is left alone.  Where the queue process
died before it could write that file, Linux still tells by the environment that the script was given.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from collections.abc import Iterable
from time import monotonic

from rqcore import durable, unix

_log = logging.getLogger(__name__)


def write_pid_file(directory: str, pid: int) -> None:
    """Note which process runs the message in this directory: its pid, then when it began."""
    started = unix.process_start(pid) or "ended"
    durable.replace_unsynced(f"{directory}/pid", f"{pid}\n{started}\n".encode())


def leftover_groups(directory: str) -> set[int]:
    """The process groups that still run the message in this directory."""
    groups = set()
    noted = _read_pid_file(directory)
    if noted is not None and unix.process_start(noted[0]) == noted[1]:
        groups.add(noted[0])
    if noted is None:
        for pid in unix.processes_with_environment("RQ_MSG_DIR", f"{directory}/job"):
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(pid))
    groups.discard(os.getpgrp())
    return groups


def end_scripts(directories: Iterable[str], grace: float) -> int:
    """End whatever still runs the messages in these directories; returns how many groups.

    Blocks until they are gone, ``grace`` seconds and the time to die of a SIGKILL at most.
    """
    groups = set()
    for directory in directories:
        for group in leftover_groups(directory):
            _log.warning("ending process group %d, which outlived its queue: %s", group, directory)
            groups.add(group)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        remaining = {group for group in groups if _alive(group)}
        for group in remaining:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                os.killpg(group, signal.SIGCONT)
        _await_end(remaining, patience)
    return len(groups)


def _read_pid_file(directory: str) -> tuple[int, str] | None:
    try:
        with open(f"{directory}/pid", encoding="ascii", errors="replace") as file:
            first, _, second = file.read().partition("\n")
    except FileNotFoundError:
        return None
    # Ruby's RQ wrote the pid alone: without a beginning it names nobody for certain.
    return (int(first), second.strip()) if first.isdecimal() else None


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _await_end(groups: set[int], patience: float) -> None:
    """Wait until the leaders are gone, by pidfd where there is one."""
    deadline = monotonic() + patience
    for group in groups:
        if unix.HAVE_PIDFD:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(group)
                try:
                    select.select([fd], [], [], max(0.0, deadline - monotonic()))
                finally:
                    os.close(fd)
        # The rest of the group, and every Unix without pidfd: nothing tells, so it is looked at.
        while _alive(group) and unix.process_start(group) and monotonic() < deadline:
            select.select([], [], [], 0.02)
