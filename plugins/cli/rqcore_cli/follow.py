"""Following a message to its end: its state, its status texts, and its growing log.

Nothing is polled: the queue tells (`rqcore.followers`).  It is subscribed to first and looked at
then, so no change falls in between.  The log is read from its file; the file stays the same however
often the message moves, so it is opened once.

A queue whose process is being restarted is waited for as long as its manager lives.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, BinaryIO, NamedTuple

from rqcore import words
from rqcore.client import QueueClient
from rqcore.errors import NotFoundError, UnreachableError
from rqcore_cli.app import App
from rqcore_cli.exits import Exit
from rqcore_cli.output import clean
from rqcore_cli.refs import Ref, ask

FINAL = ("done", "relayed", "err")
_BLOCK = 1 << 16
_PAUSES = (0.1, 0.2, 0.5, 1.0)


class End(NamedTuple):
    """How a message ended: ``state`` "" means that it was deleted."""

    state: str
    status: str

    def __str__(self) -> str:
        return clean(self.status or self.state or "deleted")

    @property
    def exit_status(self) -> Exit:
        """0 for what succeeded, 1 for the rest."""
        return Exit.OK if self.state in ("done", "relayed") else Exit.FAILED


class Tail:
    """A log that is printed as it grows, as bytes; from the last ``lines`` on, where given."""

    def __init__(self, out: BinaryIO, lines: int | None = None) -> None:
        self._out = out
        self._lines = lines
        self._file: BinaryIO | None = None

    def open(self, folder: str) -> bool:
        """Open the log of the message whose directory this is; it may not exist yet."""
        if self._file is None:
            try:
                # Closed by `close`, when everything was followed.
                self._file = open(f"{folder}/job/stdio.log", "rb")  # noqa: SIM115
            except FileNotFoundError:
                # The message may have moved since; then an event comes, and we are asked again.
                return False
            if self._lines is not None:
                self._file.seek(last_lines(self._file, self._lines))
        return True

    @property
    def is_open(self) -> bool:
        """Is there a log?"""
        return self._file is not None

    def copy(self) -> None:
        """Print what is new."""
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # the script emptied it
        while data := self._file.read(_BLOCK):
            self._out.write(data)
        self._out.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def last_lines(file: BinaryIO, count: int) -> int:
    """The offset at which the last ``count`` lines of a file begin; reads only its end."""
    end = file.seek(0, os.SEEK_END)
    if count <= 0:
        return end
    at, found = end, 0
    while at > 0:
        start = max(0, at - _BLOCK)
        file.seek(start)
        block = file.read(at - start)
        place = len(block)
        if at == end and block.endswith(b"\n"):
            place -= 1  # ends the last line, begins none
        while (place := block.rfind(b"\n", 0, place)) >= 0:
            found += 1
            if found == count:
                return start + place + 1
        at = start
    return 0


def follow(
    app: App, ref: Ref, tail: Tail | None = None, on_event: Callable[[str], None] | None = None
) -> End:
    """Wait until a message has ended, printing its log if asked to; returns how it ended.

    ``on_event`` is told the status whenever it changes.  Raises `NotFoundError` when there is no
    such message, `UnreachableError` when RQ does not run.
    """
    told = False
    while True:
        try:
            message = ask(app, ref, "get_message_status")
            if not told:
                told = True
                _tell_why_it_waits(app, ref, message)
            end = _follow_connected(app, ref, tail, on_event)
        except UnreachableError:
            end = None
        if end is not None:
            return end
        _await_queue(app, ref.queue)


def _follow_connected(
    app: App, ref: Ref, tail: Tail | None, on_event: Callable[[str], None] | None
) -> End | None:
    """As `follow`; None when the connection ended before the message did."""
    with QueueClient(app.instance.directory, ref.queue) as follower:
        events = follower.subscribe({"msg_id": ref.msg_id, "log": tail is not None})
        message = _look(app, ref, tail)
        if message["state"] in FINAL:
            return End(message["state"], message["status"])
        if on_event is not None:
            on_event(message["status"])
        for event in events:
            if event["event"] == "state" and event["new"] is None:
                return End("", "")
            if tail is not None and not tail.is_open:
                _look_again(app, ref, tail)
            if tail is not None:
                tail.copy()
            if event["event"] == "state" and event["new"] in FINAL:
                status = f"{event['new']} - {event['status']}" if event["status"] else event["new"]
                return End(event["new"], status)
            if on_event is not None and event["event"] != "log":
                on_event(f"{event.get('new', 'run')} - {event['status']}".removesuffix(" - "))
    return None


def _look(app: App, ref: Ref, tail: Tail | None) -> dict[str, Any]:
    message: dict[str, Any] = ask(app, ref, "get_message")
    if tail is not None:
        tail.open(message["path"])
        tail.copy()
    return message


def _look_again(app: App, ref: Ref, tail: Tail) -> None:
    try:
        _look(app, ref, tail)
    except NotFoundError:
        return  # deleted meanwhile; the event that says so is on its way


def _tell_why_it_waits(app: App, ref: Ref, status: str) -> None:
    """A message that cannot start soon would look like one that hangs."""
    if status.partition(" - ")[0] == "prep":
        app.warn(f"{ref} is only prepared and waits to be committed: rq commitmesg --msg_id ...")
    if status.partition(" - ")[0] != "que":
        return
    queue = app.ask(ref.queue, "describe")
    if queue["status"] != "UP":
        why = f": {clean(queue['problem'])}" if queue["problem"] else ""
        app.warn(f"{ref} waits, because queue {ref.queue} is {queue['status']}{why}")
        return
    due = ask(app, ref, "get_message")["due"]
    if due > time.time() + 1:
        app.say(f"{ref} is due in {words.span(due - time.time())}, at {words.moment(due)}")


def _await_queue(app: App, name: str) -> None:
    """Return when the queue answers again.  Raises `UnreachableError` when its manager is gone.

    The manager starts it again within seconds, and nothing tells when; so it is tried.
    """
    app.say(f"queue {name} went away; waiting for its manager to start it again")
    pauses = iter(_PAUSES)
    while True:
        time.sleep(next(pauses, _PAUSES[-1]))
        try:
            app.queue(name).call("ping")
        except UnreachableError as error:
            _check_comes_back(app, name, error)
        else:
            return


def _check_comes_back(app: App, name: str, error: UnreachableError) -> None:
    told = app.ask_manager("describe")
    if told["stopping"]:
        return  # the next try finds nobody, and says so
    states = [c["state"] for c in told["children"] if (c["kind"], c["name"]) == ("queue", name)]
    if states in ([], ["failed"]):
        raise app.why_unreachable(name, error)


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise `TimeoutError` in whatever is waited for when the time is up; None waits for ever."""
    if seconds is None:
        yield
        return

    def give_up(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class StatusLine:
    """The status of what is waited for, in one line of the terminal that is written over."""

    def __init__(self, app: App) -> None:
        self._on = sys.stderr.isatty() and app.verbosity >= 0

    def show(self, text: str) -> None:
        """Show this instead of what was shown."""
        if self._on:
            # A terminal that does not know its width says 0.
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sys.stderr.write(f"\r\033[K{clean(text)[: width - 1]}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Show nothing any more."""
        if self._on:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
