"""One queue's process: it binds the store, the schedule, the scripts and the socket together.

A message's way, each step one method here, in this order:

    accept    a checked message is written, and answered once it is durable      (`admit`)
    look      who may start now?                                                 (`_start_due`)
    start     que -> run, the script is spawned                                  (`_start`)
    report    its lines become status text and copies                            (`on_status`, `on_dup`)
    end       its exit becomes a verdict: run -> done, err, relayed or que       (`on_ended`)

Everything happens in turns of one event loop.  A turn's changes are made at once and brought to the
disk together at its end (`rqcore.spool`); answers and facts follow.  The requests that come in by
the socket are in `rqcore.requests`.

What fails costs as little as possible: a message that cannot be read is set aside, a script that
cannot be run makes the queue SCRIPTERROR, a system that is out of something is asked again later,
with growing pauses; messages stay where they are meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from time import time

from rqcore import pipe, recovery
from rqcore.condition import Admin, Condition
from rqcore.config import InstanceConfig, QueueConfig
from rqcore.copies import copy_elsewhere
from rqcore.durable import make_private_dir
from rqcore.environment import script_environment
from rqcore.errors import NotFoundError, RefusedError
from rqcore.followers import Followers
from rqcore.hands import Hands
from rqcore.hooks import Hooks, PluginFailedError
from rqcore.hookspecs import Delay, Hold, QueueInfo
from rqcore.instance import Instance
from rqcore.lifecycle import State, Step
from rqcore.loop import Loop, Timer
from rqcore.message import Message, full_id, is_msg_id
from rqcore.run import Run
from rqcore.schedule import Entry, Schedule
from rqcore.script import ScriptError, command_line, signal_name, start_script
from rqcore.spool import Spool
from rqcore.store import Attached, UnreadableError, open_store
from rqcore.timetable import Timetable
from rqcore.watch import watcher

_log = logging.getLogger(__name__)
_GOOD = (State.DONE, State.RELAYED)
_PLUGIN_PAUSE = 10.0
_MAX_PAUSE = 30.0


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
        self.runs: dict[str, Run] = {}
        self.info = self._describe(config)
        #: Why nothing is started for a moment, "" when it is.
        self.pause_reason = ""
        self._login = login
        self._look = True
        self._wake: Timer | None = None
        self._pause = 0.0
        self.store = open_store(config.store or settings.store, self.info.path, fsync=config.fsync)
        self.spool = Spool(self.store, hooks, self.info)
        hands = Hands(self)
        files = watcher(loop, hands.look_at_everything)
        self.followers = Followers(loop, files, self.store)
        self.spool.on_moved = self.followers.on_moved
        self.schedule = Schedule(config.num_workers, config.blocking_params, config.coalesce_params)
        self.condition = Condition(instance, self.info, hooks, files, self.look)
        self.timetable = Timetable(
            self.info.path, self.store, lambda draft: self.admit(draft, State.QUE), self.spool.fact
        )
        hands.watch(files)  # before looking, so that nothing slips in between
        self._recover()
        self.timetable.load(config, self.url)
        self.condition.check_script()
        loop.on_turn_end = self._end_turn
        loop.on_clock_set(self.look)
        hooks.spool_ready(self.info)

    def _describe(self, config: QueueConfig) -> QueueInfo:
        effective = {
            field.name: getattr(config, field.name) for field in fields(config) if field.name != "raw"
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
            message = self._load(msg_id, State.RUN)
            if message is not None:
                _log.warning("%s was running when its queue ended; it runs again", msg_id)
                self.spool.move(message, Step.RECOVER, State.RUN, State.QUE)
                self.spool.fact(lambda m=message: self.hooks.message_recovered(m, self.info))  # type: ignore[misc]
        for name in sorted(self.store.present(State.QUE)):
            adopted = name if is_msg_id(name) else self.store.adopt(name, State.QUE)
            message = self._load(adopted, State.QUE) if adopted else None
            if message is not None:
                self._enqueue(message)
        for name in sorted(self.store.present(State.PREP)):
            if not is_msg_id(name):
                self.store.adopt(name, State.PREP)
        self.spool.settle()

    def _load(self, msg_id: str, state: State) -> Message | None:
        """A message of the spool; None when it was unreadable, and is now set aside, or is gone."""
        try:
            return self.store.load(msg_id, state)
        except NotFoundError:
            return None
        except UnreadableError as error:
            _log.error("%s in %s is set aside in corrupt/: %s", msg_id, state, error)  # noqa: TRY400
            self.store.quarantine(msg_id, state, str(error))
            self.spool.fact(lambda: None)
            return None

    def adopt(self, name: str, state: State) -> None:
        """Take in what an operator moved into ``prep`` or ``que``; harmless for what is known."""
        msg_id = self.store.adopt(name, state)
        message = self._load(msg_id, state) if msg_id else None
        if message is None:
            return
        _log.info("%s was moved into %s by hand; it is %s now", name, state, message.msg_id)
        if state is State.QUE:
            self.spool.fact(lambda: self._queued(message, Step.ADOPT))

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

        def tell() -> None:
            self.hooks.message_committed(message, self.info)
            self._queued(message, step)

        self.spool.fact(tell)

    def _queued(self, message: Message, cause: Step) -> None:
        self._enqueue(message)
        self.hooks.message_queued(message, self.info, cause)

    def _enqueue(self, message: Message) -> None:
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

    def _end_turn(self) -> None:
        # Two rounds: what became durable may start, and what started is told.
        for _ in range(2):
            if self._look:
                self._look = False
                self._start_due()
            self.spool.settle()
        if self._look or self.spool.unsettled:
            self.loop.soon(lambda: None)

    def _start_due(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self.condition.admin() is not Admin.UP:
            self.timetable.skip()
            return
        if self.stopping or self.pause_reason:
            return
        self.timetable.fire()
        while (msg_id := self.schedule.candidate(time())) is not None:
            if not self._start(msg_id):
                break
        soonest = self.next_wake()
        if soonest is not None:
            self._wake = self.loop.after(soonest - time(), self.look)

    def next_wake(self) -> float | None:
        """When the clock alone will make something start, as unix time; None for never."""
        wakes = (self.schedule.next_wake(time()), self.timetable.next_wake())
        return min((wake for wake in wakes if wake is not None), default=None)

    def _pause_after(self, error: OSError, what: str) -> None:
        """The system is out of something: try again after a growing pause."""
        self._pause = min(_MAX_PAUSE, self._pause * 2 or 0.5)
        self.pause_reason = f"{what}: {error}; next try in {self._pause:g} s"
        _log.error("%s", self.pause_reason)  # noqa: TRY400
        self.loop.after(self._pause, self._resume)

    def _resume(self) -> None:
        self.pause_reason = ""
        self.look()

    def _start(self, msg_id: str) -> bool:
        """Start one message; False when no other should be tried now."""
        script = self.condition.check_script()
        if script is None:
            return False
        message = self._load(msg_id, State.QUE)
        if message is None:
            self.schedule.discard(msg_id)
            return True
        vote = self.hooks.check_start(message, self.info)
        if vote is not None:
            self._hold(message, vote)
            return True
        try:
            extra = self.hooks.collect_environment(message, self.info)
        except PluginFailedError as error:
            self._hold(message, Hold(str(error), _PLUGIN_PAUSE))
            return True
        dups = self.schedule.start(msg_id)
        message = replace(message, dups=tuple(map(self.full_id, dups)))
        try:
            self.spool.move(message, Step.START, State.QUE, State.RUN, rewrite=bool(dups))
        except NotFoundError:
            self.schedule.finished(msg_id, absorbed=False)
            return True
        except OSError as error:
            self.schedule.finished(msg_id, absorbed=False)
            self._enqueue(message)
            self._pause_after(error, f"{msg_id} cannot be started")
            return False
        return self._spawn(message, script, extra)

    def _hold(self, message: Message, vote: Hold | Delay) -> None:
        until = vote.until if isinstance(vote, Delay) else time() + vote.seconds
        _log.info("%s waits: %s", message.msg_id, vote.reason)
        self.schedule.hold(message.msg_id, until)

    def _spawn(self, message: Message, script: str, extra: Mapping[str, str]) -> bool:
        self.hooks.message_starting(message, self.info)
        folder = self.store.directory(message.msg_id, State.RUN)
        try:
            make_private_dir(f"{folder}/job")
            environment = script_environment(
                message, folder, script, self.settings, self.config, self._login
            )
            environment.update(extra)
            command = command_line(script, self.config.exec_prefix)
            process = start_script(command, environment, f"{folder}/job")
        except ScriptError as error:
            self._unstart(message)
            self.condition.script_failed(str(error))
            return False
        except OSError as error:
            self._unstart(message)
            self._pause_after(error, f"the script for {message.msg_id} cannot be started")
            return False
        self._pause = 0.0
        try:
            recovery.write_pid_file(folder, process.pid)
        except OSError as error:  # a full disk: recovery then goes by the environment
            _log.warning("%s: no pid file: %s", message.msg_id, error)
        self.runs[message.msg_id] = Run(self.loop, self, message, process)
        self.followers.on_started(message)
        self.spool.fact(lambda: self.hooks.message_started(message, self.info, process.pid))
        return True

    def _unstart(self, message: Message) -> None:
        """It could not be started after all: back to where it was."""
        self.schedule.finished(message.msg_id, absorbed=False)
        self.spool.move(message, Step.UNSTART, State.RUN, State.QUE)
        self.schedule.add(Entry(message.msg_id, message.due, message.params))

    # Reporting

    def on_status(self, run: Run, text: str) -> None:
        """The script said what it is doing."""
        try:
            self.store.set_status(run.message.msg_id, text)
        except (OSError, NotFoundError) as error:
            _log.warning("%s: its status cannot be noted: %s", run.message.msg_id, error)
        self.hooks.message_status(run.message, self.info, text)
        self.followers.on_status(run.message, text)

    def on_dup(self, run: Run, dup: pipe.Dup) -> None:
        """The script asks for a copy of its message elsewhere."""
        copy_elsewhere(self, run, dup)

    # Ending

    def on_ended(self, run: Run) -> None:
        """The script has ended: its verdict, and where the message goes."""
        message = run.message
        assert run.ended is not None
        ended = run.ended
        if run.ending == "stop" and ended.signal is not None:
            self._settle_run(run, self._back_to_que)
            return
        outcome = run.conclusion.conclude(
            ended.exit_status, ended.signal, message.count, message.max_count
        )
        if run.ending == "destroy" and not (ended.exit_status == 0 and outcome.state in _GOOD):
            by = f" by {signal_name(ended.signal)}" if ended.signal else ""
            outcome = replace(outcome, state=State.ERR, status=f"DESTROYED - ended{by} on request")
        self.hooks.message_finishing(message, self.info, outcome)
        if outcome.state is State.QUE:
            self._settle_run(run, lambda r: self._resend(r, outcome))
        else:
            self._settle_run(run, lambda r: self._finish(r, outcome))

    def _settle_run(self, run: Run, act: Callable[[Run], None]) -> None:
        """Move the message on; when the system cannot now, try again until it can.

        The message keeps its place in ``run`` meanwhile: after a crash it would run again.
        """
        try:
            act(run)
        except NotFoundError:
            _log.error("%s was taken away while it ran", run.message.msg_id)  # noqa: TRY400
            self._released(run, absorbed=False)
        except OSError as error:
            run.retries += 1
            pause = min(_MAX_PAUSE, 0.5 * 2**run.retries)
            _log.error(  # noqa: TRY400
                "%s has ended but cannot leave run: %s; next try in %g s",
                run.message.msg_id, error, pause,
            )  # fmt: skip
            self.loop.after(pause, lambda: self._settle_run(run, act))

    def _released(self, run: Run, *, absorbed: bool) -> None:
        del self.runs[run.message.msg_id]
        self.schedule.finished(run.message.msg_id, absorbed=absorbed)
        self.look()
        if self.stopping and not self.runs:
            self._stopped()

    def _back_to_que(self, run: Run) -> None:
        message = run.message
        self.spool.move(message, Step.UNSTART, State.RUN, State.QUE, status="stopped; runs again")
        self._released(run, absorbed=False)
        self.schedule.add(Entry(message.msg_id, message.due, message.params))

    def _resend(self, run: Run, outcome: pipe.Outcome) -> None:
        message = replace(run.message, count=outcome.count, due=_due_in(outcome.delay), dups=())
        self.spool.move(
            message, Step.RESEND, State.RUN, State.QUE, status=outcome.status, rewrite=True
        )
        self._released(run, absorbed=False)

        def tell() -> None:
            self.hooks.message_resend(message, self.info, outcome.delay, outcome.status)
            self._queued(message, Step.RESEND)

        self.spool.fact(tell)

    def _finish(self, run: Run, outcome: pipe.Outcome) -> None:
        message, state = run.message, outcome.state
        absorbed = state in _GOOD
        if absorbed:
            # The duplicates first: after a crash in between, the message runs again, they do not.
            for msg_id in self.schedule.dups_of(message.msg_id):
                self._absorb(msg_id, message, state)
        self.spool.move(message, Step.FINISH, State.RUN, state, status=outcome.status)
        self._released(run, absorbed=absorbed)
        self.spool.fact(lambda: self._tell_finished(message, state, outcome))

    def _tell_finished(self, message: Message, state: State, outcome: pipe.Outcome) -> None:
        if state is State.DONE:
            self.hooks.message_done(message, self.info, outcome.status)
        elif state is State.ERR:
            self.hooks.message_err(message, self.info, outcome.status)
        else:
            self.hooks.message_relayed(message, self.info, outcome.new_full_id)

    def _absorb(self, msg_id: str, into: Message, state: State) -> None:
        duplicate = self._load(msg_id, State.QUE)
        if duplicate is None:
            return
        status = f"duplicate {self.full_id(into.msg_id)}"
        self.spool.move(duplicate, Step.DUPLICATE, State.QUE, state, status=status)

    # Changing and stopping

    def reconfigure(
        self, settings: InstanceConfig, config: QueueConfig, login: Mapping[str, str]
    ) -> None:
        """Take a new configuration; running messages are not disturbed."""
        old = self.info.config
        self.settings, self.config = settings, config
        self._login = login
        self.info = self.spool.queue = self._describe(config)
        self.schedule.reconfigure(
            config.num_workers, config.blocking_params, config.coalesce_params
        )
        self.condition.replaced(self.info)
        self.timetable.load(config, self.url)
        self.hooks.queue_config_reloaded(self.info, old)
        self.look()

    def stop(self, grace: float) -> None:
        """Start nothing more, wait ``grace`` seconds for what runs, end the rest, then leave."""
        first, self.stopping = not self.stopping, True
        if not self.runs:
            self._stopped()
        elif grace <= 0:
            self._end_all()
        elif first:
            _log.info("queue %s stops; %d still run", self.name, len(self.runs))
            self.loop.after(grace, self._end_all)

    def _end_all(self) -> None:
        for run in self.runs.values():
            run.end("stop", self.settings.kill_grace)

    def _stopped(self) -> None:
        self.spool.fact(self.loop.stop)

    def close(self) -> None:
        """Let go of the store."""
        self.spool.settle()
        self.store.close()


_GOOD = (State.DONE, State.RELAYED)


def _due_in(delay: float) -> float:
    """Never earlier than asked: rounded up to the millisecond."""
    due = -(-(time() + delay) * 1000 // 1) / 1000
    return int(due) if due.is_integer() else due
