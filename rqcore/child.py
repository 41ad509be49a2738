"""The manager's children: queue processes and services, forked so that they share its memory.

Each child has a link to the manager, a socket pair with frames of the wire protocol.  When the other
end closes, the manager is gone and the child ends itself.  Over it the child says ``ready``, or what
is wrong, and a queue's process is told to reload, and says when it has; it answers pings, too.

Between the fork and the child's own work everything of the manager's is put away: its descriptors are
closed, its signal handlers replaced, its event loop never touched again.  A child leaves by
``os._exit``, so that nothing of the manager's is torn down twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rqcore import durable, logs, unix, wire
from rqcore.config import ConfigError, InstanceConfig, parse_instance
from rqcore.errors import RqError
from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, Service, ServiceContext
from rqcore.instance import Instance
from rqcore.loop import Callback, Loop, Timer
from rqcore.queue import QueueProcess
from rqcore.requests import Requests
from rqcore.script import reserve_descriptors
from rqcore.server import Connection, Server

_log = logging.getLogger(__name__)
#: The child's exit status when starting it again without a change would help nobody.
EXIT_CONFIG = 78
#: Seconds until a child that has ended is started again, at first.
FIRST_PAUSE = 0.1
_MAX_FD = 1 << 20
_LINK_FD = 10
#: Ignored by Python itself, which restores them for the programs that it starts.
_PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}


@dataclass
class Child:
    """A queue's process or a service, running or waiting to be started again."""

    name: str
    kind: str
    main: Callable[..., int]
    pid: int = 0
    link: Connection | None = None
    state: str = "starting"
    #: Why it does not run; kept while it is tried again.
    problem: str = ""
    #: Has it told how it is since it was started the last time?
    told: bool = False
    restarts: int = 0
    pause: float = FIRST_PAUSE
    began: float = 0.0
    #: When it was pinged and has not answered yet (monotonic seconds), 0 when nothing is asked.
    pinged: float = 0.0
    wanted: bool = True
    timer: Timer | None = None
    #: Called once it runs, or it is known that it does not.
    on_started: list[Callback] = field(default_factory=list)
    on_gone: list[Callback] = field(default_factory=list)
    #: One for each time that it was told to reload, oldest first; called with what is wrong, or "".
    on_reloaded: list[Callable[[str], None]] = field(default_factory=list)

    def describe(self) -> dict[str, object]:
        """The child as those outside see it."""
        return {
            "name": self.name, "kind": self.kind, "pid": self.pid, "state": self.state,
            "problem": self.problem, "restarts": self.restarts,
        }  # fmt: skip


def fork_child(name: str, main: Callable[[socket.socket], int]) -> tuple[int, socket.socket]:
    """Start a child that runs ``main`` with its end of the link; returns its pid and our end."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()
    # One that comes before the child knows what it means waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        pid = os.fork()
    finally:
        if os.getpid() == parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    if pid:
        theirs.close()
        return pid, ours
    status = 1
    try:
        link = _put_away(theirs)
        unix.name_process(name)
        logs.process_is(name)
        status = main(link)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing may get back into the manager's code
        _log.exception("%s failed", name)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _put_away(theirs: socket.socket) -> socket.socket:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C in a terminal reaches all; what it means is for the manager to say.  Not SIG_IGN: that
    # would be inherited by the scripts, as would be what nohup or a shell's & have ignored for us.
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if number == signal.SIGINT or signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    logs.reopen_on_signal()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # At or above a number that keeps clear of 3 and 4, wherever the next free one is.
    kept = fcntl.fcntl(theirs.detach(), fcntl.F_DUPFD_CLOEXEC, _LINK_FD)
    os.closerange(3, kept)
    os.closerange(kept + 1, _MAX_FD)
    reserve_descriptors()
    return socket.socket(fileno=kept)


def queue_main(
    link: socket.socket, instance: Instance, settings: InstanceConfig, name: str,
    hooks: Hooks, login: Mapping[str, str],
) -> int:  # fmt: skip
    """A queue's process, from its start to its end; returns its exit status.

    The main configuration is the one that the manager goes by, whatever the file holds meanwhile.
    """
    loop = Loop()
    try:
        lock = durable.lock_file(instance.queue_pid_file(name), f"{os.getpid()}\n".encode())
        if lock is None:
            _log.warning("queue %s: its former process has not ended yet", name)
            return os.EX_TEMPFAIL
        config, warnings = instance.load_queue(name)
        for warning in warnings:
            _log.warning("%s", warning)
        queue = QueueProcess(loop, instance, settings, config, hooks, login)
        server = Server(loop, str(instance.queue_socket(name)), Requests(queue).handle)
    except (ConfigError, RqError, OSError) as error:
        _log.error("queue %s cannot start: %s", name, error)
        _say(link, {"problem": str(error)})
        return _exit_status(error)

    def on_order(payload: bytes) -> None:
        order: dict[str, Any] = json.loads(payload)
        if "reload" in order:
            connection.send({"reloaded": _reload(queue, order["reload"])})
        elif "stop" in order:
            queue.stop(float(order["stop"]))
        elif "ping" in order:
            connection.send({"pong": True})

    connection = Connection(loop, link, on_order, lambda: queue.stop(0))
    loop.on_signal(signal.SIGTERM, lambda: queue.stop(queue.settings.stop_grace))
    loop.on_signal(signal.SIGHUP, lambda: None)
    connection.send({"ready": True})
    loop.run()
    server.close()
    queue.close()
    os.close(lock)
    return 0


def _reload(queue: QueueProcess, order: Mapping[str, Any]) -> str:
    """Take the new configuration; one that is wrong, which is told, leaves the old one in force."""
    try:
        settings, _ = parse_instance(order["settings"], str(queue.instance.config_file))
        config, warnings = queue.instance.load_queue(queue.name)
    except RqError as error:
        _log.error("queue %s keeps its old configuration: %s", queue.name, error)
        return str(error)
    for warning in warnings:
        _log.warning("%s", warning)
    logs.use_format(settings.log_format)
    queue.reconfigure(settings, config, order["login"])
    return ""


def service_main(
    link: socket.socket,
    service: Service,
    instance: Instance,
    settings: InstanceConfig,
    hooks: Hooks,
) -> int:
    """A service's process; its ``stop_fd`` is the link, which ends when the manager does."""
    info = InstanceInfo(str(instance.directory), settings.base_url, settings.raw)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    context = ServiceContext(info, link.fileno(), lambda: _say(link, {"ready": True}), hooks)
    try:
        return service.run(context) or 0
    except (RqError, OSError) as error:
        _log.error("service %s cannot go on: %s", service.name, error)
        _say(link, {"problem": str(error)})
        return _exit_status(error)


def _exit_status(error: RqError | OSError) -> int:
    """What the system refuses now it may give later; a wrong configuration stays wrong."""
    return os.EX_OSERR if isinstance(error, OSError) else EXIT_CONFIG


def _say(link: socket.socket, value: Mapping[str, Any]) -> None:
    link.sendall(wire.encode(json.dumps(value).encode("ascii")))
