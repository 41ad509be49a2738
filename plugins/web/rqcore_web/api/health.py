"""Is it well?  For whoever watches from outside: load balancers, containers, Nagios.

``/livez`` answers as long as the web service does anything at all.  ``/readyz`` (and ``/healthz``) says
whether messages could be taken now: the manager answers, the spool takes a file that is really brought
to the disk and removed again, and there is space.  Everybody may ask, so the answers hold little; the
checks are made once in `_EVERY` seconds at most, however often they are asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from time import monotonic
from typing import TYPE_CHECKING, Any

from rqcore import durable
from rqcore.errors import RqError
from rqcore_web.api import operations
from rqcore_web.api.operations import Operation, one
from rqcore_web.problems import ProblemError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.responses import Response

    from rqcore_web.api.call import Call
    from rqcore_web.site import Site

_EVERY = 1.0
_PATIENCE = 5.0
#: A spool has to have so many inodes free: a message takes up to six.
_INODES = 1000
_FILE = ".readyz"


async def livez(call: Call) -> Response:
    """The web service answers: that is all there is to it."""
    return call.answer({"ready": True, "checks": {}})


class Readiness:
    """The checks, made once for all who ask at about the same time."""

    def __init__(self) -> None:
        self._made: tuple[float, asyncio.Task[dict[str, Any]]] | None = None

    async def answer(self, call: Call) -> Response:
        """200, or 503 with what is wrong."""
        now = monotonic()
        if self._made is None or (self._made[1].done() and now - self._made[0] > _EVERY):
            self._made = now, asyncio.create_task(_checks(call.site))
        checks = await asyncio.shield(self._made[1])
        wrong = [name for name, check in checks.items() if not check["ok"]]
        if wrong:
            detail = "; ".join(f"{name}: {checks[name]['detail']}" for name in wrong)
            raise ProblemError("not-ready", detail, more={"ready": False, "checks": checks})
        return call.answer({"ready": True, "checks": checks})


async def _checks(site: Site) -> dict[str, Any]:
    spool = site.instance.queues_dir
    found = await asyncio.gather(
        _check(_manager(site), "answers"),
        _check(asyncio.to_thread(_written, spool), "takes files"),
        _check(asyncio.to_thread(_space, spool, site.options.keep_free), "enough"),
    )
    return dict(zip(("manager", "spool", "space"), found, strict=True))


async def _check(work: Awaitable[object], fine: str) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_PATIENCE):
            await work
    except TimeoutError:
        return {"ok": False, "detail": f"no answer in {_PATIENCE:g} seconds"}
    except OSError as error:
        return {"ok": False, "detail": str(error.strerror)}
    except RqError as error:
        return {"ok": False, "detail": str(error)}
    return {"ok": True, "detail": fine}


async def _manager(site: Site) -> None:
    await site.spool.manager.call("ping")


def _written(folder: Path) -> None:
    file = folder / f"{_FILE}.{os.getpid()}"
    durable.write_file(file, b"ready?\n", mode=0o600)
    durable.remove_file(file)


def _space(folder: Path, keep_free: int) -> None:
    """Raises `RqError` when there is too little."""
    found = os.statvfs(folder)
    if found.f_bavail * found.f_frsize < keep_free:
        raise RqError("less is free than is to be kept free")
    if found.f_files and found.f_favail < _INODES:
        raise RqError("too few inodes are free")


_readiness = Readiness()


def _health(name: str, summary: str, handler: Any, suffix: str = "") -> tuple[Operation, ...]:
    problems = () if handler is livez else (503,)
    return tuple(
        Operation(
            f"{name}{where}{suffix}", "GET", f"{root}/{name}", "health", summary, "",
            {200: one("Health", "it is")}, handler, problems=problems,
        )
        for where, root in (("", operations.ROOT), ("AtRoot", ""))
    )  # fmt: skip


OPERATIONS = (
    *_health("livez", "Does the web service answer?", livez),
    *_health("readyz", "Could messages be taken now?", _readiness.answer),
    *_health("healthz", "The same as readyz", _readiness.answer),
)
