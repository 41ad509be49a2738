"""The pytest plugin for plugin authors, and for this repository: real instances in temporary places.

Installed with the kernel (entry point ``pytest11``), it gives every test suite these fixtures:

``rq_instance``   makes an instance directory; `RunningInstance.start` runs it, and it is stopped, and
                  seen to leave no process behind, when the test ends
``rq_hooks``      a `rqcore.hooks.Hooks` with the plugins that the test gives it, and nothing else

`free_port` finds a service a port that nobody takes before it listens.

Nothing here waits for time to pass: readiness is the notification that a service manager gets, ends
are awaited by the process itself, and changes of messages by the queue's own events.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from rqcore.client import ManagerClient, QueueClient
    from rqcore.hooks import Hooks

#: So long is a fact awaited at most, seconds: a machine with much else to do is slow, and nothing else.
PATIENCE = 60.0
PORTS = range(20000, 30000)
pytest.register_assert_rewrite("rqcore.conformance")


class RunningInstance:
    """An instance directory, and the process that runs it while it runs.

    In a ``with`` statement it is closed at the end, as the fixture ``rq_instance`` does it.
    """

    def __init__(self, directory: Path, environ: Mapping[str, str] | None = None) -> None:
        from rqcore.instance import init_instance  # noqa: PLC0415 - coverage must see the import

        self.directory = directory
        self.instance, _ = init_instance(directory, host="localhost", port=3333, env="test")
        self.environ = {**os.environ, **(environ or {})}
        self.use_plugins("cli")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "log" / "test.log"
        self._clients: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Its configuration

    def queue(self, name: str, script: str | Path, **config: Any) -> None:
        """Make a queue; a ``script`` that begins with ``#!`` is written to a file first."""
        if isinstance(script, str) and script.startswith("#!"):
            script = self.script(f"{name}.script", script)
        folder = self.directory / "queue" / name
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"name": name, "script": str(script), "num_workers": 1, **config}
        (folder / "config.json").write_text(json.dumps(settings))

    def script(self, name: str, text: str) -> Path:
        """Write an executable file into the instance's ``code`` directory."""
        path = self.directory / "code" / name
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{name}.new")
        temporary.write_text(text)
        temporary.chmod(0o755)
        temporary.rename(path)
        return path

    def plugin(self, name: str, text: str) -> None:
        """Write a single-file plugin into the instance."""
        (self.directory / "plugins" / f"{name}.py").write_text(text)

    def configure(self, **settings: Any) -> None:
        """Change the main config."""
        file = self.directory / "config" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    def use_plugins(self, *names: str) -> None:
        """Run it with these of the installed plugins; the others are as if they were not there."""
        from importlib.metadata import entry_points  # noqa: PLC0415 - slow to import

        others = {point.name for point in entry_points(group="rqcore")} - set(names)
        self.environ["RQ_PLUGINS_DISABLED"] = ",".join(sorted(others))

    # Running it

    def command(self, *options: str) -> list[str]:
        """What runs it; a subclass may have it run elsewhere, by a program that execs this one."""
        return [sys.executable, "-m", "rqcore", str(self.directory), *options]

    def start(self, *options: str) -> RunningInstance:
        """Run it, and return when it is ready."""
        with tempfile.TemporaryDirectory(prefix="rq-ready-", dir="/tmp") as folder:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with contextlib.closing(listener):
                listener.bind(f"{folder}/ready")
                environ = {**self.environ, "NOTIFY_SOCKET": f"{folder}/ready"}
                with self.log.open("ab") as log:
                    self.process = subprocess.Popen(
                        self.command(*options),
                        env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    )  # fmt: skip
                self._await_ready(listener)
        return self

    def _await_ready(self, listener: socket.socket) -> None:
        assert self.process is not None
        with _ended(self.process.pid) as ended:
            while True:
                ready, _, _ = select.select([listener.fileno(), ended], [], [], PATIENCE)
                if listener.fileno() in ready:
                    if b"READY=1" in listener.recv(4096):
                        return
                    continue
                status = self.process.wait() if ready else "not ready in time"
                raise AssertionError(f"the instance did not start ({status}):\n{self.log_text()}")

    def wait(self) -> int:
        """Wait until the process has ended; returns its exit status."""
        assert self.process is not None
        status = self.process.wait(PATIENCE)
        self.process = None
        self.disconnect()
        return status

    def stop(self) -> None:
        """Ask it to stop; it must do so cleanly and leave no process behind."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        status = self.wait()
        assert status == 0, f"the instance stopped with status {status}:\n{self.log_text()}"
        left = self.processes()
        assert not left, f"processes are left behind: {left}\n{self.log_text()}"

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of its processes and wait until that process has ended."""
        with _ended(pid) as ended:
            os.kill(pid, number)
            assert select.select([ended], [], [], PATIENCE)[0], f"process {pid} does not end"

    def serving(self, name: str) -> None:
        """Wait until a queue answers, after its process was killed or stopped."""
        from rqcore.unix import Inotify  # noqa: PLC0415

        path = self.directory / "queue" / name
        inotify = Inotify()
        try:
            inotify.add(str(path), Inotify.CREATE | Inotify.ATTRIB | Inotify.MOVED_TO)
            while not self._answers(name):
                ready, _, _ = select.select([inotify.fd], [], [], PATIENCE)
                assert ready, f"queue {name} does not come back:\n{self.log_text()}"
                inotify.read()
        finally:
            inotify.close()

    def _answers(self, name: str) -> bool:
        from rqcore.errors import UnreachableError  # noqa: PLC0415

        with self.client(name) as client:
            try:
                return bool(client.call("ping") == ["pong"])
            except UnreachableError:
                return False

    def processes(self) -> dict[int, str]:
        """The living processes of this instance, scripts included: pid and command line."""
        found = {}
        here = os.fsencode(self.directory)
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                inside = here in command or here in (entry / "environ").read_bytes()
                if command and (inside or _is_under(entry / "cwd", self.directory)):
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def log_text(self) -> str:
        """Everything that the instance has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # Speaking to it

    def client(self, name: str) -> QueueClient:
        """A connection to a queue; closed with the instance."""
        from rqcore.client import QueueClient  # noqa: PLC0415

        client = QueueClient(self.directory, name, timeout=PATIENCE)
        self._clients.append(client)
        return client

    @property
    def manager(self) -> ManagerClient:
        """A connection to the manager; closed with the instance."""
        from rqcore.client import ManagerClient  # noqa: PLC0415

        client = ManagerClient(self.directory, timeout=PATIENCE)
        self._clients.append(client)
        return client

    def send(self, name: str, **fields: Any) -> str:
        """Send a message to a queue; returns its short id."""
        answer: str = self.ask(name, "create_message", {"dest": name, **fields})
        return answer.rpartition("/")[2]

    def ask(self, name: str, command: str, args: Mapping[str, Any] | None = None) -> Any:
        """Ask a queue one thing on a connection of its own; a refusal is raised."""
        with self.client(name) as client:
            return client.ask(command, args)

    def message(self, name: str, msg_id: str) -> dict[str, Any]:
        """A message with its state and status."""
        args = {"msg_id": msg_id, "even_down": True}
        found: dict[str, Any] = self.ask(name, "get_message", args)
        return found

    def found(self, name: str, text: str) -> list[dict[str, Any]]:
        """The messages of a queue that this text is found in, in whatever state, as it lists them."""
        from rqcore.lifecycle import State  # noqa: PLC0415 - coverage must see the import

        items: dict[str, dict[str, Any]] = {}  # one that moves on between two answers is in both
        for state in State:
            args = {"state": state.value, "text": text}
            items |= {one["msg_id"]: one for one in self.ask(name, "list_messages", args)["items"]}
        return list(items.values())

    def until(
        self, name: str, msg_id: str, *states: str,
        matching: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:  # fmt: skip
        """Wait until a message is in one of these states (else: any final one), and return it."""
        wanted = states or ("done", "err", "relayed")
        with self.client(name) as follower:
            # Subscribed first and looked at then, so that no change falls in between.
            events = follower.subscribe({"msg_id": msg_id}, timeout=PATIENCE)
            while True:
                message = self.message(name, msg_id)
                if message["state"] in wanted and matching(message):
                    return message
                try:
                    next(events)
                except (TimeoutError, StopIteration):
                    message = self.message(name, msg_id)
                    raise AssertionError(
                        f"{msg_id} does not become {wanted}: {message}\n{self.log_text()}"
                    ) from None

    def close(self) -> None:
        """Stop it and let go of everything."""
        self.stop()
        self.disconnect()

    def disconnect(self) -> None:
        """Close all connections, between two tests that share an instance for example."""
        for client in self._clients:
            client.close()
        self._clients.clear()


def free_port() -> int:
    """A TCP port of the loopback address that is this process's to give to a server.

    A port that the system chooses (0) may be gone before the server listens: to a client anywhere on
    the machine, for the system takes their ports from the same range, or to another test run.  So
    these lie below that range, and each is a byte that this process locks in a file that all test
    runs of this user share.  Raises `OSError` when all are taken.
    """
    locks = _port_locks()
    for port in _ports:
        with contextlib.suppress(OSError), socket.socket() as sock:
            fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError(f"all ports from {PORTS.start} to {PORTS.stop - 1} are taken")


_ports = iter(PORTS)


@functools.cache
def _port_locks() -> int:
    path = f"{tempfile.gettempdir()}/rqcore-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _ended(pid: int) -> Iterator[int]:
    """A descriptor that is readable when that process has ended."""
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_under(link: Path, directory: Path) -> bool:
    return Path(os.readlink(link)).is_relative_to(directory)


@pytest.fixture
def rq_instance(tmp_path: Path) -> Iterator[RunningInstance]:
    """An instance that a test configures and starts; see `RunningInstance`."""
    with RunningInstance(tmp_path / "rq") as instance:
        yield instance


@pytest.fixture
def rq_hooks() -> Callable[..., Hooks]:
    """Makes `Hooks` of the plugin objects that are given to it by name."""

    def make(**plugins: object) -> Hooks:
        from rqcore.hooks import Hooks  # noqa: PLC0415

        hooks = Hooks()
        for name, plugin in plugins.items():
            hooks.register(plugin, name)
        return hooks

    return make
