"""What the system refuses (a full disk, a directory that is gone) is told once, and stops nobody.

    care = Care(_log, "webhooks wait: the outbox cannot be written")
    with care():
        outbox.put(entry)

It is told again only after something went well in between.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


class Care:
    """See the head of this module; ``text`` says what does not work."""

    def __init__(self, log: logging.Logger, text: str) -> None:
        self._log = log
        self._text = text
        self._told = False

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Care for one act: its `OSError` is told, and goes no further."""
        try:
            yield
        except OSError as error:
            if not self._told:
                self._log.error("%s: %s", self._text, error)
            self._told = True
        else:
            self._told = False
