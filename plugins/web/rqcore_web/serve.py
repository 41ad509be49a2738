"""The service: the web server's process, from its start to its end.

It tells the manager that it is ready once it listens, and ends when the manager does or asks it to.
The manager can lose it without harm: it holds nothing that the spool does not have, or that it would
not find again under ``var/web``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import lru_cache, partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, cast

import uvicorn
from uvicorn.server import ServerState

from rqcore import durable
from rqcore.instance import Instance
from rqcore_web import uploads
from rqcore_web.app import make_app
from rqcore_web.audit import Audit
from rqcore_web.events import Hub
from rqcore_web.options import parse_options
from rqcore_web.security import listening
from rqcore_web.security.connections import Room
from rqcore_web.security.protocol import Http
from rqcore_web.security.tls import Tls
from rqcore_web.site import Site
from rqcore_web.spool import Spool

if TYPE_CHECKING:
    from rqcore.hookspecs import ServiceContext

_log = logging.getLogger(__name__)
#: How long requests that are under way may take when the service has to end.
_GRACE = 5


class _State(ServerState):
    """What uvicorn adds to each answer, the date, made when it is asked for."""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return _date(int(time()))

    @default_headers.setter
    def default_headers(self, value: list[tuple[bytes, bytes]]) -> None:
        """Not taken: see above."""


@lru_cache(maxsize=1)
def _date(second: int) -> list[tuple[bytes, bytes]]:
    return [(b"date", formatdate(second, usegmt=True).encode("ascii"))]


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals to us, says when it listens, and sleeps when nobody asks."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.server_state = _State()
        self._on_ready = on_ready
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Finish what is under way and end."""
        self.should_exit = True
        self._stop.set()

    async def main_loop(self) -> None:
        """Until `stop`; uvicorn's own wakes up ten times a second."""
        await self._stop.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(context: ServiceContext) -> int:
    """Serve until ``context.stop_fd`` says stop; returns the exit status.

    Raises `RqError` for a configuration that it does not serve with, `OSError` for a port that is taken.
    """
    site = make_site(context)
    file, options = site.instance.config_file, site.options
    listening.refuse_open_door(site.settings, options, file, site.instance.config_dir)
    tls = None
    if options.certificate:
        tls = Tls(site.instance.directory, options.certificate, options.key)
    listening.allow_descriptors(options.max_connections)
    sock = listening.listen(site.settings, file)
    uploads.clear_leftovers(site)  # only now: who has the port is the only service
    site.shelf.load()
    asyncio.run(_serve(site, sock, tls, context))
    return 0


def make_site(context: ServiceContext) -> Site:
    """The site of this instance.  Raises `RqError`."""
    instance = Instance(Path(context.instance.directory))
    settings, _ = instance.load_config()
    options = parse_options(settings.plugins.get("web", {}), str(instance.config_file))
    var = instance.directory / "var" / "web"
    for folder in (var.parent, var):
        if not folder.exists():
            durable.make_dir(folder, 0o700)
    spool = Spool(instance)
    return Site(
        instance=instance, settings=settings, options=options, hooks=context.hooks,
        spool=spool, hub=Hub(spool), audit=Audit(instance.log_dir / "audit.jsonl"),
        tmp=instance.use_tmp_dir(settings), var=var,
    )  # fmt: skip


async def _serve(site: Site, sock: socket.socket, tls: Tls | None, context: ServiceContext) -> None:
    options = site.options
    # A protocol is made by a call with the server's keywords, of a class or of anything else.
    protocol = partial(Http, Room(options.max_connections), options.client_timeout)
    config = uvicorn.Config(
        make_app(site), http=cast("type[asyncio.Protocol]", protocol), ws="none", lifespan="on",
        access_log=False, log_config=None, server_header=False, date_header=True,
        proxy_headers=False, timeout_graceful_shutdown=_GRACE,
    )  # fmt: skip
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # what it does when all is well is ours
    config.load()
    config.ssl = tls.context if tls else None
    server = _Server(config, context.ready)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_reader(context.stop_fd)
        site.hub.close()
        server.stop()

    loop.add_reader(context.stop_fd, stop)
    loop.add_signal_handler(signal.SIGTERM, stop)
    await server.serve(sockets=[sock])
    site.spool.close()
