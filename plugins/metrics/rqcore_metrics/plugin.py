"""What the kernel loads by the entry point ``rqcore: metrics``."""

from __future__ import annotations

import pluggy

from rqcore.hookspecs import hookimpl


@hookimpl
def rq_add_hookspecs(pluginmanager: pluggy.PluginManager) -> None:
    """Bring `rqcore_metrics.hookspecs`."""
    from rqcore_metrics import hookspecs  # noqa: PLC0415 - see the head of this module

    pluginmanager.add_hookspecs(hookspecs)
