"""What the kernel loads by the entry point ``rqcore: metrics``.

In each queue's process it counts (`rqcore_metrics.clerk`); in the web service it answers ``/metrics``;
the service ``metrics`` pushes, where the options say where to.  Every process of an instance loads this
module, so it imports nothing that is not needed in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from rqcore.hookspecs import InstanceInfo, Service, hookimpl
from rqcore_metrics.options import Options, parse_options

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from rqcore.faces import Panel, Site
    from rqcore.hookspecs import Check, CommandGroup, Outcome, QueueInfo, ServiceContext
    from rqcore.lifecycle import State, Step
    from rqcore.message import Message
    from rqcore_metrics.clerk import Clerk

_options = Options()
_directory = "."
#: In a queue's process, and nowhere else.
_clerk: Clerk | None = None


@hookimpl
def rq_add_hookspecs(pluginmanager: pluggy.PluginManager) -> None:
    """Bring the hook by which plugins give metrics."""
    from rqcore_metrics import hookspecs  # noqa: PLC0415 - see the head of this module

    pluginmanager.add_hookspecs(hookspecs)


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Take the options, or refuse them with all that is wrong."""
    global _options, _directory  # noqa: PLW0603 - a plugin is a module, and these are its options
    _options = parse_options(options, f"{instance.directory}/config/config.json")
    _directory = instance.directory


@hookimpl
def rq_register_services(instance: InstanceInfo) -> list[Service]:  # noqa: ARG001 - by the hook
    """Bring the service that pushes, if there is something to push."""
    # A queue's process inherits it, and need not load it when its first message comes.
    import rqcore_metrics.clerk  # noqa: F401, PLC0415 - the manager alone is asked this

    return [Service("metrics", _push)] if _options.pushes else []


def _push(context: ServiceContext) -> int:
    from rqcore_metrics.service import push  # noqa: PLC0415 - see the head of this module

    return push(context)


@hookimpl
def rq_register_commands(cli: CommandGroup) -> None:
    """Add ``rq metrics``."""
    from rqcore_metrics.commands import register  # noqa: PLC0415 - see the head of this module

    register(cli)


@hookimpl
def rq_collect_checks(instance: InstanceInfo) -> Iterable[Check]:
    """Say how the pushes go."""
    from rqcore_metrics.checks import checks  # noqa: PLC0415 - see the head of this module

    return checks(instance.directory)


@hookimpl(optionalhook=True)
def rq_web_root_routes(site: Site) -> list[BaseRoute]:
    """Answer ``/metrics``."""
    from rqcore_metrics import pages  # noqa: PLC0415 - see the head of this module

    return pages.routes(site, plugin_hooks=_options.plugin_hooks)


@hookimpl(optionalhook=True)
def rq_web_overview_panels(site: Site) -> list[Panel]:
    """Say on the first page where the metrics do not get to."""
    from rqcore_metrics import pages  # noqa: PLC0415 - see the head of this module

    return pages.panels(site)


# In the manager


@hookimpl
def rq_queue_process_exited(name: str, status: int) -> None:
    """Count how often a queue's process failed."""
    if status:
        from rqcore_metrics import exits  # noqa: PLC0415 - see the head of this module

        exits.failed(_directory, name)


@hookimpl
def rq_queue_deleted(name: str) -> None:
    """Forget what was counted: a new queue of that name begins at zero."""
    from rqcore_metrics import book, exits  # noqa: PLC0415 - see the head of this module

    book.forget(_directory, name)
    exits.forget(_directory, name)


# In a queue's process; some of these are told while it recovers, before it is ready


def _counting(queue: QueueInfo) -> Clerk:
    global _clerk  # noqa: PLW0603 - one process has one queue
    if _clerk is None:
        from rqcore_metrics.clerk import Clerk  # noqa: PLC0415 - see the head of this module

        _clerk = Clerk(_directory, queue)
    return _clerk


@hookimpl
def rq_spool_ready(queue: QueueInfo) -> None:
    """Begin to count, so that a queue in which nothing happens shows zeros."""
    _counting(queue)


@hookimpl
def rq_message_moved(
    message: Message, queue: QueueInfo, old: State | None, new: State | None, step: Step
) -> None:
    """Count it."""
    _counting(queue).moved(message, old, new, step)


@hookimpl
def rq_message_starting(message: Message, queue: QueueInfo) -> None:
    """Note how long it waited."""
    _counting(queue).starting(message)


@hookimpl
def rq_message_started(message: Message, queue: QueueInfo) -> None:
    """Its time runs."""
    _counting(queue).started(message)


@hookimpl
def rq_message_finishing(message: Message, queue: QueueInfo, outcome: Outcome) -> None:
    """Note what is about to happen, so that nothing makes us miss it."""
    _counting(queue).finishing(message, outcome)


@hookimpl
def rq_spool_synced(queue: QueueInfo, seconds: float) -> None:
    """Count how long the disk took."""
    _counting(queue).synced(seconds)


@hookimpl
def rq_spool_settled(queue: QueueInfo) -> None:
    """Write down what the turn has changed."""
    _counting(queue).settled()
