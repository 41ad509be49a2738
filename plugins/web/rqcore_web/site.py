"""The site: what every page, route and plugin of the web server is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from rqcore.config import InstanceConfig
from rqcore.instance import Instance
from rqcore_web.audit import Audit
from rqcore_web.bulk import Jobs
from rqcore_web.events import Hub
from rqcore_web.history import History
from rqcore_web.options import Options
from rqcore_web.resumable.shelf import Shelf
from rqcore_web.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from rqcore.hooks import Hooks


@dataclass(slots=True)
class Site:
    """See the head of this module.

    ``tmp`` is where uploads wait, on the spool's file system; ``var`` is what the site keeps for itself.
    """

    instance: Instance
    settings: InstanceConfig
    options: Options
    hooks: Hooks
    spool: Spool
    hub: Hub
    audit: Audit
    tmp: Path
    var: Path
    jobs: Jobs = field(default_factory=Jobs)
    history: History = field(init=False)
    shelf: Shelf = field(init=False)

    def __post_init__(self) -> None:
        """The history counts from now on what the hub tells, and the uploads heed it."""
        days = self.options.history_days
        self.history = History(self.spool, self.hub, self.var, days)
        self.shelf = Shelf(self)

    @property
    def root(self) -> str:
        """The path in front of every URL: begins and ends with a slash."""
        return self.settings.relative_root

    def url(self, path: str = "") -> str:
        """The URL, on this host, of a path below the root."""
        return f"{self.root}{path}"

    def page(self, request: Request, title: str, content: object, status: int = 200) -> Response:
        """A page of a plugin, in the site's dress: ``content`` is `Markup`, or text that is escaped."""
        from rqcore_web import render  # noqa: PLC0415 - the pages know the site, not it them

        return render.wrap(request, title, content, status)


def site_of(request: HTTPConnection) -> Site:
    """The site that is asked."""
    site: Site = request.app.state.site
    return site
