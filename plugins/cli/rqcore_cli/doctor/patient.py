"""The instance as examinations see it: asked once, and nobody is waited for long."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from rqcore.client import ManagerClient
from rqcore.config import ConfigError, InstanceConfig
from rqcore.errors import UnreachableError
from rqcore.hookspecs import InstanceInfo
from rqcore.instance import Instance
from rqcore_cli.app import App
from rqcore_cli.checking.sources import Facts, look_locally

#: So long the manager, or a queue, has to answer, in seconds.
PATIENCE = 5.0


class Patient:
    """See the head of this module."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.instance: Instance = app.instance
        #: Why the manager does not answer, in words; "" while it does.
        self.silence = ""

    @cached_property
    def config(self) -> InstanceConfig | None:
        """The main config; None when it cannot be used."""
        try:
            return self.instance.load_config()[0]
        except ConfigError:
            return None

    @cached_property
    def manager(self) -> dict[str, Any] | None:
        """What the manager says of itself and its children; None when it does not answer."""
        with ManagerClient(self.instance.directory, timeout=PATIENCE) as client:
            try:
                about: dict[str, Any] = client.ask("describe")
            except TimeoutError:
                self.silence = f"the manager does not answer within {PATIENCE:g} s"
            except UnreachableError as error:
                self.silence = str(error)
            else:
                return about
        return None

    @cached_property
    def facts(self) -> Facts | None:
        """How the queues are; None when RQ does not run."""
        if self.manager is None:
            return None
        try:
            return look_locally(self.instance, PATIENCE * 2)
        except UnreachableError as error:
            self.silence = str(error)
            return None


def instance_info(app: App) -> InstanceInfo:
    """The instance as hooks see it; plugins are given their options, as everywhere.

    A main config that cannot be used is an empty one here: that it is wrong is told by another check.
    So are options that are: nobody needs to read them in a log, too.
    """
    try:
        config, _ = app.instance.load_config()
    except ConfigError:
        return InstanceInfo(str(app.instance.directory), "", {})
    info = InstanceInfo(str(app.instance.directory), config.base_url, config.raw)
    with _unlogged("rqcore.plugins"):
        app.hooks.configure(info, config.plugins)
    return info


@contextlib.contextmanager
def _unlogged(name: str) -> Iterator[None]:
    log = logging.getLogger(name)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
