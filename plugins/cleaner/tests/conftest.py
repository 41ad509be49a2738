"""What the tests of the cleaner share: messages of any age, and an instance with the cleaner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import gmtime, strftime, time
from typing import Any

import pytest

from rqcore.lifecycle import State
from rqcore.testing import PATIENCE, RunningInstance

DAY = 86_400.0
DONE = "#!/bin/sh\necho 'done fine' >&3\n"
_numbers = count(1)


def _lay(
    queue: Path, state: str, days: float, *, rested: float | None = None, size: int = 0
) -> str:  # fmt: skip
    """Put a message into a queue's directory that was made ``days`` ago and ``rested`` so long."""
    made = time() - days * DAY
    stamp = strftime("%Y%m%d.%H%M.%S", gmtime(made))
    msg_id = f"{stamp}.{int(made % 1 * 1000):03d}.{next(_numbers)}"
    hashed = state in (State.DONE, State.RELAYED)
    folder = queue / state
    if hashed:
        folder = folder / msg_id[:8] / msg_id[9:11] / msg_id[11:13]
    folder = folder / msg_id
    (folder / "job").mkdir(parents=True)
    (folder / "msg").write_text(json.dumps({"msg_id": msg_id, "dest": "test", "due": 1}))
    if size:
        (folder / "job" / "stdio.log").write_bytes(b"x" * size)
    (folder / "status").write_text('{"job_status": "fine"}')
    at = time() - (days if rested is None else rested) * DAY
    for path in (folder / "msg", folder / "status", folder):
        os.utime(path, (at, at))
    return msg_id


def _present(queue: Path, state: str) -> list[str]:
    """The ids that lie in a state."""
    depth = "*/*/*/*" if state in (State.DONE, State.RELAYED) else "*"
    return sorted(path.name for path in (queue / state).glob(depth))


@pytest.fixture(scope="session")
def lay() -> Callable[..., str]:
    """`_lay`, for test files, which cannot import from here."""
    return _lay


@pytest.fixture(scope="session")
def present() -> Callable[..., list[str]]:
    """`_present`, likewise."""
    return _present


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Cleaned:
    """An instance with the cleaner."""

    rq: RunningInstance
    #: What was laid into each queue's directory before the start.
    laid: dict[str, Any] = field(default_factory=dict)

    def queue(self, name: str) -> Path:
        """A queue's directory."""
        return self.rq.directory / "queue" / name

    def clean(self, param1: str, param2: str = "", *states: str, **more: Any) -> dict[str, Any]:
        """Have the queue cleaner clean; returns its message when it has ended."""
        msg_id = self.rq.send("cleaner", param1=param1, param2=param2)
        return self.rq.until("cleaner", msg_id, *states, **more)

    def log(self, message: dict[str, Any]) -> str:
        """What the cleaner wrote."""
        return Path(message["path"], "job", "stdio.log").read_text()

    def __call__(self, *words: str, given: str | None = None) -> Result:
        """Run ``rq`` for it."""
        environ = {**self.rq.environ, "RQ_DIR": str(self.rq.directory), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "rqcore_cli", *words], input=given or "",
            capture_output=True, text=True, env=environ, cwd="/", timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def queues() -> Mapping[str, Callable[[Path], Any]]:
    """What a module wants in its queues: by queue, what lays it into the queue's directory."""
    return {}


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, queues: Mapping[str, Callable[[Path], Any]]
) -> Iterator[Cleaned]:
    """A running instance for the tests of a module."""
    with RunningInstance(tmp_path_factory.mktemp("cleaned") / "rq") as rq:
        rq.use_plugins("cli", "cleaner")
        rq.plugin("keeps", KEEPS)
        rq.configure(plugins={"cleaner": {"logs": {"size": 0}, "retention": RETENTION}})
        made = Cleaned(rq)
        for name, fill in queues.items():
            rq.queue(name, DONE)
            made.laid[name] = fill(made.queue(name))
        rq.start()
        yield made


@pytest.fixture
def cleaned(shared: Cleaned) -> Iterator[Cleaned]:
    """The instance of the module; connections of a test end with it."""
    yield shared
    shared.rq.disconnect()


#: A plugin that keeps some messages.
KEEPS = """
import os
from rqcore.hookspecs import Reject, hookimpl

@hookimpl
def rq_check_removal(message, queue):
    wait = f"{queue.path}/wait-{message.msg_id}"
    if os.path.exists(wait):
        open(wait).close()
    if os.path.exists(f"{queue.path}/keep-{message.msg_id}"):
        return Reject("still needed")
"""
RETENTION = {"rich": {"done": {"number": 3}, "err": {"age": "1d"}, "relayed": "keep"}}
