"""What every command works with: the instance, its processes, and how to speak to the user.

An `App` is what click hands to a command (``@click.pass_obj``).  Errors are raised as `RqError`s
whose text is for people; `rqcore_cli.main` prints them and chooses the exit status.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rqcore.client import ManagerClient, QueueClient
from rqcore.errors import NotFoundError, RefusedError, StartError, UnreachableError
from rqcore.instance import Instance, find_instance
from rqcore_cli import output
from rqcore_cli.exits import sharpened
from rqcore_cli.output import clean

if TYPE_CHECKING:
    from rqcore.hooks import Hooks


class App:
    """One run of ``rq``.  ``verbosity``: -1 quiet, 0, 1 verbose."""

    def __init__(self) -> None:
        self.directory: str | None = None
        self.verbosity = 0
        self.external_plugins = True
        self._queues: dict[str, QueueClient] = {}

    # Speaking to the user

    def say(self, text: str) -> None:
        """Tell what happened; not with ``-q``."""
        if self.verbosity >= 0:
            _to_stderr(text)

    def detail(self, text: str) -> None:
        """Tell what only the curious want to know: with ``-v``."""
        if self.verbosity > 0:
            _to_stderr(text)

    def warn(self, text: str) -> None:
        """Tell what must be known, also with ``-q``."""
        _to_stderr(f"rq: {text}")

    def clean(self, value: object) -> str:
        """Text in one line that does nothing to a terminal."""
        return output.clean(value)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Iterable[str] = ()
    ) -> None:
        """Print a table on stdout; ``right`` names the columns of numbers."""
        output.table(columns, rows, right=right)

    # The instance

    @cached_property
    def instance(self) -> Instance:
        """The instance that is meant.  Raises `NotFoundError`."""
        try:
            found = find_instance(self.directory, os.environ, os.getcwd())
        except StartError as error:
            raise NotFoundError(str(error)) from None
        self.detail(f"instance: {found.directory}")
        return found

    @cached_property
    def hooks(self) -> Hooks:
        """The plugins, loaded into this process; with an instance, its own too."""
        from rqcore.config import ConfigError  # noqa: PLC0415
        from rqcore.plugins import load_plugins  # noqa: PLC0415 - costs more than all the rest

        directory = None
        try:
            directory = self.instance.directory
            config, _ = self.instance.load_config()
        except (NotFoundError, ConfigError) as error:
            self.detail(str(error))
            return load_plugins(directory, {}, external=self.external_plugins)
        return load_plugins(
            directory, config.plugins,
            disabled=config.plugins_disabled, external=self.external_plugins,
        )  # fmt: skip

    # Its processes

    @cached_property
    def manager(self) -> ManagerClient:
        """A connection to the manager, for as long as the command runs."""
        return ManagerClient(self.instance.directory)

    def ask_manager(self, command: str, args: Any = None) -> Any:
        """Ask the manager.  Raises `RefusedError` or `UnreachableError`."""
        try:
            return self.manager.ask(command, args)
        except RefusedError as error:
            raise sharpened(error) from None
        except UnreachableError as error:
            raise self._not_running(error) from None

    def queue(self, name: str) -> QueueClient:
        """A connection to a queue that exists.  Raises `NotFoundError`."""
        if name not in self._queues:
            self._queues[name] = QueueClient(self.instance.directory, self.known(name))
        return self._queues[name]

    def ask(self, name: str, command: str, args: Any = None) -> Any:
        """Ask a queue.  Raises `NotFoundError`, `RefusedError` or `UnreachableError`."""
        client = self.queue(name)
        try:
            return client.ask(command, args)
        except RefusedError as error:
            raise sharpened(error) from None
        except UnreachableError as error:
            raise self.why_unreachable(name, error) from None

    def known(self, name: str) -> str:
        """The name itself if there is such a queue.  Raises `NotFoundError` with what there is."""
        try:
            exists = os.path.lexists(self.instance.queue_config_file(name))
        except RefusedError:
            exists = False
        if exists:
            return name
        names = self.instance.queue_names()
        near = difflib.get_close_matches(name, names, 1)
        if near:
            hint = f"did you mean {near[0]}?"
        elif names:
            hint = "see all with: rq queue ls"
        else:
            hint = f"make it with: rq queue create {name} --script FILE"
        raise NotFoundError(f"there is no queue {clean(name)}; {hint}")

    def why_unreachable(self, name: str, error: UnreachableError) -> UnreachableError:
        """Why a queue does not answer, as far as its manager knows."""
        try:
            children = self.manager.ask("describe")["children"]
        except UnreachableError:
            return self._not_running(error)
        for child in children:
            if child["kind"] == "queue" and child["name"] == name:
                why = f": {child['problem']}" if child["problem"] else ""
                if child["state"] == "running":
                    return error
                return UnreachableError(f"queue {name} does not run, it is {child['state']}{why}")
        return UnreachableError(f"queue {name} is not started yet; start it with: rq reload")

    def _not_running(self, error: UnreachableError) -> UnreachableError:
        if "no permission" in str(error):
            return error
        return UnreachableError(
            f"RQ does not run in {self.instance.directory}; start it with: rq start"
        )

    def close(self) -> None:
        """Let go of the connections."""
        for client in self._queues.values():
            client.close()
        if "manager" in self.__dict__:
            self.manager.close()


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
