"""Calls into plugins, each kept apart from the kernel and from the others.

What `IsolatedCalls` promises to `rqcore.hooks`, which stands between it and everybody else:

- Each implementation is called alone.  An `Exception` or `SystemExit` ends that call only; it is
  logged with plugin, version and hook, and counted.  `KeyboardInterrupt` passes: it is the user's.
- Each call is timed.  One that takes longer than 50 ms holds up its whole process and is logged, at
  the 1st, 2nd, 4th, 8th … time.
- A plugin whose implementation fails five times running is quarantined: this process does not call
  it again, and ``rq_plugin_quarantined`` is told.  Only its hooks that fail closed go on being
  asked, and go on refusing until they work again.
- A hook that nobody implements costs a call and one look into a dictionary.  A dozen implementations
  are called for each message, so a call costs no more than it must: arguments are passed by their
  places, None is no answer and is not looked at, and the clock is read once between two plugins.

Nothing here raises because of what a plugin does.  State is per process; a fork copies it.
``RQ_TRACE_HOOKS=1`` writes a line per call to stderr.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Literal, NamedTuple

import pluggy

from rqcore.hookspecs import FAIL_CLOSED, HOOKS, hook_kind
from rqcore.schema import ConfigError

log = logging.getLogger("rqcore.plugins")

QUARANTINE_AFTER = 5
SLOW_SECONDS = 0.050
#: Hooks that may take their time: nobody waits but the person who asked.
_PATIENT = {"rq_collect_checks"}

_STDLIB = os.path.join(os.path.dirname(os.__file__), "")
_OURS = tuple(os.path.join(os.path.dirname(file), "") for file in (__file__, pluggy.__file__))

PluginStatus = Literal["ok", "disabled", "failed", "quarantined"]


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin that was found, for people: ``source`` is its distribution or its file.

    ``error`` says why it is not called, or what of it was refused; "" when all is well.
    """

    name: str
    version: str
    source: str
    status: PluginStatus
    error: str
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HookStats:
    """What one plugin's implementation of one hook did in this process; times in seconds."""

    plugin: str
    hook: str
    calls: int
    errors: int
    seconds: float
    max_seconds: float


class Answer(NamedTuple):
    """What one plugin answered: a value, or the error (one line) of a call that failed."""

    plugin: str
    value: Any
    error: str = ""


@dataclass(slots=True, eq=False)
class Plugin:
    """A plugin as this process keeps it; ``problems``: what of it was refused, by hook."""

    name: str
    version: str
    source: str
    status: PluginStatus = "ok"
    error: str = ""
    module: object = None
    impls: list[Impl] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"plugin {self.name}{version} ({self.source})"

    def stop(self, status: PluginStatus, error: str) -> None:
        """Note why this plugin is not called any more, and log it."""
        self.status, self.error = status, error
        log.error("%s is %s: %s", self, "not used" if status == "failed" else status, error)

    def info(self) -> PluginInfo:
        """The plugin as people see it."""
        error = "; ".join(filter(None, (self.error, *self.problems.values())))
        hooks = tuple(impl.hook for impl in self.impls)
        return PluginInfo(self.name, self.version, self.source, self.status, error, hooks)


@dataclass(slots=True, eq=False)
class Impl:
    """One implementation, and what it has cost so far.

    It is called as ``target(*pick(given))``, where ``given`` are all arguments of the hook in its order.
    """

    plugin: Plugin
    hook: str
    function: Callable[..., Any]
    pick: Callable[[tuple[object, ...]], tuple[object, ...]]
    target: Callable[..., Any]
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    max_seconds: float = 0.0
    slow: int = 0
    failures: int = 0

    def is_called(self) -> bool:
        """Is it still to be called?"""
        status = self.plugin.status
        return status == "ok" or (status == "quarantined" and self.hook in FAIL_CLOSED)


class IsolatedCalls:
    """Who implements which hook, and the only way to call them."""

    def __init__(self) -> None:
        self._plugins: list[Plugin] = []
        self._order: dict[str, tuple[Impl, ...]] = {}
        self._plan: dict[str, tuple[Impl, ...]] = dict.fromkeys(HOOKS, ())
        self._tracing = os.environ.get("RQ_TRACE_HOOKS") == "1"

    def plugins(self) -> list[PluginInfo]:
        """Every plugin that was found, also those that are not called, in the order found."""
        return [plugin.info() for plugin in self._plugins]

    def stats(self) -> list[HookStats]:
        """What the implementations did in this process, plugin by plugin."""
        return [
            HookStats(p.name, i.hook, i.calls, i.errors, i.seconds, i.max_seconds)
            for p in self._plugins
            for i in p.impls
        ]

    def report(self) -> dict[str, list[dict[str, Any]]]:
        """Plugins and their figures as JSON: what the sockets answer when they are asked."""
        return {
            "plugins": [asdict(plugin) for plugin in self.plugins()],
            "hooks": [asdict(figures) for figures in self.stats()],
        }

    def _make_plan(self) -> None:
        """Leave out of the order of calls who is not called any more."""
        plan: dict[str, tuple[Impl, ...]] = dict.fromkeys(HOOKS, ())
        for name, impls in self._order.items():
            plan[name] = tuple(impl for impl in impls if impl.is_called())
        self._plan = plan

    def _ask(
        self,
        impls: tuple[Impl, ...],
        given: tuple[object, ...],
        convert: Callable[[Any], Any],
    ) -> list[Answer]:
        """Call each of them; ``convert`` makes an answer of what it returned, or raises.

        Who returned None is left out.  What one raises becomes its answer's ``error``.
        """
        answers = []
        started = perf_counter()
        for impl in impls:
            failure: Exception | SystemExit | None = None
            value = None
            try:
                value = impl.target(*impl.pick(given))
                if value is not None:
                    value = convert(value)
            except (Exception, SystemExit) as raised:  # noqa: BLE001 - whatever a plugin's code raises
                failure, value = raised, None
            ended = perf_counter()
            seconds = ended - started
            impl.calls += 1
            impl.seconds += seconds
            if seconds > impl.max_seconds:  # noqa: PLR1730 - a call of max costs more
                impl.max_seconds = seconds
            started = ended
            error = ""
            if failure is not None or seconds > SLOW_SECONDS or self._tracing:
                error = self._remark(impl, seconds, failure, value)
                started = perf_counter()
            else:
                impl.failures = 0
            if error or value is not None:
                answers.append(Answer(impl.plugin.name, value, error))
        return answers

    def _remark(
        self, impl: Impl, seconds: float, failure: Exception | SystemExit | None, value: object
    ) -> str:
        """A call that is worth a line: it was slow, or is traced, or failed; returns how it failed."""
        error = "" if failure is None else describe(failure, impl.function)
        if self._tracing:
            _trace(impl, seconds, error or _brief(value))
        if seconds > SLOW_SECONDS and impl.hook not in _PATIENT:
            _warn_slow(impl, seconds)
        if failure is None:
            impl.failures = 0
        else:
            self._failed(impl, failure, error)
        return error

    def _failed(self, impl: Impl, failure: BaseException, error: str) -> None:
        plugin = impl.plugin
        impl.errors += 1
        impl.failures += 1
        # People at a terminal get a line; a daemon's log gets the traceback too.
        detailed = self._tracing or (plugin.status == "ok" and not _happens_at_start(impl))
        # Who gives a plugin its options tells in a line of his own what became of it.
        if detailed or impl.hook != "rq_configure":
            log.error(
                "%s failed in %s: %s",
                plugin, impl.hook, error, exc_info=failure if detailed else None,
            )  # fmt: skip
        if impl.failures < QUARANTINE_AFTER or plugin.status != "ok":
            return
        plugin.stop("quarantined", f"failed {impl.failures} times running in {impl.hook}: {error}")
        self._make_plan()
        if impl.hook != "rq_plugin_quarantined":
            given = (plugin.name, impl.hook, error)
            self._ask(self._plan["rq_plugin_quarantined"], given, refuse_coroutine)


def describe(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """An error in one line: its kind, its text, and where; best in the file of ``function``.

    What is wrong with a config is no mistake in the code: of that all problems, and nothing else.
    """
    if isinstance(error, ConfigError):
        return "; also: ".join(map(str, (*error.problems, *error.warnings)))
    try:
        text = " ".join(str(error).split())[:500]
    except Exception:  # noqa: BLE001 - a plugin's own class may be broken too
        text = "(its text cannot be made)"
    kind = type(error).__name__
    said = f"{kind}: {text}" if text else kind
    if isinstance(error, SyntaxError):
        return said
    home = getattr(getattr(function, "__code__", None), "co_filename", None)
    places: list[tuple[str, int]] = []
    step = error.__traceback__
    while step is not None:
        places.append((step.tb_frame.f_code.co_filename, step.tb_lineno))
        step = step.tb_next
    places = [place for place in places if place[0] == home] or [
        place for place in places if _may_be_a_plugins(place[0])
    ]
    return f"{said} ({os.path.basename(places[-1][0])}:{places[-1][1]})" if places else said


def refuse_coroutine(value: Any) -> Any:
    """The value itself.  Raises `TypeError` for a coroutine, which nobody would ever run."""
    if isinstance(value, Coroutine):
        value.close()
        raise TypeError("returned a coroutine; hooks of rqcore are plain functions")
    return value


def _may_be_a_plugins(file: str) -> bool:
    """Is this neither rqcore's code nor the standard library's, where mistakes only surface?"""
    if file.startswith(("<", *_OURS)):
        return False
    return not file.startswith(_STDLIB) or "-packages" in file


def _happens_at_start(impl: Impl) -> bool:
    return hook_kind(impl.hook) in ("prepare", "register")


def _warn_slow(impl: Impl, seconds: float) -> None:
    if _happens_at_start(impl):
        return
    impl.slow += 1
    if impl.slow & (impl.slow - 1) == 0:
        log.warning(
            "%s took %.0f ms in %s (slow %d times): everything else waits meanwhile; "
            "let a queue do slow work",
            impl.plugin, seconds * 1000, impl.hook, impl.slow,
        )  # fmt: skip


def _brief(value: object) -> str:
    try:
        return repr(value)[:200]
    except Exception:  # noqa: BLE001 - a plugin's own class may be broken too
        return f"<{type(value).__name__}>"


def _trace(impl: Impl, seconds: float, result: str) -> None:
    line = f"rqcore[{os.getpid()}] {impl.hook} {impl.plugin.name} {seconds * 1000:.2f} ms {result}"
    with contextlib.suppress(OSError):  # whoever watched has gone; the work goes on
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - what tracing is for
