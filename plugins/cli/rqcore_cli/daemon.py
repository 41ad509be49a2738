"""Starting the manager in the background, and seeing it end.

`start` runs ``python -m rqcore DIR`` detached, in a session of its own, its stderr appended to
``log/rqcore.log``.  It is the manager's service manager for a moment: it listens for the
notification that all is ready, and for the manager's end, whichever comes first.

`wait_gone` returns when the manager's process has ended.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from time import monotonic

from rqcore.errors import StartError
from rqcore.instance import Instance

_ENDED = b"ENDED"
_LOG_LINES = 10


def command(instance: Instance, *, plugins: bool) -> list[str]:
    """What is executed to run the instance in the foreground."""
    # -P: what lies in the current directory is not ours to import.
    words = [sys.executable, "-P", "-m", "rqcore", str(instance.directory)]
    return words if plugins else [*words, "--no-plugins"]


def log_file(instance: Instance) -> str:
    """Where the manager and the queues write what they do, when started by `start`."""
    return str(instance.log_dir / "rqcore.log")


def start(instance: Instance, *, plugins: bool, patience: float) -> int:
    """Start the manager; returns its pid when it is ready.

    Raises `StartError` with the end of its log when it cannot start, or is not ready in time.
    """
    instance.check_owner()  # or its log would be somebody else's
    file = log_file(instance)
    try:
        os.makedirs(instance.log_dir, exist_ok=True)
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StartError(f"{file} cannot be written: {error.strerror}") from error
    begin = os.fstat(log).st_size
    try:
        with tempfile.TemporaryDirectory(prefix="rq-start-", dir="/tmp") as folder:
            return _start(command(instance, plugins=plugins), instance, log, folder, patience)
    except StartError as error:
        said = _written_since(file, begin)
        raise StartError(f"{error}; {file} says:\n{said}" if said else str(error)) from None
    finally:
        os.close(log)


def _start(words: list[str], instance: Instance, log: int, folder: str, patience: float) -> int:
    address = f"{folder}/notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(address)
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=instance.directory,
            start_new_session=True, env={**os.environ, "NOTIFY_SOCKET": address},
        )  # fmt: skip
        Thread(target=_tell_end, args=(process, address), daemon=True).start()
        until = monotonic() + patience
        while True:
            listener.settimeout(max(0.01, until - monotonic()))
            try:
                word = listener.recv(1 << 16)
            except TimeoutError:
                raise StartError(
                    f"RQ (pid {process.pid}) is not ready after {patience:g} s; it goes on starting"
                ) from None
            if word == _ENDED:
                raise StartError("RQ did not start")
            if b"READY=1" in word.split(b"\n"):
                # Nobody waits for it any more: it is meant to outlive us.
                process.returncode = 0
                return process.pid


def _tell_end(process: subprocess.Popen[bytes], address: str) -> None:
    """A process's end is no datagram; make it one."""
    try:
        os.waitpid(process.pid, 0)
    except ChildProcessError:
        return
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        try:
            sock.sendto(_ENDED, address)
        except OSError:
            return  # it ended later, when nobody listened any more


def _written_since(file: str, begin: int) -> str:
    with open(file, "rb") as log:
        log.seek(begin)
        lines = log.read().decode("utf-8", "replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


@contextmanager
def watched(pid: int) -> Iterator[int | None]:
    """A descriptor that tells of this process's end, where the system has such."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def wait_gone(instance: Instance, pidfd: int | None) -> None:
    """Wait until the manager's process has ended; where it cannot be watched, for its lock."""
    if pidfd is not None:
        select.select([pidfd], [], [])
        return
    try:
        lock = os.open(instance.pid_file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)  # granted when the manager has ended
    finally:
        os.close(lock)
