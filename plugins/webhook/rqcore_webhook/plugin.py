"""What the kernel loads by the entry point ``rqcore: webhook``.

It brings the queue ``webhook``, whose script tells URLs what happened, and the service that fills it.
In every other queue's process it enters what happens in the outbox (`rqcore_webhook.clerk`), in that
of the queue webhook it decides which webhook may be sent now (`rqcore_webhook.desk`).  Every process
of an instance loads this module, so it imports nothing that is not needed in all of them.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rqcore.hookspecs import Check, InstanceInfo, QueueInfo, Reject, Service, hookimpl
from rqcore_webhook.options import Options, parse_options

if TYPE_CHECKING:
    from starlette.routing import Route

    from rqcore.faces import Family, Item, Panel, Site
    from rqcore.hookspecs import CommandGroup, Delay, Hold, Outcome, ServiceContext
    from rqcore.lifecycle import State, Step
    from rqcore.message import Message
    from rqcore_webhook.clerk import Clerk
    from rqcore_webhook.desk import Desk

#: The queue that this plugin brings.
QUEUE = "webhook"

#: So many URLs can a message tell of its end, each of so many characters.
MOST_URLS, MOST_LONG = 100, 8000

_options = Options()
_instance: InstanceInfo | None = None
#: In a queue's process: that of the queue webhook has a desk, every other one a clerk.
_desk: Desk | None = None
_clerk: Clerk | None = None


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Take the options, or refuse them with all that is wrong."""
    global _options, _instance  # noqa: PLW0603 - a plugin is a module, and these are its options
    _options = parse_options(options, f"{instance.directory}/config/config.json")
    _instance = instance


@hookimpl
def rq_register_queues(instance: InstanceInfo) -> list[Mapping[str, Any]]:  # noqa: ARG001 - by the hook
    """Bring the queue webhook, with the script that is installed beside this plugin."""
    # The queues' processes inherit them, and need not load them while they start.
    import rqcore_webhook.clerk  # noqa: PLC0415 - the manager alone is asked this
    import rqcore_webhook.desk  # noqa: F401, PLC0415

    script = os.path.join(sysconfig.get_path("scripts"), "rq-webhook")
    return [{"name": QUEUE, "script": script, "num_workers": _options.num_workers}]


@hookimpl
def rq_register_services(instance: InstanceInfo) -> list[Service]:  # noqa: ARG001 - by the hook
    """Bring the service that makes webhook messages of what is in the outbox."""
    return [Service(QUEUE, _serve)]


def _serve(context: ServiceContext) -> int:
    from rqcore_webhook.dispatch import serve  # noqa: PLC0415 - see the head of this module

    return serve(context)


@hookimpl
def rq_register_commands(cli: CommandGroup) -> None:
    """Add ``rq webhook``."""
    from rqcore_webhook.commands import register  # noqa: PLC0415 - see the head of this module

    register(cli)


@hookimpl
def rq_collect_checks(instance: InstanceInfo) -> Iterable[Check]:
    """Say how the endpoints are, and whether the outbox empties."""
    from rqcore_webhook.checks import checks  # noqa: PLC0415 - see the head of this module

    return checks(instance.directory, _options)


@hookimpl
def rq_queue_process_exited(name: str, status: int, restarts: int) -> None:
    """Tell that a queue's process crashed (in the manager)."""
    if status != 0 and name != QUEUE and _instance is not None and _options.endpoints:
        queue = QueueInfo(name, f"{_instance.directory}/queue/{name}", {})
        _new_clerk(queue).crashed(status, restarts)


@hookimpl
def rq_queue_deleted(name: str, path: str) -> None:
    """Leave nothing behind that a new queue of this name would take for its own (in the manager)."""
    if name != QUEUE:
        _new_clerk(QueueInfo(name, path, {})).deleted()


# In a queue's process


@hookimpl
def rq_spool_ready(queue: QueueInfo) -> None:
    """Begin to keep watch."""
    global _desk, _clerk  # noqa: PLW0603 - one process has one queue
    if queue.name == QUEUE:
        from rqcore_webhook.desk import Desk  # noqa: PLC0415 - see the head of this module
        from rqcore_webhook.outbox import Outbox  # noqa: PLC0415

        _desk = Desk(queue, lambda: _options)
        Outbox(os.path.dirname(os.path.dirname(queue.path))).poke()
    else:
        _clerk = _new_clerk(queue)
        _clerk.leftovers()


def _new_clerk(queue: QueueInfo) -> Clerk:
    from rqcore_webhook.clerk import Clerk  # noqa: PLC0415 - see the head of this module

    base_url = "" if _instance is None else _instance.base_url
    return Clerk(queue, base_url, lambda: _options)


@hookimpl
def rq_check_message(message: Message) -> Reject | None:
    """Refuse a message whose end could not be told without harm to its queue."""
    urls = message.post_run_webhook
    if len(urls) > MOST_URLS:
        return Reject(f"{len(urls)} URLs in post_run_webhook, at most {MOST_URLS} can be told")
    longest = max(map(len, urls), default=0)
    if longest > MOST_LONG:
        return Reject(
            f"a URL of {longest} characters in post_run_webhook, at most {MOST_LONG} are possible"
        )
    return None


@hookimpl
def rq_message_finishing(message: Message, outcome: Outcome) -> None:
    """A message is about to end."""
    if _clerk is not None:
        _clerk.finishing(message, outcome)
    elif _desk is not None:
        _desk.finishing(message)


@hookimpl
def rq_message_moved(message: Message, old: State | None, new: State | None) -> None:
    """A message changed its state."""
    if _clerk is not None:
        _clerk.moved(message, old, new)
    elif _desk is not None:
        _desk.moved(message, old, new)


@hookimpl
def rq_check_start(message: Message) -> Hold | Delay | None:
    """Let a webhook wait while its target wants to be left alone, or has enough to do."""
    return None if _desk is None else _desk.ask(message)


@hookimpl
def rq_message_starting(message: Message) -> None:
    """A webhook is about to be sent."""
    if _desk is not None:
        _desk.starting(message)


@hookimpl
def rq_message_queued(message: Message, cause: Step) -> None:
    """Tell those who asked for it."""
    if _clerk is not None:
        _clerk.queued(message, str(cause))


@hookimpl
def rq_message_started(message: Message) -> None:
    """Tell those who asked for it."""
    if _clerk is not None:
        _clerk.started(message)


@hookimpl
def rq_message_status(message: Message, text: str) -> None:
    """Tell those who asked for it."""
    if _clerk is not None:
        _clerk.progress(message, text)


@hookimpl
def rq_admin_state_changed(queue: QueueInfo, old: str, new: str) -> None:
    """Tell those who asked for it; and have what waited for the queue webhook looked at again."""
    if _clerk is not None:
        from rqcore.instance import Instance  # noqa: PLC0415 - see the head of this module

        directory = os.path.dirname(os.path.dirname(queue.path))
        _clerk.condition(new, old, Instance(Path(directory)).admin_reason(queue.name))
    elif new != "DOWN":
        from rqcore_webhook.outbox import Outbox  # noqa: PLC0415 - see the head of this module

        Outbox(os.path.dirname(os.path.dirname(queue.path))).poke()


@hookimpl
def rq_oper_state_changed(old: str, new: str, cause: str) -> None:
    """Tell those who asked for it."""
    if _clerk is not None:
        _clerk.condition(new, old, cause)


# In the process of whoever exports metrics, where rqcore-metrics is installed


@hookimpl(optionalhook=True)
def rq_collect_metrics(instance: InstanceInfo) -> list[Family]:
    """Count the attempts, and say how the endpoints are."""
    from rqcore_webhook.metrics import families  # noqa: PLC0415 - see the head of this module

    return families(instance.directory, _options)


# In the process of the site, where rqcore-web is installed


@hookimpl(optionalhook=True)
def rq_web_routes(site: Site) -> list[Route]:
    """Add the page ``-/webhook/``."""
    from rqcore_webhook import pages  # noqa: PLC0415 - see the head of this module

    return pages.routes(site)


@hookimpl(optionalhook=True)
def rq_web_nav_items() -> list[Item]:
    """Add the page to the menu."""
    from rqcore_webhook import pages  # noqa: PLC0415 - see the head of this module

    return pages.menu()


@hookimpl(optionalhook=True)
def rq_web_overview_panels(site: Site) -> list[Panel]:
    """Say on the first page which endpoints are disabled or fail."""
    from rqcore_webhook import pages  # noqa: PLC0415 - see the head of this module

    return pages.panels(site)


@hookimpl(optionalhook=True)
def rq_web_message_panels(site: Site, message: Mapping[str, Any]) -> list[Panel]:
    """Show a message's webhooks, and a webhook's attempts."""
    from rqcore_webhook import pages  # noqa: PLC0415 - see the head of this module

    return pages.message_panels(site, message)
