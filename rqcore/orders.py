"""What can be asked of the manager by its socket: the contract's commands, and our client's own.

Each command is a method ``do_NAME``; a queue is named as bare text after the command.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from time import time
from typing import Any

from rqcore import __version__, durable
from rqcore.child import Child
from rqcore.config import ConfigError, decode_json, parse_queue
from rqcore.errors import NotFoundError, RefusedError, RqError
from rqcore.hookspecs import QueueInfo
from rqcore.manager import Manager
from rqcore.message import parse_message, queue_name_problem
from rqcore.schema import MAX_BYTES
from rqcore.server import Request

_log = logging.getLogger(__name__)
LATER = object()
_CREATED = ["success", "queue created - awesome"]


class Orders:
    """See the head of this module."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._instance = manager.instance

    def handle(self, request: Request) -> None:
        """Answer a request, now or later, exactly once."""
        method = getattr(self, f"do_{request.command}", None)
        if method is None or not request.command.isidentifier():
            request.reply(["error"])
            return
        try:
            answer = method(request)
        except RqError as error:
            answer = ["fail", str(error)]
        except OSError as error:
            answer = ["fail", f"cannot be done: {error}"]
        except Exception as error:  # noqa: BLE001 - a defect costs its asker an answer, no more
            _log.exception("the command %s failed", request.command)
            answer = ["fail", f"{request.command}: {type(error).__name__}: {error}"]
        if answer is not LATER:
            request.reply(answer)

    # About the instance

    def do_ping(self, _: Request) -> Any:
        return ["pong"]

    def do_environment(self, _: Request) -> Any:
        return [self._manager.settings.env]

    def do_version(self, _: Request) -> Any:
        return [__version__]

    def do_uptime(self, _: Request) -> Any:
        return [int(time() - self._manager.started_at)]

    def do_queues(self, _: Request) -> Any:
        return sorted(c.name for c in self._manager.children.values() if c.kind == "queue")

    def do_describe(self, _: Request) -> Any:
        """The instance and its processes, in one answer."""
        manager = self._manager
        return ["ok", {
            "directory": str(self._instance.directory), "pid": os.getpid(),
            "version": __version__, "env": manager.settings.env,
            "base_url": manager.settings.base_url, "stopping": manager.stopping,
            "uptime": int(time() - manager.started_at), "wakeups": manager.loop.wakeups,
            "children": [child.describe() for child in manager.children.values()],
        }]  # fmt: skip

    def do_plugins(self, _: Request) -> Any:
        return ["ok", self._manager.hooks.report()]

    def do_subscribe(self, request: Request) -> Any:
        """From now on this connection is told of the manager's children (`rqcore.followers`)."""
        connection = request.connection
        request.reply(["ok", "subscribed"])
        self._manager.audience.add(connection)
        return LATER

    def do_resolve_destination(self, request: Request) -> Any:
        """The queue that plugins name for the message that is described, or null.

        The asker need not load plugins for it, which would cost more than all else it does.
        """
        draft = parse_message(request.fields(), now=time())
        return ["ok", self._manager.hooks.resolve_destination(draft.dest, draft, "submit")]

    def do_reload(self, request: Request) -> Any:
        self._manager.reload(lambda problems: request.reply(["ok", problems]))
        return LATER

    def do_shutdown(self, _: Request) -> Any:
        self._manager.loop.soon(lambda: self._manager.stop("asked to"))
        return ["ok"]

    # Making and removing queues

    def do_create_queue(self, request: Request) -> Any:
        config = request.fields()
        name = config.get("name")
        self._check_new(name)
        self._check_config(str(name), config, "the new queue's config")
        self._manager.write_queue(str(name), config)
        self._start_new(str(name), request)
        return LATER

    def do_create_queue_link(self, request: Request) -> Any:
        """A queue whose config is a file elsewhere; its name stands in that file."""
        path = os.path.abspath(str(request.args))
        try:
            if not os.path.isfile(path) and os.path.exists(path):
                raise RefusedError(f"{path} is not a file")
            with open(path, "rb") as file:
                raw, _ = decode_json(file.read(), path)
        except OSError as error:
            raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
        config = raw if isinstance(raw, dict) else {}
        name = config.get("name")
        self._check_new(name)
        self._check_config(str(name), config, path)
        folder = self._instance.queue_dir(str(name))
        if not folder.exists():
            durable.make_dir(folder)
        durable.symlink(path, self._instance.queue_config_file(str(name)))
        self._manager.hooks.queue_created(QueueInfo(str(name), str(folder), config))
        self._start_new(str(name), request)
        return LATER

    def _start_new(self, name: str, request: Request) -> None:
        """Also where the process of a queue still runs whose directory was removed by hand."""
        self._stop_then(
            name, lambda: self._manager.start_queue(name, lambda: request.reply(_CREATED))
        )

    def _check_new(self, name: object) -> None:
        if self._manager.stopping:
            raise RefusedError("RQ is stopping")
        problem = queue_name_problem(name)
        if problem is not None:
            raise RefusedError(problem)
        if os.path.lexists(self._instance.queue_config_file(str(name))):
            raise RefusedError("already created")

    def _check_config(self, name: str, config: dict[str, Any], file: str) -> None:
        try:
            parse_queue(config, file, name)
        except ConfigError as error:
            raise RefusedError(str(error)) from error
        objections = self._manager.hooks.check_queue_config(name, config)
        if objections:
            raise RefusedError("; ".join(objections))

    def do_configure_queue(self, request: Request) -> Any:
        """``{"name", "config"}``: another config for a queue, checked like that of a new one.

        It is written where it lies: what is a link stays one.  With ``"sha256"``, that of the file as
        the asker has seen it, it is written only if the file is still the same.  The answer comes when
        no process goes by the old config any more; messages that run are not disturbed.
        """
        args = request.fields()
        name = self._existing(request)
        config = args.get("config")
        if not isinstance(config, dict):
            raise RefusedError("lacking 'config' field: the queue's config, a JSON object")
        if config.get("name") not in (None, name):
            raise RefusedError(f'"name" must stay {name}: a queue cannot be renamed')
        if self._manager.stopping:
            raise RefusedError("RQ is stopping")
        file = os.path.realpath(self._instance.queue_config_file(name))
        expected = args.get("sha256")
        if expected is not None and _digest(file) != expected:
            raise RefusedError("the config was changed meanwhile; look at it again")
        self._check_config(name, config, file)
        data = json.dumps(config, indent=2).encode("ascii") + b"\n"
        durable.write_file(file, data, mode=_mode(file))

        def reply(problem: str = "") -> None:
            request.reply(["fail", problem] if problem else ["ok", name])

        self._manager.reload_queue(name, reply)
        return LATER

    def do_delete_queue(self, request: Request) -> Any:
        """The queue's directory stays, as ``NAME.deleted.INODE``, where an operator finds it."""
        name = self._existing(request)
        folder = self._instance.queue_dir(name)

        def remove() -> None:
            if f"queue {name}" in self._manager.children:  # somebody started it again meanwhile
                self._stop_then(name, remove)
                return
            try:
                target = f"{folder}.deleted.{folder.stat().st_ino}"
                durable.move_dir(folder, target)
                for file in (self._instance.down_file(name), self._instance.pause_file(name)):
                    durable.remove_file(file)
            except OSError as error:  # it may be gone: two have asked
                request.reply(["fail", f"{folder} cannot be removed: {error.strerror}"])
                return
            self._manager.hooks.queue_deleted(name, target)
            request.reply(["ok", name])

        self._stop_then(name, remove)
        return LATER

    # Admin state

    def do_up_queue(self, request: Request) -> Any:
        name = self._existing(request)
        durable.remove_file(self._instance.down_file(name))
        return ["ok", name]

    def do_down_queue(self, request: Request) -> Any:
        name = self._existing(request)
        durable.touch_file(self._instance.down_file(name))
        return ["ok", name]

    def do_pause_queue(self, request: Request) -> Any:
        name = self._existing(request)
        durable.touch_file(self._instance.pause_file(name))
        return ["ok", name]

    def do_resume_queue(self, request: Request) -> Any:
        name = self._existing(request)
        durable.remove_file(self._instance.pause_file(name))
        return ["ok", name]

    def do_restart_queue(self, request: Request) -> Any:
        name = self._existing(request)
        try:
            self._instance.load_queue(name)
        except ConfigError as error:
            raise RefusedError(f"it goes on with its old configuration: {error}") from error

        def start() -> None:
            if os.path.lexists(self._instance.queue_config_file(name)):
                self._manager.start_queue(name, lambda: request.reply(["ok", name]))
            else:
                request.reply(["fail", f"no such queue: {name}"])

        self._stop_then(name, start)
        return LATER

    def _stop_then(self, name: str, then: Any) -> None:
        child: Child | None = self._manager.children.get(f"queue {name}")
        if child is None:
            then()
        else:
            self._manager.stop_child(child, self._manager.settings.stop_grace, then)

    def _existing(self, request: Request) -> str:
        given = request.args
        name = given.get("name") if isinstance(given, dict) else given
        problem = queue_name_problem(name)
        if problem is not None:
            raise RefusedError(problem)
        if not os.path.lexists(self._instance.queue_config_file(str(name))):
            raise NotFoundError(f"no such queue: {name}")
        return str(name)


def _digest(file: str) -> str:
    """The SHA-256 of a config as it lies there, in hex; that of nothing where it cannot be read."""
    try:
        return hashlib.sha256(durable.read_file(file, MAX_BYTES)).hexdigest()
    except OSError:
        return hashlib.sha256().hexdigest()


def _mode(file: str) -> int:
    """Who may read the config goes on to be who could; it may hold secrets."""
    try:
        return stat.S_IMODE(os.stat(file).st_mode)
    except FileNotFoundError:
        return 0o644
