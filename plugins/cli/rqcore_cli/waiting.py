"""Messages that wait, one by one, as cheaply as a hundred thousand need it.

Where they are plain directories their files are read directly, so that the queue has no part in it, and
RQ need not run; of another store the queue is asked, page by page.  A message that goes on while it is
looked at is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from rqcore.errors import RqError
from rqcore.message import is_msg_id
from rqcore_cli.app import App
from rqcore_cli.selection import Filter, messages

_MAX_FILE = 16 << 20


def waiting(app: App, queue: str, states: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The fields of each message of a queue in these states, its ``msg_id`` among them.

    Raises `ConfigError` when nobody knows where they are, `UnreachableError` as `App.ask`.
    """
    config, _ = app.instance.load_queue(queue)
    main, _ = app.instance.load_config()
    if (config.store or main.store) != "directory":
        yield from messages(app, [queue], Filter(tuple(states)))
        return
    for state in states:
        folder = str(app.instance.queue_dir(queue) / state)
        for name in _listed(folder):
            fields = _read(f"{folder}/{name}/msg")
            if fields is not None:
                yield {**fields, "msg_id": name}


def _listed(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if is_msg_id(name)]
    except FileNotFoundError:  # nothing ever waited there
        return []
    except OSError as error:
        raise RqError(f"{folder} cannot be read: {error.strerror}; look as RQ's user") from error


def _read(path: str) -> dict[str, Any] | None:
    """The message's fields; None when it went on, or cannot be read: the queue sets that aside."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fields = json.loads(os.read(fd, _MAX_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)
    return fields if isinstance(fields, dict) else None
