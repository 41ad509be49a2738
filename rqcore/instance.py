"""An instance directory: where everything in it lies, how it is found, and how it is made.

Every process and every command asks here for paths, so that no other room spells one.  Reading a
config raises `ConfigError`; a directory that cannot be used raises `StartError`; a queue name that
could lead out of the directory raises `RefusedError`.  Only `init_instance` and `use_tmp_dir`
write, durably, and import the room that does it only then: every command pays for its imports.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from rqcore.config import InstanceConfig, QueueConfig, is_host_name, parse_instance, parse_queue
from rqcore.errors import RefusedError, StartError
from rqcore.message import queue_name_problem
from rqcore.schema import MAX_BYTES, ConfigError, Problem, decode_json

#: What `init_instance` makes, and the mode of each: who may look, and who may not.
_DIRS = {"config": 0o755, "queue": 0o755, "log": 0o755, "plugins": 0o755, "tmp": 0o700}
_CONFIG = os.path.join("config", "config.json")
_DNS_SECONDS = 2.0
#: So much of a reason is shown: characters.
_REASON = 300


@dataclass(frozen=True, slots=True)
class Instance:
    """The paths of one instance; ``directory`` is made absolute, its links are left alone."""

    directory: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory).absolute())

    @property
    def config_dir(self) -> Path:
        """Main config, admin states, pid and socket of the manager."""
        return self.directory / "config"

    @property
    def config_file(self) -> Path:
        """The main config."""
        return self.config_dir / "config.json"

    @property
    def pid_file(self) -> Path:
        """The manager's pid."""
        return self.config_dir / "queuemgr.pid"

    @property
    def manager_socket(self) -> Path:
        """Where the manager answers."""
        return self.config_dir / "queuemgr.sock"

    @property
    def queues_dir(self) -> Path:
        """One directory per queue."""
        return self.directory / "queue"

    @property
    def plugins_dir(self) -> Path:
        """Plugins that are single files."""
        return self.directory / "plugins"

    @property
    def log_dir(self) -> Path:
        """Logs of the processes."""
        return self.directory / "log"

    def queue_dir(self, name: str) -> Path:
        """A queue's directory.  Raises `RefusedError` for what cannot be a queue's name."""
        return self.queues_dir / _checked(name)

    def queue_config_file(self, name: str) -> Path:
        """A queue's config."""
        return self.queue_dir(name) / "config.json"

    def queue_socket(self, name: str) -> Path:
        """Where a queue answers."""
        return self.queue_dir(name) / "queue.sock"

    def queue_pid_file(self, name: str) -> Path:
        """The pid of a queue's process."""
        return self.queue_dir(name) / "queue.pid"

    def down_file(self, name: str) -> Path:
        """The file whose existence takes a queue DOWN."""
        return self.config_dir / f"{_checked(name)}.down"

    def pause_file(self, name: str) -> Path:
        """The file whose existence pauses a queue."""
        return self.config_dir / f"{_checked(name)}.pause"

    def admin_state(self, name: str) -> str:
        """``UP``, ``DOWN`` or ``PAUSE``, by the files; DOWN wins."""
        if os.path.lexists(self.down_file(name)):
            return "DOWN"
        return "PAUSE" if os.path.lexists(self.pause_file(name)) else "UP"

    def admin_reason(self, name: str) -> str:
        """Why it is DOWN or paused: the first line of the file that says so, often empty."""
        file = self.down_file(name)
        if not os.path.lexists(file):
            file = self.pause_file(name)
        try:
            first, _, _ = _read(str(file), "").lstrip().partition(b"\n")
        except ConfigError:  # there is none, or a directory, a pipe: its existence says all
            return ""
        return first.decode("utf-8", "replace").strip()[:_REASON]

    def queue_names(self) -> list[str]:
        """The queues, sorted: directories with a valid name that hold a config.

        A config that is a link to nothing counts too, so that somebody is told of it.  What a
        deleted queue became has a dot in its name and is none.  Raises `StartError` when the
        directory cannot be read; that there is none yet means no queues.
        """
        try:
            names = os.listdir(self.queues_dir)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StartError(f"{self.queues_dir} cannot be read: {_reason(error)}") from error
        return sorted(
            name
            for name in names
            if queue_name_problem(name) is None and os.path.lexists(self.queue_config_file(name))
        )

    def load_config(self) -> tuple[InstanceConfig, list[Problem]]:
        """The main config and its warnings.  Raises `ConfigError`."""
        file = str(self.config_file)
        raw, odd = decode_json(_read(file, "run `rq init DIR` to make an instance"), file)
        config, warnings = parse_instance(raw, file)
        return config, odd + warnings

    def load_queue(self, name: str) -> tuple[QueueConfig, list[Problem]]:
        """A queue's config and its warnings.  Raises `ConfigError`."""
        file = str(self.queue_config_file(name))
        raw, odd = decode_json(_read(file, "restore the file, or what it is a link to"), file)
        config, warnings = parse_queue(raw, file, name)
        return config, odd + warnings

    def check_owner(self) -> None:
        """Refuse to be root in a directory of somebody else, who could so become root by a script."""
        owner = self.directory.stat().st_uid
        if os.geteuid() == 0 and owner != 0:
            raise StartError(
                f"RQ must run as the owner of {self.directory}, which belongs to {_user(owner)}. "
                f"Become that user, or: chown -R root {self.directory}"
            )

    def use_tmp_dir(self, config: InstanceConfig) -> Path:
        """Where uploads wait, known to be writable; the instance's own is made when missing.

        Raises `StartError`.
        """
        path = self.directory / (config.tmpdir or "tmp")
        remedy = f'create it, or change "tmpdir" in {self.config_file}'
        try:
            if not config.tmpdir and not path.exists():
                _make_dir(path, _DIRS["tmp"])
            writable = path.is_dir() and os.access(
                path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
            )
        except OSError as error:
            raise StartError(f"tmpdir {path}: {_reason(error)}; {remedy}") from error
        if not writable:
            problem = "is not writable" if path.is_dir() else "is not a directory"
            raise StartError(f"tmpdir {path} {problem}; {remedy}")
        return path


def find_instance(
    explicit: str | None, environ: Mapping[str, str], cwd: str | os.PathLike[str]
) -> Instance:
    """The instance that is meant: ``explicit`` (--dir), else RQ_DIR, else around ``cwd``.

    Raises `StartError` when there is none.
    """
    for given, source in ((explicit, "--dir"), (environ.get("RQ_DIR") or None, "RQ_DIR")):
        if given is not None:
            return _named_instance(given, source, cwd)
    for directory in (Path(cwd), *Path(cwd).parents):
        if os.path.lexists(directory / _CONFIG):
            return Instance(directory)
    raise StartError(
        f"no instance: neither {cwd} nor a directory above it has a {_CONFIG}; "
        "name one with --dir or RQ_DIR, or make one with `rq init DIR`"
    )


def _named_instance(given: str, source: str, cwd: str | os.PathLike[str]) -> Instance:
    if not given:
        raise StartError(f"{source} is empty; give the instance's directory")
    directory = Path(cwd, given)
    try:
        os.lstat(directory / _CONFIG)
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = f"it has no {_CONFIG}" if directory.is_dir() else "there is no such directory"
        raise StartError(
            f"{source} names {directory}, but {problem}; "
            f"correct it, or make an instance there with `rq init {given}`"
        ) from error
    except (OSError, ValueError) as error:
        raise StartError(f"{source} names {directory}: {_reason(error)}") from error
    return Instance(directory)


def init_instance(
    directory: str | os.PathLike[str],
    *,
    host: str | None = None,
    addr: str = "127.0.0.1",
    port: int = 3333,
    env: str = "development",
) -> tuple[Instance, list[Problem]]:
    """Make an instance in a directory that is new or empty; also the warnings of its config.

    The config comes last: a crash before it leaves no instance, and the same command finishes it.
    Raises `ConfigError` for a wrong value and `StartError` for an unfit directory.
    """
    instance = Instance(Path(directory))
    file = str(instance.config_file)
    settings = {"env": env, "host": host or machine_host(), "port": port, "addr": addr}
    config, warnings = parse_instance(settings, file)
    if host is None and is_local(config.host):
        warnings.append(
            Problem(
                file,
                "host",
                config.host,
                "is all that this machine is called; its message ids mean nothing elsewhere",
                "set the machine's full name before other machines are involved",
            )
        )
    _refuse_unfit(instance)
    try:
        _make_tree(instance.directory, settings)
    except OSError as error:
        raise StartError(
            f"cannot make an instance in {instance.directory}: {_reason(error)}; "
            "choose a place that you may write to"
        ) from error
    return instance, warnings


def machine_host() -> str:
    """The machine's full name; a name server that does not answer is not waited for long."""
    name = socket.gethostname()
    if "." in name:
        return best_host((name,))
    answers: SimpleQueue[str] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getfqdn(name))
        except (OSError, UnicodeError):
            answers.put(name)

    Thread(target=ask, name="host name", daemon=True).start()
    try:
        return best_host((answers.get(timeout=_DNS_SECONDS), name))
    except Empty:
        return best_host((name,))


def best_host(names: Iterable[str]) -> str:
    """The first of the names that other machines might know; ``localhost`` when there is none."""
    return next((n for n in names if is_host_name(n) and not is_local(n)), "localhost")


def is_local(host: str) -> bool:
    """Whether every machine calls itself so."""
    return "localhost" in host.partition(".")[0] or host.startswith("127.") or host == "::1"


def _refuse_unfit(instance: Instance) -> None:
    """Refuse a directory that holds anything but what an interrupted `init_instance` leaves."""
    directory = instance.directory
    try:
        if os.path.lexists(instance.config_file):
            raise StartError(
                f"{directory} is an instance already; start it with `rq up --dir {directory}`, "
                "or choose another directory"
            )
        names = os.listdir(directory)
        strangers = [name for name in names if not _is_leftover(directory, name)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"{directory} cannot be used: {_reason(error)}") from error
    if strangers:
        raise StartError(
            f"{directory} is not empty, it holds {strangers[0]!r}; choose a new or empty directory"
        )


def _is_leftover(directory: Path, name: str) -> bool:
    # A file system of one's own, just made, is as good as empty; so is a new user's home (.profile).
    if name == "lost+found" or name.startswith("."):
        return True
    path = directory / name
    return name in _DIRS and not path.is_symlink() and path.is_dir() and not os.listdir(path)


def _make_tree(directory: Path, settings: Mapping[str, object]) -> None:
    from rqcore import durable  # noqa: PLC0415 - see the head of this file

    for parent in reversed((directory, *directory.parents)):
        if not parent.exists():
            _make_dir(parent, 0o755)
    for name, mode in _DIRS.items():
        if not (directory / name).is_dir():
            _make_dir(directory / name, mode)
    data = json.dumps(settings, indent=2).encode("ascii") + b"\n"
    # Not for others to read: passwords may be added to it.
    durable.write_file(directory / _CONFIG, data, mode=0o600)


def _make_dir(path: Path, mode: int) -> None:
    from rqcore import durable  # noqa: PLC0415 - see the head of this file

    durable.make_dir(path, mode)


def _checked(name: str) -> str:
    problem = queue_name_problem(name)
    if problem is not None:
        raise RefusedError(problem)
    return name


def _read(file: str, remedy: str) -> bytes:
    """The bytes of a config, read so that a pipe or a huge file in its place does no harm."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                with open(fd, "rb", closefd=False) as stream:
                    return stream.read(MAX_BYTES + 1)
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise ConfigError([Problem(file, "", None, "does not exist", remedy)]) from error
    except OSError as error:
        reason = f"cannot be read: {_reason(error)}"
        fix = "run as the instance's owner, or correct the file's owner and mode"
        raise ConfigError([Problem(file, "", None, reason, fix)]) from error
    raise ConfigError([Problem(file, "", None, "is not a regular file", "put the config there")])


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
