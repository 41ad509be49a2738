"""Showing how far an attachment is while the queue's process takes it in.

The queue's process links or copies the file and reads it once for its digests; it answers when that
is done.  On a terminal a bar shows how far it has read, by Linux's ``/proc``.  Where nobody tells
that, it shows how far the copy in the queue's ``tmp/`` has grown; a file that could be linked is
whole at once, and then only the time that reading takes is shown.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from rqcore import words
from rqcore_cli.app import App
from rqcore_cli.output import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Smaller files are there before anybody has read a line about them.
_WORTH_SHOWING = 16 << 20
_EVERY = 0.1


@contextlib.contextmanager
def attaching(app: App, queue: str, name: str, path: str) -> Iterator[None]:
    """Show how far the file at ``path``, the attachment ``name``, is while the block runs."""
    size = os.stat(path).st_size
    began = monotonic()
    if sys.stderr.isatty() and app.verbosity >= 0 and size >= _WORTH_SHOWING:
        reader = app.ask(queue, "describe")["pid"]
        look = _Look(reader, path, os.path.join(app.instance.queue_dir(queue), "tmp"), size)
        with _bar(look, name):
            yield
    else:
        yield
    seconds = monotonic() - began
    rate = f", {words.size(int(size / seconds))}/s" if size >= _WORTH_SHOWING else ""
    app.say(f"attached {clean(name)}, {words.size(size)}{rate}")


@contextlib.contextmanager
def _bar(look: _Look, name: str) -> Iterator[None]:
    # Rich costs more than all the rest; only a large file on a terminal needs it.
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    ended = Event()
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(clean(name)), total=look.size)
        watch = Thread(target=_watch, args=(look, progress, task, ended))
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()


def _watch(look: _Look, progress: Progress, task: TaskID, ended: Event) -> None:
    # Looked at now and then: it is for the eye, and nothing waits for it.
    while not ended.wait(_EVERY):
        far = look.how_far()
        if far is not None:
            progress.update(task, completed=far)


class _Look:
    """Where one file that is taken in can be seen."""

    def __init__(self, reader: int, path: str, folder: str, size: int) -> None:
        self.size = size
        self._reader = reader
        self._path = os.path.realpath(path)
        self._folder = folder
        self._there_before = set(_files(folder))

    def how_far(self) -> int | None:
        """So many of its bytes are taken in; None when it cannot be known."""
        far = read_so_far(self._reader, self._path)
        return self._copied_so_far() if far is None else far

    def _copied_so_far(self) -> int | None:
        far = 0
        for name in _files(self._folder):
            if name in self._there_before:
                continue
            with contextlib.suppress(OSError):
                info = os.stat(f"{self._folder}/{name}")
                if info.st_nlink > 1:  # linked: whole already, and being read
                    return None
                if info.st_size <= self.size:
                    far = info.st_size
        return far


def read_so_far(pid: int, path: str) -> int | None:
    """How far a process has read the file at this path; None when it does not, or nobody tells."""
    for fd in _files(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == path:
                with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as info:
                    return int(info.readline().split()[1])  # "pos:" and the number
    return None


def _files(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
