"""What the kernel loads by the entry point ``rqcore: cleaner``.

It brings the queue ``cleaner``, whose script removes old messages and rotates logs, the command
``rq clean``, and in each queue's process the guard that refuses new messages before the disk is full.
Every process of an instance loads this module, so it imports nothing that is not needed in all of them.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rqcore.hookspecs import Hold, InstanceInfo, Reject, hookimpl
from rqcore_cleaner.disk import Guard
from rqcore_cleaner.options import Options, parse_options

if TYPE_CHECKING:
    from rqcore.faces import Family, Panel, Site
    from rqcore.hookspecs import Check, CommandGroup, QueueInfo

#: The queue that this plugin brings.  It is what makes room, so it is never refused anything.
QUEUE = "cleaner"

_options = Options()
#: In a queue's process, and nowhere else.
_guard: Guard | None = None


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Take the options, or refuse them with all that is wrong."""
    global _options  # noqa: PLW0603 - a plugin is a module, and these are its options
    _options = parse_options(options, f"{instance.directory}/config/config.json")


@hookimpl
def rq_register_queues(instance: InstanceInfo) -> list[Mapping[str, Any]]:  # noqa: ARG001 - by the hook
    """Bring the queue cleaner, with the script that is installed beside this plugin."""
    script = os.path.join(sysconfig.get_path("scripts"), "rq-cleaner")
    line = {"cron": _options.schedule, "param1": "ALLQUEUES"}
    return [
        {
            "name": QUEUE, "script": script, "num_workers": 1, "coalesce_params": [1, 2],
            "schedule": [line],
        }
    ]  # fmt: skip


@hookimpl
def rq_register_commands(cli: CommandGroup) -> None:
    """Add ``rq clean``."""
    from rqcore_cleaner.commands import register  # noqa: PLC0415 - see the head of this module

    register(cli)


@hookimpl
def rq_collect_checks(instance: InstanceInfo) -> Iterable[Check]:
    """How the disk is, and the cleaner."""
    from rqcore.instance import Instance  # noqa: PLC0415 - see the head of this module
    from rqcore_cleaner.health import checks  # noqa: PLC0415 - see the head of this module

    return list(checks(Instance(Path(instance.directory)), _options))


@hookimpl(optionalhook=True)
def rq_collect_metrics(instance: InstanceInfo) -> Iterable[Family]:
    """What is free on the disk, and what was removed."""
    from rqcore.instance import Instance  # noqa: PLC0415 - see the head of this module
    from rqcore_cleaner.health import metrics  # noqa: PLC0415 - see the head of this module

    return list(metrics(Instance(Path(instance.directory)), _options))


@hookimpl(optionalhook=True)
def rq_web_overview_panels(site: Site) -> list[Panel]:
    """Say on the first page that the disk fills."""
    from rqcore_cleaner import pages  # noqa: PLC0415 - see the head of this module

    return pages.overview(site, _options)


@hookimpl(optionalhook=True)
def rq_web_queue_panels(site: Site, queue: Mapping[str, Any]) -> list[Panel]:
    """Say on the page of the queue cleaner how the disk is, and what was removed."""
    from rqcore_cleaner import pages  # noqa: PLC0415 - see the head of this module

    return pages.queue(site, queue, _options)


# In the process of a queue


@hookimpl
def rq_spool_ready(queue: QueueInfo) -> None:
    """From now on the disk of this queue is watched."""
    global _guard  # noqa: PLW0603 - one process has one queue
    _guard = Guard(os.path.dirname(os.path.dirname(queue.path)), queue.path)


@hookimpl
def rq_check_message(queue: QueueInfo) -> Reject | None:
    """Refuse a new message when the disk has no room but what is kept free."""
    return _refusal(queue)


@hookimpl
def rq_check_attachment(queue: QueueInfo) -> Reject | None:
    """Refuse a file likewise."""
    return _refusal(queue)


@hookimpl
def rq_check_start(queue: QueueInfo) -> Hold | None:
    """Let no run begin that would take the last of the disk from those that are to end."""
    if _guard is None or queue.name == QUEUE or queue.name in _options.disk.reserved:
        return None
    held = _guard.hold(_options.disk)
    return None if held is None else Hold(*held)


@hookimpl
def rq_message_finishing(queue: QueueInfo) -> None:
    """What a script wrote counts too: the disk is looked at, and what it is like told in the log."""
    _refusal(queue)


def _refusal(queue: QueueInfo) -> Reject | None:
    if _guard is None or queue.name == QUEUE:
        return None
    reserved = queue.name in _options.disk.reserved
    problem = _guard.problem(_options.disk, reserved=reserved)
    return None if problem is None else Reject(problem)
