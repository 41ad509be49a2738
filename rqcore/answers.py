"""What a plugin's answer must be, hook by hook.

Each function gives the answer back in the shape that `rqcore.hooks` works with, or raises
`TypeError` or `ValueError` in words for the plugin's author.  They are called as part of the call
into the plugin, so a wrong answer, or a generator that fails half-way, is the plugin's failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rqcore.hookspecs import Check, Delay, Hold, Reject, Service
from rqcore.isolation import refuse_coroutine
from rqcore.message import queue_name_problem


def _wrong(value: object, wanted: str) -> TypeError:
    return TypeError(f"returned {value!r:.80}; return {wanted}")


def reject(value: object) -> Reject | None:
    """A `Reject`, or None for no objection."""
    if value is None or isinstance(value, Reject):
        return value
    raise _wrong(refuse_coroutine(value), "Reject(reason) or None")


def hold_or_delay(value: object) -> Hold | Delay | None:
    """A vote on the start of a message, or None for no objection."""
    if value is None or isinstance(value, Hold | Delay):
        return value
    raise _wrong(refuse_coroutine(value), "Hold(reason), Delay(until) or None")


def queue_name(value: object) -> str | None:
    """The name of a queue, or None for no answer."""
    if value is None or (isinstance(value, str) and queue_name_problem(value) is None):
        return value
    raise _wrong(refuse_coroutine(value), "the name of a queue, or None")


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise _wrong(refuse_coroutine(value), "a list")
    return list(value)


def problems(value: object) -> list[str]:
    """Sentences; none when there is no problem."""
    problems = _items(value)
    for problem in problems:
        if not isinstance(problem, str):
            raise _wrong(problem, "a list of sentences")
    return problems


def queue_configs(value: object) -> list[dict[str, Any]]:
    """Configs of queues, each with a valid name."""
    configs = []
    for config in _items(value):
        if not isinstance(config, Mapping):
            raise _wrong(config, "a list of queue configs")
        problem = queue_name_problem(config.get("name"))
        if problem:
            raise ValueError(f"name {config.get('name')!r}: {problem}")
        configs.append(dict(config))
    return configs


def checks(value: object) -> list[Check]:
    """What was looked at."""
    checks = _items(value)
    for check in checks:
        if not isinstance(check, Check):
            raise _wrong(check, "a list of Check(name, level, text)")
    return checks


def services(value: object) -> list[Service]:
    """Services, each with a name."""
    services = _items(value)
    for service in services:
        if not isinstance(service, Service):
            raise _wrong(service, "a list of Service(name, run)")
    return services


def variables(value: object) -> dict[str, str]:
    """Environment variables that can be set and are not rqcore's own."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong(refuse_coroutine(value), "a mapping of names to values")
    for name, content in value.items():
        if not isinstance(name, str) or not isinstance(content, str):
            raise TypeError(f"variable {name!r}={content!r:.80} must be text")
        if not name or "=" in name or "\0" in name + content:
            raise ValueError(f"variable {name!r} cannot be set: = in its name, or NUL, or no name")
        if name.startswith("RQ_"):
            raise ValueError(f"variable {name}: names that begin with RQ_ are rqcore's own")
    return dict(value)
