"""How a queue keeps its messages: commands that go to the disk can do so only with plain directories."""

from __future__ import annotations

from rqcore.errors import RefusedError
from rqcore.instance import Instance

DIRECTORY = "directory"


def driver(instance: Instance, queue: str) -> str:
    """The name of the queue's store driver.  Raises `ConfigError`."""
    config, _ = instance.load_queue(queue)
    return config.store or instance.load_config()[0].store


def require_directories(instance: Instance, queue: str) -> None:
    """Raises `RefusedError` for a queue whose messages are kept otherwise, and `ConfigError`."""
    name = driver(instance, queue)
    if name != DIRECTORY:
        raise RefusedError(
            f"queue {queue} keeps its messages in the store {name!r}, not in plain directories; "
            "this command works with those alone"
        )
