"""What the kernel loads by the entry point ``rqcore: relay``.

It brings the queue ``relay``, whose script carries messages to other machines, and names it for
every destination that is a URL; in that queue's process it decides which transfer may start
(`rqcore_relay.desk`).  Every process of an instance loads this module, so it imports nothing that is
not needed in all of them.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rqcore.hookspecs import InstanceInfo, Service, hookimpl
from rqcore.message import parse_dest
from rqcore_relay.options import Options, parse_options

if TYPE_CHECKING:
    from starlette.routing import Route

    from rqcore.faces import Family, Item, Panel, Site
    from rqcore.hookspecs import Check, CommandGroup, Delay, Outcome, QueueInfo, ServiceContext
    from rqcore.lifecycle import State
    from rqcore.message import Message
    from rqcore_relay.desk import Desk

#: The queue that this plugin brings.
QUEUE = "relay"

_options = Options()
#: The base URLs of this instance, its own first.
_names: tuple[str, ...] = ()
#: In the process of the queue relay, and nowhere else.
_desk: Desk | None = None


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Take the options, or refuse them with all that is wrong."""
    global _options, _names  # noqa: PLW0603 - a plugin is a module, and these are its options
    _options = parse_options(options, f"{instance.directory}/config/config.json")
    aliases = instance.config.get("hostnames") or ()
    _names = (instance.base_url, *(aliases if isinstance(aliases, list | tuple) else [aliases]))


@hookimpl
def rq_register_queues(instance: InstanceInfo) -> list[Mapping[str, Any]]:  # noqa: ARG001 - by the hook
    """Bring the queue relay, with the script that is installed beside this plugin."""
    # The queue's process inherits it, and need not load it while it starts.
    import rqcore_relay.desk  # noqa: F401, PLC0415 - the manager alone is asked this

    script = os.path.join(sysconfig.get_path("scripts"), "rq-relay")
    return [{"name": QUEUE, "script": script, "num_workers": _options.num_workers}]


@hookimpl
def rq_register_services(instance: InstanceInfo) -> list[Service]:  # noqa: ARG001 - by the hook
    """Bring the service that notices when a peer is back."""
    return [Service(QUEUE, _watch)]


def _watch(context: ServiceContext) -> int:
    from rqcore_relay.probe import watch  # noqa: PLC0415 - see the head of this module

    return watch(context)


@hookimpl
def rq_register_commands(cli: CommandGroup) -> None:
    """Add ``rq relay``."""
    from rqcore_relay.commands import register  # noqa: PLC0415 - see the head of this module

    register(cli)


@hookimpl
def rq_collect_checks(instance: InstanceInfo) -> list[Check]:
    """Say which machines cannot be reached, and whose eyes our tokens are for."""
    from rqcore_relay.checks import checks  # noqa: PLC0415 - see the head of this module

    return checks(instance.directory, _options)


@hookimpl
def rq_resolve_destination(dest: str, message: Message) -> str | None:
    """Every URL goes through relay; a queue of this instance does so when ``force_remote`` is set."""
    address = parse_dest(dest)
    if address is None:
        return None
    if address.base or (message.force_remote and address.queue != QUEUE):
        return QUEUE
    return None


# In whatever process exports metrics, where rqcore-metrics is installed


@hookimpl(optionalhook=True)
def rq_collect_metrics(instance: InstanceInfo) -> list[Family]:
    """Give the metrics of the peers."""
    from rqcore_relay import metrics, survey  # noqa: PLC0415 - see the head of this module

    return metrics.families(survey.survey(instance.directory))


# In the process of the site, where rqcore-web is installed


@hookimpl(optionalhook=True)
def rq_web_routes(site: Site) -> list[Route]:
    """Add the page ``-/relay/`` and the metrics."""
    from rqcore_relay import pages  # noqa: PLC0415 - see the head of this module

    return pages.routes(site)


@hookimpl(optionalhook=True)
def rq_web_nav_items() -> list[Item]:
    """Add the page to the menu."""
    from rqcore_relay import pages  # noqa: PLC0415 - see the head of this module

    return pages.menu()


@hookimpl(optionalhook=True)
def rq_web_overview_panels(site: Site) -> list[Panel]:
    """Say on the first page which machines cannot be reached."""
    from rqcore_relay import pages  # noqa: PLC0415 - see the head of this module

    return pages.panels(site)


@hookimpl(optionalhook=True)
def rq_web_queue_panels(site: Site, queue: Mapping[str, Any]) -> list[Panel]:
    """Say on the page of the queue relay for whom its messages wait."""
    from rqcore_relay import pages  # noqa: PLC0415 - see the head of this module

    return pages.queue_panels(site, queue)


@hookimpl(optionalhook=True)
def rq_web_message_panels(site: Site, message: Mapping[str, Any]) -> list[Panel]:
    """Say on the page of a waiting message how its machine is."""
    from rqcore_relay import pages  # noqa: PLC0415 - see the head of this module

    return pages.message_panels(site, message)


# In the process of the queue relay


@hookimpl
def rq_spool_ready(queue: QueueInfo) -> None:
    """Begin to keep the book."""
    global _desk  # noqa: PLW0603 - one process has one queue
    if queue.name == QUEUE:
        from rqcore_relay.desk import Desk  # noqa: PLC0415 - see the head of this module

        _desk = Desk(queue, _names, lambda: _options)


@hookimpl
def rq_queue_config_reloaded(queue: QueueInfo) -> None:
    """Other limits may let others start."""
    if _desk is not None:
        _desk.reconfigured(queue)


@hookimpl
def rq_admin_state_changed(new: str) -> None:
    """What was called while the queue started nothing is called again."""
    if _desk is not None and new == "UP":
        _desk.woken()


@hookimpl
def rq_check_start(message: Message) -> Delay | None:
    """Let a message wait while its peer is down, or has enough to do."""
    return None if _desk is None else _desk.ask(message)


@hookimpl
def rq_message_queued(message: Message) -> None:
    """One more waits."""
    if _desk is not None:
        _desk.queued(message)


@hookimpl
def rq_message_starting(message: Message) -> None:
    """A transfer begins."""
    if _desk is not None:
        _desk.starting(message)


@hookimpl
def rq_message_finishing(message: Message, outcome: Outcome) -> None:
    """A transfer ended: what it says about its peer counts from now on."""
    if _desk is not None:
        _desk.finishing(message, outcome)


@hookimpl
def rq_message_moved(message: Message, old: State | None, new: State | None) -> None:
    """Who comes, goes, or makes room."""
    if _desk is not None:
        _desk.moved(message, old, new)
