"""Socket paths of any length.

A Unix socket's address holds about 100 bytes, an instance's path and a queue's name together may be
longer.  `reachable` gives a path that is short enough: the given one where it fits, else one through
a symbolic link in a private temporary directory that lives only as long as the ``with`` block.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

#: The shortest limit of any Unix (macOS and the BSDs: 104 with the final NUL).
_MAX_ADDRESS = 103


@contextlib.contextmanager
def reachable(path: str) -> Iterator[str]:
    """A path to bind to or connect to; see the head of this module."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS:
        yield path
        return
    folder, name = os.path.split(os.path.abspath(path))
    with tempfile.TemporaryDirectory(prefix="rq-", dir="/tmp") as short:
        link = f"{short}/d"
        os.symlink(folder, link)
        try:
            yield f"{link}/{name}"
        finally:
            os.unlink(link)
