"""Files that become attachments: checked before anything is sent, then given to the queue.

``-`` is standard input: it is written into the instance's ``tmp/`` first, so that the queue's
process can take it by a link, and removed there when that is done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rqcore.message import attachment_name_problem
from rqcore_cli.app import App
from rqcore_cli.exits import CallError
from rqcore_cli.progress import attaching
from rqcore_cli.refs import Ref, ask

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """A file to attach: its absolute path (or `STDIN`), and the name that the attachment gets."""

    path: str
    name: str


def sources(files: Sequence[str], name: str | None) -> list[Source]:
    """What the user named, checked as far as it can be.  Raises `CallError`."""
    if name is not None and len(files) != 1:
        raise CallError("--attach-name names one attachment; give one file with it")
    found = [_source(file, name) for file in files]
    names = [source.name for source in found]
    for one in names:
        if names.count(one) > 1:
            raise CallError(f"two attachments would be called {one!r}; rename one file")
    return found


def _source(file: str, name: str | None) -> Source:
    given = name or ("stdin" if file == STDIN else os.path.basename(os.path.abspath(file)))
    problem = attachment_name_problem(given)
    if problem is not None:
        raise CallError(f"{problem}; give another with --attach-name")
    if file == STDIN:
        return Source(STDIN, given)
    try:
        mode = os.stat(file).st_mode
    except OSError as error:
        raise CallError(f"{file} cannot be attached: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        kind = "a directory; pack it first" if stat.S_ISDIR(mode) else "no regular file"
        raise CallError(f"{file} cannot be attached: it is {kind}")
    if not os.access(file, os.R_OK):
        raise CallError(f"{file} cannot be attached: you may not read it")
    return Source(os.path.abspath(file), given)


def attach(app: App, ref: Ref, source: Source) -> None:
    """Attach a file to a prepared message.  Raises what the queue answers."""
    with contextlib.ExitStack() as stack:
        path = source.path
        if path == STDIN:
            path = stack.enter_context(_standard_input(app))
        stack.enter_context(attaching(app, ref.queue, source.name, path))
        ask(app, ref, "attach_message", pathname=path, name=source.name)


@contextlib.contextmanager
def _standard_input(app: App) -> Iterator[str]:
    if sys.stdin.isatty():
        app.say("reading the attachment from the terminal; end it with Ctrl-D")
    config, _ = app.instance.load_config()
    with tempfile.NamedTemporaryFile(prefix="rq-", dir=app.instance.use_tmp_dir(config)) as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        file.flush()
        yield file.name
