"""The service ``metrics``: pushes to Graphite and StatsD and writes the text file, each by its interval.

It is there only when the options ask for a push, and sleeps from one interval to the next.  Collecting
and sending happen in threads, so that it ends at once when it has to.  What cannot be reached is said
once in the log, and again when it works; ``pushes.json`` (`rqcore_metrics.pushes`) says how each goes.

Options that change in the main config are taken when the file is written; those that are wrong leave
the old ones in force.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

from rqcore.errors import RqError
from rqcore.hookspecs import ServiceContext
from rqcore.loop import Loop, Timer
from rqcore.threads import Threads
from rqcore.watch import watcher
from rqcore_metrics import pushes
from rqcore_metrics.carriers import Carrier, GraphiteCarrier, StatsDCarrier, TextfileCarrier
from rqcore_metrics.collect import collect
from rqcore_metrics.options import Graphite, Options, StatsD, Textfile, read_options

_log = logging.getLogger(__name__)
_Where = Graphite | StatsD | Textfile


@dataclass(eq=False, slots=True)
class _Push:
    """One push that is wanted."""

    name: str
    options: _Where
    carrier: Carrier
    told: dict[str, Any]
    timer: Timer | None = None
    busy: bool = False
    gone: bool = False


class Pusher:
    """See the head of this module."""

    def __init__(self, loop: Loop, context: ServiceContext) -> None:
        self._loop = loop
        self._context = context
        self._directory = context.instance.directory
        self._threads = Threads(loop)
        self._pushes: dict[str, _Push] = {}
        self._options = Options()
        self._ailing = False

    def take(self, options: Options) -> None:
        """Push by these options from now on."""
        self._options = options
        wanted: dict[str, _Where | None] = {
            "graphite": options.graphite, "statsd": options.statsd, "textfile": options.textfile,
        }  # fmt: skip
        for name, where in wanted.items():
            known = self._pushes.get(name)
            if known is not None and known.options != where:
                self._drop(known)
            if where is not None and name not in self._pushes:
                self._begin(name, where)
        self._tell()

    def reread(self) -> None:
        """The main config was written."""
        try:
            options = read_options(self._directory)
        except RqError as error:
            _log.warning("the metrics are pushed as before: %s", error)
            return
        if options != self._options:
            _log.info("the metrics are pushed by new options")
            self.take(options)

    def close(self) -> None:
        """There will be no more."""
        for push in list(self._pushes.values()):
            self._drop(push)

    def _begin(self, name: str, where: _Where) -> None:
        carrier = self._carrier(where)
        told = {"to": carrier.to, "every": where.interval, "at": time(), "ok": None, "error": "",
                "since": None, "waiting": 0, "lost": 0}  # fmt: skip
        push = self._pushes[name] = _Push(name, where, carrier, told)
        self._loop.soon(lambda: self._tick(push))

    def _carrier(self, where: _Where) -> Carrier:
        host = str(self._context.instance.config.get("host") or "")
        host = host or urlsplit(self._context.instance.base_url).hostname or "localhost"
        if isinstance(where, Graphite):
            return GraphiteCarrier(where, host)
        return StatsDCarrier(where, host) if isinstance(where, StatsD) else TextfileCarrier(where)

    def _drop(self, push: _Push) -> None:
        del self._pushes[push.name]
        push.gone = True
        if push.timer is not None:
            push.timer.cancel()
        push.carrier.retract()
        if not push.busy:
            push.carrier.close()

    def _tick(self, push: _Push) -> None:
        if push.gone:
            return
        push.busy = True
        began = monotonic()
        self._threads.run(self._work(push), lambda result: self._ticked(push, began, result))

    def _work(self, push: _Push) -> Callable[[], None]:
        hooks, instance, options = self._context.hooks, self._context.instance, self._options

        def work() -> None:
            now = time()
            families = collect(hooks, instance, plugin_hooks=options.plugin_hooks)
            push.carrier.carry(families, now)

        return work

    def _ticked(self, push: _Push, began: float, result: object) -> None:
        push.busy = False
        if push.gone:
            push.carrier.close()
            return
        told, now = push.told, time()
        told.update(at=now, waiting=push.carrier.waiting, lost=push.carrier.lost)
        if isinstance(result, Exception):
            text = _reason(result)
            if not told["error"]:
                known = isinstance(result, OSError)
                _log.warning(
                    "%s to %s does not work: %s; it is tried again", push.name, told["to"], text,
                    exc_info=None if known else result,
                )  # fmt: skip
                told["since"] = now
            told["error"] = text
        else:
            if told["error"]:
                _log.info("%s to %s works again", push.name, told["to"])
            told.update(ok=now, error="", since=None)
        self._tell()
        wait = push.options.interval - (monotonic() - began)
        push.timer = self._loop.after(max(wait, 0.1), lambda: self._tick(push))

    def _tell(self) -> None:
        try:
            pushes.write(self._directory, {name: one.told for name, one in self._pushes.items()})
        except OSError as error:
            if not self._ailing:
                _log.warning("%s cannot be written: %s", pushes.path(self._directory), error)
            self._ailing = True
        else:
            self._ailing = False


def _reason(error: Exception) -> str:
    """Why it did not work, in one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(text.split()) or type(error).__name__


def push(context: ServiceContext) -> int:
    """Run the service until it is to end."""
    loop = Loop()
    pusher = Pusher(loop, context)
    config = f"{context.instance.directory}/config"
    watching = watcher(loop, pusher.reread)
    watching.entries(
        config, lambda change: pusher.reread() if change.name == "config.json" else None
    )
    loop.reader(context.stop_fd, loop.stop)
    pusher.take(read_options(context.instance.directory))
    context.ready()
    loop.run()
    pusher.close()
    return 0
