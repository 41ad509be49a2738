"""Telling systemd how the instance is, and noticing a queue's process that has stopped to answer.

For the manager alone.  Without a service manager that asks for it nothing here ever wakes it up:

    READY, STATUS            once all is started; the status whenever a process comes, fails or goes
    RELOADING, READY         when a reload begins, and when nobody goes by the old configuration any more
    STOPPING                 with EXTEND_TIMEOUT_USEC, the longest that stopping may take
    WATCHDOG                 at half of ``WATCHDOG_USEC``, from the manager's own loop: a manager that
                             hangs is silent, and systemd ends and starts it again

With each WATCHDOG every queue's process is pinged over its link.  One that has not answered for all of
``WATCHDOG_USEC`` is killed, and started again like any that has died: its messages run again, the
other queues go on, and systemd need not start all of them anew for it.  What waits for the disk
cannot be killed and is not tried.  Where the manager itself was held up (all were frozen, or it
waited), answers may lie unread: everybody gets all the time once more.  Services, which have no such
link, are not watched.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from time import monotonic

from rqcore import unix
from rqcore.child import Child
from rqcore.loop import Loop
from rqcore.notify import notify

_log = logging.getLogger(__name__)
#: A reload that takes longer (a queue's process hangs) counts as done for systemd.
_RELOADING = 30.0
_TROUBLES, _LONGEST = 3, 200
#: Half of the watchdog's time is between two looks; whoever comes so late has slept himself.
_LATE = 0.75


class Health:
    """See the head of this module; ``children`` is the manager's own, as it changes."""

    def __init__(self, loop: Loop, children: Mapping[str, Child]) -> None:
        self._loop = loop
        self._children = children
        self._patience = _watchdog_seconds(os.environ)
        self._status = ""
        self._is_ready = False
        self._is_stopping = False
        self._reloads = 0
        #: When it looked at the queues last.
        self._beaten = 0.0

    # What systemd is told

    def ready(self) -> None:
        """All that is to run has been started."""
        self._is_ready = True
        self._status = status_text(self._children)
        notify(READY="1", STATUS=self._status, MAINPID=str(os.getpid()))
        if self._patience:
            self._beat()

    def changed(self) -> None:
        """A child has come, failed or gone."""
        if self._is_stopping:
            left = len(self._children)
            text = f"stopping, {left} process{' is' if left == 1 else 'es are'} left"
        else:
            text = status_text(self._children)
        if self._is_ready and text != self._status:
            self._status = text
            notify(STATUS=text)

    def reloading(self) -> int:
        """A reload begins; returns which it is, for `reloaded`."""
        self._reloads += 1
        number = self._reloads
        if self._is_ready and not self._is_stopping:
            notify(RELOADING="1", MONOTONIC_USEC=_usec(monotonic()))
            self._loop.after(_RELOADING, lambda: self.reloaded(number))
        return number

    def reloaded(self, number: int) -> None:
        """That reload is over; one that began later counts more."""
        if number == self._reloads and self._is_ready and not self._is_stopping:
            self._reloads += 1
            self._status = status_text(self._children)
            notify(READY="1", STATUS=self._status)

    def stopping(self, seconds: float) -> None:
        """It stops, and may take so long."""
        self._is_stopping = True
        notify(STOPPING="1", EXTEND_TIMEOUT_USEC=_usec(seconds))
        self.changed()

    # The watchdog

    def _beat(self) -> None:
        notify(WATCHDOG="1")
        now = monotonic()
        late = bool(self._beaten) and now - self._beaten >= self._patience * _LATE
        self._beaten = now
        for child in list(self._children.values()):
            if child.kind == "queue" and child.state == "running" and child.wanted:
                if late and child.pinged:
                    child.pinged = now
                self._look_at(child, now)
        self._loop.after(self._patience / 2, self._beat)

    def _look_at(self, child: Child, now: float) -> None:
        if not child.pinged and child.link is not None:
            child.pinged = now
            child.link.send({"ping": True})
        elif child.pinged and now - child.pinged >= self._patience:
            self._end(child, now - child.pinged)

    def _end(self, child: Child, silent: float) -> None:
        if unix.waits_for_disk(child.pid):
            _log.error(
                "queue %s has not answered for %.0f s: it waits for the disk", child.name, silent
            )
            return
        _log.error(
            "queue %s has not answered for %.0f s; its process %d is killed and started again",
            child.name, silent, child.pid,
        )  # fmt: skip
        os.kill(child.pid, signal.SIGKILL)


def status_text(children: Mapping[str, Child]) -> str:
    """How the processes are, in one line: ``5 queues, 3 running``, and what is wrong with the others."""
    parts = []
    for kind in ("queue", "service"):
        those = [child for child in children.values() if child.kind == kind]
        running = sum(child.state == "running" for child in those)
        if those or kind == "queue":
            parts.append(f"{len(those)} {kind}{'' if len(those) == 1 else 's'}, {running} running")
    troubled = [child for child in children.values() if child.state != "running" and child.problem]
    for child in troubled[:_TROUBLES]:
        text = f"{child.kind} {child.name} is {child.state}: {child.problem}"
        parts.append(" ".join(text.split())[:_LONGEST])
    if len(troubled) > _TROUBLES:
        parts.append(f"and {len(troubled) - _TROUBLES} more")
    return "; ".join(parts)


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """After how many silent seconds systemd ends this process; 0 when it does not watch it."""
    told, whom = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not told or (whom and whom != str(os.getpid())):
        return 0.0
    if not told.isascii() or not told.isdigit() or int(told) == 0:
        _log.warning("WATCHDOG_USEC is %r, which is no time; nothing is watched", told)
        return 0.0
    return int(told) / 1_000_000


def _usec(seconds: float) -> str:
    return str(int(seconds * 1_000_000))
