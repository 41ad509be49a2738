"""The event loop that every process of rqcore has one of.

It sleeps until something happens: a descriptor is ready, a timer is due, a child ended, a signal
came, or another thread handed something over.  It never wakes up to look.

One turn of the loop is: wait; run what is ready; then call ``on_turn_end``, where a queue process
brings the whole turn's work to the disk at once (group commit) and answers.  Callbacks run one after
another in one thread, so nothing they touch needs a lock.

A callback that raises is a defect of ours: it is logged with its traceback and the loop goes on,
because one bad request must not take the others' messages with it.  `SystemExit` ends the loop.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable
from itertools import count
from time import monotonic, time

from rqcore import unix

_log = logging.getLogger(__name__)
Callback = Callable[[], None]
#: Seconds: epoll counts milliseconds in 31 bits.  Whoever waits longer wakes up once in between.
_LONGEST_SLEEP = 2_000_000.0


class Timer:
    """A callback that waits for its time; see `Loop.after`."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Never call it; harmless when it was called already."""
        self.callback = None


class Loop:
    """See the head of this module."""

    def __init__(self) -> None:
        self.on_turn_end: Callback | None = None
        #: How often the loop woke up, for the figure of an idle instance.
        self.wakeups = 0
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._soon: deque[Callback] = deque()
        self._handed_over: deque[Callback] = deque()
        self._signals: dict[int, Callback] = {}
        self._children: dict[int, tuple[int, Callback]] = {}
        self._running = False
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self.reader(self._wake_read.fileno(), self._on_wake)

    # Descriptors

    def reader(self, fd: int, callback: Callback) -> None:
        """Call back whenever ``fd`` can be read, or has ended."""
        self._register(fd, selectors.EVENT_READ, callback)

    def writer(self, fd: int, callback: Callback) -> None:
        """Call back whenever ``fd`` can be written to."""
        self._register(fd, selectors.EVENT_WRITE, callback)

    def forget_reader(self, fd: int) -> None:
        """Take no more interest in reading; harmless when there is none."""
        self._unregister(fd, selectors.EVENT_READ)

    def forget_writer(self, fd: int) -> None:
        """Take no more interest in writing; harmless when there is none."""
        self._unregister(fd, selectors.EVENT_WRITE)

    def _register(self, fd: int, event: int, callback: Callback) -> None:
        try:
            key = self._selector.get_key(fd)
        except KeyError:
            self._selector.register(fd, event, {event: callback})
        else:
            key.data[event] = callback
            if not key.events & event:
                self._selector.modify(fd, key.events | event, key.data)

    def _unregister(self, fd: int, event: int) -> None:
        try:
            key = self._selector.get_key(fd)
        except (KeyError, ValueError):
            return
        key.data.pop(event, None)
        rest = key.events & ~event
        if rest:
            self._selector.modify(fd, rest, key.data)
        else:
            self._selector.unregister(fd)

    # Time

    def after(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, so many seconds from now."""
        timer = Timer(monotonic() + max(0.0, seconds), callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def soon(self, callback: Callback) -> None:
        """Call back after what is running now, without waiting; a turn's end follows in any case."""
        self._soon.append(callback)

    def from_thread(self, callback: Callback) -> None:
        """Call back in the loop's own thread; the one thing that another thread may ask for."""
        self._handed_over.append(callback)
        with contextlib.suppress(BlockingIOError):  # full: then it wakes up anyway
            self._wake_write.send(b"\0")

    # Signals and children

    def on_signal(self, number: int, callback: Callback) -> None:
        """Call back, in the loop, when this signal comes, even if who started us had blocked it."""
        self._signals[number] = callback
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)

    def on_exit(self, pid: int, callback: Callback) -> None:
        """Call back once when this child has ended; it is the callback that reaps it."""
        if unix.HAVE_PIDFD:
            try:
                fd = os.pidfd_open(pid)
            except OSError as error:  # no descriptor left: the signal tells as well
                _log.warning("watching process %d by signal: %s", pid, error)
            else:
                self._children[pid] = (fd, callback)
                self.reader(fd, lambda: self._ended(pid))
                return
        self._children[pid] = (-1, callback)
        if signal.SIGCHLD not in self._signals:
            self.on_signal(signal.SIGCHLD, self._on_sigchld)
        self.soon(self._on_sigchld)  # it may have ended before the signal was awaited

    def on_end_of(self, pid: int, callback: Callback) -> None:
        """Call back once when this process, which need not be a child, has ended."""
        if unix.HAVE_PIDFD:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                self.soon(callback)
                return
            except OSError as error:
                _log.warning("looking for the end of process %d: %s", pid, error)
            else:

                def ended() -> None:
                    self.forget_reader(fd)
                    os.close(fd)
                    callback()

                self.reader(fd, ended)
                return
        self.after(0.02, callback)

    def _on_sigchld(self) -> None:
        for pid, (fd, _) in list(self._children.items()):
            if fd < 0 and os.waitid(
                os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
            ) is not None:  # fmt: skip
                self._ended(pid)

    def _ended(self, pid: int) -> None:
        fd, callback = self._children.pop(pid)
        if fd >= 0:
            self.forget_reader(fd)
            os.close(fd)
        callback()

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = set(self._wake_read.recv(4096)) - {0}
            for number in numbers:
                if number in self._signals:
                    self._guard(self._signals[number])
        while self._handed_over:
            self._guard(self._handed_over.popleft())

    # The wall clock

    def on_clock_set(self, callback: Callback) -> None:
        """Call back when somebody set the wall clock, since then other things are due.

        Where the system does not tell, it is compared with the monotonic clock once a minute.
        """
        if unix.HAVE_TIMERFD:
            clock = unix.ClockWatch()

            def was_set() -> None:
                clock.rearm()
                callback()

            self.reader(clock.fd, was_set)
        else:
            self._compare_clocks(callback, time() - monotonic())

    def _compare_clocks(self, callback: Callback, before: float) -> None:
        now = time() - monotonic()
        if abs(now - before) > 1:
            callback()
        self.after(60, lambda: self._compare_clocks(callback, now))

    # Running

    def run(self) -> None:
        """Run until `stop`."""
        self._running = True
        while self._running:
            self._turn()

    def stop(self) -> None:
        """Return from `run` at the end of this turn."""
        self._running = False

    def close(self) -> None:
        """Let go of all descriptors."""
        if signal.getsignal(signal.SIGTERM) is not None and self._signals:
            signal.set_wakeup_fd(-1)
        for fd, _ in self._children.values():
            if fd >= 0:
                os.close(fd)
        self._children.clear()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _turn(self) -> None:
        ready = self._selector.select(self._patience())
        self.wakeups += 1
        for key, events in ready:
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                # An earlier callback of this turn may have taken its interest away.
                callback = key.data.get(event) if events & event else None
                if callback is not None:
                    self._guard(callback)
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                self._guard(timer.callback)
        self._run_soon()
        if self.on_turn_end is not None:
            self._guard(self.on_turn_end)

    def _run_soon(self) -> None:
        for _ in range(len(self._soon)):
            self._guard(self._soon.popleft())

    def _patience(self) -> float | None:
        if self._soon or self._handed_over or not self._running:
            return 0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return min(_LONGEST_SLEEP, max(0.0, self._timers[0][0] - monotonic()))

    def _guard(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - see the head of this module
            _log.exception("a callback of the event loop failed; the loop goes on")
