"""Every hook of rqcore, in the order things happen, and the types that hooks give and take.

A plugin implements any of these functions, marks them with `hookimpl`, and may leave out arguments
that it does not need.  There are four kinds of hooks, told apart by their names:

- ``rq_register_*``: what a plugin brings; collected when a process starts.
- ``rq_check_*``: asked before a durable step.  Votes combine without regard to order: any `Reject`
  wins; a `Hold` beats a `Delay`; the longest `Hold` and the latest `Delay` win.
- ``rq_collect_*`` and ``rq_resolve_*``: asked each time something is needed; ``collect`` takes all
  answers together, ``resolve`` the first one that is not None.
- all others are facts, in the past tense: told after the durable step, at most once, and unable to
  change anything.  ``rq_message_starting`` and ``rq_message_finishing`` are told before theirs.

``rq_add_hookspecs`` and ``rq_configure`` prepare the plugin itself.

No hook is called through pluggy directly: `rqcore.hooks.Hooks` has a typed method for each and
calls every implementation alone, so that a plugin that fails, exits or dawdles harms nobody else.
Hooks are plain functions; wrappers and ``async def`` are refused.  Each is called in the process
that its docstring names; processes share no Python state.  Every process has the instance's
directory as its current directory.

The meaning of a hook never changes: a new meaning gets a new name, a new argument raises the minor
number of `HOOK_API`.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy

if TYPE_CHECKING:
    from rqcore.hooks import Hooks
    from rqcore.lifecycle import State, Step
    from rqcore.message import Message

HOOK_API = "1.1"

hookspec = pluggy.HookspecMarker("rqcore")
hookimpl = pluggy.HookimplMarker("rqcore")


# --- What hooks give ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reject:
    """No: ``reason`` is told to the asker.  Raises `ValueError` when the reason is empty."""

    reason: str

    def __post_init__(self) -> None:
        _need_reason(self.reason)


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now; ask again after ``seconds``.  Raises `ValueError` unless that is above 0."""

    reason: str
    seconds: float = 5.0

    def __post_init__(self) -> None:
        _need_reason(self.reason)
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be a number above 0, not {self.seconds!r}")


@dataclass(frozen=True, slots=True)
class Delay:
    """Not before ``until`` (unix seconds); one in the past delays nothing.

    The message's ``due`` stays as it is.  Raises `ValueError` when ``until`` is not finite.
    """

    until: float
    reason: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.until):
            raise ValueError(f"until must be unix time in seconds, not {self.until!r}")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and how it is; ``rq doctor`` and ``rq check`` show it.

    ``name`` is what was looked at (``"disk"``, ``"peer http://b:3333/"``), ``text`` what was found,
    ``remedy`` what to do about it, empty when nothing is.  ``fix`` does that where it is safe without
    an operator: it returns what it did, one sentence, and raises `RqError` or `OSError` when it
    cannot.  Raises `ValueError` for another level, and for one that is not ``ok`` without a remedy.
    """

    name: str
    level: Literal["ok", "warning", "critical"]
    text: str
    remedy: str = ""
    fix: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        if self.level not in ("ok", "warning", "critical"):
            raise ValueError(f"level must be ok, warning or critical, not {self.level!r}")
        if self.level != "ok" and not self.remedy.strip():
            raise ValueError(f"check {self.name}: say in remedy what to do about {self.text!r}")


@dataclass(frozen=True, slots=True)
class Service:
    """A long-running process that the manager starts, watches and restarts.

    ``run`` is called in a process of its own; it calls ``ready()`` when it serves, and returns (an
    exit status, None meaning 0) when ``stop_fd`` becomes readable.  An `RqError` that it raises is
    shown by ``rq status``, and the service stays down until the next reload; an `OSError`, such as
    for a port that is taken, is shown too, and the service is started again after a growing pause.
    SIGUSR1 is not its own to handle: by that its log is begun anew.
    """

    name: str
    run: Callable[[ServiceContext], int | None]


# --- What hooks take ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """The instance: its absolute directory, its base URL (ends with ``/``), its main config."""

    directory: str
    base_url: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue: its name, the absolute path of its directory, its effective config."""

    name: str
    path: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of a message: its size in bytes, its digests in lower-case hex, where it lies."""

    name: str
    size: int
    md5: str
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What a service is given: ``stop_fd`` is readable (end of file) once it has to end.

    ``hooks`` are the plugins of this process, for a service that asks hooks of its own.
    """

    instance: InstanceInfo
    stop_fd: int
    ready: Callable[[], None]
    hooks: Hooks


class Outcome(Protocol):
    """How a run ended: the state that the message goes to, its status text, did it run too long."""

    @property
    def state(self) -> State:
        """Where the message goes: ``done``, ``err``, ``relayed``, or ``que`` on a resend."""

    @property
    def status(self) -> str:
        """The status text for people."""

    @property
    def timed_out(self) -> bool:
        """Did it fail because it ran longer than its queue's ``timeout``?"""


class CommandGroup(Protocol):
    """The `rq` command as plugins see it: a click group."""

    @property
    def commands(self) -> MutableMapping[str, Any]:
        """The commands by name."""


# --- Plugins themselves -------------------------------------------------------------------------


@hookspec
def rq_add_hookspecs(pluginmanager: pluggy.PluginManager) -> None:
    """Bring hooks of your own, for other plugins to implement.

    Give specifications marked with `hookspec` to ``pluginmanager.add_hookspecs(module)``; call
    them with ``Hooks.call``.

    Called: once per plugin, when it is registered, before any plugin's hooks are checked for names
        that nobody specifies; so the order of the plugins does not matter.
    Process: every process that loads plugins.
    Args:
        pluginmanager: the `pluggy.PluginManager` that holds all specifications.
    Returns: nothing.
    If it raises: the plugin is not loaded; ``rq plugins`` shows why.
    Since: 1.0
    """


@hookspec
def rq_configure(options: Mapping[str, Any], instance: InstanceInfo) -> None:
    """Take your options and remember the instance.

    Called: once all plugins are loaded and the main config is read, and again whenever the main
        config was read anew.
    Process: every process that loads plugins; queue processes inherit what the manager's did.
    Args:
        options: what the main config has under ``"plugins": {NAME: {...}}`` for this plugin; empty
            when there is nothing.
        instance: the instance that the process works for.
    Returns: nothing.
    If it raises: at a start, the plugin is disabled in this process, with the error as the reason;
        later, it is told to whoever had the config read, and the plugin goes on with what it has.
    Since: 1.0
    """


@hookspec
def rq_plugin_quarantined(plugin_name: str, hook_name: str, error: str) -> None:
    """A plugin failed five times running in one hook, and is no longer called.

    Its hooks that fail closed (they guard something) go on being asked: a guard that is broken
    must not become an open door.

    Called: after the plugin was set aside; not for a plugin that fails in this very hook.
    Process: the process in which it failed.
    Args:
        plugin_name: the plugin.
        hook_name: the hook whose implementation failed.
        error: the last failure, one line.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


# --- The instance -------------------------------------------------------------------------------


@hookspec
def rq_register_queues(instance: InstanceInfo) -> Iterable[Mapping[str, Any]]:
    """Bring queues, such as the one that your plugin's script serves.

    Called: at start, and at every reload.
    Process: manager.
    Args:
        instance: the instance.
    Returns: queue configs, each with a ``name`` and a ``script``, as in a queue's ``config.json``.
        A queue of that name that exists in the instance keeps its own config.  A name that two
        plugins bring is refused to both.
    If it raises: the plugin's queues are missing; logged.
    Since: 1.0
    """


@hookspec
def rq_register_services(instance: InstanceInfo) -> Iterable[Service]:
    """Bring long-running processes, such as a web server.

    Called: at start.
    Process: manager; each service then runs in a process of its own.
    Args:
        instance: the instance.
    Returns: `Service` objects.  A name that two plugins bring is refused to both.
    If it raises: the plugin's services are missing; logged.
    Since: 1.0
    """


@hookspec
def rq_register_commands(cli: CommandGroup) -> None:
    """Add commands to ``rq``: ``cli.add_command(command)`` or ``@cli.command()``.

    A command of the core cannot be replaced; a name that two plugins add is refused to both.

    Called: when ``rq`` starts.
    Process: the ``rq`` command.
    Args:
        cli: the click group behind ``rq``.
    Returns: nothing.
    If it raises: the plugin's commands are missing, a line on stderr says so, and ``rq`` works.
    Since: 1.0
    """


@hookspec
def rq_collect_checks(instance: InstanceInfo) -> Iterable[Check]:
    """Look at what your plugin depends on, and say how it is.

    Look, and do not touch: a check may be asked every minute, and as another user.

    Called: by ``rq doctor`` and ``rq check``.
    Process: the ``rq`` command; the instance may be running or not.
    Args:
        instance: the instance.
    Returns: `Check` objects, those that are ok too: they show that it was looked.
    If it raises: shown as a critical check of the plugin.
    Since: 1.1
    """


@hookspec
def rq_daemon_started(instance: InstanceInfo) -> None:
    """The manager has its lock, its pid file and its socket; no queue runs yet.

    Called: once per start.
    Process: manager.
    Args:
        instance: the instance.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_daemon_stopping(instance: InstanceInfo, reason: str) -> None:
    """RQ was asked to end and is about to; be quick.

    Called: before the children are told.
    Process: manager.
    Args:
        instance: the instance.
        reason: why, for people, such as ``"SIGTERM"``.
    Returns: nothing.
    If it raises: logged; stopping goes on.
    Since: 1.0
    """


# --- Queues -------------------------------------------------------------------------------------


@hookspec
def rq_check_queue_config(name: str, config: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a queue's config, such as with the keys that your plugin reads.

    Called: before a queue is created, started or reloaded.
    Process: manager, or the ``rq`` command.
    Args:
        name: the queue.
        config: its config as written in ``config.json``.
    Returns: problems, one sentence each, naming key, value and remedy; an empty list for none.
        Problems keep the queue from starting.
    If it raises: counts as no objection; logged.
    Since: 1.0
    """


@hookspec
def rq_queue_created(queue: QueueInfo) -> None:
    """A queue exists: its directories and its config are on disk.

    Called: after it was created, before its process starts.
    Process: manager.
    Args:
        queue: the new queue.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_spool_ready(queue: QueueInfo) -> None:
    """A queue's process has opened its spool and recovered it; the place to look for leftovers.

    Called: once per start of a queue process, before it takes requests and starts messages.
    Process: queue.
    Args:
        queue: the queue.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_queue_config_reloaded(queue: QueueInfo, old: Mapping[str, Any]) -> None:
    """A queue works by a new config.

    Called: after the config was swapped.
    Process: queue.
    Args:
        queue: the queue, with its new config.
        old: the effective config until now.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_queue_process_exited(name: str, status: int, restarts: int) -> None:
    """A queue's process ended.

    Called: after it was reaped, before it is started again.
    Process: manager.
    Args:
        name: the queue.
        status: its exit status; negative: the number of the signal that ended it.
        restarts: how often it was restarted since it last ran well.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_queue_deleted(name: str, path: str) -> None:
    """A queue is gone; its directory has been moved aside.

    Called: after the rename to ``NAME.deleted.INODE``.
    Process: manager.
    Args:
        name: the queue's name.
        path: where its directory is now.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_admin_state_changed(queue: QueueInfo, old: str, new: str) -> None:
    """Somebody brought a queue up, took it down or paused it.

    Called: after the queue noticed the change of its files under ``config/``.
    Process: queue.
    Args:
        queue: the queue.
        old: ``UP``, ``DOWN`` or ``PAUSE``.
        new: the same, now.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_oper_state_changed(queue: QueueInfo, old: str, new: str, cause: str) -> None:
    """A queue's ability to work changed, such as to ``SCRIPTERROR`` when its script is missing.

    Called: after the change.
    Process: queue.
    Args:
        queue: the queue.
        old: the operational state until now.
        new: the operational state.
        cause: why, for people.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


# --- A message comes in -------------------------------------------------------------------------


@hookspec
def rq_resolve_destination(dest: str, message: Message, origin: str) -> str | None:
    """Name the queue of this instance that takes a message for ``dest``.

    Called: for each message that is submitted or duplicated; plugins that registered later, such as
        single files, are asked first, and the first name is taken.
    Process: manager for ``submit``, the duplicating queue's for ``dup``.
    Args:
        dest: where the message is to go: ``test``, ``/q/test``, ``http://host:3333/q/test``.
        message: the message; one that is submitted has no ``msg_id`` yet.
        origin: who asks: ``"submit"`` or ``"dup"``.
    Returns: the name of a local queue, or None to leave it to the others; when nobody answers, the
        local queue that ``dest`` names is taken, and any other ``dest`` refused.
    If it raises: the next plugin is asked; logged.
    Since: 1.0
    """


@hookspec
def rq_check_message(message: Message, queue: QueueInfo) -> Reject | None:
    """Refuse a message before it exists.

    Called: for each new message, before anything of it is written.
    Process: queue.
    Args:
        message: the message as it would be; its ``msg_id`` is known, its attachments are not.
        queue: the queue that is asked to take it.
    Returns: `Reject` to refuse it, None to have no objection.
    If it raises: fails closed: the message is refused, and the reason names the plugin.
    Since: 1.0
    """


@hookspec
def rq_message_prepared(message: Message, queue: QueueInfo) -> None:
    """A message lies in ``prep`` and may take attachments.

    Called: after the step.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_check_attachment(
    message: Message, attachment: Attachment, queue: QueueInfo
) -> Reject | None:
    """Refuse a file before it becomes an attachment.

    Called: when the file is copied and its digests are known, before it is renamed into ``attach``.
    Process: queue.
    Args:
        message: the message in ``prep``.
        attachment: the file; ``path`` is where its content lies now.
        queue: the message's queue.
    Returns: `Reject` to refuse it, None to have no objection.
    If it raises: fails closed: the attachment is refused, and the reason names the plugin.
    Since: 1.0
    """


@hookspec
def rq_message_attached(message: Message, attachment: Attachment, queue: QueueInfo) -> None:
    """A message has a new attachment.

    Called: after the step.
    Process: queue.
    Args:
        message: the message.
        attachment: the new attachment.
        queue: the message's queue.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_check_commit(message: Message, queue: QueueInfo) -> Reject | None:
    """Refuse to queue a message that is complete now, with all its attachments.

    Called: before a message goes from ``prep`` to ``que``.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
    Returns: `Reject` to refuse, None to have no objection.
    If it raises: fails closed: the message stays in ``prep``, and the reason names the plugin.
    Since: 1.0
    """


@hookspec
def rq_message_committed(message: Message, queue: QueueInfo) -> None:
    """A message was taken: it survives a power cut, and the sender is told ok.

    Called: after the step.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
    Returns: nothing.
    If it raises: logged; the answer is not affected.
    Since: 1.0
    """


@hookspec
def rq_message_queued(message: Message, queue: QueueInfo, cause: Step) -> None:
    """A message lies in ``que``, for whatever cause.

    Called: after each step into ``que``.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        cause: the step, such as ``commit``, ``create``, ``resend``, ``recover``, ``retry``.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_message_recovered(message: Message, queue: QueueInfo, began: float) -> None:
    """A message that was in ``run`` when its queue's process died is back in ``que``.

    Called: after the step, during the start of a queue.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        began: when the run that was interrupted began, as unix time; 0 when nobody knows.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


# --- A message runs -----------------------------------------------------------------------------


@hookspec
def rq_check_start(message: Message, queue: QueueInfo) -> Hold | Delay | None:
    """Let a message wait although it is due and a worker is free.

    Called: for the one message that would start next; never for the whole backlog.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
    Returns: `Hold` to be asked again in a while, `Delay` to keep it until a time, None to have no
        objection.
    If it raises: counts as no objection; logged.
    Since: 1.0
    """


@hookspec
def rq_collect_environment(message: Message, queue: QueueInfo) -> Mapping[str, str]:
    """Add variables to the environment of a message's script.

    Called: before the message's script is started.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
    Returns: names and values.  Names that begin with ``RQ_`` are refused, and so is a name to which
        two plugins give different values.
    If it raises: fails closed: the message is not started but delayed by 10 seconds, because it has
        to find the same environment at every run.
    Since: 1.0
    """


@hookspec
def rq_message_starting(message: Message, queue: QueueInfo) -> None:
    """A message lies in ``run`` and its script is about to be started.

    Called: before the script is started.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
    Returns: nothing.
    If it raises: logged; the script is started.
    Since: 1.0
    """


@hookspec
def rq_message_started(message: Message, queue: QueueInfo, pid: int) -> None:
    """A message's script runs.

    Called: after the script was started and its pid noted.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        pid: the script's process id, also of its process group.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_message_status(message: Message, queue: QueueInfo, text: str) -> None:
    """A script said how far it is.

    Called: after a new status text; a script that talks fast is not told of line by line.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        text: the latest status text.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_message_dup(message: Message, queue: QueueInfo, new_msg_id: str, dest: str) -> None:
    """A script had its message duplicated.

    Called: after the copy was committed, before the script is told ok.
    Process: the queue whose script asked.
    Args:
        message: the message that runs.
        queue: its queue.
        new_msg_id: the full id of the copy.
        dest: where the script wanted it.
    Returns: nothing.
    If it raises: logged; the script is told ok.
    Since: 1.0
    """


@hookspec
def rq_message_finishing(message: Message, queue: QueueInfo, outcome: Outcome) -> None:
    """The outcome of a message is known; the message still lies where it was.

    That is ``run`` when its script has ended, or when no script could be given it (its params are
    too long, say).  It is ``que`` when it was set aside as the duplicate of another one that has
    ended well: it goes where that one goes, with the status ``duplicate FULL_ID``.

    The one place for a plugin that must not miss the end of a message: what it writes under
    ``plugins/NAME/`` in the message's directory now is there when the message has moved, even if
    the machine stops in between.  After a crash before the move the message runs again, and this is
    told again; so it may be, of a duplicate, where the disk refuses the move at first.

    Called: before the message moves.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        outcome: ``state`` where it goes; ``status``, its text; ``timed_out``, did it fail because it
            ran longer than its queue's ``timeout``.
    Returns: nothing.
    If it raises: logged; the message moves.
    Since: 1.0
    """


@hookspec
def rq_message_done(message: Message, queue: QueueInfo, status: str) -> None:
    """A message succeeded and lies in ``done``.

    Called: after the step.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        status: its last status text.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_message_err(message: Message, queue: QueueInfo, status: str) -> None:
    """A message failed and lies in ``err``.

    Called: after the step.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        status: its last status text, or why its script's verdict did not count.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_message_resend(message: Message, queue: QueueInfo, delay: float, reason: str) -> None:
    """A script wants its message to run again later; it lies in ``que``.

    Called: after the step.
    Process: queue.
    Args:
        message: the message, with its new ``due`` and ``count``.
        queue: its queue.
        delay: seconds until it is due.
        reason: what the script said.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_message_relayed(message: Message, queue: QueueInfo, new_msg_id: str) -> None:
    """A message went elsewhere and lies in ``relayed``.

    Called: after the step.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
        new_msg_id: the full id that it has there.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


# --- Any time -----------------------------------------------------------------------------------


@hookspec
def rq_spool_synced(queue: QueueInfo, seconds: float) -> None:
    """A queue's changes of one turn, of any number of messages, were brought to the disk together.

    For measuring; whoever asked has not been answered yet, so be quick.

    Called: after the sync, before the facts of that turn; not when there was nothing to bring, and not
        when the disk refused.
    Process: queue.
    Args:
        queue: the queue.
        seconds: how long the disk took.
    Returns: nothing.
    If it raises: logged.
    Since: 1.1
    """


@hookspec
def rq_spool_settled(queue: QueueInfo) -> None:
    """A turn's facts, of any number of messages, have all been told.

    For a plugin that notes something of each of them: what it writes here, it writes once.

    Called: after the last fact of a turn, before anything else changes.
    Process: queue.
    Args:
        queue: the queue.
    Returns: nothing.
    If it raises: logged.
    Since: 1.1
    """


@hookspec
def rq_message_moved(
    message: Message, queue: QueueInfo, old: State | None, new: State | None, step: Step
) -> None:
    """A message changed its state: every row of the table of transitions, for audit and counting.

    Called: after the step, before the fact that is particular to it.
    Process: queue.
    Args:
        message: the message as it is now.
        queue: its queue.
        old: the state until now; None: it came into being.
        new: the state; None: it is gone.
        step: why.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


@hookspec
def rq_check_removal(message: Message, queue: QueueInfo) -> Reject | None:
    """Keep a message from being deleted.

    Called: before a message is deleted, by whomever.
    Process: queue.
    Args:
        message: the message.
        queue: its queue.
    Returns: `Reject` to keep it, None to have no objection.
    If it raises: fails closed: the message is kept, and the reason names the plugin.
    Since: 1.0
    """


@hookspec
def rq_message_removed(msg_id: str, queue: QueueInfo, state: State) -> None:
    """A message is gone.

    Called: after the step.
    Process: queue.
    Args:
        msg_id: its short id.
        queue: its queue.
        state: where it was.
    Returns: nothing.
    If it raises: logged.
    Since: 1.0
    """


# --- What is known about hooks ------------------------------------------------------------------

HookKind = Literal["prepare", "register", "check", "collect", "resolve", "fact"]

#: All hooks, in the order in which they stand in this file.
HOOKS = tuple(name for name in globals() if name.startswith("rq_"))

#: Hooks that guard something: when one fails, the answer is no, and quarantine does not lift it.
FAIL_CLOSED = frozenset(
    {
        "rq_check_message",
        "rq_check_attachment",
        "rq_check_commit",
        "rq_check_removal",
        "rq_collect_environment",
    }
)


def hook_kind(name: str) -> HookKind:
    """What kind of hook this is, by its name alone."""
    kinds: tuple[HookKind, ...] = ("register", "check", "collect", "resolve")
    if name in ("rq_add_hookspecs", "rq_configure"):
        return "prepare"
    return next((kind for kind in kinds if name.startswith(f"rq_{kind}_")), "fact")


def _need_reason(reason: object) -> None:
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"reason must be text that says why, not {reason!r}")
