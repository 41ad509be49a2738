"""Showing how far an attachment is while the queue's process takes it in.

The queue's process links or copies the file and reads it once for its digests; it answers when that
is done.  On a terminal a bar follows the file that grows in the queue's ``tmp/``; a file that could
be linked is whole at once, then only the time that reading takes is shown.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from rqcore_cli import times
from rqcore_cli.app import App
from rqcore_cli.output import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Smaller files are there before anybody has read a line about them.
_WORTH_SHOWING = 16 << 20
_EVERY = 0.1


@contextlib.contextmanager
def attaching(app: App, queue: str, name: str, size: int) -> Iterator[None]:
    """Show how far the attachment ``name`` of ``size`` bytes is while the block runs."""
    began = monotonic()
    if sys.stderr.isatty() and app.verbosity >= 0 and size >= _WORTH_SHOWING:
        with _bar(os.path.join(app.instance.queue_dir(queue), "tmp"), name, size):
            yield
    else:
        yield
    seconds = monotonic() - began
    rate = f", {times.size(int(size / seconds))}/s" if size >= _WORTH_SHOWING else ""
    app.say(f"attached {clean(name)}, {times.size(size)}{rate}")


@contextlib.contextmanager
def _bar(folder: str, name: str, size: int) -> Iterator[None]:
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

    there_before = set(_files(folder))
    ended = Event()
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(clean(name)), total=size)
        watch = Thread(target=_watch, args=(folder, there_before, size, progress, task, ended))
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()


def _watch(
    folder: str, there_before: set[str], size: int, progress: Progress, task: TaskID, ended: Event
) -> None:
    # Looked at now and then: it is for the eye, and nothing waits for it.
    while not ended.wait(_EVERY):
        for name in _files(folder):
            if name in there_before:
                continue
            with contextlib.suppress(OSError):
                info = os.stat(f"{folder}/{name}")
                if info.st_nlink > 1:  # linked: whole already, and being read
                    progress.update(task, total=None)
                elif info.st_size <= size:
                    progress.update(task, completed=info.st_size)


def _files(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
