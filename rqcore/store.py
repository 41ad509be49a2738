"""The SpoolStore protocol: where a queue's messages live.

One queue process owns one store and is the only writer.  Drivers are chosen by name through
stevedore (group ``rqcore.store``); ``directory`` is the default.  `rqcore.conformance` is the suite
that every driver passes.

The protocol is made so that a directory, a SQL database or memory can keep it:

* **Steps are named.**  A message changes state only by `add`, `move` and `remove`, each a row of
  `rqcore.lifecycle.TRANSITIONS`.
* **Group commit.**  What these do is visible at once and durable after `sync`.  Nobody is told "ok"
  before.
* **A message that is looked at or runs has a directory** (`directory`), with ``job/`` and
  ``attach/`` in it.  A driver whose truth is elsewhere materialises it.
* **Nothing reads a whole queue** to answer a question: counts are kept, lists are paged by id.

Errors: `NotFoundError` for a message that is not there (any more), `UnreadableError` for one that
cannot be understood, `OSError` when the system underneath fails (disk full, input/output error): the
message is then in the state it was in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from rqcore.durable import Digest
from rqcore.errors import StoreError, StoreLoadError
from rqcore.lifecycle import State, Step
from rqcore.message import Message


class UnreadableError(StoreError):
    """A message that lies in the spool but cannot be understood; the text says why."""


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment: ``digest`` is None as long as nobody has read a file placed by hand."""

    name: str
    path: str
    digest: Digest | None


class SpoolStore(Protocol):
    """See the head of this module."""

    def open(self) -> None:
        """Get ready: make what is missing, throw away what was never promised, count."""

    def close(self) -> None:
        """Let go of everything, without a sync."""

    def new_id(self) -> str:
        """A message id that was never used and sorts after all that were."""

    def add(self, message: Message, state: State, attached: Sequence[Attached] = ()) -> None:
        """A new message in ``prep`` or ``que``; the attachments are shared, not copied, if possible.

        The id may be new (`new_id`) or one that was planned before a crash.
        """

    def move(
        self, msg_id: str, step: Step, old: State, new: State,
        *, message: Message | None = None, status: str | None = None,
    ) -> None:  # fmt: skip
        """Change a message's state, and its fields and status text with it where given."""

    def remove(self, msg_id: str, state: State) -> None:
        """Remove a message and all that is its own."""

    def take_trash(self) -> list[str]:
        """Paths of what was removed and takes long to be cleared away: whoever calls does that.

        Nobody needs it any more, and what is not cleared away is so when the store is opened next.
        """

    def quarantine(self, msg_id: str, state: State, reason: str) -> None:
        """Set aside what cannot be understood, with the reason, where it stops nobody."""

    def set_aside(self) -> int:
        """How much was set aside and still is; kept, or counted only when it is another."""

    def adopt(self, name: str, state: State) -> str | None:
        """Take in what an operator moved into ``prep`` or ``que`` by hand.

        Returns its id (a new one where its name is no id, or is one in use), or None when there is
        nothing to take in: it is known already, or gone.
        """

    def vanished(self, msg_id: str, state: State) -> bool:
        """Was this message of ``prep``, ``que`` or ``err`` taken away by hand?  Then it is forgotten."""

    def load(self, msg_id: str, state: State) -> Message:
        """The message's fields."""

    def find(self, msg_id: str) -> State | None:
        """The state of a message, None when there is no such message."""

    def status(self, msg_id: str, state: State) -> str:
        """The last status text, empty when there is none."""

    def set_status(self, msg_id: str, text: str) -> None:
        """Note the status text of a running message, for everybody to see; need not last."""

    def counts(self) -> Mapping[State, int]:
        """How many messages are in each state; kept, not counted."""

    def newest(self, state: State, limit: int, before: str = "") -> list[str]:
        """At most ``limit`` ids, newest first; of those that sort before ``before`` where given."""

    def present(self, state: State) -> Iterator[str]:
        """All ids in a state, in no order: for the start of a queue, never for an answer."""

    def directory(self, msg_id: str, state: State) -> str:
        """The absolute path of the message's directory."""

    def staging(self) -> str:
        """The absolute path of a new file name where an attachment may be brought together."""

    def attach(self, msg_id: str, state: State, name: str, staged: str, digest: Digest) -> None:
        """Make a staged file (durable already) an attachment; one of the same name is replaced."""

    def detach(self, msg_id: str, state: State, name: str) -> None:
        """Remove an attachment."""

    def attached(self, msg_id: str, state: State) -> list[Attached]:
        """The attachments, by name."""

    def note_digest(self, msg_id: str, state: State, name: str, digest: Digest) -> None:
        """Keep the digest of an attachment that was placed by hand; need not last."""

    def sync(self) -> bool:
        """Make everything done so far durable; False when there was nothing to do for it."""


class StoreFactory(Protocol):
    """What a driver's entry point names: called with the queue's directory, absolute."""

    def __call__(self, path: str, *, fsync: bool) -> SpoolStore: ...


def open_store(driver: str, path: str, *, fsync: bool) -> SpoolStore:
    """Load the driver of that name, make its store for a queue's directory, and open it.

    Raises `StoreLoadError` naming the driver, what is installed, and the remedy.
    """
    store = _factory(driver)(path, fsync=fsync)
    store.open()
    return store


def _factory(driver: str) -> StoreFactory:
    from importlib.metadata import EntryPoint, entry_points  # noqa: PLC0415 - slow to import

    from stevedore import DriverManager  # noqa: PLC0415 - slow to import

    points = entry_points(group="rqcore.store", name=driver)
    if not points:
        installed = sorted({point.name for point in entry_points(group="rqcore.store")})
        raise StoreLoadError(
            f'no store driver "{driver}" is installed; there are: {", ".join(installed)}. '
            'Correct "store" in the configuration, or install the package that brings it'
        )
    if len(points) > 1:
        owners = sorted(
            f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            for point in points
        )
        raise StoreLoadError(
            f'more than one store driver is named "{driver}": {", ".join(owners)}; uninstall one'
        )

    class Drivers(DriverManager[StoreFactory]):
        """Reads the entry points afresh: stevedore's own cache can miss a new installation."""

        def list_entry_points(self) -> list[EntryPoint]:
            return list(points)

    try:
        manager = Drivers("rqcore.store", driver)
    except Exception as error:
        raise StoreLoadError(
            f'the store driver "{driver}" cannot be loaded: {type(error).__name__}: {error}; '
            "reinstall the package that brings it"
        ) from error
    # Not .driver: that takes an object which is false in a boolean sense for none at all.
    return cast("StoreFactory", manager.extensions[0].plugin)
