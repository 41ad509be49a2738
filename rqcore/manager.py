"""rq-mgr: starts, watches, restarts, reloads and stops the queue processes and the services.

It is not on the path of any message: a message is sent to its queue's own socket.  The manager's
socket answers what concerns the instance (`rqcore.orders`).

One instance has one manager: it holds the lock on ``config/queuemgr.pid`` for as long as it lives.
A child that ends is started again, after a pause that doubles with every early end; one whose
configuration is wrong stays down until the next reload.  When the manager is asked to stop, the
queues let their scripts finish for the configured grace, end what is left, and leave; a second
request skips the grace.  When the manager itself is killed, its children notice and end.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic, time

from rqcore import durable, logs, recovery, unix
from rqcore.child import EXIT_CONFIG, FIRST_PAUSE, Child, fork_child, queue_main, service_main
from rqcore.config import InstanceConfig
from rqcore.environment import login_environment
from rqcore.errors import RqError, StartError
from rqcore.followers import Audience
from rqcore.health import Health
from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, QueueInfo, Service
from rqcore.instance import Instance
from rqcore.loop import Callback, Loop
from rqcore.server import Connection

_log = logging.getLogger(__name__)
_MAX_PAUSE = 30.0
#: A child that lived so long did not fail at its start: the pause before the next begins anew.
_SETTLED = 2.0
#: How much longer than its own graces a child may take to stop before it is killed.
_STOP_MARGIN = 10.0


class Manager:
    """See the head of this module."""

    def __init__(
        self, loop: Loop, instance: Instance, settings: InstanceConfig, hooks: Hooks
    ) -> None:
        self.loop = loop
        self.instance = instance
        self.settings = settings
        self.hooks = hooks
        self.started_at = time()
        self.children: dict[str, Child] = {}
        self.stopping = False
        #: Who is told when a queue's process or a service starts, fails or ends.
        self.audience = Audience()
        self.health = Health(loop, self.children)
        self._ready = False
        self._lock = self._take_lock()
        self._login = self._take_login_environment()

    def _take_lock(self) -> int:
        path = self.instance.pid_file
        try:
            lock = durable.lock_file(path, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise StartError(
                f"{path} cannot be written: {error.strerror}. RQ must run as the owner of "
                f"{self.instance.directory}, on a file system that is not read-only"
            ) from error
        if lock is None:
            raise StartError(
                f"RQ already runs in {self.instance.directory} (pid {path.read_text().strip()}); "
                "see it with: rq status"
            )
        return lock

    def _take_login_environment(self) -> Mapping[str, str]:
        environment, problem = login_environment()
        if problem:
            _log.warning("%s", problem)
        return environment

    @property
    def info(self) -> InstanceInfo:
        """The instance as hooks see it."""
        settings = self.settings
        return InstanceInfo(str(self.instance.directory), settings.base_url, settings.raw)

    # Starting

    def start(self) -> None:
        """Start everything; the loop then runs until all has stopped."""
        self._make_registered_queues()
        self.hooks.daemon_started(self.info)
        for service in self.hooks.register_services(self.info):
            self._start_service(service)
        for name in self.instance.queue_names():
            self.start_queue(name)
        self._check_ready()

    def _make_registered_queues(self) -> None:
        """The queues that plugins bring, as far as nobody made them already."""
        for config in self.hooks.register_queues(self.info):
            name = str(config["name"])
            if not os.path.lexists(self.instance.queue_config_file(name)):
                self.write_queue(name, config)

    def write_queue(self, name: str, config: Mapping[str, object]) -> None:
        """Make a queue's directory, durably."""
        if not self.instance.queue_dir(name).exists():
            durable.make_dir(self.instance.queue_dir(name))
        data = json.dumps(dict(config), indent=2).encode() + b"\n"
        durable.write_file(self.instance.queue_config_file(name), data)
        self.hooks.queue_created(QueueInfo(name, str(self.instance.queue_dir(name)), config))

    def start_queue(self, name: str, then: Callback | None = None) -> None:
        """Start a queue's process, unless it runs; ``then`` when it is ready, or does not get so.

        One that is just stopping is started again when it has stopped.
        """
        former = self.children.get(f"queue {name}")
        if former is not None and not former.wanted:
            former.on_gone.append(lambda: self.start_queue(name, then))
            return
        if former is not None or self.stopping:
            if then is not None:
                if former is not None and former.state == "starting":
                    former.on_started.append(then)
                else:
                    then()
            return
        child = Child(name, "queue", lambda link: queue_main(
            link, self.instance, self.settings, name, self.hooks, self._login
        ))  # fmt: skip
        if then is not None:
            child.on_started.append(then)
        self.children[f"queue {name}"] = child
        self._launch(child)

    def _start_service(self, service: Service) -> None:
        child = Child(service.name, "service", lambda link: service_main(
            link, service, self.instance, self.settings, self.hooks
        ))  # fmt: skip
        self.children[f"service {service.name}"] = child
        self._launch(child)

    def _launch(self, child: Child) -> None:
        child.timer = None
        child.state, child.told, child.began, child.pinged = "starting", False, monotonic(), 0.0
        title = f"rq-que {child.name}" if child.kind == "queue" else f"rq-{child.name}"
        try:
            child.pid, link = fork_child(title, child.main)
        except OSError as error:  # out of processes, memory or descriptors
            child.problem = f"cannot be started: {error.strerror}"
            self._again_later(child)
            self._tell(child)
            return
        child.link = Connection(
            self.loop, link, lambda payload: self._on_word(child, payload), lambda: None
        )
        self.loop.on_exit(child.pid, lambda: self._on_exit(child))

    def _on_word(self, child: Child, payload: bytes) -> None:
        word = json.loads(payload)
        if "pong" in word:
            child.pinged = 0.0
            return
        if "reloaded" in word:
            child.on_reloaded.pop(0)(word["reloaded"])
            return
        child.told, child.problem = True, str(word.get("problem", ""))
        if word.get("ready"):
            child.state = "running"
            self._started(child)
            self._tell(child)

    def _tell(self, child: Child) -> None:
        self.audience.tell({"event": "child", **child.describe()})
        self.audience.flush()
        self.health.changed()

    def _started(self, child: Child) -> None:
        """It runs, or it is known that it does not."""
        waiting, child.on_started = child.on_started, []
        for callback in waiting:
            callback()
        self._check_ready()

    def _check_ready(self) -> None:
        if self._ready or any(child.state == "starting" for child in self.children.values()):
            return
        self._ready = True
        running = sum(child.state == "running" for child in self.children.values())
        _log.info("RQ is ready in %s: %d processes", self.instance.directory, running)
        self.health.ready()

    # Ending and beginning again

    def _on_exit(self, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        pid, child.pid = child.pid, 0
        if child.link is not None:
            child.link.close()
        child.link = None
        child.state = "stopped"
        waiting, child.on_reloaded = child.on_reloaded, []
        for then in waiting:
            self._after_start(child, then)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        level = logging.INFO if code == 0 and not child.wanted else logging.ERROR
        _log.log(level, "%s %s (pid %d) %s", child.kind, child.name, pid, how)
        if child.kind == "queue":
            self.hooks.queue_process_exited(child.name, code, child.restarts)
        if not child.wanted or self.stopping:
            self._gone(child, clean=code == 0)
        elif code == EXIT_CONFIG:
            child.state = "failed"
            self._started(child)
        else:
            if not child.told or not child.problem:
                child.problem = how
            self._again_later(child)
        self._tell(child)

    def _again_later(self, child: Child) -> None:
        if monotonic() - child.began > _SETTLED:
            child.pause = FIRST_PAUSE
        child.restarts += 1
        child.state = "waiting"
        _log.info("%s %s is started again in %g s", child.kind, child.name, child.pause)
        child.timer = self.loop.after(child.pause, lambda: self._launch(child))
        child.pause = min(_MAX_PAUSE, child.pause * 2)
        self._started(child)

    def _gone(self, child: Child, *, clean: bool) -> None:
        self.children.pop(f"{child.kind} {child.name}", None)
        if child.kind == "queue" and not clean:
            self._end_scripts(child.name)
        for callback in (*child.on_started, *child.on_gone):
            callback()
        if self.stopping and not self.children:
            self.loop.stop()

    def _end_scripts(self, name: str) -> None:
        """A queue's process that was killed leaves scripts that nobody else would end."""
        run = self.instance.queue_dir(name) / "run"
        folders = [f"{run}/{msg_id}" for msg_id in durable.children(run)]
        recovery.end_scripts(folders, self.settings.kill_grace)

    def stop_child(self, child: Child, grace: float, then: Callback | None = None) -> None:
        """Let a child stop within its grace, kill it when it does not; ``then`` when it is gone."""
        child.wanted = False
        if then is not None:
            child.on_gone.append(then)
        if child.timer is not None:
            child.timer.cancel()
        if not child.pid:
            child.state = "stopped"
            self._gone(child, clean=True)
            self._tell(child)
            return
        if child.kind == "queue" and child.link is not None:
            child.link.send({"stop": grace})
        elif child.link is not None:
            child.link.close()
        pid, patience = child.pid, grace + self.settings.kill_grace + _STOP_MARGIN
        self.loop.after(patience, lambda: self._kill(child, pid))

    def _kill(self, child: Child, pid: int) -> None:
        if child.pid == pid:
            _log.error("%s %s does not stop; it is killed", child.kind, child.name)
            os.kill(pid, signal.SIGKILL)

    def stop(self, reason: str) -> None:
        """Stop everything: with the configured grace at first, at once when asked again."""
        grace = 0.0 if self.stopping else self.settings.stop_grace
        if not self.stopping:
            _log.info("RQ stops: %s", reason)
            self.hooks.daemon_stopping(self.info, reason)
        self.stopping = True
        self.health.stopping(grace + self.settings.kill_grace + 2 * _STOP_MARGIN)
        for child in list(self.children.values()):
            self.stop_child(child, grace)
        if not self.children:
            self.loop.stop()

    # Reloading

    def reload(self, then: Callable[[list[str]], None] = lambda _: None) -> None:
        """Read all configuration anew; ``then`` is told what was wrong with it, in words.

        New queues start, removed ones stop, the others take their new configuration without
        disturbing what runs.  A main config that is wrong leaves the old one in force; options that a
        plugin objects to leave it those that it has.  ``then`` is called when the new queues can be
        used, or it is known that they cannot.
        """
        number = self.health.reloading()
        pending = {""}

        def done(name: str, _problem: str = "") -> None:
            pending.discard(name)
            if not pending:
                self.health.reloaded(number)

        problems = []
        try:
            self.settings, warnings = self.instance.load_config()
            logs.use_format(self.settings.log_format)
            problems += [str(warning) for warning in warnings]
            problems += self.hooks.configure(self.info, self.settings.plugins)
            self._login = self._take_login_environment()
        except RqError as error:
            problems.append(f"the old main configuration stays in force: {error}")
        names = self.instance.queue_names()
        for child in list(self.children.values()):
            if child.kind == "queue" and child.name not in names:
                self.stop_child(child, self.settings.stop_grace)
            elif child.kind == "queue" and child.link is not None:
                pending.add(child.name)
                self._send_reload(child, child.link, partial(done, child.name))
            elif not child.pid:
                self._start_now(child)
        for problem in problems:
            _log.warning("%s", problem)

        def started() -> None:
            done("")
            then(problems)

        self._start_all(names, started)

    def _start_all(self, names: list[str], then: Callback) -> None:
        pending = set(names)

        def started(name: str) -> None:
            pending.remove(name)
            if not pending:
                then()

        for name in names:
            self.start_queue(name, lambda name=name: started(name))  # type: ignore[misc]
        if not names:
            then()

    def reload_queue(self, name: str, then: Callable[[str], None]) -> None:
        """Let one queue take its new configuration; ``then`` with what is wrong with it, or "".

        One that does not run takes it when it is started again, which may be later.
        """
        child = self.children.get(f"queue {name}")
        if child is None or not child.wanted:
            self.start_queue(name, lambda: then(""))
        elif child.link is not None:
            self._send_reload(child, child.link, then)
        else:
            self._after_start(child, then)
            self._start_now(child)

    def _after_start(self, child: Child, then: Callable[[str], None]) -> None:
        child.on_started.append(lambda: then(child.problem if child.state == "failed" else ""))

    def _send_reload(self, child: Child, link: Connection, then: Callable[[str], None]) -> None:
        child.on_reloaded.append(then)
        order = {"settings": dict(self.settings.raw), "login": dict(self._login)}
        link.send({"reload": order})

    def _start_now(self, child: Child) -> None:
        if child.timer is not None:
            child.timer.cancel()
        child.pause = FIRST_PAUSE
        self._launch(child)

    def reopen_logs(self) -> None:
        """SIGUSR1: somebody has renamed the log; all processes begin a new one of the old name."""
        try:
            logs.reopen()
        except OSError as error:
            _log.error("the log cannot be opened anew; the old file is written to: %s", error)
        for child in self.children.values():
            if child.pid:
                os.kill(child.pid, signal.SIGUSR1)

    def hangup(self) -> None:
        """SIGHUP: reload; but when the terminal we were started in has gone away, stop."""
        if self._had_terminal and not _has_terminal():
            self.stop("the terminal was closed")
        else:
            self.reload()

    _had_terminal = False

    def run(self) -> None:
        """Run until stopped."""
        self._had_terminal = _has_terminal()
        unix.name_process("rq-mgr")
        # Who started us may have ignored it: then the system would reap our children itself.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.loop.on_signal(signal.SIGTERM, lambda: self.stop("SIGTERM"))
        self.loop.on_signal(signal.SIGINT, lambda: self.stop("interrupted"))
        self.loop.on_signal(signal.SIGHUP, self.hangup)
        self.loop.on_signal(signal.SIGUSR1, self.reopen_logs)
        self.start()
        self.loop.run()
        os.close(self._lock)


def _has_terminal() -> bool:
    try:
        os.tcgetpgrp(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return True
