"""How far long work is, in one line of the terminal: bytes of all bytes, how fast, how long yet."""

from __future__ import annotations

from time import monotonic

from rqcore import words
from rqcore_cli.app import App
from rqcore_cli.follow import StatusLine

_EVERY = 0.2


class Pace:
    """Told of bytes as they pass; ``total`` 0: nobody knows how many there are."""

    def __init__(self, app: App, what: str, total: int) -> None:
        self._line = StatusLine(app)
        self._what = what
        self._total = total
        self._done = 0
        self._began = self._shown = monotonic()

    def passed(self, count: int) -> None:
        """So many more."""
        self._done += count
        now = monotonic()
        if now - self._shown < _EVERY:
            return
        self._shown = now
        rate = self._done / (now - self._began)
        of = f" of {words.size(self._total)}" if self._total else ""
        text = f"{self._what} {words.size(self._done)}{of}, {words.size(int(rate))}/s"
        if self._total > self._done and rate > 0:
            text += f", {words.span((self._total - self._done) / rate)} left"
        self._line.show(text)

    def clear(self) -> None:
        """Show nothing any more."""
        self._line.clear()
