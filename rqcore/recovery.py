"""Scripts that outlived their queue process.

A script whose queue process was killed goes on, but nobody can hear its verdict any more, so its
message has to run again; and no message may run twice at once.  `end_scripts` therefore ends what is
left before the message goes back to ``que``: SIGTERM to the process groups, SIGKILL after the grace.

They are found by the message's ``pid`` file, which holds the pid and the time when that process
began, so that a stranger who was given the same pid later is left alone.  Linux also tells by the
environment that a script was given: that finds those whose queue process died before it could write
the pid down, and what a script left behind when it was killed itself.
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
_TIME_TO_DIE = 10.0
_MAX_PID_FILE = 4096


def write_pid_file(directory: str, pid: int) -> None:
    """Note which process runs the message in this directory: its pid, then when it began."""
    started = unix.process_start(pid) or "ended"
    durable.replace_unsynced(f"{directory}/pid", f"{pid}\n{started}\n".encode())


def began(directory: str) -> float:
    """When the run in this directory began, as unix time; 0 when nobody knows."""
    try:
        return os.stat(f"{directory}/pid").st_mtime
    except OSError:
        return 0.0


def leftovers(directories: Iterable[str]) -> dict[int, str]:
    """The processes that still run the messages in these directories: pid and directory."""
    found = {}
    jobs = {}
    for directory in directories:
        jobs[f"{directory}/job"] = directory
        noted = _read_pid_file(directory)
        if noted is not None and unix.process_start(noted[0]) == noted[1]:
            found[noted[0]] = directory
    for pid, job in unix.processes_by_environment("RQ_MSG_DIR") if jobs else ():
        if job in jobs:
            found[pid] = jobs[job]
    return found


def end_scripts(directories: Iterable[str], grace: float) -> int:
    """End whatever still runs the messages in these directories; returns how many processes.

    Their whole groups are signalled.  Blocks until they are gone, ``grace`` seconds and the time to
    die of a SIGKILL at most.
    """
    processes = leftovers(directories)
    groups = set()
    for pid, directory in processes.items():
        _log.warning("ending process %d, which outlived its queue: %s", pid, directory)
        with contextlib.suppress(ProcessLookupError):
            groups.add(os.getpgid(pid))
    groups.discard(os.getpgrp())
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _TIME_TO_DIE)):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
                os.killpg(group, signal.SIGCONT)  # a stopped process takes no SIGTERM before
        deadline = monotonic() + patience
        groups = {group for group in groups if not _await_end(group, deadline)}
    return len(processes)


def _read_pid_file(directory: str) -> tuple[int, str] | None:
    try:
        content = durable.read_file(f"{directory}/pid", _MAX_PID_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:  # a script may have put anything there, which stops no start
        _log.warning("%s/pid cannot be read: %s", directory, error)
        return None
    first, _, second = content.decode("ascii", "replace").partition("\n")
    # Ruby's RQ wrote the pid alone: without a beginning it names nobody for certain.
    return (int(first), second.strip()) if first.isdecimal() else None


def _await_end(group: int, deadline: float) -> bool:
    """Wait until nobody of the group lives; False when somebody does at the deadline."""
    while members := unix.group_members(group):
        if monotonic() >= deadline:
            return False
        _await_process(members[0], deadline)
    return True


def _await_process(pid: int, deadline: float) -> None:
    """By pidfd where there is one, else by looking."""
    if not unix.HAVE_PIDFD:
        select.select([], [], [], 0.02)
        return
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            select.select([fd], [], [], max(0.0, deadline - monotonic()))
        finally:
            os.close(fd)
