"""What the kernel loads by the entry point ``rqcore: router``.

It brings the queue rq_router with its script, leads every message there while there is a rules file,
lets a message wait as long as its rule says, and tells people when the rules are bad.  Every process of
an instance loads this module, so it imports nothing that is not needed in all of them.
"""

from __future__ import annotations

import logging
import os
import sysconfig
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rqcore.hookspecs import Delay, Hold, InstanceInfo, Service, hookimpl
from rqcore.message import parse_dest

if TYPE_CHECKING:
    from rqcore.faces import Panel
    from rqcore.hookspecs import Check, CommandGroup, QueueInfo, ServiceContext
    from rqcore.message import Message
    from rqcore_router.files import Reader, Standing

#: The queue that this plugin brings.
QUEUE = "rq_router"
_WORKERS = 4
#: Seconds after which a message that has no rules is looked at again.
_PAUSE = 2.0
_NEVER_ROUTED = ("relay", "cleaner")
_STEM = "rq_router_rules."
_log = logging.getLogger(__name__)


class _Here:
    """What this process knows: its instance, the queue that it serves, the rules it has read."""

    directory = ""
    queue = ""
    reader: Reader | None = None


def _reader(directory: str) -> Reader:
    from rqcore_router.files import Reader  # noqa: PLC0415 - see the head of this module

    if _Here.reader is None or _Here.reader.directory != directory:
        _Here.reader = Reader(directory)
    return _Here.reader


@hookimpl
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Remember the instance."""
    _Here.directory = instance.directory
    if options:
        # No error: without this plugin messages would pass the rules by.
        _log.warning("plugins.router takes no options; it goes by config/%s*", _STEM)


@hookimpl
def rq_register_queues(instance: InstanceInfo) -> list[Mapping[str, Any]]:  # noqa: ARG001 - by the hook
    """Bring the queue rq_router, with the script that is installed beside this plugin."""
    script = os.path.join(sysconfig.get_path("scripts"), "rq-router")
    return [{"name": QUEUE, "script": script, "num_workers": _WORKERS}]


@hookimpl
def rq_register_services(instance: InstanceInfo) -> list[Service]:  # noqa: ARG001 - by the hook
    """Bring the watch over the rules file."""
    return [Service("router", _serve)]


def _serve(context: ServiceContext) -> int:
    from rqcore_router.service import serve  # noqa: PLC0415 - see the head of this module

    return serve(context)


@hookimpl
def rq_register_commands(cli: CommandGroup) -> None:
    """Add ``rq route`` and ``rq verify_rules``."""
    from rqcore_router.commands import register  # noqa: PLC0415 - see the head of this module

    register(cli)


@hookimpl
def rq_collect_checks(instance: InstanceInfo) -> list[Check]:
    """Say how the rules are."""
    from rqcore_router.checks import checks  # noqa: PLC0415 - see the head of this module

    return checks(instance.directory)


@hookimpl
def rq_daemon_started(instance: InstanceInfo) -> None:
    """Before any queue runs: a rules file that is bad takes rq_router DOWN, a good one is kept."""
    from rqcore_router.keeper import settle  # noqa: PLC0415 - see the head of this module

    settle(instance.directory)


@hookimpl
def rq_spool_ready(queue: QueueInfo) -> None:
    """Remember which queue this process serves."""
    _Here.queue = queue.name


@hookimpl
def rq_admin_state_changed(queue: QueueInfo, new: str) -> None:
    """Whoever brings rq_router up while there are no rules to go by finds it DOWN at once."""
    if queue.name == QUEUE and new != "DOWN":
        from rqcore_router.keeper import settle  # noqa: PLC0415 - only the queue rq_router needs it

        settle(os.path.dirname(os.path.dirname(queue.path)))


@hookimpl(tryfirst=True)
def rq_resolve_destination(dest: str, origin: str) -> str | None:
    """With a rules file every message goes to rq_router, but those for relay and cleaner.

    What rq_router's own script sends is past the rules: it would come back for ever.
    """
    if not _is_routed() or (origin == "dup" and _Here.queue == QUEUE):
        return None
    address = parse_dest(dest)
    if address is not None and not address.base and address.queue in _NEVER_ROUTED:
        return None
    return QUEUE


def _is_routed() -> bool:
    # As `rqcore_router.files.is_present`, without loading the readers into every process.
    return any(name.startswith(_STEM) for name in os.listdir(f"{_Here.directory or '.'}/config"))


@hookimpl
def rq_check_start(message: Message, queue: QueueInfo) -> Hold | Delay | None:
    """Let a message wait while there are no rules to go by, and as long as its rule says."""
    if queue.name != QUEUE:
        return None
    from rqcore_router.plan import is_planned  # noqa: PLC0415 - only this queue needs it

    standing = _standing(os.path.dirname(os.path.dirname(queue.path)))
    if standing.rules is None:
        return Hold(standing.reason or f"there is no rules file config/{_STEM}toml", _PAUSE)
    if not standing.rules.delay_any or is_planned(queue.path, message.msg_id):
        return None  # a pattern may take its time: that is the script's
    rule = standing.rules.match(message.src, message.dest)
    return Delay(message.due + rule.delay, f"rule {rule.name!r} has a delay of {rule.delay:g} s")


def _standing(directory: str) -> Standing:
    """How the rules stand; new ones are kept before they are gone by: the next file may be bad."""
    from rqcore_router.keeper import settle  # noqa: PLC0415 - only the queue rq_router needs it

    reader = _reader(directory)
    if reader.changed() is not None:
        try:
            settle(directory)
        except OSError as error:  # a full disk: the rules are good all the same
            _log.error("the rules in force cannot be kept for a time when they are bad: %s", error)
    return reader.look()


@hookimpl(optionalhook=True)
def rq_web_overview_panels(site: Any) -> list[Panel]:
    """Say on the first page that the rules are bad."""
    from rqcore_router.panel import panels  # noqa: PLC0415 - only the web service needs it

    return panels(_reader(str(site.instance.directory)).look())
