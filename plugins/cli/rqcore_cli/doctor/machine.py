"""Examinations of the machine: disk, file system, clock, limits, the login environment."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from time import monotonic, time

from rqcore.config import ConfigError
from rqcore.environment import login_environment
from rqcore.hookspecs import Check
from rqcore.message import is_msg_id
from rqcore.words import id_time, size, span_in_words
from rqcore_cli.doctor.patient import Patient

_LOW_BYTES, _NO_BYTES = 1_000_000_000, 100_000_000
_LOW_PART = 0.05
_LOW_INODES, _NO_INODES = 20_000, 1_000
_SLOW_LOGIN = 5.0
_FUTURE = 60.0
#: Descriptors of a queue's process for each running message, and for everything else.
_FDS_EACH, _FDS_MORE = 8, 64
#: A message runs as a process, which mostly has some of its own.
_PROCESSES_EACH = 4
_NEARLY = 0.9
_VOLATILE = ("tmpfs", "ramfs", "overlay", "overlayfs")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs")
_MOUNT_OPTIONS_END = "-"
_LARGE_LOG = 1_000_000_000


def disk(patient: Patient) -> Iterator[Check]:
    """Is there room on the spool's disk?"""
    found = os.statvfs(patient.instance.queues_dir if patient.instance.queues_dir.is_dir()
                       else patient.instance.directory)  # fmt: skip
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    remedy = (
        "remove old messages: rq rm QUEUE --state done --older-than 7d; "
        f"what takes most: du -sh {patient.instance.queues_dir}/*"
    )
    text = f"{size(free)} of {size(total)} free"
    if free < _NO_BYTES:
        yield Check("disk", "critical", text, remedy)
    elif free < _LOW_BYTES and free < total * _LOW_PART:
        yield Check("disk", "warning", text, remedy)
    else:
        yield Check("disk", "ok", text)
    if found.f_files:  # some file systems have no fixed number of them
        text = f"{found.f_favail} of {found.f_files} inodes free; a message takes about ten"
        level = (
            "critical"
            if found.f_favail < _NO_INODES
            else "warning"
            if found.f_favail < _LOW_INODES
            else "ok"
        )
        yield Check("disk inodes", level, text, "" if level == "ok" else remedy)  # type: ignore[arg-type]


def file_system(patient: Patient) -> Iterator[Check]:
    """Does what is written there last?"""
    kind = _kind_of(str(patient.instance.directory))
    production = patient.config is not None and patient.config.env == "production"
    if kind in _VOLATILE and production:
        yield Check("file system", "warning",
                    f"the instance is on {kind}: a reboot may lose its messages",
                    "move it to a disk: rq stop, mv, rq start --dir")  # fmt: skip
    elif kind in _REMOTE:
        yield Check("file system", "warning",
                    f"the instance is on {kind}: locks and notifications may fail",
                    "move it to a local disk; relay carries messages between machines")  # fmt: skip
    else:
        yield Check(
            "file system", "ok", f"the instance is on {kind or 'a file system of unknown kind'}"
        )


def _kind_of(path: str) -> str:
    """The kind of file system at this path; "" where nobody tells."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return ""
    kinds = [line[line.index(_MOUNT_OPTIONS_END, 6) + 1] for line in lines if line[2] == wanted]
    return kinds[-1] if kinds else ""


def clock(patient: Patient) -> Iterator[Check]:
    """Is the clock where it was when the newest messages came?"""
    newest, where = 0.0, ""
    for name in patient.instance.queue_names():
        for made in _newest(str(patient.instance.queue_dir(name))):
            if made > newest:
                newest, where = made, name
    ahead = newest - time()
    if ahead > _FUTURE:
        yield Check(
            "clock", "critical",
            f"it is {span_in_words(ahead)} behind the newest message of queue {where}",
            "set it right (timedatectl, chronyc tracking): due times and schedules go by it",
        )  # fmt: skip
    else:
        yield Check("clock", "ok", "no message is from the future")


def _newest(folder: str) -> Iterator[float]:
    """When the newest message of each state was made, by its id; the directories tell."""
    for state in ("prep", "que", "run", "err"):
        ids = [name for name in _names(f"{folder}/{state}") if is_msg_id(name)]
        if ids:
            yield id_time(max(ids))
    for state in ("done", "relayed"):
        path = f"{folder}/{state}"
        for _ in ("day", "hour", "minute"):
            names = [name for name in _names(path) if name.isdecimal()]
            path = f"{path}/{max(names)}" if names else ""
        ids = [name for name in _names(path) if is_msg_id(name)] if path else []
        if ids:
            yield id_time(max(ids))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder) if folder else []
    except OSError:
        return []


def login(patient: Patient) -> Iterator[Check]:
    """Does the login profile work, which gives scripts their environment?"""
    del patient
    began = monotonic()
    environment, problem = login_environment()
    seconds = monotonic() - began
    if problem:
        yield Check("login environment", "warning", problem,
                    "scripts get RQ's own environment; try: bash -lc env")  # fmt: skip
    elif seconds > _SLOW_LOGIN:
        yield Check("login environment", "warning", f"the login profile takes {seconds:.1f} s",
                    "each start and reload of RQ waits for it; try: bash -lxc true")  # fmt: skip
    else:
        yield Check("login environment", "ok", f"{len(environment)} variables in {seconds:.1f} s")


def limits(patient: Patient) -> Iterator[Check]:
    """Will there be enough descriptors and processes when every worker is busy?"""
    workers = _workers(patient)
    pid = patient.manager["pid"] if patient.manager is not None else os.getpid()
    known = _limits_of(pid)
    wanted = {
        "Max open files": max(workers, default=0) * _FDS_EACH + _FDS_MORE,
        "Max processes": sum(workers) * _PROCESSES_EACH + 2 * len(workers) + 10,
    }
    fine = True
    for what, need in wanted.items():
        have = known.get(what)
        if have is not None and have < need:
            fine = False
            option, key = ("-n", "LimitNOFILE") if "files" in what else ("-u", "LimitNPROC")
            yield Check(
                "limits", "warning",
                f"{what.lower()} is {have}; with all workers busy it may take {need}",
                f"raise it where RQ is started: ulimit {option} {need}, or {key}={need} in the unit",
            )  # fmt: skip
    if fine:
        told = ", ".join(f"{what.lower()} {known[what]}" for what in wanted if what in known)
        yield Check("limits", "ok", told or "none is known here")


def _workers(patient: Patient) -> list[int]:
    found = []
    for name in patient.instance.queue_names():
        try:
            found.append(patient.instance.load_queue(name)[0].num_workers)
        except ConfigError:
            continue  # told by the examination of the configs
    return found


def _limits_of(pid: int) -> dict[str, int]:
    found = {}
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            for line in file:
                soft = line[26:].split()[0]
                if soft.isdecimal():
                    found[line[:26].strip()] = int(soft)
    except OSError:
        return {}
    return found


def inotify(patient: Patient) -> Iterator[Check]:
    """Are there enough of the system's file notifications for every queue?"""
    most = _number("/proc/sys/fs/inotify/max_user_instances")
    if most is None:
        yield Check(
            "inotify", "ok", "this system has none: directories are looked at once a second"
        )
        return
    used = _inotify_used(os.stat(patient.instance.directory).st_uid)
    # What runs has its own already.
    need = 0 if patient.manager is not None else len(patient.instance.queue_names()) + 2
    if used + need > most * _NEARLY:
        yield Check(
            "inotify", "warning" if used + need <= most else "critical",
            f"{used} of {most} instances are taken, {need} more are needed",
            f"sysctl -w fs.inotify.max_user_instances={max(512, most * 2)}, and in /etc/sysctl.d/",
        )  # fmt: skip
    else:
        yield Check("inotify", "ok", f"{used} of {most} instances are taken")


def _inotify_used(uid: int) -> int:
    count = 0
    for entry in _names("/proc"):
        if not entry.isdecimal():
            continue
        folder = f"/proc/{entry}/fd"
        try:
            if os.stat(f"/proc/{entry}").st_uid != uid:
                continue
        except OSError:
            continue
        for fd in _names(folder):
            try:
                count += os.readlink(f"{folder}/{fd}") == "anon_inode:inotify"
            except OSError:
                continue
    return count


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def logs(patient: Patient) -> Iterator[Check]:
    """Does somebody rotate the logs?"""
    folder = patient.instance.log_dir
    large = []
    for name in _names(str(folder)):
        info = os.stat(folder / name)
        if stat.S_ISREG(info.st_mode) and info.st_size > _LARGE_LOG:
            large.append((name, info.st_size))
    for name, length in large:
        yield Check("logs", "warning", f"log/{name} has {size(length)}",
                    "let it be rotated: by rqcore-cleaner, or by logrotate")  # fmt: skip
    if not large:
        yield Check("logs", "ok", "none is large")
