"""What the kernel loads by the entry point ``rqcore: cli``: this distribution as a plugin.

The commands of the core are known to ``rq`` without asking anybody, because it must be quick.
``rq plugins``, which needs the plugins anyway, comes by the hook, as any plugin's commands do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqcore.hookspecs import hookimpl

if TYPE_CHECKING:
    from rqcore.hookspecs import CommandGroup


@hookimpl
def rq_register_commands(cli: CommandGroup) -> None:
    """Add ``rq plugins``."""
    from rqcore_cli.commands.plugins import plugins  # noqa: PLC0415 - not for the manager's memory

    cli.commands["plugins"] = plugins
