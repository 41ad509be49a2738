"""What plugins may rely on of the ``rq`` command and of the site.

Both are plugins themselves, and no plugin imports another: these protocols stand between.  ``rq`` hands
its `App` to every command (``@click.pass_obj``), rqcore-web its `Site` to the hooks ``rq_web_*``.  A
panel, an item of the menu or a family of metrics is whatever has these attributes; the classes here are
for those who want them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from rqcore.config import InstanceConfig
    from rqcore.hooks import Hooks
    from rqcore.instance import Instance


class App(Protocol):
    """The ``rq`` command."""

    #: -1 for ``-q``, 1 and more for ``-v``.
    verbosity: int

    @property
    def instance(self) -> Instance:
        """The instance that is meant.  Raises `RqError` when there is none."""

    @property
    def hooks(self) -> Hooks:
        """The plugins of this process."""

    def ask(self, name: str, command: str, args: Any = None) -> Any:
        """Ask a queue.  Raises `RqError`."""

    def ask_manager(self, command: str, args: Any = None) -> Any:
        """Ask the manager.  Raises `RqError`."""

    def known(self, name: str) -> str:
        """The name itself if there is such a queue.  Raises `RqError`."""

    def say(self, text: str) -> None:
        """Tell what happened, on stderr; not with ``-q``."""

    def warn(self, text: str) -> None:
        """Tell what must be known, on stderr."""

    def clean(self, value: object) -> str:
        """Text in one line that does nothing to a terminal."""

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Iterable[str] = ()
    ) -> None:
        """Print a table on stdout; ``right`` names the columns of numbers."""


class Site(Protocol):
    """The web interface."""

    @property
    def instance(self) -> Instance:
        """The instance that it shows."""

    @property
    def settings(self) -> InstanceConfig:
        """Its main config."""

    @property
    def hooks(self) -> Hooks:
        """The plugins of this process."""

    def url(self, path: str = "") -> str:
        """The URL of a path below the root."""

    def page(self, request: Any, title: str, content: object, status: int = 200) -> Any:
        """A page in the site's dress, as a Starlette response; ``content`` is `Markup` or text."""


class Item(NamedTuple):
    """An item of the site's menu: its text, and a path below the site's root (``-/mine/``)."""

    label: str
    path: str


class Panel(NamedTuple):
    """A part of a page: its heading and its content (`Markup`, or text that is escaped)."""

    title: str
    content: Any


class Family(NamedTuple):
    """Metrics of one name, as the hook ``rq_collect_metrics`` of rqcore-metrics wants them.

    ``kind`` is ``counter``, ``gauge`` or ``info``; ``samples`` are pairs of labels and a value.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[dict[str, str], float]]
