"""The terminal of ``rq top``: taken over, drawn on, and given back as it was, however it ends.

Given back is: the other screen, the cursor, line editing and echo.  It is so at the end, after an error,
on SIGTERM and SIGHUP, and while the user has stopped us with Ctrl-Z.  Signals wake the caller's selector
(`wakeup`), who asks `signals` what came.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Any, Self

from rqcore_cli.top.draw import Line

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_STYLES = {
    "bold": "1", "dim": "2", "good": "32", "warn": "33", "bad": "1;31", "head": "7", "chosen": "7;1",
    "cursor": "7",
}  # fmt: skip
#: Without colours, what must stand out still does.
_PLAIN = {**_STYLES, "good": "", "warn": "", "bad": "1"}
_KEYS = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
    "\x1b[5~": "page up", "\x1b[6~": "page down", "\x1b[H": "home", "\x1b[F": "end",
    "\x1b[1~": "home", "\x1b[4~": "end", "\x1bOH": "home", "\x1bOF": "end",
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape",
}  # fmt: skip
_LONGEST = max(map(len, _KEYS))
_CAUGHT = (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)


class Screen:
    """See the head of this module; to be used in a ``with`` statement, in the main thread."""

    def __init__(self) -> None:
        self._out = sys.stdout.fileno()
        self._in = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._styles = _PLAIN if os.environ.get("NO_COLOR") else _STYLES
        self._shown: list[str] = []
        self._size = (0, 0)
        self._pending = ""
        self._came: list[int] = []
        self._before: dict[int, Any] = {}
        self._modes: list[Any] | None = None
        #: Readable after a signal.
        self.wakeup, self._wake = socket.socketpair()
        self.wakeup.setblocking(False)
        self._wake.setblocking(False)

    def __enter__(self) -> Self:
        for number in _CAUGHT:
            self._before[number] = signal.signal(number, lambda n, _: self._came.append(n))
        self._old_wakeup = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.wakeup.close()
        self._wake.close()

    @property
    def keyboard(self) -> int | None:
        """The descriptor that keys come from; None where there is no terminal to press them on."""
        return self._in

    def _take(self) -> None:
        if self._in is not None:
            self._modes = termios.tcgetattr(self._in)
            tty.setcbreak(self._in, termios.TCSADRAIN)
        self._shown = []
        self._write(_ENTER)

    def _give_back(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            self._write(_LEAVE)
        if self._in is not None and self._modes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._modes)

    def signals(self) -> Iterator[str]:
        """What came: ``resized``; SIGTERM and SIGHUP end the process here, SIGTSTP stops it."""
        with contextlib.suppress(BlockingIOError):
            self.wakeup.recv(4096)
        came, self._came = self._came, []
        for number in came:
            if number in (signal.SIGTERM, signal.SIGHUP):
                self._give_back()
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            elif number == signal.SIGTSTP:
                self._stop()
                yield "resized"
            else:
                if number == signal.SIGCONT and self._in is not None:
                    tty.setcbreak(
                        self._in, termios.TCSADRAIN
                    )  # it may not have been us who stopped
                self._shown = []
                yield "resized"

    def _stop(self) -> None:
        """Be stopped, as any program; go on when the shell says so."""
        self._give_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._take()

    def size(self) -> tuple[int, int]:
        """Columns and lines now; a terminal that does not know says 80 and 24."""
        width, height = os.get_terminal_size(self._out)
        return width or 80, height or 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines; only those that are others are written.  Raises `OSError`."""
        size = self.size()
        if size != self._size:
            self._size, self._shown = size, []
            self._write("\x1b[2J")
        shown = [self._painted(line) for line in lines]
        changed = [
            f"\x1b[{place + 1};1H\x1b[0m\x1b[K{text}"
            for place, text in enumerate(shown)
            if place >= len(self._shown) or self._shown[place] != text
        ]
        self._shown = shown
        if changed:
            self._write("".join(changed))

    def _painted(self, line: Line) -> str:
        return "".join(
            f"\x1b[0;{self._styles[style]}m{text}"
            if style and self._styles[style]
            else f"\x1b[0m{text}"
            for text, style in line
        )

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._out, data) :]

    def keys(self) -> list[str]:
        """The keys that were pressed, by name or as the character.  Raises `EOFError` at the end."""
        assert self._in is not None
        data = os.read(self._in, 1024)
        if not data:
            raise EOFError
        found, self._pending = split_keys(self._pending + data.decode("utf-8", "replace"))
        return found

    @property
    def half_a_key(self) -> bool:
        """Has an escape come that may be the key, or the begin of another?"""
        return bool(self._pending)

    def settle(self) -> list[str]:
        """Nothing more came: what is pending are the keys themselves."""
        pending, self._pending = self._pending, ""
        return ["escape"] if pending else []


def split_keys(text: str) -> tuple[list[str], str]:
    """The keys in this text, and what may be the begin of one more."""
    found = []
    while text:
        if text[0] != "\x1b":
            found.append(_KEYS.get(text[0], text[0]))
            text = text[1:]
            continue
        known = next((key for key in sorted(_KEYS, key=len, reverse=True)
                      if len(key) > 1 and text.startswith(key)), "")  # fmt: skip
        if known:
            found.append(_KEYS[known])
            text = text[len(known) :]
        elif any(key.startswith(text) for key in _KEYS):
            return found, text
        elif text[1:2] in ("[", "O"):  # a key that means nothing here
            text = _after_sequence(text)
        else:
            found.append("escape")
            text = text[1:]
    return found, ""


def _after_sequence(text: str) -> str:
    for place, char in enumerate(text[2:], 2):
        if "@" <= char <= "~":
            return text[place + 1 :]
    return ""
