"""What the tests of ``rq`` share: the command as a process, on a real instance."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from rqcore.testing import PATIENCE, RunningInstance

WORDS = [sys.executable, "-m", "rqcore_cli"]

#: Says what it is told to, and ends as it is told to: the first parameter is done, err, or wait.
SCRIPT = """#!/bin/sh
echo "first line of $RQ_PARAM2"
echo "run working" >&3
if [ "$RQ_PARAM1" = wait ]; then cat "$RQ_PARAM3"; echo "done waited" >&3; exit 0; fi
ls ../attach 2>/dev/null && cat ../attach/* | wc -c
echo "$RQ_PARAM1 said ${RQ_PARAM2:-nothing}" >&3
"""


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Rq:
    """Runs ``rq`` in an environment where it finds the instance."""

    environ: dict[str, str]
    cwd: Path
    begun: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __call__(self, *words: str, status: int = 0, stdin: str | bytes = "") -> Result:
        """Run ``rq`` with these words; it must end with this status."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*WORDS, *words], input=given, capture_output=True, check=False,
            env=self.environ, cwd=self.cwd, timeout=PATIENCE,
        )  # fmt: skip
        out = done.stdout.decode("utf-8", "surrogateescape")
        err = done.stderr.decode("utf-8", "surrogateescape")
        assert done.returncode == status, f"rq {words} ended with {done.returncode}:\n{out}{err}"
        assert "Traceback" not in err, err
        return Result(done.returncode, out, err)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start ``rq`` with these words and go on; whoever does not wait for it sees it killed."""
        # A shell that started the tests in the background made them ignore Ctrl-C.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [*WORDS, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=self.environ, cwd=self.cwd,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)
        self.begun.append(process)
        return process

    def on_terminal(self, *words: str) -> tuple[int, str]:
        """Run ``rq`` on a terminal of its own; returns its status and all that was to be seen."""
        ours, theirs = os.openpty()
        environ = {**self.environ, "TERM": "xterm", "COLUMNS": "100"}
        try:
            process = subprocess.Popen(
                [*WORDS, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environ,
                cwd=self.cwd,
            )  # fmt: skip
        finally:
            os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # Linux says so when nobody has the other end any more
            while data := os.read(ours, 1 << 16):
                seen += data
        os.close(ours)
        return process.wait(PATIENCE), seen.decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """End what was begun and not waited for."""
        for process in self.begun:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def send(self, *words: str) -> str:
        """Send a message and return its name, QUEUE/ID."""
        queue, msg_id = self("send", *words).out.strip().split("/")[-2:]
        return f"{queue}/{msg_id}"


@pytest.fixture
def rq(tmp_path: Path) -> Iterator[Rq]:
    """``rq`` for the instance in ``tmp_path/rq``, called from ``tmp_path/here``."""
    here = tmp_path / "here"
    here.mkdir()
    others = {point.name for point in entry_points(group="rqcore")} - {"cli"}
    environ = {
        **os.environ, "RQ_DIR": str(tmp_path / "rq"), "NO_COLOR": "1",
        "RQ_PLUGINS_DISABLED": ",".join(sorted(others)),
    }  # fmt: skip
    made = Rq(environ, here)
    yield made
    made.close()


@pytest.fixture
def running(rq_instance: RunningInstance) -> RunningInstance:
    """A running instance with the queue ``work``."""
    rq_instance.queue("work", SCRIPT, num_workers=2)
    return rq_instance.start()


@pytest.fixture
def stopped_after(rq: Rq) -> Iterator[Rq]:
    """For instances that ``rq start`` runs: the last thing is ``rq stop --now``."""
    yield rq
    rq("stop", "--now")


@dataclass
class Gate:
    """A fifo: a script that reads it waits until it is opened."""

    path: str
    _opened: bool = False

    def open(self, text: str = "") -> None:
        """Let the script that waits here go on, with something to read."""
        self._opened = True
        with open(self.path, "w") as fifo:
            fifo.write(text)

    def close(self) -> None:
        """Let whoever waits here go on, if anybody does, and wait for nobody."""
        if not self._opened:
            os.close(os.open(self.path, os.O_RDWR | os.O_NONBLOCK))


@pytest.fixture
def gate(tmp_path: Path, rq_instance: RunningInstance) -> Iterator[Gate]:
    """Opened before the instance is stopped, at the latest."""
    path = str(tmp_path / "gate")
    os.mkfifo(path)
    made = Gate(path)
    yield made
    made.close()


#: Makes the terminal of its stdin the controlling one, and becomes another program; a shell that started
#: the tests in the background had them ignore Ctrl-C, which no terminal does.
_TAKE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execvp(sys.argv[1], sys.argv[1:])
"""
_CODE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])")


class Terminal:
    """A program on a terminal of its own, and what a person sees: it knows what `rq top` writes."""

    def __init__(
        self, words: list[str], environ: Mapping[str, str], cwd: Path, width: int, height: int
    ) -> None:
        self._ours, self._theirs = os.openpty()
        self.resize(width, height)
        self.modes = self.current_modes()
        kept = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE, *words], stdin=self._theirs, stdout=self._theirs,
            stderr=self._theirs, env={**kept, "TERM": "xterm"}, cwd=cwd, start_new_session=True,
        )  # fmt: skip
        self.other_screen = False
        self.cursor_shown = True
        #: All that was written to the usual screen, and how many bytes in all.
        self.usual = ""
        self.written = 0
        self._rows: dict[int, str] = {}
        self._at = 1
        self._rest = ""

    def resize(self, width: int, height: int) -> None:
        """The window is of another size now."""
        self.height = height
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._ours, text.encode())

    @property
    def lines(self) -> list[str]:
        """What is to be seen on the other screen."""
        return [self._rows.get(row, "") for row in range(1, self.height + 1)]

    def until(self, seen: str | Callable[[Terminal], Any]) -> list[str]:
        """Read until this is to be seen on the other screen."""

        def there() -> bool:
            return bool(
                any(seen in line for line in self.lines) if isinstance(seen, str) else seen(self)
            )

        end = monotonic() + PATIENCE
        while not there():
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - monotonic()))
            assert ready, f"not seen: {seen}\n{self.usual}\n{self.lines}"
            self._read()
        return self.lines

    def wait(self) -> int:
        """Read until the program has ended; returns its status."""
        fd = os.pidfd_open(self.process.pid)
        try:
            while True:
                ready, _, _ = select.select([self._ours, fd], [], [], PATIENCE)
                assert ready, f"it does not end: {self.lines}"
                if self._ours in ready:
                    self._read()
                else:
                    return self.process.wait()
        finally:
            os.close(fd)

    def current_modes(self) -> list[Any]:
        """The terminal's modes now, to be compared with ``modes``, those of before."""
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        """Take the terminal away."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self) -> None:
        data = os.read(self._ours, 1 << 16)
        self.written += len(data)
        text = self._rest + data.decode("utf-8", "replace")
        place = 0
        while place < len(text):
            if text[place] == "\x1b":
                code = _CODE.match(text, place)
                if code is None:
                    break  # the rest of it is to come
                self._code(code[1], code[2])
                place = code.end()
                continue
            end = text.find("\x1b", place)
            end = len(text) if end < 0 else end
            if self.other_screen:
                self._rows[self._at] = self._rows.get(self._at, "") + text[place:end]
            else:
                self.usual += text[place:end]
            place = end
        self._rest = text[place:]

    def _code(self, numbers: str, letter: str) -> None:
        match letter, numbers:
            case (("h" | "l"), "?1049"):
                self.other_screen = letter == "h"
                self._rows = {}
            case (("h" | "l"), "?25"):
                self.cursor_shown = letter == "h"
            case "H", _:
                self._at = int(numbers.partition(";")[0] or 1)
            case "K", _:
                self._rows[self._at] = ""
            case "J", _:
                self._rows = {}
            case _:  # colours, and what a shell says beside
                pass


@pytest.fixture
def terminal(rq: Rq) -> Iterator[Callable[..., Terminal]]:
    """Runs a program on a terminal: `words`, by default ``rq top``; `width`, `height`."""
    made: list[Terminal] = []

    def run(*words: str, width: int = 80, height: int = 24) -> Terminal:
        made.append(Terminal([*words] or [*WORDS, "top"], rq.environ, rq.cwd, width, height))
        return made[-1]

    yield run
    for one in made:
        one.close()
