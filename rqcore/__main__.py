"""``python -m rqcore DIR``: run the instance in DIR in the foreground, until SIGTERM or Ctrl-C.

Exit status: 0 stopped as asked, 2 wrong usage, 3 could not start (the reason is on stderr).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from rqcore import __version__, logs
from rqcore.config import ConfigError
from rqcore.errors import RqError
from rqcore.hookspecs import InstanceInfo
from rqcore.instance import Instance, find_instance
from rqcore.loop import Loop

_log = logging.getLogger(__name__)
EXIT_START = 3


def main(argv: list[str] | None = None) -> int:
    """Run an instance; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rqcore", description="Run an RQ instance.")
    parser.add_argument("directory", help="the instance, as made by: rq init DIR")
    parser.add_argument("--no-plugins", action="store_true", help="run the bare kernel")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(argv)
    try:
        logs.start()
        instance = find_instance(options.directory, {}, os.getcwd())
        _run(instance, external=not options.no_plugins)
    except (ConfigError, RqError) as error:
        print(f"rqcore: {error}", file=sys.stderr)  # noqa: T201 - this is the command's answer
        return EXIT_START
    return 0


def _run(instance: Instance, *, external: bool) -> None:
    # Late, so that a wrong directory is told of before the rest is loaded.
    import stevedore  # noqa: F401, PLC0415 - once, before the queues are forked, and not in each

    from rqcore.manager import Manager  # noqa: PLC0415
    from rqcore.orders import Orders  # noqa: PLC0415
    from rqcore.plugins import load_plugins  # noqa: PLC0415
    from rqcore.server import Server  # noqa: PLC0415

    instance.check_owner()  # before its plugins are loaded
    os.chdir(instance.directory)
    settings, warnings = instance.load_config()
    logs.use_format(settings.log_format)
    for warning in warnings:
        _log.warning("%s", warning)
    instance.use_tmp_dir(settings)
    hooks = load_plugins(
        instance.directory, settings.plugins,
        disabled=settings.plugins_disabled, external=external,
    )  # fmt: skip
    loop = Loop()
    manager = Manager(loop, instance, settings, hooks)
    hooks.configure(
        InstanceInfo(str(instance.directory), settings.base_url, settings.raw), settings.plugins
    )
    server = Server(loop, str(instance.manager_socket), Orders(manager).handle)
    manager.run()
    server.close()


if __name__ == "__main__":
    sys.exit(main())
