"""One running script, from its start to its verdict.

A `Run` reads the script's pipe, keeps what it says, writes the answers, and calls its owner (the
queue process) back: for each status text (ten a second at most, the last one always), for each
``dup``, and once when the script has ended.

What ends a run is the exit of the process, never the end of the pipe: a background child that still
holds descriptor 3 delays nobody, and a script that closes it early goes on undisturbed.  What lies in
the pipe at the exit is read first.  A ``dup`` that is still being made is waited for, since its
attachments are taken from this message's directory.

Copies are made one after another, so that the answers come in the order of the questions, whichever
queues they go to; a script that asks faster than they are made waits at its pipe.  What it asked for
before it ended by itself is all made, however long that takes.  One that we end is given its grace for
that, too: what is not made then was never answered, is not made any more, and is counted in `unmade`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections import deque
from time import monotonic, time
from typing import Protocol

from rqcore import pipe, unix
from rqcore.loop import Loop, Timer
from rqcore.message import Message
from rqcore.script import Ended, ScriptProcess

_log = logging.getLogger(__name__)
_READ = 1 << 16
#: The largest pipe that Linux gives an unprivileged process: no more can lie in it at the exit.
_MAX_PIPE = 1 << 20
_STATUS_EVERY = 0.1
_LOOK_AGAIN = 0.25
_MAX_ANSWERS = 1000
_MAX_DUPS = 1000
#: So many that are answered at once are made in one turn of the loop; others wait to be served, too.
_DUPS_A_TURN = 50
#: So many lines of a run that are not understood are logged.
_MAX_GARBAGE = 20


class Owner(Protocol):
    """Who a run reports to."""

    def on_status(self, run: Run, text: str) -> None:
        """The script said what it is doing."""

    def on_dup(self, run: Run, dup: pipe.Dup) -> None:
        """The script asks for a copy of its message elsewhere; answered by `Run.answer`."""

    def on_ended(self, run: Run) -> None:
        """The script has ended; `Run.ended` and `Run.conclusion` are final."""


class Run:
    """See the head of this module."""

    def __init__(self, loop: Loop, owner: Owner, message: Message, process: ScriptProcess) -> None:
        self.message = message
        self.process = process
        self.conclusion = pipe.Conclusion()
        self.ended: Ended | None = None
        #: Why it is being ended by us ("" when it is not): "destroy", "timeout" or "stop".
        self.ending = ""
        #: Unix time, for people.
        self.started_at = time()
        #: Seconds that it may take, 0 for as long as it likes.
        self.time_limit = 0.0
        self.status = ""
        #: How often the message could not leave ``run`` because the system was out of something.
        self.retries = 0
        #: Copies that it asked for and that were not made, for it was ended before their turn came.
        self.unmade = 0
        self._loop = loop
        self._owner = owner
        self._decoder = pipe.PipeDecoder()
        self._answers: deque[bytes] = deque()
        #: What is not answered yet, oldest first; bytes are an answer that is known already.
        self._dups: deque[pipe.Dup | bytes] = deque()
        self._asking = False
        self._answering = False
        self._going_on = False
        self._over = False
        self._grace = 0.0
        self._pipe_open = True
        self._told = 0.0
        self._garbage = 0
        self._deaf = False
        self._status_timer: Timer | None = None
        self._kill_timer: Timer | None = None
        self._limit_timer: Timer | None = None
        self._copies_timer: Timer | None = None
        loop.reader(process.pipe, self._on_pipe)
        loop.on_exit(process.pid, self._on_exit)

    # Ending it

    def limit(self, seconds: float, grace: float) -> None:
        """End it (see `end`) if it still runs in so many seconds."""
        self.time_limit = seconds
        self._limit_timer = self._loop.after(seconds, lambda: self._too_long(grace))

    def _too_long(self, grace: float) -> None:
        _log.warning(
            "%s has run for %g s, its queue's timeout, and is ended",
            self.message.msg_id, self.time_limit,
        )  # fmt: skip
        self.end("timeout", grace)

    def end(self, why: str, grace: float) -> None:
        """SIGTERM to the whole group, SIGKILL after ``grace`` seconds; again is harmless."""
        if self.ended is not None:
            return
        self.ending = self.ending or why
        self._grace = grace
        self.process.send_signal(signal.SIGTERM)
        # A stopped process takes no SIGTERM before it goes on.
        self.process.send_signal(signal.SIGCONT)
        if self._kill_timer is None:
            self._kill_timer = self._loop.after(grace, self._kill)

    def _kill(self) -> None:
        if self.ended is None:
            self.process.send_signal(signal.SIGKILL)

    def _on_exit(self) -> None:
        if self.ending:
            # Not reaped yet, so the number is still its own: end what it left in its group, and go
            # on when that is gone, so that no other run of the message meets it.
            self.process.send_signal(signal.SIGKILL)
            try:
                left = unix.group_members(self.process.pid)
            except OSError as error:  # no descriptor left to look with
                _log.warning("%s: looking for its group: %s", self.message.msg_id, error)
                self._loop.after(_LOOK_AGAIN, self._on_exit)
                return
            if left:
                self._loop.on_end_of(left[0], self._on_exit)
                return
        self._drain()
        self.ended = self.process.reap()
        for timer in (self._status_timer, self._kill_timer, self._limit_timer):
            if timer is not None:
                timer.cancel()
        self._close_pipe()
        if self.ending and self._dups:
            self._copies_timer = self._loop.after(self._grace, self._make_no_more)
        self._finish_when_settled()

    def _make_no_more(self) -> None:
        """Its time for copies is over; the one that is being made is waited for."""
        self.unmade = sum(isinstance(dup, pipe.Dup) for dup in self._dups)
        self._dups.clear()
        self._finish_when_settled()

    def _finish_when_settled(self) -> None:
        if self.ended is None or self._asking or self._dups or self._over:
            return
        self._over = True
        if self._copies_timer is not None:
            self._copies_timer.cancel()
        self._loop.forget_writer(self.process.answer)
        self.process.close()
        self._owner.on_ended(self)

    # What it says

    def _on_pipe(self) -> None:
        try:
            data = os.read(self.process.pipe, _READ)
        except BlockingIOError:
            return
        if data:
            self._take(self._decoder.feed(data))
        else:
            self._close_pipe()

    def _drain(self) -> None:
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while self._pipe_open and taken < _MAX_PIPE:
                data = os.read(self.process.pipe, _READ)
                if not data:
                    break
                taken += len(data)
                self._take(self._decoder.feed(data))

    def _close_pipe(self) -> None:
        if self._pipe_open:
            self._pipe_open = False
            self._loop.forget_reader(self.process.pipe)
            self._take(self._decoder.close())

    def _take(self, events: list[pipe.Event]) -> None:
        for event in events:
            self.conclusion.observe(event)
            match event:
                case pipe.Status(text=text) | pipe.Verdict(text=text):
                    self._note_status(text)
                case pipe.Dup():
                    self._dups.append(event)
                case pipe.Garbage(line=line, reason=reason, answer=awaited):
                    self._note_garbage(line, reason)
                    if awaited:
                        self._dups.append(pipe.answer_fail(reason))
                case pipe.Unfinished(text=text):
                    _log.warning(
                        "%s: its last line on the pipe has no end and does not count: %.200r",
                        self.message.msg_id, text,
                    )  # fmt: skip
        self._make_dups()
        if self._pipe_open and len(self._dups) > _MAX_DUPS:
            self._loop.forget_reader(self.process.pipe)

    def _note_garbage(self, line: str, reason: str) -> None:
        self._garbage += 1
        if self._garbage <= _MAX_GARBAGE:
            _log.warning("%s: on its pipe: %s: %.200r", self.message.msg_id, reason, line)
        if self._garbage == _MAX_GARBAGE:
            _log.warning("%s: more such lines of it are not logged", self.message.msg_id)

    def _note_status(self, text: str) -> None:
        self.status = text
        if self._status_timer is None:
            wait = self._told + _STATUS_EVERY - monotonic()
            if wait <= 0:
                self._tell_status()
            else:
                self._status_timer = self._loop.after(wait, self._tell_status)

    def _tell_status(self) -> None:
        self._status_timer = None
        self._told = monotonic()
        self._owner.on_status(self, self.status)

    # What it is told

    def _make_dups(self) -> None:
        if self._answering or self._going_on:  # one that is answered at once comes back here
            return
        self._answering = True
        made = 0
        try:
            while self._dups and not self._asking:
                if made == _DUPS_A_TURN:
                    self._going_on = True
                    self._loop.soon(self._next_turn)
                    return
                made += 1
                dup = self._dups.popleft()
                if isinstance(dup, bytes):
                    self._say(dup)
                else:
                    self._asking = True
                    self._owner.on_dup(self, dup)
        finally:
            self._answering = False

    def answer(self, line: bytes) -> None:
        """The answer to the ``dup`` that the owner was told of last."""
        self._asking = False
        self._say(line)
        if not self._answering:
            self._go_on()

    def _next_turn(self) -> None:
        self._going_on = False
        self._go_on()

    def _go_on(self) -> None:
        self._make_dups()
        if self._pipe_open and len(self._dups) <= _MAX_DUPS:
            self._loop.reader(self.process.pipe, self._on_pipe)
        self._finish_when_settled()

    def _say(self, line: bytes) -> None:
        if self.ended is None and len(self._answers) < _MAX_ANSWERS:
            self._answers.append(line)
            self._write_answers()

    def _write_answers(self) -> None:
        try:
            while self._answers:
                sent = os.write(self.process.answer, self._answers[0])
                if sent == len(self._answers[0]):
                    self._answers.popleft()
                else:
                    self._answers[0] = self._answers[0][sent:]
        except BlockingIOError:
            self._loop.writer(self.process.answer, self._write_answers)
            return
        except BrokenPipeError:
            if not self._deaf:
                _log.info("%s: nobody reads the answers on descriptor 4", self.message.msg_id)
            self._deaf = True
            self._answers.clear()
        self._loop.forget_writer(self.process.answer)
