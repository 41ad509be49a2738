"""What the kernel loads by the entry point ``rqcore: web``.

Every process of an instance loads this module, so it imports nothing of the site itself: the service
does, in its own process (`rqcore_web.serve`).  In the queue processes it keeps each message's runs
(`rqcore_web.runs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rqcore.hookspecs import InstanceInfo, Service, hookimpl
from rqcore_web import runs

if TYPE_CHECKING:
    import pluggy

    from rqcore.hookspecs import Check, CommandGroup, Outcome, QueueInfo, ServiceContext
    from rqcore.lifecycle import Step
    from rqcore.message import Message
    from rqcore_web.durations import Family


@hookimpl
def rq_add_hookspecs(pluginmanager: pluggy.PluginManager) -> None:
    """Bring the hooks by which plugins add to the site."""
    from rqcore_web import hookspecs  # noqa: PLC0415 - see the head of this module

    pluginmanager.add_hookspecs(hookspecs)


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Refuse options that are wrong, before anything is served by them."""
    from rqcore_web.options import parse_options  # noqa: PLC0415 - see the head of this module

    parse_options(options, f"{instance.directory}/config/config.json")


@hookimpl
def rq_register_services(instance: InstanceInfo) -> list[Service]:  # noqa: ARG001 - by the hook
    """Bring the web server."""
    return [Service("web", _serve)]


def _serve(context: ServiceContext) -> int:
    from rqcore_web.serve import serve  # noqa: PLC0415 - see the head of this module

    return serve(context)


@hookimpl
def rq_register_commands(cli: CommandGroup) -> None:
    """Add ``rq web``."""
    from rqcore_web.commands import register  # noqa: PLC0415 - see the head of this module

    register(cli)


@hookimpl
def rq_collect_checks(instance: InstanceInfo) -> list[Check]:
    """Say how the site is."""
    from rqcore_web.checks import checks  # noqa: PLC0415 - see the head of this module

    return checks(instance.directory)


@hookimpl(optionalhook=True)
def rq_collect_metrics() -> list[Family]:
    """Say how long the site takes to answer, in its own process; nothing in the others."""
    from rqcore_web.durations import durations  # noqa: PLC0415 - see the head of this module

    return durations.families()


@hookimpl
def rq_message_started(message: Message, queue: QueueInfo) -> None:
    """A run begins."""
    runs.began(queue.path, message.msg_id)


@hookimpl
def rq_message_moved(message: Message, queue: QueueInfo, step: Step) -> None:
    """A run that was stopped with its queue is over too: the message waits again."""
    if step == "unstart":
        runs.stopped(queue.path, message)


@hookimpl
def rq_message_recovered(message: Message, queue: QueueInfo, began: float) -> None:
    """So is one that a crash has cut off."""
    runs.cut_off(queue.path, message, began)


@hookimpl
def rq_message_finishing(message: Message, queue: QueueInfo, outcome: Outcome) -> None:
    """A run ended: note it in the message's directory, which moves on with it."""
    if runs.has_begun(queue.path, message.msg_id):  # a duplicate has no run of its own
        runs.ended(queue.path, message, outcome)
