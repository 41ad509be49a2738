"""The hooks as the kernel and the plugins call them: a typed method for each, and no other way.

The methods of `Hooks` are named as the hooks in `rqcore.hookspecs`, without ``rq_``, and take the
same arguments.  They combine what the plugins answer:

- facts return nothing;
- ``check_*`` return the combined vote, or None when nobody objects.  Where `hookspecs.FAIL_CLOSED`
  says so, a failing plugin counts as `Reject`.  A reason names its plugin;
- ``resolve_destination`` returns the first answer;
- ``collect_environment`` returns all variables together;
- ``register_*`` return what plugins bring, without the names that two of them brought.

Only `Hooks.collect_environment` raises, `PluginFailedError`.  An answer of a wrong type is a
failure of the plugin, as if it had raised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from rqcore import answers
from rqcore.errors import RqError
from rqcore.hookspecs import Check, Delay, Hold, Reject, Service
from rqcore.isolation import Answer, Impl, Plugin, log, refuse_coroutine
from rqcore.registration import PluginRegistry

if TYPE_CHECKING:
    from rqcore.hookspecs import Attachment, CommandGroup, InstanceInfo, Outcome, QueueInfo
    from rqcore.lifecycle import State, Step
    from rqcore.message import Message

T = TypeVar("T")


class PluginFailedError(RqError):
    """A plugin did not give what the kernel cannot do without."""


class Hooks(PluginRegistry):
    """The plugins of this process.  ``options``: what the main config has under ``plugins``."""

    def __init__(self, options: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        super().__init__()
        self._options = dict(options or {})
        #: By plugin: was it content with its first options?
        self._content: dict[str, bool] = {}

    # --- plugins themselves -----------------------------------------------------------------

    def configure(
        self, instance: InstanceInfo, options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[str]:
        """Give each plugin its options, new ones after a reload; returns who objects, in words.

        One that objects to its first options is disabled; to later ones: it goes on with those it has.
        """
        if options is not None:
            self._options = dict(options)
        problems = [
            f"plugin {name} was left out when this process started, for its options; what was corrected "
            "counts after: rq restart"
            for name, content in self._content.items()
            if not content
        ]
        for impl in self._plan["rq_configure"]:
            name = impl.plugin.name
            given = (self._options.get(name, {}), instance)
            answer = self._attempt(impl, given, refuse_coroutine)
            if answer.error and self._content.get(name):
                problems.append(f"plugin {name} goes on with the options it has: {answer.error}")
            elif answer.error and impl.plugin.status == "ok":
                self._disable(impl.plugin, f"its options: {answer.error}")
            self._content.setdefault(name, not answer.error)
        for name in self._options:
            self._warn_unused_options(name)
        return problems

    def plugin_quarantined(self, plugin_name: str, hook_name: str, error: str) -> None:
        """A plugin is not called any more (told by the isolation itself)."""
        self._tell("rq_plugin_quarantined", plugin_name, hook_name, error)

    # --- the instance -----------------------------------------------------------------------

    def register_queues(self, instance: InstanceInfo) -> list[dict[str, Any]]:
        """The configs of the queues that plugins bring, each with a valid and unique name."""
        hook = "rq_register_queues"
        found = self._brought(hook, instance, answers.queue_configs)
        owners = _owners((config["name"], plugin) for plugin, config in found)
        refused = self._conflicts(hook, "queue", owners)
        return [config for _, config in found if config["name"] not in refused]

    def register_services(self, instance: InstanceInfo) -> list[Service]:
        """The services that plugins bring, each with a unique name."""
        hook = "rq_register_services"
        found = self._brought(hook, instance, answers.services)
        owners = _owners((service.name, plugin) for plugin, service in found)
        refused = self._conflicts(hook, "service", owners)
        return [service for _, service in found if service.name not in refused]

    def register_commands(self, cli: CommandGroup, reserved: Collection[str] = ()) -> None:
        """Add plugins' commands to ``cli``; names it has, or that are ``reserved``, stay its own.

        A plugin that fails half-way adds nothing.
        """
        hook = "rq_register_commands"
        before = dict(cli.commands)
        found: list[tuple[Plugin, str, Any]] = []
        for impl in self._plan[hook]:
            answer = self._attempt(impl, (cli,), refuse_coroutine)
            after = dict(cli.commands)
            cli.commands.clear()
            cli.commands.update(before)
            if not answer.error:
                found += [
                    (impl.plugin, name, command)
                    for name, command in after.items()
                    if before.get(name) is not command
                ]
        refused = self._conflicts(
            hook, "command", _owners((name, plugin) for plugin, name, _ in found)
        )
        for plugin, name, command in found:
            if name in before or name in reserved:
                text = f"command {name!r} is one of rqcore's own; rename it"
                log.error("%s: %s", plugin, text)
                known = plugin.problems.get(hook)
                plugin.problems[hook] = f"{known}; {text}" if known else text
            elif name not in refused:
                cli.commands[name] = command

    def collect_checks(self, instance: InstanceInfo) -> list[tuple[str, Check]]:
        """What plugins found, each with its plugin; one that fails is a critical check of its own."""
        found = []
        for answer in self._ask(self._plan["rq_collect_checks"], (instance,), answers.checks):
            if answer.error:
                failed = Check(
                    f"plugin {answer.plugin}", "critical", f"its checks failed: {answer.error}",
                    "nobody knows how what it stands for is; rq plugins says more",
                )  # fmt: skip
                found.append((answer.plugin, failed))
            else:
                found += [(answer.plugin, check) for check in answer.value]
        return found

    def daemon_started(self, instance: InstanceInfo) -> None:
        """The manager is there."""
        self._tell("rq_daemon_started", instance)

    def daemon_stopping(self, instance: InstanceInfo, reason: str) -> None:
        """This process ends."""
        self._tell("rq_daemon_stopping", instance, reason)

    # --- queues -----------------------------------------------------------------------------

    def check_queue_config(self, name: str, config: Mapping[str, Any]) -> list[str]:
        """What plugins find wrong with a queue's config, sorted."""
        impls = self._plan["rq_check_queue_config"]
        said = self._ask(impls, (name, config), answers.problems)
        return sorted(
            f"{problem} (plugin {answer.plugin})"
            for answer in said
            for problem in answer.value or ()
        )

    def queue_created(self, queue: QueueInfo) -> None:
        """A queue exists."""
        self._tell("rq_queue_created", queue)

    def spool_ready(self, queue: QueueInfo) -> None:
        """A queue has recovered."""
        self._tell("rq_spool_ready", queue)

    def queue_config_reloaded(self, queue: QueueInfo, old: Mapping[str, Any]) -> None:
        """A queue works by a new config."""
        self._tell("rq_queue_config_reloaded", queue, old)

    def queue_process_exited(self, name: str, status: int, restarts: int) -> None:
        """A queue's process ended."""
        self._tell("rq_queue_process_exited", name, status, restarts)

    def queue_deleted(self, name: str, path: str) -> None:
        """A queue is gone."""
        self._tell("rq_queue_deleted", name, path)

    def admin_state_changed(self, queue: QueueInfo, old: str, new: str) -> None:
        """A queue was brought up, taken down or paused."""
        self._tell("rq_admin_state_changed", queue, old, new)

    def oper_state_changed(self, queue: QueueInfo, old: str, new: str, cause: str) -> None:
        """A queue's ability to work changed."""
        self._tell("rq_oper_state_changed", queue, old, new, cause)

    # --- a message comes in -----------------------------------------------------------------

    def resolve_destination(self, dest: str, message: Message, origin: str) -> str | None:
        """The local queue that plugins name for ``dest``; None when none does."""
        for impl in self._plan["rq_resolve_destination"]:
            answer = self._attempt(impl, (dest, message, origin), answers.queue_name)
            if answer.value is not None:
                return str(answer.value)
        return None

    def check_message(self, message: Message, queue: QueueInfo) -> Reject | None:
        """May this message exist?  Fails closed."""
        return self._rejected("rq_check_message", message, queue)

    def message_prepared(self, message: Message, queue: QueueInfo) -> None:
        """A message lies in ``prep``."""
        self._tell("rq_message_prepared", message, queue)

    def check_attachment(
        self, message: Message, attachment: Attachment, queue: QueueInfo
    ) -> Reject | None:
        """May this file become an attachment?  Fails closed."""
        return self._rejected("rq_check_attachment", message, attachment, queue)

    def message_attached(self, message: Message, attachment: Attachment, queue: QueueInfo) -> None:
        """A message has a new attachment."""
        self._tell("rq_message_attached", message, attachment, queue)

    def check_commit(self, message: Message, queue: QueueInfo) -> Reject | None:
        """May this message be queued?  Fails closed."""
        return self._rejected("rq_check_commit", message, queue)

    def message_committed(self, message: Message, queue: QueueInfo) -> None:
        """A message was taken."""
        self._tell("rq_message_committed", message, queue)

    def message_queued(self, message: Message, queue: QueueInfo, cause: Step) -> None:
        """A message lies in ``que``."""
        self._tell("rq_message_queued", message, queue, cause)

    def message_recovered(self, message: Message, queue: QueueInfo, began: float) -> None:
        """A message that was running is back in ``que``."""
        self._tell("rq_message_recovered", message, queue, began)

    # --- a message runs ---------------------------------------------------------------------

    def check_start(self, message: Message, queue: QueueInfo) -> Hold | Delay | None:
        """May this message start now?  Any Hold beats any Delay; the longest, the latest wins."""
        impls = self._plan["rq_check_start"]
        if not impls:
            return None
        said = self._ask(impls, (message, queue), answers.hold_or_delay)
        if not said:
            return None
        holds = [answer for answer in said if isinstance(answer.value, Hold)]
        if holds:
            return Hold(_reasons(holds), max(answer.value.seconds for answer in holds))
        delays = [answer for answer in said if isinstance(answer.value, Delay)]
        until = max((answer.value.until for answer in delays), default=0.0)
        if until <= time():
            return None
        return Delay(until, _reasons([a for a in delays if a.value.until == until]))

    def collect_environment(self, message: Message, queue: QueueInfo) -> dict[str, str]:
        """What plugins add to a script's environment.

        Raises `PluginFailedError` when a plugin fails, or two disagree about a variable.
        """
        impls = self._plan["rq_collect_environment"]
        if not impls:
            return {}
        origin: dict[str, str] = {}
        together: dict[str, str] = {}
        for answer in self._ask(impls, (message, queue), answers.variables):
            if answer.error:
                raise PluginFailedError(_failure(answer, "rq_collect_environment"))
            for name, value in answer.value.items():
                if together.setdefault(name, value) != value:
                    raise PluginFailedError(
                        f"plugins {' and '.join(sorted((origin[name], answer.plugin)))} give "
                        f"different values to the variable {name}; disable one of them"
                    )
                origin[name] = answer.plugin
        return together

    def message_starting(self, message: Message, queue: QueueInfo) -> None:
        """A script is about to be started."""
        self._tell("rq_message_starting", message, queue)

    def message_started(self, message: Message, queue: QueueInfo, pid: int) -> None:
        """A script runs."""
        self._tell("rq_message_started", message, queue, pid)

    def message_status(self, message: Message, queue: QueueInfo, text: str) -> None:
        """A script said how far it is."""
        self._tell("rq_message_status", message, queue, text)

    def message_dup(self, message: Message, queue: QueueInfo, new_msg_id: str, dest: str) -> None:
        """A script had its message duplicated."""
        self._tell("rq_message_dup", message, queue, new_msg_id, dest)

    def message_finishing(self, message: Message, queue: QueueInfo, outcome: Outcome) -> None:
        """A script ended; its message still lies in ``run``."""
        self._tell("rq_message_finishing", message, queue, outcome)

    def message_done(self, message: Message, queue: QueueInfo, status: str) -> None:
        """A message succeeded."""
        self._tell("rq_message_done", message, queue, status)

    def message_err(self, message: Message, queue: QueueInfo, status: str) -> None:
        """A message failed."""
        self._tell("rq_message_err", message, queue, status)

    def message_resend(self, message: Message, queue: QueueInfo, delay: float, reason: str) -> None:
        """A message runs again later."""
        self._tell("rq_message_resend", message, queue, delay, reason)

    def message_relayed(self, message: Message, queue: QueueInfo, new_msg_id: str) -> None:
        """A message went elsewhere."""
        self._tell("rq_message_relayed", message, queue, new_msg_id)

    # --- any time ---------------------------------------------------------------------------

    def spool_synced(self, queue: QueueInfo, seconds: float) -> None:
        """A turn's changes are on the disk."""
        self._tell("rq_spool_synced", queue, seconds)

    def spool_settled(self, queue: QueueInfo) -> None:
        """A turn's facts have been told."""
        self._tell("rq_spool_settled", queue)

    def message_moved(
        self,
        message: Message,
        queue: QueueInfo,
        old: State | None,
        new: State | None,
        step: Step,
    ) -> None:
        """A message changed its state."""
        self._tell("rq_message_moved", message, queue, old, new, step)

    def check_removal(self, message: Message, queue: QueueInfo) -> Reject | None:
        """May this message be deleted?  Fails closed."""
        return self._rejected("rq_check_removal", message, queue)

    def message_removed(self, msg_id: str, queue: QueueInfo, state: State) -> None:
        """A message is gone."""
        self._tell("rq_message_removed", msg_id, queue, state)

    # --- how answers combine ----------------------------------------------------------------

    # ``given`` are all arguments of the hook, in its order.

    def _tell(self, hook: str, *given: object) -> None:
        impls = self._plan[hook]
        if impls:
            self._ask(impls, given, refuse_coroutine)

    def _rejected(self, hook: str, *given: object) -> Reject | None:
        impls = self._plan[hook]
        if not impls:
            return None
        said = self._ask(impls, given, answers.reject)
        if not said:
            return None
        reasons = _reasons([answer for answer in said if answer.value is not None])
        failures = sorted(_failure(answer, hook) for answer in said if answer.error)
        together = "; ".join(filter(None, (reasons, *failures)))
        return Reject(together) if together else None

    def _brought(
        self, hook: str, instance: InstanceInfo, convert: Callable[[Any], list[T]]
    ) -> list[tuple[Plugin, T]]:
        return [
            (impl.plugin, item)
            for impl in reversed(self._plan[hook])
            for item in self._attempt(impl, (instance,), convert).value or ()
        ]

    def _attempt(
        self, impl: Impl, given: tuple[object, ...], convert: Callable[[Any], Any]
    ) -> Answer:
        """Call one of them; its value is None where it returned that."""
        return next(iter(self._ask((impl,), given, convert)), Answer(impl.plugin.name, None))

    def _warn_unused_options(self, name: str) -> None:
        found = [plugin for plugin in self._plugins if plugin.name == name]
        if not found:
            import difflib  # noqa: PLC0415 - only for a mistake

            near = difflib.get_close_matches(name, [plugin.name for plugin in self._plugins], 1)
            hint = f"did you mean {near[0]}?" if near else "is it installed?"
            log.warning("options for plugin %r, which is not there: %s", name, hint)
        elif found[0].status == "ok" and "rq_configure" not in found[0].info().hooks:
            log.warning("options for %s, which takes none", found[0])


def _owners(pairs: Iterable[tuple[str, Plugin]]) -> dict[str, list[Plugin]]:
    owners: dict[str, list[Plugin]] = {}
    for name, plugin in pairs:
        owners.setdefault(name, []).append(plugin)
    return owners


def _reasons(votes: list[Answer]) -> str:
    reasons = (f"{vote.value.reason} (plugin {vote.plugin})".lstrip() for vote in votes)
    return "; ".join(sorted(reasons))


def _failure(answer: Answer, hook: str) -> str:
    return (
        f"plugin {answer.plugin} failed in {hook}: {answer.error}; "
        f"repair it, or disable it with RQ_PLUGINS_DISABLED={answer.plugin}"
    )
