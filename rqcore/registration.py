"""Plugins taken in: loaded, checked, and put in order, each without harm to the others.

`PluginRegistry.register_all` does for a batch of plugins, in this order: refuse those that share a
name; load each; register those that bring hooks of their own, and let them; register the others;
check what each implements.  Whatever is wrong with a plugin costs only that plugin, is logged, and
kept for ``rq plugins``.  Refused are:

- what is no plugin: None, a class, something without a single hook;
- a hook that nobody specifies (a misspelt one, mostly), or an argument that the hook has not;
- a hook function without ``@hookimpl``, which would be overlooked;
- wrappers, coroutines, and functions with a ``yield`` where no iterable is wanted.

Called by `rqcore.plugins`, which finds plugins, and by tests, which give them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import pluggy

from rqcore import hookspecs
from rqcore.hookspecs import HOOKS
from rqcore.isolation import (
    Answer,
    Impl,
    IsolatedCalls,
    Plugin,
    PluginInfo,
    describe,
    log,
    refuse_coroutine,
)

#: Hooks whose answer is an iterable, so that their implementation may be a generator.
_MAY_YIELD = frozenset({"rq_register_queues", "rq_register_services", "rq_check_queue_config"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plugin that was found: ``load`` imports it; ``disabled`` says why that is not wanted."""

    name: str
    version: str
    source: str
    load: Callable[[], object]
    disabled: str = ""


class _RefusedError(Exception):
    """A plugin that cannot be taken; its text says why."""


class PluginRegistry(IsolatedCalls):
    """The plugins of one process."""

    def __init__(self) -> None:
        super().__init__()
        self._manager = pluggy.PluginManager("rqcore")
        self._manager.add_hookspecs(hookspecs)

    def has(self, name: str) -> bool:
        """Does anybody implement this hook (``rq_…``)?  Raises `LookupError` for an unknown one."""
        return bool(self._implementations(name))

    def call(self, name: str, /, **given: Any) -> list[Answer]:
        """Ask every implementation of a hook that a plugin brought; None answers are left out.

        Raises `LookupError` for a hook that nobody specified, or an argument that is left out.
        """
        impls = self._implementations(name)
        if not impls:
            return []
        spec = getattr(self._manager.hook, name).spec
        return self._ask(impls, tuple(given[arg] for arg in _known(spec)), refuse_coroutine)

    def _implementations(self, name: str) -> tuple[Impl, ...]:
        caller = getattr(self._manager.hook, name, None)
        if caller is None or not caller.has_spec():
            raise LookupError(f"no such hook: {name}")
        return self._plan.get(name, ())

    def register(
        self, plugin: object, name: str, *, version: str = "", source: str = "given"
    ) -> PluginInfo:
        """Take one plugin, a module or an object; the answer says whether it works."""
        self.register_all([Candidate(name, version, source, lambda: plugin)])
        return self._plugins[-1].info()

    def register_all(self, candidates: Iterable[Candidate]) -> None:
        """Take plugins; what goes wrong with one stands in `plugins`."""
        found = [(Plugin(c.name, c.version, c.source), c) for c in candidates]
        self._plugins += [plugin for plugin, _ in found]
        for plugin, candidate in found:
            if candidate.disabled:
                plugin.status, plugin.error = "disabled", candidate.disabled
        for plugin, _ in found:
            self._refuse_namesakes(plugin)
        for plugin, candidate in found:
            self._guarded(plugin, self._load, candidate)
        new = [plugin for plugin, _ in found if plugin.status == "ok"]
        bringers: list[Plugin] = []
        for plugin in new:
            self._guarded(plugin, self._see_if_it_brings_hooks, bringers)
        for plugin in bringers:
            self._guarded(plugin, self._enter)
            self._guarded(plugin, self._add_hookspecs)
        for plugin in new:
            if plugin not in bringers:
                self._guarded(plugin, self._enter)
        for plugin in new:
            self._guarded(plugin, self._inspect)
        self._make_order()

    def _disable(self, plugin: Plugin, why: str) -> None:
        """Do not call a plugin, because it cannot work."""
        if plugin.module is not None and self._manager.get_plugin(plugin.name) is plugin.module:
            self._manager.unregister(plugin.module)
        plugin.impls = []
        plugin.stop("failed", why)
        self._make_order()

    def _refuse_namesakes(self, plugin: Plugin) -> None:
        same = [p for p in self._plugins if p.name == plugin.name and p.status != "disabled"]
        if len(same) > 1:
            who = " and ".join(map(str, same))
            for one in same:
                if one.status != "failed":
                    self._disable(one, f"{who} have the same name; none is used, remove one")

    def _guarded(self, plugin: Plugin, step: Callable[..., None], *args: object) -> None:
        """Do one step for a plugin, unless an earlier one failed."""
        if plugin.status != "ok":
            return
        try:
            step(plugin, *args)
        except _RefusedError as refusal:
            self._disable(plugin, str(refusal))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin's code raises
            self._disable(plugin, describe(error))
            log.debug("%s cannot be loaded", plugin, exc_info=error)

    def _load(self, plugin: Plugin, candidate: Candidate) -> None:
        module = candidate.load()
        if module is None or inspect.isclass(module):
            raise _RefusedError(f"{module!r} is no plugin; give a module or an instance")
        plugin.module = module
        plugin.version = plugin.version or str(getattr(module, "__version__", ""))

    def _see_if_it_brings_hooks(self, plugin: Plugin, bringers: list[Plugin]) -> None:
        name = "rq_add_hookspecs"
        if name in dir(plugin.module) and self._manager.parse_hookimpl_opts(plugin.module, name):
            bringers.append(plugin)

    def _enter(self, plugin: Plugin) -> None:
        try:
            self._manager.register(plugin.module, plugin.name)
        except pluggy.PluginValidationError as error:
            raise _RefusedError(" ".join(str(error).split())) from error

    def _add_hookspecs(self, plugin: Plugin) -> None:
        for impl in self._manager.hook.rq_add_hookspecs.get_hookimpls():
            if impl.plugin is plugin.module:
                impl.function(self._manager)

    def _inspect(self, plugin: Plugin) -> None:
        """Refuse what pluggy would take and we cannot call, or would overlook."""
        for caller in self._manager.get_hookcallers(plugin.module) or ():
            for impl in caller.get_hookimpls():
                if impl.plugin is not plugin.module:
                    continue
                if caller.spec is not None:
                    plugin.impls.append(_ready(plugin, caller.name, _known(caller.spec), impl))
                elif not impl.optionalhook:
                    raise _RefusedError(_unknown(caller.name))
        plugin.impls.sort(key=lambda impl: HOOKS.index(impl.hook) if impl.hook in HOOKS else 99)
        unmarked = _unmarked(plugin)
        if unmarked:
            raise _RefusedError(f"{unmarked} is not marked: write @hookimpl before it")
        if not plugin.impls:
            raise _RefusedError("it has no hook; write @hookimpl before its hook functions")

    def _make_order(self) -> None:
        """Put implementations in pluggy's order: registered last, called first."""
        known = {(i.plugin.name, i.hook, i.function): i for p in self._plugins for i in p.impls}
        self._order = {}
        for hook in {impl.hook for impl in known.values()}:
            calls = reversed(getattr(self._manager.hook, hook).get_hookimpls())
            keys = ((call.plugin_name, hook, call.function) for call in calls)
            self._order[hook] = tuple(known[key] for key in keys if key in known)
        self._make_plan()

    def _conflicts(self, hook: str, kind: str, owners: Mapping[str, list[Plugin]]) -> set[str]:
        """The names that were brought more than once; each plugin is told of the others."""
        for plugin in self._plugins:
            plugin.problems.pop(hook, None)
        refused = {name: plugins for name, plugins in owners.items() if len(plugins) > 1}
        for name, plugins in refused.items():
            who = " and ".join(sorted(map(str, plugins)))
            text = f"{kind} {name!r} is brought by {who}; none is used, remove one"
            log.error("%s", text)
            for plugin in plugins:
                plugin.problems[hook] = "; ".join(
                    dict.fromkeys(filter(None, (plugin.problems.get(hook), text)))
                )
        return set(refused)


def _ready(plugin: Plugin, hook: str, known: tuple[str, ...], impl: pluggy.HookImpl) -> Impl:
    function = inspect.unwrap(impl.function)
    if impl.wrapper or impl.hookwrapper:
        raise _RefusedError(f"{hook} is a wrapper; hooks of rqcore are plain functions")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _RefusedError(f"{hook} is async; hooks of rqcore are plain functions")
    if inspect.isgeneratorfunction(function) and hook in HOOKS and hook not in _MAY_YIELD:
        raise _RefusedError(f"{hook} has a yield, so it would never run; use return")
    for parameter in inspect.signature(impl.function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise _RefusedError(f"{hook} has {parameter.name} after a *; put it before")
    optional = tuple(name for name in impl.kwargnames if name in known)
    pick = _picker([known.index(name) for name in (*impl.argnames, *optional)])
    target = _by_name(impl.function, len(impl.argnames), optional) if optional else impl.function
    return Impl(plugin, hook, impl.function, pick, target)


def _known(spec: pluggy._hooks.HookSpec) -> tuple[str, ...]:
    """The arguments of a hook, in the order in which they are given."""
    return (*spec.argnames, *spec.kwargnames)


def _picker(places: list[int]) -> Callable[[tuple[object, ...]], tuple[object, ...]]:
    """Takes these out of all that a hook gives; mostly they stand side by side."""
    first = places[0] if places else 0
    if places == list(range(first, first + len(places))):
        return itemgetter(slice(first, first + len(places)))
    return itemgetter(*places)


def _by_name(
    function: Callable[..., Any], count: int, optional: tuple[str, ...]
) -> Callable[..., Any]:
    """The function, with what has a default in it passed by name: it may stand behind others."""
    return lambda *given: function(
        *given[:count], **dict(zip(optional, given[count:], strict=True))
    )


def _unknown(hook: str) -> str:
    import difflib  # noqa: PLC0415 - only for a mistake

    near = difflib.get_close_matches(hook, HOOKS, 1)
    hint = f"did you mean {near[0]}?" if near else "this version of rqcore has no such hook"
    return f"unknown hook {hook}: {hint}"


def _unmarked(plugin: Plugin) -> str | None:
    """A function of a hook's name that pluggy does not see; the specification itself is none."""
    implemented = {impl.hook for impl in plugin.impls}
    for name in HOOKS:
        function = getattr(plugin.module, name, None)
        mine = inspect.isroutine(function) and function is not getattr(hookspecs, name)
        if mine and name not in implemented:
            return name
    return None
