"""Writing a file that changes all the time: behind the caller's back, and ten times a second at most.

A queue's process must not wait for the disk with every message.  `Writer.put` says that there is
something new, and returns; a thread that lives only as long as there is calls ``write`` a moment later,
which takes the newest there is by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_PAUSE = 0.1


class Writer:
    """See the head of this module; ``write`` is called in a thread, and never twice at once."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._new = False
        self._thread: threading.Thread | None = None

    def put(self) -> None:
        """There is something new to be written."""
        with self._lock:
            self._new = True
            if self._thread is None:
                self._hurry.clear()
                self._thread = threading.Thread(target=self._run, name="relay-state", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Return when what is there now is written."""
        thread = self._thread
        if thread is not None:
            self._hurry.set()
            thread.join()

    def _run(self) -> None:
        while True:
            self._hurry.wait(_PAUSE)
            with self._lock:
                if not self._new:
                    self._thread = None
                    return
                self._new = False
            self._write()
