"""The service ``router``: sees at once when the rules file changes, and says so in the log.

It sleeps until something in ``config/`` changes.  Without it a rules file would be looked at when the
next message comes, and a queue that is DOWN for bad rules gets none.
"""

from __future__ import annotations

import logging
import os
import signal

from rqcore.errors import StartError
from rqcore.hookspecs import ServiceContext
from rqcore.loop import Loop
from rqcore.watch import Change, watcher
from rqcore_router.files import STEM, Standing
from rqcore_router.hosts import ROUTER
from rqcore_router.keeper import settle

_log = logging.getLogger(__name__)


def serve(context: ServiceContext) -> int:
    """Watch until the instance stops."""
    loop = Loop()
    guard = _Guard(context.instance.directory, loop)

    def stop() -> None:
        raise SystemExit(0)

    loop.reader(context.stop_fd, stop)
    loop.on_signal(signal.SIGTERM, stop)
    guard.begin()
    context.ready()
    loop.run()
    return 0


class _Guard:
    """Settles what has changed, and tells of it once."""

    def __init__(self, directory: str, loop: Loop) -> None:
        self._directory = directory
        self._watching = watcher(loop, self.look)
        self._told = Standing()
        #: Where the file lies that the rules file is a link to, and the watch over it.
        self._target = ""
        self._handle = 0

    def begin(self) -> None:
        """Watch from now on, and look at what is there.  Raises `StartError`."""

        def on_change(change: Change) -> None:
            if change.name.startswith((STEM, f"{ROUTER}.down")):
                self.look()

        try:
            self._watching.entries(f"{self._directory}/config", on_change)
        except OSError as error:
            raise StartError(f"config/ cannot be watched: {error.strerror}; correct it") from error
        self.look()

    def look(self) -> None:
        """See how the rules stand."""
        standing = settle(self._directory)
        self._follow(standing.file)
        told, self._told = self._told, standing
        if (told.file, told.problems, told.rules) == (
            standing.file, standing.problems, standing.rules,
        ):  # fmt: skip
            return
        if standing.problems:
            instead = f"; the last good rules, {standing.stand_in}, stay in force"
            consequence = instead if standing.rules is not None else "; no message is routed"
            _log.error("%s%s", "; ".join((standing.reason, *standing.problems[1:])), consequence)
        elif standing.rules is not None:
            _log.info("%s is in force, %d rules", standing.file, len(standing.rules.rules))
        elif told.file:
            _log.info("there is no rules file any more: messages go where they say")

    def _follow(self, file: str) -> None:
        """Watch what the rules file is a link to, as well."""
        path = f"{self._directory}/{file}"
        target = os.path.realpath(path) if file and os.path.islink(path) else ""
        if target == self._target:
            return
        if self._target:
            self._watching.forget(self._handle)
        self._target = ""
        if not target:
            return

        def on_change(change: Change) -> None:
            if change.name == os.path.basename(target):
                self.look()

        try:
            self._handle = self._watching.entries(os.path.dirname(target), on_change)
        except OSError as error:
            _log.warning("%s is not watched, changes count from the next message: %s", path, error)
        else:
            self._target = target
            self.look()  # it may have changed before it was watched
