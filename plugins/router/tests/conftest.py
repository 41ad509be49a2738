"""What the tests of the router share: an instance that routes, with queues that record what they get."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rqcore.testing import PATIENCE, RunningInstance
from rqcore.unix import Inotify

#: Its messages stay in done: that is the record.
RECORDS = '#!/bin/sh\necho "done recorded" >&3\n'
_numbers = count(1)


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str


@dataclass
class Router:
    """An instance with the router plugin; ``relay`` and ``local`` record what they get."""

    rq: RunningInstance

    @property
    def toml(self) -> Path:
        return self.rq.directory / "config" / "rq_router_rules.toml"

    @property
    def down(self) -> Path:
        return self.rq.directory / "config" / "rq_router.down"

    def rules(self, text: str, name: str = "rq_router_rules.toml") -> None:
        """Put rules into force, in one step."""
        file = self.rq.directory / "config" / name
        temporary = self.rq.directory / "tmp" / name
        temporary.parent.mkdir(exist_ok=True)
        temporary.write_text(text)
        temporary.rename(file)

    def rule(self, action: str, *route: Any, **more: Any) -> None:
        """Put one rule into force that takes everything."""
        lines = ["[[rule]]", 'name = "it"', "dest = '.'", f'action = "{action}"']
        if route:
            lines.append(f"route = {json.dumps(route)}")
        lines += [f"{key} = {json.dumps(value)}" for key, value in more.items()]
        self.rules("\n".join(lines))

    def send(self, dest: str = "test", **fields: Any) -> tuple[str, str]:
        """Send a message to the router; returns its id, and the mark that all copies carry."""
        mark = f"mark {next(_numbers)}"
        return self.rq.send("rq_router", **{"param1": mark, **fields, "dest": dest}), mark

    def attached(self, dest: str, *files: Path, **fields: Any) -> tuple[str, str]:
        """The same, with attachments."""
        mark = f"mark {next(_numbers)}"
        draft = {"param1": mark, **fields, "dest": dest}
        msg_id = self.rq.ask("rq_router", "prep_message", draft).rpartition("/")[2]
        for file in files:
            args = {"msg_id": msg_id, "pathname": str(file)}
            self.rq.ask("rq_router", "attach_message", args)
        self.rq.ask("rq_router", "commit_message", {"msg_id": msg_id})
        return msg_id, mark

    def ended(self, msg_id: str) -> dict[str, Any]:
        """Wait until the router is through with a message."""
        return self.rq.until("rq_router", msg_id)

    def copies(self, queue: str, mark: str) -> list[dict[str, Any]]:
        """The copies that this queue got, when all of them are done; what stays in prep is none."""
        found = []
        for state in ("que", "run", "done", "err"):
            args = {"state": state, "limit": 1000}
            for item in self.rq.ask(queue, "messages", args):
                message = self.rq.message(queue, item["msg_id"])
                if message["param1"] == mark:
                    found.append(self.rq.until(queue, item["msg_id"], "done"))
        return list({message["msg_id"]: message for message in found}.values())

    def __call__(self, *words: str) -> Result:
        """Run ``rq`` for it."""
        environ = {**self.rq.environ, "RQ_DIR": str(self.rq.directory), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "rqcore_cli", *words], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, env=environ, cwd="/", timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def until(self, folder: str, fact: Callable[[], bool]) -> None:
        """Wait until a fact about the files in a directory of the instance is true."""
        path = self.rq.directory / folder
        inotify = Inotify()
        try:
            mask = Inotify.CREATE | Inotify.DELETE | Inotify.MOVED_TO | Inotify.MOVED_FROM
            inotify.add(str(path), mask | Inotify.CLOSE_WRITE)
            while not fact():
                ready, _, _ = select.select([inotify.fd], [], [], PATIENCE)
                assert ready, f"it does not come to pass: {os.listdir(path)}\n{self.rq.log_text()}"
                inotify.read()
        finally:
            inotify.close()

    def log(self, msg_id: str) -> str:
        """What the script printed."""
        path = self.rq.message("rq_router", msg_id)["path"]
        return Path(path, "job", "stdio.log").read_text()


def make_router(directory: Path, *plugins: str) -> Router:
    """One that is not started yet."""
    rq = RunningInstance(directory)
    rq.use_plugins("cli", "router", *plugins)
    for name in ("relay", "local"):
        rq.queue(name, RECORDS, num_workers=4)
    return Router(rq)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """A running one for the tests of a module; each of them brings its rules."""
    made = make_router(tmp_path_factory.mktemp("shared") / "rq")
    made.rule("done")
    made.rq.start()
    yield made
    made.rq.close()


@pytest.fixture
def router(shared: Router) -> Iterator[Router]:
    """The shared one, with good rules before and after."""
    shared.rule("done")
    yield shared
    shared.rq.disconnect()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Router]:
    """One of the test's own, not started yet."""
    made = make_router(tmp_path / "rq")
    yield made
    made.rq.close()
