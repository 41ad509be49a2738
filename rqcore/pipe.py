r"""The pipe protocol: what a script says on descriptor 3, and what that amounts to.

Pure: bytes in, events out; the queue process reads the pipe and acts on the events.

A line is ``CMD SPACE TEXT NEWLINE``.  `PipeDecoder` takes the bytes in whatever pieces they arrive
and gives one event per line; the same bytes give the same events however they were cut.  No byte
sequence raises, and no line costs more memory than `MAX_LINE`: of a longer one the beginning is
kept, its text ends with an ellipsis.  One ``\r`` before the newline is dropped (scripts edited on
Windows); everything else in TEXT stays as it is, bytes that are not UTF-8 as lone surrogates.

`Conclusion` is fed with the events of one run and says, once the process has ended, which state the
message goes to.  The first verdict line wins; the text of the last line of any command becomes the
status.  Lines that are not understood count for nothing, and so does a last line without its
newline: nobody knows whether it is whole.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Final, Literal

from rqcore.lifecycle import State

#: Bytes of a line that are kept, its command included.
MAX_LINE = 64 * 1024
#: A longer delay, in seconds, is taken for this one (100 years): a due time must stay a valid one.
MAX_DELAY = 3_155_760_000.0
#: Bytes of an answer, its newline included: what a pipe takes in one piece (PIPE_BUF).
MAX_ANSWER = 4096

HIT_MAX = "HIT MAX RESEND COUNT - MOVING TO ERR"
UNMADE = "{status}; of the copies that it asked for, the last {count} were not made"
TIMEOUT = "TIMEOUT - ran longer than {seconds:g} s - MOVING TO ERR"
IMPROPER = "PROCESS EXITED IMPROPERLY - MOVING TO ERR"

Kind = Literal["done", "err", "resend", "relayed"]

_ELLIPSIS = "…"
_SHOWN = 200
_COMMANDS = "run, done, err, resend, relayed, dup"
# Also as languages print floats: 5, 5.0, .5, 1e-05.  No two parts can take the same digit, so that
# 64 KiB of digits cost no more than that.
_SECONDS = r"[ \t]*(?P<seconds>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)[ \t]*"
# "resend 300 no answer" has always worked, though the dash is what is documented.
_RESEND = re.compile(rf"{_SECONDS}(?:[- \t](?P<reason>.*))?", re.ASCII | re.DOTALL)
_DUP = re.compile(rf"{_SECONDS}-X-(?P<dest>.*)", re.ASCII | re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
# UTF-8: the smallest byte that continues a character, and the smallest that begin one of 2, 3, 4.
_CONTINUED, _TWO, _THREE, _FOUR = 0x80, 0xC0, 0xE0, 0xF0


@dataclass(frozen=True, slots=True)
class Status:
    """``run TEXT``: status text for people."""

    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the script says it ended; ``text`` is the line's TEXT.

    ``delay`` (seconds, 0 or more) belongs to a resend; ``reason`` to a resend and an err;
    ``full_id`` to relayed: where the message went.
    """

    kind: Kind
    text: str
    delay: float = 0.0
    reason: str = ""
    full_id: str = ""


@dataclass(frozen=True, slots=True)
class Dup:
    """``dup DUE-X-DEST``: a copy for DEST in ``delay`` seconds; the script waits for an answer."""

    delay: float
    dest: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Garbage:
    """A line that is not understood, and why.

    ``answer`` is true where the script waits for one on descriptor 4: send it `answer_fail` with
    the reason, or it waits for ever.
    """

    line: str
    reason: str
    answer: bool = False


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The pipe was closed in the middle of a line: this much of it had come."""

    text: str


Event = Status | Verdict | Dup | Garbage | Unfinished


class PipeDecoder:
    """Reads one run's lines."""

    def __init__(self) -> None:
        self._line = bytearray()
        #: Is the line longer than what is kept of it?
        self._cut = False

    def feed(self, data: bytes) -> list[Event]:
        """The events of the lines that these bytes complete, in order."""
        events: list[Event] = []
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            self._keep(data, at, end)
            events.append(self._event())
            at = end + 1
        self._keep(data, at, len(data))
        return events

    def close(self) -> list[Event]:
        """The pipe is closed: `Unfinished` if a line had begun."""
        if not self._line:
            return []
        return [Unfinished(self._text())]

    def _keep(self, data: bytes, start: int, end: int) -> None:
        # One more than is kept, for the "\r" before a newline; `_text` decides whether it was one.
        room = MAX_LINE + 1 - len(self._line)
        if end - start > room:
            self._cut = True
            end = start + room
        self._line += memoryview(data)[start:end]

    def _event(self) -> Event:
        if not self._cut and self._line.endswith(b"\r"):
            del self._line[-1:]
        cut = self._cut or len(self._line) > MAX_LINE
        return _parse(self._text(), cut=cut)

    def _text(self) -> str:
        line = bytes(self._line[:MAX_LINE])
        cut = self._cut or len(self._line) > MAX_LINE
        self._line.clear()
        self._cut = False
        if not cut:
            return line.decode("utf-8", "surrogateescape")
        return _without_torn_end(line).decode("utf-8", "surrogateescape") + _ELLIPSIS


def _without_torn_end(line: bytes) -> bytes:
    """The line without a UTF-8 character of which only a part is there."""
    for size in (1, 2, 3):
        byte = line[-size]
        if byte < _CONTINUED:
            break
        if byte >= _TWO:
            whole = 2 if byte < _THREE else 3 if byte < _FOUR else 4
            return line[:-size] if size < whole else line
    return line


def _parse(line: str, *, cut: bool) -> Event:
    command, _, text = line.partition(" ")
    event: Event
    match command:
        case "run":
            event = Status(text)
        case "done":
            event = Verdict("done", text)
        case "err" | "fail" | "fails":
            event = Verdict("err", text, reason=text)
        case "resend":
            event = _resend(text)
        case "relayed":
            # Relaying scripts may say more than the id; it is the last word.
            words = text.split()
            event = Verdict("relayed", text, full_id=words[-1] if words and not cut else "")
        case "dup":
            event = _dup(text, cut=cut)
        case _:
            what = f"unknown command {command[:40]!r}" if command else "line without a command"
            event = Garbage(line[:_SHOWN], f"{what}; known are {_COMMANDS}")
    return event


def _resend(text: str) -> Verdict:
    found = _RESEND.fullmatch(text)
    if found is None:
        # The script wants another run, and nobody can say when.  At once (what the first RQ made of
        # it) would be up to max_count runs in a tight loop against something that just failed; a
        # delay of our own invention would hide the mistake for ever.  In err nothing is lost: the
        # operator reads what is wrong with the script and retries.
        problem = (
            f"resend lacks its delay: {text[:_SHOWN]!r}; write resend SECONDS-REASON, "
            "for instance: resend 300-no answer"
        )
        return Verdict("err", problem, reason=problem)
    return Verdict("resend", text, delay=_delay(found), reason=found["reason"] or "")


def _dup(text: str, *, cut: bool) -> Dup | Garbage:
    found = _DUP.fullmatch(text)
    dest = found["dest"].strip() if found is not None else ""
    if found is not None and dest and not cut and not _CONTROL.search(dest):
        return Dup(_delay(found), dest, text)
    if cut:
        reason = f"dup is longer than {MAX_LINE} bytes"
    elif found is None:
        reason = f"malformed dup {text[:_SHOWN]!r}; write dup SECONDS-X-DEST"
    else:
        reason = f"dup names no usable destination: {text[:_SHOWN]!r}; write dup SECONDS-X-DEST"
    return Garbage(f"dup {text}"[:_SHOWN], reason, answer=True)


def _delay(found: re.Match[str]) -> float:
    # A negative one is a deadline that has passed: now.  "9" times 400 is infinity, so the maximum.
    return min(max(float(found["seconds"]), 0.0), MAX_DELAY)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a message goes after a run.

    ``state`` is `State.QUE` for a resend, which is due ``delay`` seconds from now; ``status`` the
    status text; ``new_full_id`` where a relayed one went ("" if the script did not say);
    ``count`` the message's new count; ``timed_out`` whether it failed because it ran too long.
    """

    state: State
    status: str
    delay: float
    new_full_id: str
    count: int
    timed_out: bool = False


class Conclusion:
    """What one run amounts to."""

    def __init__(self) -> None:
        self._verdict: Verdict | None = None
        self._status = ""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that counts: the first one, or None so far."""
        return self._verdict

    @property
    def status(self) -> str:
        """The status text: that of the last line of any command."""
        return self._status

    def observe(self, event: Event) -> None:
        """Take in the next event of the run."""
        match event:
            case Status(text=text) | Dup(text=text):
                self._status = text
            case Verdict(text=text):
                self._status = text
                if self._verdict is None:
                    self._verdict = event
            case Garbage() | Unfinished():
                pass

    def conclude(
        self, exit_status: int | None, signal: int | None, count: int, max_count: int
    ) -> Outcome:
        """The outcome, now that the process has ended.

        One of ``exit_status`` and ``signal`` (its number) is None; both are when nobody knows.
        ``count`` and ``max_count`` are the message's.
        """
        verdict = self._verdict
        clean = exit_status == 0 and signal is None
        if verdict is None or (verdict.kind != "err" and not clean):
            kind = "none" if verdict is None else verdict.kind
            how = _exit_words(exit_status, signal)
            status = f"{IMPROPER} - Completion was {kind} but exit status was {how}"
            return Outcome(State.ERR, status, 0.0, "", count)
        if verdict.kind != "resend":
            return Outcome(_STATES[verdict.kind], self._status, 0.0, verdict.full_id, count)
        count += 1
        if count >= max_count:
            return Outcome(State.ERR, HIT_MAX, 0.0, "", count)
        return Outcome(State.QUE, self._status, verdict.delay, "", count)


_STATES: Final = {"done": State.DONE, "err": State.ERR, "relayed": State.RELAYED}


def _exit_words(exit_status: int | None, number: int | None) -> str:
    if number is None:
        return "unknown" if exit_status is None else str(exit_status)
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def answer_ok(full_id: str) -> bytes:
    """The line on descriptor 4 after a dup that was done."""
    return _answer("ok", full_id)


def answer_fail(reason: str) -> bytes:
    """The line on descriptor 4 after a dup that could not be done."""
    return _answer("fail", reason)


def _answer(word: str, text: str) -> bytes:
    """One line, whatever is in the text, and short enough for a pipe to take it in one piece."""
    line = f"{word} {_CONTROL.sub(' ', text)}"
    try:
        data = line.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        data = line.encode("utf-8", "replace")
    if len(data) >= MAX_ANSWER:
        data = _without_torn_end(data[: MAX_ANSWER - 1])
    return data + b"\n"
