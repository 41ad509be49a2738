"""Runs the tour of a Markdown page: every command of it, in one shell, as a reader would.

A block of the tour is a fenced ``sh`` block with ``<!-- tour -->`` on a line of its own above it;
``<!-- tour exit=1 -->`` where the last command of the block is meant to fail. A ``text`` block that
follows at once shows what the block prints (stdout and stderr); in it ``...`` stands for any text
in a line, and for any lines where it is all of a line.

    python tests/tour.py README.md      runs it with the PATH it is given, in a new empty directory

Only the standard library is used, so that it runs where just the wheels are installed. A tour has
failed when a command exits with another status, prints something else, takes too long, or leaves a
process behind that works in the tour's directory; such a process is ended.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

_BLOCK = re.compile(
    r"^<!-- tour(?: exit=(?P<status>\d+))? -->\n+"
    r"```sh\n(?P<commands>.*?)^```\n"
    r"(?:\n*```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
_SECONDS_PER_BLOCK = 60.0


class TourError(AssertionError):
    """A block did not do what the page says; the text holds the block and what it printed."""


@dataclass(frozen=True, slots=True)
class Block:
    """Commands of the tour, the status they end with, and what they print, if that is shown."""

    commands: str
    status: int
    output: str | None


def blocks(page: str) -> list[Block]:
    """The tour's blocks, in order. Raises `TourError` for a mark that no block follows."""
    found = [
        Block(match["commands"], int(match["status"] or 0), match["output"])
        for match in _BLOCK.finditer(page)
    ]
    if len(found) != len(re.findall(r"^<!-- tour\b", page, re.MULTILINE)):
        raise TourError("a <!-- tour --> mark is not followed by a block that begins with ```sh")
    return found


def matches(shown: str, printed: str) -> bool:
    """Is this what the page shows, blanks at the ends of lines aside?"""
    pattern = ""
    for line in shown.strip("\n").split("\n"):
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            parts = (re.escape(part) for part in line.rstrip().split("..."))
            pattern += ".*?".join(parts) + r"[ \t]*\n"
    return re.fullmatch(pattern, printed.strip("\n") + "\n") is not None


def run(page: str, directory: Path, environment: dict[str, str]) -> int:
    """Run the tour in an empty directory, which is home too; the number of blocks that were run.

    Raises `TourError` at the first block that does not do what the page says.
    """
    tour = blocks(page)
    if not tour:
        raise TourError("the page has no tour")
    with subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-s"],
        cwd=directory,
        env={**environment, "HOME": str(directory), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as shell:
        try:
            for number, block in enumerate(tour):
                _run_block(shell, block, directory, number)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
            left = _end_leftovers(directory)
    if left:
        raise TourError("the tour left processes behind: " + ", ".join(left))
    return len(tour)


def _run_block(shell: subprocess.Popen[bytes], block: Block, directory: Path, number: int) -> None:
    assert shell.stdin is not None
    source = directory / f".tour-{number}"
    source.write_text(block.commands)
    end = f"--- end of block {number}, status "
    # A command that fails ends the shell, except in a block that is meant to.
    stop = "set -e" if block.status == 0 else "set +e"
    command = f"{stop}; . '{source}' </dev/null; printf '\\n{end}%d\\n' $?\n"
    shell.stdin.write(command.encode())
    shell.stdin.flush()
    printed, status = _read_until(shell, end)
    source.unlink()
    if status != block.status:
        what = "did not end in time" if status is None else f"ended with status {status}"
        raise TourError(f"{what}:\n{block.commands}\nand printed:\n{printed}")
    if block.output is not None and not matches(block.output, printed):
        raise TourError(f"printed:\n{printed}\ninstead of:\n{block.output}\nby:\n{block.commands}")


def _read_until(shell: subprocess.Popen[bytes], end: str) -> tuple[str, int | None]:
    """What was printed before the line that begins with ``end``, and the status in that line."""
    assert shell.stdout is not None
    fd = shell.stdout.fileno()
    deadline = monotonic() + _SECONDS_PER_BLOCK
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while selector.select(deadline - monotonic()):
            piece = os.read(fd, 65536)
            data += piece
            text = data.decode(errors="replace")
            printed, found, status = text.rpartition("\n" + end)
            if found and status.endswith("\n"):
                return printed, int(status)
            if not piece:  # the shell ended by `set -e`
                return text, shell.wait()
    return data.decode(errors="replace"), None


def _end_leftovers(directory: Path) -> list[str]:
    """End the processes that work in this directory, where /proc tells; their command lines."""
    return [_end(pid) for pid in _processes_in(directory)]


def _processes_in(directory: Path) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").resolve(strict=True).is_relative_to(directory.resolve()):
                yield int(entry.name)


def _end(pid: int) -> str:
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        os.kill(pid, signal.SIGKILL)
        return f"{pid} {command}"
    return f"{pid}, which ended meanwhile"


def main() -> None:
    """Run the tour of the page that is named on the command line."""
    page = Path(sys.argv[1]).read_text()
    with tempfile.TemporaryDirectory(prefix="rq-tour-") as directory:
        try:
            count = run(page, Path(directory), dict(os.environ))
        except TourError as error:
            sys.exit(f"The tour failed: {error}")
    print(f"The tour's {count} blocks did what the page says.")


if __name__ == "__main__":
    main()
