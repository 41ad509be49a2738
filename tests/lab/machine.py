"""Machines of the lab: an instance, or a plain far end, on a host of its own behind a proxy of ours.

The world reaches a machine at its host's address; there stands the `tests.lab.proxy.Proxy`, and behind
it, on the loopback address of the same host, the real server.  So every byte between two machines goes
over a link that can be cut and through a proxy that knows what it is.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rqcore.testing import PATIENCE, RunningInstance
from tests.lab import plain_peer
from tests.lab.network import Host
from tests.lab.proxy import Proxy

PORT = 3333
_LOOPBACK = "127.0.0.1"
#: A relay in the lab is impatient: what is silent for so long is cut off.
SILENCE = 1.0


class _OnHost(RunningInstance):
    """An instance whose processes run on a host."""

    def __init__(self, directory: Path, host: Host) -> None:
        self._host = host
        super().__init__(directory)

    def command(self, *options: str) -> list[str]:
        return self._host.command(*super().command(*options))


class Machine:
    """What both kinds have: an address, a proxy before it, and kill -9."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.url = f"http://{host.address}:{PORT}/"
        self.proxy = Proxy(host.listen(host.address, PORT), lambda: host.connect(_LOOPBACK, PORT))

    def close(self) -> None:
        """End it."""
        self.proxy.close()

    def wait(self) -> None:
        """Wait until it serves again; what was killed and does not come back by itself is started."""
        raise NotImplementedError

    def arrivals(self, token: str) -> list[tuple[str, Path]]:
        """State and directory of each message that carries this in ``param1``."""
        raise NotImplementedError

    def kill_service(self) -> None:
        """Kill -9 what answers HTTP."""
        raise NotImplementedError

    def kill_sink(self) -> None:
        """Kill -9 what takes the messages, if that is something else."""

    def kill_all(self) -> None:
        """Kill -9 the whole machine, as far as that can be."""
        self.kill_service()

    def log_text(self) -> str:
        """What it has logged."""
        raise NotImplementedError


class Rq(Machine):
    """An instance with web service, relay, and a queue ``sink`` whose messages are done at once."""

    def __init__(
        self, host: Host, directory: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(host, directory)
        self.rq = _OnHost(directory, host)
        self.rq.environ.update(environ or {})
        self.rq.use_plugins("cli", "web", "relay")
        self.rq.configure(
            host=host.address, port=PORT, addr=_LOOPBACK, kill_grace=0.2, stop_grace=1,
            plugins={
                "web": {"keep_free": 0, "client_timeout": 5},
                "relay": {"timeout": SILENCE, "connect_timeout": SILENCE, "num_workers": 8},
            },
        )  # fmt: skip
        self.rq.queue("sink", "#!/bin/sh\necho 'done arrived' >&3\n", num_workers=4, exec_prefix="")
        self.rq.start()

    def close(self) -> None:
        try:
            self.rq.close()
        finally:
            if self.rq.process is not None:
                self.rq.process.kill()
                self.rq.process.wait()
                self.rq.disconnect()
            super().close()

    def prepare(self, to: str, token: str, files: Iterable[Path]) -> str:
        """A message in relay, for this URL of a queue, with these files; its short id."""
        full_id = str(self.rq.ask("relay", "prep_message", {"dest": to, "param1": token}))
        for file in files:
            args = {"msg_id": full_id, "pathname": str(file), "name": file.name}
            self.rq.ask("relay", "attach_message", args)
        return full_id.rpartition("/")[2]

    def commit(self, msg_id: str) -> None:
        """From now on it is carried."""
        self.rq.ask("relay", "commit_message", {"msg_id": msg_id})

    # Accidents

    def kill_service(self) -> None:
        """Kill -9 the web service."""
        self._kill(self._children("service", "web"))

    def kill_queue(self, name: str) -> None:
        """Kill -9 a queue's process."""
        self._kill(self._children("queue", name))

    def kill_sink(self) -> None:
        self.kill_queue("sink")

    def kill_all(self) -> None:
        """Kill -9 the manager; its children notice, and end."""
        process = self.rq.process
        if process is not None:
            process.kill()
            process.wait(PATIENCE)

    def kill_script(self, msg_id: str) -> None:
        """Kill -9 the script that carries this message, if one does."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            file = self.directory / "queue/relay/run" / msg_id / "pid"
            self._kill([int(file.read_text().split()[0])])

    def wait(self) -> None:
        process = self.rq.process
        if process is None or process.poll() is not None:
            if process is not None:
                self.rq.wait()
            self.rq.start()
        for name in ("relay", "sink"):
            self.rq.serving(name)
        _until_listening(self.host, self.rq.log_text)

    def _children(self, kind: str, name: str) -> list[int]:
        return [
            int(child["pid"])
            for child in self.rq.manager.ask("describe")["children"]
            if (child["kind"], child["name"]) == (kind, name) and child["pid"]
        ]

    def _kill(self, pids: Iterable[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self.rq.kill(pid)

    # What is there

    def arrivals(self, token: str) -> list[tuple[str, Path]]:
        return _carrying(self.directory / "queue" / "sink", token)

    def log_text(self) -> str:
        return self.rq.log_text()

    def leftovers(self) -> list[str]:
        """What lies where nothing is to be left when nothing is under way."""
        tmp = self.directory / "tmp"
        return sorted(str(file.relative_to(tmp)) for file in tmp.rglob("*") if file.is_file())

    def departures(self, token: str) -> list[tuple[str, Path]]:
        """The same, of messages that were to be carried away."""
        return _carrying(self.directory / "queue" / "relay", token)


class Plain(Machine):
    """A plain far end, with a queue ``sink``."""

    def __init__(self, host: Host, directory: Path) -> None:
        super().__init__(host, directory)
        (directory / "q" / "sink").mkdir(parents=True)
        self._log = (directory / "log").open("ab")
        self._start()

    def _start(self) -> None:
        program = [sys.executable, plain_peer.__file__, str(self.directory), _LOOPBACK, str(PORT)]
        self._process = subprocess.Popen(
            self.host.command(*program, self.url), stdout=subprocess.PIPE, stderr=self._log
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        self.kill_service()
        self._process.communicate()
        self._log.close()
        super().close()

    def kill_service(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)

    def log_text(self) -> str:
        return (self.directory / "log").read_text()

    def wait(self) -> None:
        if self._process.poll() is not None:
            self._process.communicate()
            self._start()

    def arrivals(self, token: str) -> list[tuple[str, Path]]:
        return _carrying(self.directory / "q" / "sink", token)


def _carrying(queue: Path, token: str) -> list[tuple[str, Path]]:
    """Every message below a queue's directory that carries this token: state and directory."""
    mark = f'"{token}"'.encode()
    found = []
    for folder, names, files in os.walk(queue):
        if "msg" in files:
            names.clear()
            if mark in Path(folder, "msg").read_bytes():
                found.append((Path(folder).relative_to(queue).parts[0], Path(folder)))
    return found


def _until_listening(host: Host, why: Callable[[], str]) -> None:
    """Wait until something listens behind the proxy; nobody is told of it, so it is tried."""
    import select
    import time

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            host.connect(_LOOPBACK, PORT).close()
        except OSError:
            select.select([], [], [], 0.02)
        else:
            return
    raise AssertionError(f"nothing listens on {host.name}:\n{why()[-5000:]}")
