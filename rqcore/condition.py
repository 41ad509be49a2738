"""A queue's admin and oper state: what its operator wants, and whether its script can run.

Admin: an existing ``config/NAME.down`` means DOWN, an existing ``config/NAME.pause`` PAUSE, else it
is UP.  The files are the truth and are looked at whenever it matters, so a change by hand counts from
the very next request; a watch on ``config/`` tells of it at once, so that a resumed queue starts work.

Oper: SCRIPTERROR while the script is missing or cannot be executed.  While it is, the directories on
the way to the script are watched, links included, and those on the way to the interpreter that its
first line names; it comes back to UP by itself.  A script that looked right and could not be executed
all the same is not tried again before one of these files is another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from enum import StrEnum

from rqcore.hooks import Hooks
from rqcore.hookspecs import QueueInfo
from rqcore.instance import Instance
from rqcore.script import ScriptError, resolve_script
from rqcore.watch import Change, Watcher

_log = logging.getLogger(__name__)


class Admin(StrEnum):
    """What the operator wants of the queue."""

    UP = "UP"
    DOWN = "DOWN"
    PAUSE = "PAUSE"


class Oper(StrEnum):
    """Whether the queue can do it."""

    UP = "UP"
    SCRIPTERROR = "SCRIPTERROR"


class Condition:
    """See the head of this module; ``on_change`` is called when the queue may be able to do more."""

    def __init__(
        self, instance: Instance, queue: QueueInfo, hooks: Hooks, watcher: Watcher,
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self.queue = queue
        #: Why the oper state is not UP, in words.
        self.problem = ""
        self._instance = instance
        self._hooks = hooks
        self._watcher = watcher
        self._on_change = on_change
        self._admin = self._read_admin()
        self._oper = Oper.UP
        self._watched: list[int] = []
        self._refused: object = None
        own = {instance.down_file(queue.name).name, instance.pause_file(queue.name).name}

        def on_config(change: Change) -> None:
            if change.name in own:
                self.admin()

        watcher.members(str(instance.config_dir), on_config)

    def _read_admin(self) -> Admin:
        return Admin(self._instance.admin_state(self.queue.name))

    def admin(self) -> Admin:
        """The admin state now; tells the hooks when it is another than last time."""
        old, self._admin = self._admin, self._read_admin()
        if old is not self._admin:
            _log.info("queue %s is %s now, it was %s", self.queue.name, self._admin, old)
            self._hooks.admin_state_changed(self.queue, old, self._admin)
            self._on_change()
        return self._admin

    @property
    def oper(self) -> Oper:
        """The oper state."""
        return self._oper

    def shown(self) -> str:
        """What people are shown: oper when it is not UP, else admin."""
        return self._oper if self._oper is not Oper.UP else self.admin()

    def check_script(self) -> str | None:
        """The script's real path; None, and SCRIPTERROR, when it cannot be run."""
        try:
            path = resolve_script(self._script, str(self._instance.directory))
        except ScriptError as error:
            self._set_oper(Oper.SCRIPTERROR, str(error))
            return None
        if self._refused is not None:
            if self._refused == _looks(path):
                return None
            self._refused = None
        self._set_oper(Oper.UP, "")
        return path

    def script_failed(self, path: str, reason: str) -> None:
        """The system could not execute it: wait until it, or its interpreter, is another."""
        self._refused = _looks(path)
        self._set_oper(Oper.SCRIPTERROR, reason)

    @property
    def _script(self) -> str:
        return str(self.queue.config["script"])

    def replaced(self, queue: QueueInfo) -> None:
        """The configuration was loaded anew: the script may be another."""
        self.queue = queue
        self._refused = None
        if self._oper is not Oper.UP:
            self._watch_script()
        self.check_script()

    def _set_oper(self, oper: Oper, reason: str) -> None:
        known, self.problem = self.problem, reason
        if oper is not self._oper:
            old, self._oper = self._oper, oper
            level = logging.INFO if oper is Oper.UP else logging.ERROR
            _log.log(level, "queue %s: %s %s", self.queue.name, oper, reason)
            self._watch_script()
            self._hooks.oper_state_changed(self.queue, old, oper, reason)
            self._on_change()
        elif reason != known:
            self._on_change()

    def _watch_script(self) -> None:
        # The new watches first and the old ones then, so that no change falls in between.
        former, self._watched = self._watched, []
        watched: dict[str, set[str]] = {}
        # Until all of the way is watched: a part of it may have come before the part above was.
        while self._oper is not Oper.UP and (entries := self._entries()) != watched:
            for folder, names in entries.items():
                self._watch_entries(folder, names)
            watched = entries
        for handle in former:
            self._watcher.forget(handle)

    def _entries(self) -> dict[str, set[str]]:
        """The entries that decide whether the script can run, by directory."""
        script = os.path.join(self._instance.directory, self._script)
        entries = _entries_on_the_way(script)
        for folder, names in _entries_on_the_way(_interpreter(script)).items():
            entries.setdefault(folder, set()).update(names)
        return entries

    def _watch_entries(self, folder: str, names: Collection[str]) -> None:
        def on_change(change: Change) -> None:
            if change.name in names and self._oper is not Oper.UP:
                self._script_changed()

        try:
            self._watched.append(self._watcher.entries(folder, on_change))
        except OSError as error:
            _log.warning("cannot watch %s: %s", folder, error)

    def _script_changed(self) -> None:
        if self.check_script() is None:
            # Another part of the way may exist now; once it is watched, look whether it is all.
            self._watch_script()
            self.check_script()


def _interpreter(path: str) -> str:
    """What the script's first line names after ``#!``; "" when it has none or cannot be read."""
    if not os.path.isfile(path):  # to open a pipe would be to wait for ever
        return ""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _looks(path: str) -> object:
    """What tells whether a script that could not be executed has changed since."""

    def look(file: str) -> object:
        try:
            info = os.stat(file)
        except OSError:
            return None
        return info.st_ino, info.st_mode, info.st_mtime_ns, info.st_ctime_ns

    return path, look(path), look(_interpreter(path))


def _entries_on_the_way(path: str) -> dict[str, set[str]]:
    """The entries that decide what ``path`` leads to, by their existing directory, links followed."""
    entries: dict[str, set[str]] = {}
    links = 0
    pending = [part for part in path.split("/") if part]
    at = "/"
    while pending:
        part = pending.pop(0)
        step = os.path.join(at, part)
        entries.setdefault(at, set()).add(part)
        if os.path.islink(step) and links < 40:  # noqa: PLR2004 - the kernel's own limit
            links += 1
            target = os.path.normpath(os.path.join(at, os.readlink(step)))
            pending = [part for part in target.split("/") if part] + pending
            at = "/"
        elif os.path.isdir(step):
            at = step
        else:
            break
    return entries
