"""All examinations of ``rq doctor``, in the order in which they are shown.

Each is made by itself: one that fails is a critical check of its own, and keeps nobody from looking at
the rest.  A check of a plugin takes the place of ours of the same name: it knows more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rqcore.errors import RqError
from rqcore.hookspecs import Check
from rqcore_cli.app import App
from rqcore_cli.checking.runner import alarm
from rqcore_cli.doctor import machine, places, work
from rqcore_cli.doctor.patient import Patient, instance_info

#: So long the checks of plugins may take, in seconds; the plugin that hangs then, and the next ones.
_PATIENCE = 20.0

_EXAMINATIONS: tuple[Callable[[Patient], Iterator[Check]], ...] = (
    work.manager, work.configs, work.queues, work.services, work.plugins,
    places.owner, places.modes, places.secrets, places.directories, places.sockets, places.stale,
    machine.disk, machine.file_system, machine.clock, machine.login, machine.limits, machine.inotify,
    machine.logs,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A check, and who made it: ``rq``, or a plugin."""

    source: str
    check: Check


def examine(app: App) -> list[Found]:
    """Look at everything.  Raises `NotFoundError` when there is no instance."""
    patient = Patient(app)
    theirs = _each_once(_of_plugins(app))
    replaced = {found.check.name for found in theirs}
    ours: list[Found] = []
    for examination in _EXAMINATIONS:
        ours += [
            Found("rq", check)
            for check in _tried(examination, patient)
            if check.name not in replaced
        ]
    return ours + theirs


def _each_once(found: list[Found]) -> list[Found]:
    """Two plugins may come upon the same: what is called the same, and takes the same remedy."""
    told: dict[tuple[str, str, str], Found] = {}
    for item in found:
        check = item.check
        told.setdefault((check.name, check.level, check.remedy or check.text), item)
    return list(told.values())


def _tried(examination: Callable[[Patient], Iterator[Check]], patient: Patient) -> list[Check]:
    name = examination.__name__.replace("_", " ")
    found: list[Check] = []
    try:
        found.extend(examination(patient))
    except (OSError, RqError) as error:
        found.append(Check(name, "critical", f"cannot be looked at: {error}",
                           "put that right, or look as the user that RQ runs as"))  # fmt: skip
    return found


def _of_plugins(app: App) -> list[Found]:
    info = instance_info(app)
    # A plugin that hangs is told to have failed, and the others are asked.
    try:
        with alarm(_PATIENCE, _PATIENCE):
            found = app.hooks.collect_checks(info)
    except TimeoutError as error:  # it was between two of them
        found = [("rq", Check("plugins", "critical", f"could not be asked: {error}", "look again"))]
    return [Found(plugin, check) for plugin, check in found]
