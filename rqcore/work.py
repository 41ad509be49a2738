"""The life of a run: a queued message is started, reports, ends, and goes where its verdict says.

    start     que -> run, the script is spawned                                  (`start`)
    report    its lines become status text and copies                            (`on_status`, `on_dup`)
    end       its exit becomes a verdict: run -> done, err, relayed or que       (`on_ended`)

What fails costs as little as possible, and never a message.  A script that cannot be run makes the
queue SCRIPTERROR; a system that is out of something (processes, memory, descriptors, disk) is asked
again after a growing pause; the message stays where it is meanwhile.  One that has ended but cannot
leave ``run`` keeps its place there: after a crash it would run again.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING

from rqcore import pipe, recovery
from rqcore.copies import copy_elsewhere
from rqcore.durable import make_private_dir
from rqcore.environment import script_environment
from rqcore.errors import NotFoundError
from rqcore.hooks import PluginFailedError
from rqcore.hookspecs import Delay, Hold
from rqcore.lifecycle import State, Step
from rqcore.message import Message
from rqcore.pipe import Outcome
from rqcore.run import Run
from rqcore.script import ScriptError, ScriptProcess, command_line, start_script

if TYPE_CHECKING:
    from rqcore.queue import QueueProcess

_log = logging.getLogger(__name__)
_GOOD = (State.DONE, State.RELAYED)
_PLUGIN_PAUSE = 10.0
_ITS_OWN_PAUSE = 10.0
#: What is wrong with one message's directory, such as one that root moved in; not with the system.
_ITS_OWN_TROUBLE = {
    errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR,
    errno.EISDIR, errno.ELOOP, errno.ENXIO,
}  # fmt: skip
_MAX_PAUSE = 30.0
_TOO_BIG = "the params and env_vars together are more than the system lets a process have"


class Work:
    """See the head of this module."""

    def __init__(self, queue: QueueProcess, login: Mapping[str, str]) -> None:
        self.runs: dict[str, Run] = {}
        #: The login environment that scripts get.
        self.login = login
        #: Why nothing is started for a moment, "" when it is.
        self.pause_reason = ""
        self._hold_reason = ""
        self._queue = queue
        self._pause = 0.0

    # Starting

    def start(self, msg_id: str) -> bool:
        """Start one message; False when no other should be tried now."""
        queue = self._queue
        script = queue.condition.check_script()
        if script is None:
            return False
        try:
            queued = queue.load(msg_id, State.QUE)
        except OSError as error:
            return self._not_now(msg_id, error)
        if queued is None:
            queue.schedule.discard(msg_id)
            return True
        extra = self._asked_plugins(queued)
        if extra is None:
            return True
        dups = tuple(map(queue.full_id, queue.schedule.start(msg_id)))
        message = replace(queued, dups=dups)
        try:
            queue.spool.move(message, Step.START, State.QUE, State.RUN, rewrite=dups != queued.dups)
        except NotFoundError:
            queue.schedule.finished(msg_id, absorbed=False)
            return True
        except OSError as error:
            self._back_in_schedule(message)
            return self._not_now(msg_id, error)
        queue.hooks.message_starting(message, queue.info)
        return self._spawn(message, script, extra)

    def _asked_plugins(self, message: Message) -> Mapping[str, str] | None:
        """What plugins add to the environment; None when one of them lets the message wait."""
        hooks, info = self._queue.hooks, self._queue.info
        vote = hooks.check_start(message, info)
        if vote is None:
            try:
                return hooks.collect_environment(message, info)
            except PluginFailedError as error:
                vote = Hold(str(error), _PLUGIN_PAUSE)
        self._hold(message, vote)
        return None

    def _not_now(self, msg_id: str, error: OSError) -> bool:
        """It cannot be started; True when that is its own trouble, and others can be tried."""
        if error.errno not in _ITS_OWN_TROUBLE:
            self._pause_after(error, f"{msg_id} cannot be started")
            return False
        _log.error(
            "%s cannot be started: %s; next try in %g s, see who owns its files",
            msg_id, error, _ITS_OWN_PAUSE,
        )  # fmt: skip
        self._queue.schedule.hold(msg_id, time() + _ITS_OWN_PAUSE)
        return True

    def _hold(self, message: Message, vote: Hold | Delay) -> None:
        until = vote.until if isinstance(vote, Delay) else time() + vote.seconds
        # Thousands may wait for the same reason: told once, it is told.
        level = logging.DEBUG if vote.reason == self._hold_reason else logging.INFO
        self._hold_reason = vote.reason
        _log.log(level, "%s waits: %s", message.msg_id, vote.reason)
        self._queue.schedule.hold(message.msg_id, until)

    def _spawn(self, message: Message, script: str, extra: Mapping[str, str]) -> bool:
        queue = self._queue
        folder = queue.store.directory(message.msg_id, State.RUN)
        try:
            make_private_dir(f"{folder}/job")
            environment = script_environment(
                message, folder, script, queue.settings, queue.config, self.login
            )
            environment.update(extra)
            command = command_line(script, queue.config.exec_prefix)
            process = start_script(command, environment, f"{folder}/job")
        except ScriptError as error:
            self._unstart(message)
            queue.condition.script_failed(script, str(error))
            return False
        except OSError as error:
            if error.errno == errno.E2BIG:
                self._unstartable(message, _TOO_BIG)
                return True
            self._unstart(message)
            return self._not_now(message.msg_id, error)
        except ValueError as error:  # a NUL, or text that stands for no bytes, in the environment
            self._unstartable(message, f"no script can be given this message: {error}")
            return True
        self._pause = 0.0
        self._started(message, folder, process)
        return True

    def _started(self, message: Message, folder: str, process: ScriptProcess) -> None:
        queue = self._queue
        try:
            recovery.write_pid_file(folder, process.pid)
        except OSError as error:  # a full disk: recovery then goes by the environment
            _log.warning("%s: no pid file: %s", message.msg_id, error)
        run = self.runs[message.msg_id] = Run(queue.loop, self, message, process)
        if queue.config.timeout:
            run.limit(queue.config.timeout, queue.settings.kill_grace)
        queue.followers.on_started(message)
        queue.spool.fact(lambda: queue.hooks.message_started(message, queue.info, process.pid))

    def _unstartable(self, message: Message, status: str) -> None:
        """No other try would help: it is this message that no process can be started with."""
        queue = self._queue
        queue.schedule.finished(message.msg_id, absorbed=False)
        outcome = Outcome(State.ERR, status, 0.0, "", message.count)
        queue.hooks.message_finishing(message, queue.info, outcome)
        queue.spool.move(message, Step.FINISH, State.RUN, State.ERR, status=status)
        queue.spool.fact(lambda: queue.hooks.message_err(message, queue.info, status))

    def _unstart(self, message: Message) -> None:
        """It could not be started after all: back to where it was."""
        self._queue.spool.move(message, Step.UNSTART, State.RUN, State.QUE)
        self._back_in_schedule(message)

    def _back_in_schedule(self, message: Message) -> None:
        self._queue.schedule.finished(message.msg_id, absorbed=False)
        self._queue.enqueue(message)

    def _pause_after(self, error: OSError, what: str) -> None:
        """The system is out of something: try again after a growing pause."""
        self._pause = min(_MAX_PAUSE, self._pause * 2 or 0.5)
        self.pause_reason = f"{what}: {error}; next try in {self._pause:g} s"
        _log.error("%s", self.pause_reason)
        self._queue.changed()
        self._queue.loop.after(self._pause, self._resume)

    def _resume(self) -> None:
        self.pause_reason = ""
        self._queue.changed()

    # Reporting

    def on_status(self, run: Run, text: str) -> None:
        """The script said what it is doing."""
        queue = self._queue
        try:
            queue.store.set_status(run.message.msg_id, text)
        except (OSError, NotFoundError) as error:
            _log.warning("%s: its status cannot be noted: %s", run.message.msg_id, error)
        queue.hooks.message_status(run.message, queue.info, text)
        queue.followers.on_status(run.message, text)

    def on_dup(self, run: Run, dup: pipe.Dup) -> None:
        """The script asks for a copy of its message elsewhere."""
        copy_elsewhere(self._queue, run, dup)

    # Ending

    def on_ended(self, run: Run) -> None:
        """The script has ended: its verdict, and where the message goes."""
        queue, message, ended = self._queue, run.message, run.ended
        assert ended is not None
        verdict = run.conclusion.verdict
        finished = verdict is not None and (verdict.kind == "err" or ended.exit_status == 0)
        finished = finished and not run.unmade
        if run.ending == "stop" and not finished:
            self._settle(run, lambda: self._back_to_que(run))
            return
        outcome = run.conclusion.conclude(
            ended.exit_status, ended.signal, message.count, message.max_count
        )
        if run.unmade:  # good it cannot be called then, whatever it said
            outcome = replace(outcome, state=State.ERR)
        if run.ending == "destroy" and outcome.state not in _GOOD:
            status = f"{outcome.status} - destroyed on request"
            outcome = replace(outcome, state=State.ERR, status=status)
        elif run.ending == "timeout" and outcome.state is State.ERR:
            # What it still said in good order, exit status included, counts: done, or a resend.
            status = pipe.TIMEOUT.format(seconds=run.time_limit)
            outcome = replace(outcome, status=status, timed_out=True)
        if run.unmade:
            status = pipe.UNMADE.format(status=outcome.status, count=run.unmade)
            outcome = replace(outcome, status=status, delay=0.0, new_full_id="")
        queue.hooks.message_finishing(message, queue.info, outcome)
        if outcome.state is State.QUE:
            self._settle(run, lambda: self._resend(run, outcome))
        else:
            self._settle(run, lambda: self._finish(run, outcome))

    def _settle(self, run: Run, act: Callable[[], None]) -> None:
        """Move the message on; when the system cannot now, try again until it can."""
        try:
            act()
        except NotFoundError:
            _log.error("%s was taken away while it ran", run.message.msg_id)
            self._released(run, absorbed=False)
        except OSError as error:
            run.retries += 1
            pause = min(_MAX_PAUSE, 0.25 * 2**run.retries)
            _log.error(
                "%s has ended but cannot leave run: %s; next try in %g s",
                run.message.msg_id, error, pause,
            )  # fmt: skip
            self._queue.loop.after(pause, lambda: self._settle(run, act))

    def _released(self, run: Run, *, absorbed: bool) -> None:
        del self.runs[run.message.msg_id]
        self._queue.schedule.finished(run.message.msg_id, absorbed=absorbed)
        self._queue.run_ended()

    def _back_to_que(self, run: Run) -> None:
        message = run.message
        try:
            self._queue.spool.move(
                message, Step.UNSTART, State.RUN, State.QUE, status="stopped; runs again"
            )
        except OSError as error:  # nobody needs to wait for that: the next start does the same
            _log.warning("%s stays in run until the next start: %s", message.msg_id, error)
            self._released(run, absorbed=False)
            return
        self._released(run, absorbed=False)
        self._queue.enqueue(message)

    def _resend(self, run: Run, outcome: Outcome) -> None:
        queue = self._queue
        message = replace(run.message, count=outcome.count, due=_due_in(outcome.delay), dups=())
        queue.spool.move(
            message, Step.RESEND, State.RUN, State.QUE, status=outcome.status, rewrite=True
        )
        self._released(run, absorbed=False)

        def tell(error: OSError | None) -> None:
            if error is None:
                queue.hooks.message_resend(message, queue.info, outcome.delay, outcome.status)
                queue.queued(message, Step.RESEND)
            else:  # the disk may have it or not: it lies in que, so it waits for its turn
                queue.enqueue(message)

        queue.spool.after(tell)

    def _finish(self, run: Run, outcome: Outcome) -> None:
        queue, message, state = self._queue, run.message, outcome.state
        absorbed = state in _GOOD
        if absorbed:
            # The duplicates first: after a crash in between, the message runs again, they do not.
            for msg_id in queue.schedule.dups_of(message.msg_id):
                self._absorb(msg_id, message, state)
        final = replace(message, count=outcome.count, dups=message.dups if absorbed else ())
        queue.spool.move(
            final, Step.FINISH, State.RUN, state, status=outcome.status, rewrite=final != message
        )
        self._released(run, absorbed=absorbed)
        queue.spool.fact(lambda: self._tell_finished(final, outcome))

    def _tell_finished(self, message: Message, outcome: Outcome) -> None:
        hooks, info = self._queue.hooks, self._queue.info
        if outcome.state is State.DONE:
            hooks.message_done(message, info, outcome.status)
        elif outcome.state is State.ERR:
            hooks.message_err(message, info, outcome.status)
        else:
            hooks.message_relayed(message, info, outcome.new_full_id)

    def _absorb(self, msg_id: str, into: Message, state: State) -> None:
        queue = self._queue
        duplicate = queue.load(msg_id, State.QUE)
        if duplicate is not None:
            status = f"duplicate {queue.full_id(into.msg_id)}"
            outcome = Outcome(state, status, 0.0, "", duplicate.count)
            queue.hooks.message_finishing(duplicate, queue.info, outcome)
            queue.spool.move(duplicate, Step.DUPLICATE, State.QUE, state, status=status)

    def end_all(self) -> None:
        """The queue stops: end what still runs."""
        for run in self.runs.values():
            run.end("stop", self._queue.settings.kill_grace)


def _due_in(delay: float) -> float:
    """Unix time ``delay`` seconds from now, never earlier: rounded up to the millisecond."""
    due = math.ceil((time() + delay) * 1000) / 1000
    return int(due) if due.is_integer() else due
