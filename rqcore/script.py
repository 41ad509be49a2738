"""Starting a queue script, and ending it.

The contract: current directory ``job/``; stdin closed; stdout and stderr appended to
``job/stdio.log``; descriptor 3 the pipe to RQ, descriptor 4 the pipe back, both blocking; no other
descriptor; niceness 19; a process group of its own.

The start is vfork and exec (`subprocess`), because a fork of this process would cost four times as
much.  Nothing of Python runs in between, so the niceness is set from here, on the group, as soon as
the exec has happened: some microseconds into the script's life.

`start_script` raises `ScriptError` when the script itself cannot be run (missing, not executable),
and `OSError` when the system cannot start anything now (no process, memory or descriptor left).
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from rqcore import durable
from rqcore.errors import RqError

_PIPE, _ANSWER = 3, 4
_NICENESS = 19


class ScriptError(RqError):
    """The script cannot be run: it is missing or not executable.  The text says which and why."""


def resolve_script(script: str, base: str) -> str:
    """The script's real path, links followed.  Raises `ScriptError`."""
    path = os.path.realpath(os.path.join(base, script))
    if not os.path.exists(path):
        raise ScriptError(f"script {script} is missing: there is no {path}")
    if os.path.isdir(path):
        raise ScriptError(f"script {script} is a directory: {path}")
    if not os.access(path, os.X_OK):
        raise ScriptError(f"script {script} is not executable: chmod +x {path}")
    return path


def command_line(real_script: str, exec_prefix: str | None) -> list[str]:
    """What is executed for a script: itself, or the configured prefix before it, for the shell."""
    if not exec_prefix:
        return [real_script]
    return ["/bin/sh", "-c", exec_prefix + shlex.quote(real_script)]


_reserved = False


def reserve_descriptors() -> None:
    """Keep 3 and 4 for scripts in this process: called once, before anything else is opened.

    A script's ends of the pipes are put there for the moment of its start.
    """
    global _reserved  # noqa: PLW0603 - a property of the process, like its descriptors
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (_PIPE, _ANSWER):
        if fd != null:
            os.dup2(null, fd, inheritable=False)
    if null > _ANSWER:
        os.close(null)
    # Closed by the exec: the contract's scripts have no stdin.
    os.set_inheritable(0, False)
    _reserved = True


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: one of ``exit_status`` and ``signal`` is None."""

    exit_status: int | None
    signal: int | None
    usage: resource.struct_rusage | None


class ScriptProcess:
    """A running script: ``pipe`` is where its lines come from, ``answer`` where ours go to."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: int, answer: int) -> None:
        self.pid = process.pid
        self.pipe = pipe
        self.answer = answer
        self._process = process

    def send_signal(self, number: int) -> None:
        """Signal the whole process group; harmless when it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self) -> Ended:
        """Collect the ended process; it must have ended."""
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        return Ended(code, None, usage) if code >= 0 else Ended(None, -code, usage)

    def close(self) -> None:
        """Close our ends of the pipes."""
        for fd in (self.pipe, self.answer):
            with contextlib.suppress(OSError):
                os.close(fd)


def start_script(command: list[str], environment: Mapping[str, str], job: str) -> ScriptProcess:
    """Run a command as the script of the message whose ``job/`` this is; see above for errors."""
    if not _reserved:
        raise RuntimeError("reserve_descriptors() must be called first")
    fds = []
    try:
        pipe, script_pipe = os.pipe()
        fds += [pipe, script_pipe]
        script_answer, answer = os.pipe()
        fds += [script_answer, answer]
        log = durable.append_log(f"{job}/stdio.log")
        fds.append(log)
        os.dup2(script_pipe, _PIPE, inheritable=False)
        os.dup2(script_answer, _ANSWER, inheritable=False)
        process = _spawn(command, environment, job, log)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    finally:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, _PIPE, inheritable=False)
        os.dup2(null, _ANSWER, inheritable=False)
        os.close(null)
    for fd in (script_pipe, script_answer, log):
        os.close(fd)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpriority(os.PRIO_PGRP, process.pid, _NICENESS)
    os.set_blocking(pipe, False)
    os.set_blocking(answer, False)
    return ScriptProcess(process, pipe, answer)


def _spawn(
    command: list[str], environment: Mapping[str, str], job: str, log: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env=environment, cwd=job, stdin=None, stdout=log, stderr=log,
            close_fds=True, pass_fds=(_PIPE, _ANSWER), process_group=0,
        )  # fmt: skip
    except OSError as error:
        if error.errno == errno.ENOEXEC and len(command) == 1:
            # No "#!" line: a login shell would run it as a shell script, so that is what it is.
            return _spawn([shutil.which("bash") or "/bin/sh", command[0]], environment, job, log)
        if error.errno in {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP}:
            raise ScriptError(
                f"script {command[0]} cannot be executed: {error.strerror}; "
                "see its first line (#!) and its permissions"
            ) from error
        raise
