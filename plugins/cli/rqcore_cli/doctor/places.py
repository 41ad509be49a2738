"""Examinations of the instance's directory: what is there, whose it is, who may write, what is stale."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from time import time

from rqcore import durable
from rqcore.address import reachable
from rqcore.errors import RqError, StartError
from rqcore.hookspecs import Check
from rqcore.instance import Instance
from rqcore.lifecycle import State
from rqcore.secrecy import secret_check
from rqcore_cli.doctor.patient import Patient
from rqcore_cli.owner import user_name

_DIRECTORIES = {"queue": 0o755, "log": 0o755, "plugins": 0o755}
#: Names that files with secrets have in the main config's directory, whoever reads them.
_SECRET = ("token*", "*.token", "*.secret", "*.key")
#: Longer ones need a detour that strangers' programs do not know (`rqcore.address`).
_LONGEST_SOCKET = 103
#: So long a process may take to open its socket, in seconds.
_STARTING = 10.0
_DETOUR = "/tmp"  # noqa: S108 - where `rqcore.address` makes its private directories


def owner(patient: Patient) -> Iterator[Check]:
    """Does everything belong to who runs it?"""
    root = patient.instance.directory
    expected = os.stat(root).st_uid
    name = user_name(expected)
    if os.geteuid() not in (expected, 0):
        yield Check(
            "owner", "warning", f"{root} belongs to {name}, and you are {user_name(os.geteuid())}",
            f"look at it as {name}: what only that user may see is not seen here",
        )  # fmt: skip
    places = [*_looked_at(patient), *_states(patient.instance)]
    strangers = [path for path in places if os.lstat(path).st_uid != expected]
    if strangers:
        more = f", and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        yield Check(
            "owner", "critical",
            f"{strangers[0]} belongs to {user_name(os.lstat(strangers[0]).st_uid)}, not to {name}{more}",
            f"RQ cannot work with it: chown -R {name} {root}",
        )  # fmt: skip
    else:
        yield Check("owner", "ok", f"all belongs to {name}")
    for path in _states(patient.instance):
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            yield Check(
                "modes", "critical", f"{name} may not do all in {path}, and RQ has to",
                f"chmod u+rwx {path}", _chmod(path, mode | stat.S_IRWXU),
            )  # fmt: skip
    manager = patient.manager
    if manager is not None:
        with contextlib.suppress(FileNotFoundError):
            uid = os.stat(f"/proc/{manager['pid']}").st_uid
            if uid != expected:
                yield Check(
                    "owner", "warning", f"RQ runs as {user_name(uid)}, its directory belongs to {name}",
                    f"what it writes will belong to {user_name(uid)}: run it as {name}",
                )  # fmt: skip


def modes(patient: Patient) -> Iterator[Check]:
    """May others change what is run?"""
    wrong = False
    for path in _looked_at(patient):
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            continue
        if info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
            wrong = True
            yield Check(
                "modes", "critical", f"everybody may write to {path}, and so have RQ run programs",
                f"chmod o-w {path}", _chmod(path, info.st_mode & ~stat.S_IWOTH),
            )  # fmt: skip
    if not wrong:
        yield Check("modes", "ok", "nobody else may write where RQ finds what to run")


def secrets(patient: Patient) -> Iterator[Check]:
    """Can others read what they should not?  Plugins look at what they know of themselves."""
    instance = patient.instance
    directory = str(instance.directory)
    if patient.config is not None and patient.config.basic_auth:
        yield secret_check(directory, str(instance.config_file), "passwords")
    for path in sorted(instance.config_dir.iterdir()):
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in _SECRET):
            yield secret_check(directory, str(path), "a secret, by its name")


def _chmod(path: Path, mode: int) -> Callable[[], str]:
    def fix() -> str:
        os.chmod(path, stat.S_IMODE(mode))
        return f"{path} is {stat.S_IMODE(mode):o} now"

    return fix


def _looked_at(patient: Patient) -> Iterator[Path]:
    """The directories and files that decide what RQ does; messages are not among them."""
    instance = patient.instance
    yield instance.directory
    for folder in (
        instance.config_dir,
        instance.plugins_dir,
        instance.queues_dir,
        instance.log_dir,
    ):
        if folder.is_dir():
            yield folder
            if folder in (instance.config_dir, instance.plugins_dir):
                yield from sorted(
                    path for path in folder.iterdir() if not path.name.endswith(".sock")
                )
    for name in instance.queue_names():
        yield instance.queue_dir(name)
        if os.path.lexists(instance.queue_config_file(name)):
            yield instance.queue_config_file(name)


def _states(instance: Instance) -> Iterator[Path]:
    """The directories of the queues that messages lie in."""
    for name in instance.queue_names():
        for state in (*State, "tmp", "corrupt"):
            path = instance.queue_dir(name) / state
            if os.path.lexists(path):
                yield path


def directories(patient: Patient) -> Iterator[Check]:
    """Are all directories there, and can uploads wait somewhere?"""
    missing = False
    for name, mode in _DIRECTORIES.items():
        path = patient.instance.directory / name
        if not path.is_dir():
            missing = True
            yield Check(
                "directories", "warning", f"there is no directory {path}", f"mkdir -m {mode:o} {path}",
                _mkdir(path, mode),
            )  # fmt: skip
    if patient.config is not None and (
        patient.config.tmpdir or (patient.instance.directory / "tmp").exists()
    ):
        try:
            patient.instance.use_tmp_dir(patient.config)
        except StartError as error:
            missing = True
            text, _, remedy = str(error).partition("; ")
            yield Check("directories", "critical", text, remedy or "make it writable")
    if not missing:
        yield Check("directories", "ok", "all are there")


def _mkdir(path: Path, mode: int) -> Callable[[], str]:
    def fix() -> str:
        durable.make_dir(path, mode)
        return f"made {path}"

    return fix


def sockets(patient: Patient) -> Iterator[Check]:
    """Can the sockets be reached by everybody's programs?"""
    instance = patient.instance
    paths = [instance.manager_socket, *map(instance.queue_socket, instance.queue_names())]
    longest = max(paths, key=lambda path: len(os.fsencode(path)))
    length = len(os.fsencode(longest))
    if length > _LONGEST_SOCKET:
        yield Check(
            "sockets", "warning",
            f"{longest} has {length} bytes; a socket's address holds {_LONGEST_SOCKET}",
            "rq finds it all the same, by way of /tmp; other programs do not: use a shorter directory",
        )  # fmt: skip
        if not os.access(_DETOUR, os.W_OK | os.X_OK):
            yield Check("sockets", "critical", f"{_DETOUR} is not writable: no socket can be reached",
                        f"chmod 1777 {_DETOUR}, or use a shorter directory")  # fmt: skip
    else:
        yield Check(
            "sockets", "ok", f"the longest path has {length} bytes, {_LONGEST_SOCKET} would do"
        )


def stale(patient: Patient) -> Iterator[Check]:
    """Files of processes that are gone, and processes whose files are."""
    instance = patient.instance
    pairs = [(instance.pid_file, instance.manager_socket, "the manager")]
    pairs += [
        (instance.queue_pid_file(name), instance.queue_socket(name), f"queue {name}")
        for name in instance.queue_names()
    ]
    found = False
    for pid_file, sock, who in pairs:
        held = _is_held(pid_file)
        answers = _answers(sock)
        if held and not answers and not _is_young(pid_file):
            found = True
            pid = _read_pid(pid_file)
            yield Check(
                "stale files", "critical",
                f"{who} runs (pid {pid}), but nobody answers at {sock}",
                f"its socket was removed, or it hangs: kill {pid}, then rq start; rq reload for a queue",
            )  # fmt: skip
        elif not held and os.path.lexists(sock):
            found = True
            yield Check(
                "stale files", "warning", f"{sock} is left from a process that was killed",
                "harmless to RQ, which replaces it at its start; rq doctor --fix removes it",
                _clear(pid_file, sock),
            )  # fmt: skip
        elif not held and (pid := _read_pid(pid_file)) and _lives(pid):
            found = True
            yield Check(
                "stale files", "warning",
                f"{pid_file} names process {pid}, which is somebody else's by now",
                "do not kill by it; rq doctor --fix empties it", _clear(pid_file, sock),
            )  # fmt: skip
    if not found:
        yield Check("stale files", "ok", "every pid file and socket has its process")


def _is_held(pid_file: Path) -> bool:
    """Does a process hold its lock?  Looked up where possible: to try it is to be in the way."""
    try:
        inode = os.stat(pid_file).st_ino
        with open("/proc/locks", encoding="ascii") as file:
            locks = [line.split() for line in file]
    except FileNotFoundError:
        return (
            os.path.exists(pid_file) and not os.path.exists("/proc/locks") and _is_locked(pid_file)
        )
    return any("FLOCK" in lock and any(f.endswith(f":{inode}") for f in lock) for lock in locks)


def _is_locked(pid_file: Path) -> bool:
    with open(pid_file, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_young(pid_file: Path) -> bool:
    """Was it started just now?  Then its socket is about to come."""
    return time() - os.stat(pid_file).st_mtime < _STARTING


def _answers(sock: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            with reachable(str(sock)) as short:
                client.connect(short)
        except PermissionError:  # it is another user's, who may well answer himself
            return True
        except OSError:
            return False
    return True


def _read_pid(pid_file: Path) -> int:
    try:
        first = durable.read_file(pid_file, 4096).split()
    except OSError:
        return 0
    return int(first[0]) if first and first[0].isdigit() else 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _clear(pid_file: Path, sock: Path) -> Callable[[], str]:
    def fix() -> str:
        # Under the lock that a starting process takes: nobody's own file is touched.
        lock = durable.lock_file(pid_file, b"")
        if lock is None:
            raise RqError(f"the process of {pid_file} runs by now; nothing is stale any more")
        try:
            durable.remove_quietly(sock)
        finally:
            os.close(lock)
        return f"emptied {pid_file}, removed {sock.name}"

    return fix
