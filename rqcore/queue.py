"""One queue's process: it binds the store, the schedule, the scripts and the socket together.

A message's way, in this order:

    accept    a checked message is written, and answered once it is durable      (`admit`)
    look      who may start now?                                                 (`_start_due`)
    run       started, heard, and moved to where its verdict says                (`rqcore.work`)

Everything happens in turns of one event loop.  A turn's changes are made at once and brought to the
disk together at its end (`rqcore.spool`); answers and facts follow.  The requests that come in by
the socket are in `rqcore.requests`, what operators do by hand in `rqcore.hands`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from time import monotonic, time

from rqcore import recovery
from rqcore.condition import Admin, Condition
from rqcore.config import InstanceConfig, QueueConfig
from rqcore.errors import NotFoundError, RefusedError
from rqcore.followers import Followers
from rqcore.hands import Hands
from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, QueueInfo
from rqcore.instance import Instance
from rqcore.lifecycle import State, Step
from rqcore.loop import Loop, Timer
from rqcore.message import Message, full_id, is_msg_id
from rqcore.schedule import Entry, Schedule
from rqcore.spool import Spool
from rqcore.store import Attached, UnreadableError, open_store
from rqcore.timetable import Timetable
from rqcore.watch import watcher
from rqcore.work import Work

_log = logging.getLogger(__name__)
#: So many seconds of a turn may go to starting messages: then others have a word.
_STARTING = 0.05


class QueueProcess:
    """See the head of this module."""

    def __init__(
        self, loop: Loop, instance: Instance, settings: InstanceConfig, config: QueueConfig,
        hooks: Hooks, login: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.loop = loop
        self.instance = instance
        self.settings = settings
        self.config = config
        self.hooks = hooks
        self.name = config.name
        self.started_at = time()
        self.stopping = False
        self.info = self._describe(config)
        self._look = True
        self._wake: Timer | None = None
        self.store = open_store(config.store or settings.store, self.info.path, fsync=config.fsync)
        self.spool = Spool(self.store, hooks, self.info)
        hands = Hands(self)
        files = watcher(loop, hands.look_at_everything)
        self.followers = Followers(loop, files, self.store)
        self.spool.on_moved = self.followers.on_moved
        self.schedule = Schedule(config.num_workers, config.blocking_params, config.coalesce_params)
        self.condition = Condition(instance, self.info, hooks, files, self.changed)
        self._was_up = self.condition.admin() is Admin.UP
        self.timetable = Timetable(
            self.info.path, self.store, lambda draft: self.admit(draft, State.QUE), self.spool.fact
        )
        self.work = Work(self, login)
        hands.watch(files)  # before looking, so that nothing slips in between
        self._recover()
        self.timetable.load(config, self.url)
        self.condition.check_script()
        loop.on_turn_end = self._end_turn
        loop.on_clock_set(self.look)
        loop.soon(self.look)  # what waits already starts now, not when somebody asks something
        hooks.spool_ready(self.info)

    def _describe(self, config: QueueConfig) -> QueueInfo:
        effective = {
            field.name: getattr(config, field.name)
            for field in fields(config)
            if field.name != "raw"
        }
        effective["schedule"] = [asdict(line) for line in config.schedule]
        return QueueInfo(config.name, str(self.instance.queue_dir(config.name)), effective)

    # Getting ready

    def _recover(self) -> None:
        """Whatever lies in ``run`` goes back to ``que``; what waits in ``que`` is scheduled."""
        running = [name for name in self.store.present(State.RUN) if is_msg_id(name)]
        folders = [self.store.directory(name, State.RUN) for name in running]
        recovery.end_scripts(folders, self.settings.kill_grace)
        for msg_id in sorted(running):
            message = self.load(msg_id, State.RUN)
            if message is not None:
                self._recover_running(message)
        for name in sorted(self.store.present(State.QUE)):
            adopted = name if is_msg_id(name) else self.store.adopt(name, State.QUE)
            message = self.load(adopted, State.QUE) if adopted else None
            if message is not None:
                self.enqueue(message)
        for name in sorted(self.store.present(State.PREP)):
            if not is_msg_id(name):
                self.store.adopt(name, State.PREP)
        self.spool.settle()

    def _recover_running(self, message: Message) -> None:
        _log.warning("%s was running when its queue ended; it runs again", message.msg_id)
        began = recovery.began(self.store.directory(message.msg_id, State.RUN))
        self.spool.move(message, Step.RECOVER, State.RUN, State.QUE)
        self.spool.fact(lambda: self.hooks.message_recovered(message, self.info, began))

    def load(self, msg_id: str, state: State) -> Message | None:
        """A message of the spool; None when it was unreadable, and is now set aside, or is gone."""
        try:
            return self.store.load(msg_id, state)
        except NotFoundError:
            return None
        except UnreadableError as error:
            _log.error("%s in %s is set aside in corrupt/: %s", msg_id, state, error)
            try:
                self.store.quarantine(msg_id, state, str(error))
            except OSError as stuck:
                _log.error("%s cannot be set aside, and is left alone: %s", msg_id, stuck)
            self.spool.fact(lambda: self.followers.on_queue(self.describe_condition))
            return None

    def adopt(self, name: str, state: State) -> None:
        """Take in what an operator moved into ``prep`` or ``que``; harmless for what is known."""
        msg_id = self.store.adopt(name, state)
        message = self.load(msg_id, state) if msg_id else None
        if message is None:
            return
        _log.info("%s was moved into %s by hand; it is %s now", name, state, message.msg_id)
        self.changed()
        if state is State.QUE:
            self.spool.after(lambda error: self._adopted(message, error))

    def _adopted(self, message: Message, error: OSError | None) -> None:
        if error is None:
            self.queued(message, Step.ADOPT)
        else:
            self.enqueue(message)

    # Coming in

    def check_open(self) -> None:
        """Raises `RefusedError` while the queue takes no messages."""
        if self.stopping:
            raise RefusedError("the queue is stopping; try again in a moment")
        if self.condition.admin() is Admin.DOWN:
            raise RefusedError("status: DOWN")

    def admit(self, draft: Message, state: State, attached: Sequence[Attached] = ()) -> Message:
        """Write a new message into ``prep`` or ``que``; it is durable after the next settle.

        Raises `RefusedError` when a plugin refuses it, `OSError` when it cannot be written.
        """
        msg_id = draft.msg_id or self.store.new_id()
        message = replace(draft, msg_id=msg_id)
        if not message.orig_msg_id:
            message = replace(message, orig_msg_id=self.full_id(msg_id))
        refusal = self.hooks.check_message(message, self.info)
        if refusal is not None:
            raise RefusedError(refusal.reason)
        self.spool.add(message, state, attached)
        if state is State.PREP:
            self.spool.fact(lambda: self.hooks.message_prepared(message, self.info))
        else:
            self.committed(message, Step.CREATE)
        return message

    def committed(self, message: Message, step: Step) -> None:
        """After the settle that made it durable in ``que``, a new message is told of and scheduled."""

        def tell(error: OSError | None) -> None:
            if error is None:
                self.hooks.message_committed(message, self.info)
                self.queued(message, step)
            elif step is not Step.CREATE:  # it lies in que, whatever the disk has: it runs
                self.enqueue(message)

        self.spool.after(tell)

    def queued(self, message: Message, cause: Step) -> None:
        """A message is durable in ``que``: it waits for its turn, and the hooks are told."""
        self.enqueue(message)
        self.hooks.message_queued(message, self.info, cause)

    def enqueue(self, message: Message) -> None:
        """The message waits for its turn."""
        self.schedule.add(Entry(message.msg_id, message.due, message.params))
        self.look()

    @property
    def url(self) -> str:
        """This queue's URL."""
        return f"{self.settings.base_url}q/{self.name}"

    def full_id(self, msg_id: str) -> str:
        """The full id of a message of this queue."""
        return full_id(self.settings.base_url, self.name, msg_id)

    # Starting

    def look(self) -> None:
        """Something changed: at the end of this turn, see who may start."""
        self._look = True

    def changed(self) -> None:
        """The queue's condition is another, or a hand changed what lies in it."""
        self.followers.on_queue(self.describe_condition)
        self.look()

    def describe_condition(self) -> dict[str, str]:
        """How the queue is: what is shown, what its operator wants, whether it can, and why not."""
        return {
            "status": self.condition.shown(), "admin": self.condition.admin(),
            "oper": self.condition.oper,
            "problem": self.condition.problem
            or self.work.pause_reason
            or self.instance.admin_reason(self.name),
        }  # fmt: skip

    def _end_turn(self) -> None:
        # Two rounds: what became durable may start, and what started is told.
        for _ in range(2):
            if self._look:
                self._look = False
                self._start_due()
            self.spool.settle()
            self.followers.flush()  # before anything else happens that they were not told yet
        if self._look or self.spool.unsettled:
            self.loop.soon(lambda: None)

    def _start_due(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        up = self.condition.admin() is Admin.UP
        if up and not self._was_up:
            self.timetable.skip()  # what came due meanwhile never runs
        self._was_up = up
        if not up or self.stopping or self.work.pause_reason:
            return
        self.timetable.fire()
        soonest = self.next_wake() if self._start_some() else self.timetable.next_wake()
        if soonest is not None:
            self._wake = self.loop.after(soonest - time(), self.look)

    def _start_some(self) -> bool:
        """False when nothing more can start until the script, or the system, is another."""
        began = monotonic()
        while (msg_id := self.schedule.candidate(time())) is not None:
            if not self.work.start(msg_id):
                return False
            if monotonic() - began > _STARTING:
                break
        return True

    def next_wake(self) -> float | None:
        """When the clock alone will make something start, as unix time; None for never."""
        wakes = (self.schedule.next_wake(time()), self.timetable.next_wake())
        return min((wake for wake in wakes if wake is not None), default=None)

    # Changing and stopping

    def reconfigure(
        self, settings: InstanceConfig, config: QueueConfig, login: Mapping[str, str]
    ) -> None:
        """Take a new configuration; running messages are not disturbed."""
        old = self.info.config
        if (config.store, config.fsync) != (self.config.store, self.config.fsync):
            _log.warning(
                "queue %s: another store or fsync counts after: rq queue restart %s",
                self.name, self.name,
            )  # fmt: skip
        self.settings, self.config = settings, config
        self.work.login = login
        instance = InstanceInfo(str(self.instance.directory), settings.base_url, settings.raw)
        for problem in self.hooks.configure(instance, settings.plugins):
            _log.warning("queue %s: %s", self.name, problem)
        self.info = self.spool.queue = self._describe(config)
        self.schedule.reconfigure(
            config.num_workers, config.blocking_params, config.coalesce_params
        )
        self.condition.replaced(self.info)
        self.timetable.load(config, self.url)
        self.hooks.queue_config_reloaded(self.info, old)
        self.changed()

    def stop(self, grace: float) -> None:
        """Start nothing more, wait ``grace`` seconds for what runs, end the rest, then leave."""
        first, self.stopping = not self.stopping, True
        if not self.work.runs:
            self._stopped()
        elif grace <= 0:
            self.work.end_all()
        elif first:
            _log.info("queue %s stops; %d still run", self.name, len(self.work.runs))
            self.loop.after(grace, self.work.end_all)

    def run_ended(self) -> None:
        """A message left ``run``: another may start; the last one lets a stopping queue leave."""
        self.look()
        if self.stopping and not self.work.runs:
            self._stopped()

    def _stopped(self) -> None:
        self.spool.after(lambda _: self.loop.stop())

    def close(self) -> None:
        """Let go of the store."""
        self.spool.settle()
        self.store.close()
