"""Examinations of what runs: configuration, manager, queues, services, plugins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from rqcore import __version__
from rqcore.client import Client, ManagerClient, QueueClient
from rqcore.config import ConfigError, Problem
from rqcore.errors import UnreachableError
from rqcore.hookspecs import Check
from rqcore.schema import did_you_mean
from rqcore.script import ScriptError, resolve_script
from rqcore_cli.checking.sources import Queue
from rqcore_cli.doctor.patient import PATIENCE, Patient

_LATE = 300


def configs(patient: Patient) -> Iterator[Check]:
    """What is wrong with the main config and the queues'."""
    instance = patient.instance
    loads: list[Callable[[], tuple[object, list[Problem]]]] = [instance.load_config]
    loads += [partial(instance.load_queue, name) for name in instance.queue_names()]
    wrong = False
    for load in loads:
        try:
            problems: Sequence[Problem] = ()
            warnings: Sequence[Problem] = load()[1]
        except ConfigError as error:
            problems, warnings = error.problems, error.warnings
        for level, found in (("critical", problems), ("warning", warnings)):
            for problem in found:
                wrong = True
                text, _, remedy = str(problem).rpartition("; ")
                yield Check("config", level, text or str(problem), remedy or problem.remedy)  # type: ignore[arg-type]
    if not wrong:
        count = len(loads) - 1
        yield Check("config", "ok", f"the main config is valid, and so are those of {count} queues")


def manager(patient: Patient) -> Iterator[Check]:
    """Does RQ run, and is it this version?"""
    about = patient.manager
    if about is None and "no permission" in patient.silence:
        text, _, remedy = patient.silence.rpartition("; ")
        yield Check("rq", "critical", text, remedy)
    elif about is None:
        text = "RQ does not run" if "does not run" in patient.silence else patient.silence
        yield Check("rq", "warning", text, "start it with: rq start")
    elif about["stopping"]:
        yield Check("rq", "warning", "RQ is stopping", "rq start, once it has stopped")
    elif about["version"] != __version__:
        yield Check("rq", "warning", f"RQ {about['version']} runs, {__version__} is installed",
                    "rq restart, for the new version")  # fmt: skip
    else:
        yield Check("rq", "ok", f"RQ {about['version']} runs, pid {about['pid']}")


def queues(patient: Patient) -> Iterator[Check]:
    """How each queue is, and what is to be done."""
    facts = patient.facts
    found = facts.queues if facts is not None else tuple(_asleep(patient))
    for queue in found:
        name = f"queue {queue.name}"
        yield _condition(patient, queue, name)
        if queue.corrupt:
            yield Check(
                name, "warning", f"{queue.corrupt} unreadable messages were set aside",
                f"look at {patient.instance.queue_dir(queue.name)}/corrupt: beside each stands a "
                ".reason; put it right and move it into que, or remove it",
            )  # fmt: skip
        for line in queue.crons or ():
            if line.late > _LATE:
                yield Check(
                    name, "critical", f'its schedule "{line.cron}" is {line.late / 60:.0f} min late',
                    f"the queue hangs, or the clock was set: rq queue restart {queue.name}",
                )  # fmt: skip


def _condition(patient: Patient, queue: Queue, name: str) -> Check:
    why = f": {queue.why}" if queue.why else ""
    match queue.status:
        case "UP":
            counts = ", ".join(
                f"{count} {state}" for state, count in (queue.counts or {}).items() if count
            )
            return Check(name, "ok", f"UP{', ' if counts else ''}{counts}")
        case "DOWN":
            return Check(
                name, "warning", f"is DOWN and refuses messages{why}", f"rq queue up {queue.name}"
            )
        case "PAUSE":
            return Check(
                name,
                "warning",
                f"is paused and starts nothing{why}",
                f"rq queue resume {queue.name}",
            )
        case "SCRIPTERROR":
            return Check(name, "critical", f"cannot run its script{why}",
                         "put the script there, executable; the queue notices by itself")  # fmt: skip
        case "not started":
            return Check(name, "warning", "was made by hand and is not started yet", "rq reload",
                         partial(_reload, patient))  # fmt: skip
        case "failed":
            return Check(name, "critical", f"does not run{why}", "put that right, then: rq reload")
        case "hung":
            return Check(name, "critical", f"hangs{why}", f"rq queue restart {queue.name}")
        case status:
            return Check(name, "critical", f"is {status}{why}",
                         "it is started again by itself; log/rqcore.log says what ended it")  # fmt: skip


def _asleep(patient: Patient) -> Iterator[Queue]:
    """The queues of an instance that does not run, as far as files tell."""
    instance = patient.instance
    for name in instance.queue_names():
        try:
            config, _ = instance.load_queue(name)
        except ConfigError:
            continue  # told by the examination of the configs
        status, why = instance.admin_state(name), instance.admin_reason(name)
        try:
            resolve_script(config.script, str(instance.directory))
        except ScriptError as error:
            status, why = "SCRIPTERROR", str(error)
        folder = instance.queue_dir(name) / "corrupt"
        corrupt = (
            sum(not n.endswith(".reason") for n in os.listdir(folder)) if folder.is_dir() else 0
        )
        yield Queue(name, status, why, {}, corrupt)


def _reload(patient: Patient) -> str:
    for problem in patient.app.ask_manager("reload"):
        patient.app.warn(problem)
    return "RQ has read its configuration anew"


def services(patient: Patient) -> Iterator[Check]:
    """Do the services run that plugins bring?"""
    for child in (patient.manager or {"children": ()})["children"]:
        if child["kind"] == "queue":
            continue
        name = f"service {child['name']}"
        if child["state"] == "running":
            again = f", started again {child['restarts']} times" if child["restarts"] else ""
            yield Check(name, "ok", f"runs, pid {child['pid']}{again}")
        else:
            why = f": {child['problem']}" if child["problem"] else ""
            yield Check(
                name, "critical", f"is {child['state']}{why}", "put that right, then: rq reload"
            )


def plugins(patient: Patient) -> Iterator[Check]:
    """Which plugins could not be loaded, objected to their options, or failed too often?"""
    told: set[tuple[str, str]] = set()
    count = 0
    for process, report in _reports(patient):
        count = max(count, len(report["plugins"]))
        for plugin in report["plugins"]:
            name, status = plugin["name"], plugin["status"]
            if status in ("failed", "quarantined") and (name, status) not in told:
                told.add((name, status))
                yield _not_used(name, f"is {status} in {process}", plugin["error"])
    for name, why in _in_vain(patient):
        told.add((name, why))
        yield Check(
            f"plugin {name}", "warning", f"the main config has options for it, and {why}",
            f"correct the name under plugins in {patient.instance.config_file}, or remove them",
        )  # fmt: skip
    if not told:
        yield Check("plugins", "ok", f"{count} plugins, none failed")


def _not_used(name: str, what: str, error: str) -> Check:
    _, options, wrong = error.partition("its options: ")
    if options:
        return Check(
            f"plugin {name}", "critical", f"its options are wrong, so it is not used: {wrong}",
            "correct them; then: rq restart",
        )  # fmt: skip
    return Check(
        f"plugin {name}", "critical", f"{what}: {error}",
        "correct it, its options, or its file; then: rq restart",
    )  # fmt: skip


def _in_vain(patient: Patient) -> Iterator[tuple[str, str]]:
    """Options that nobody takes: whose, and why."""
    known = {plugin.name: plugin for plugin in patient.app.hooks.plugins()}
    for name in patient.config.plugins if patient.config is not None and known else ():
        plugin = known.get(name)
        if plugin is None:
            near = did_you_mean(name, list(known)) or "is it installed?"
            yield name, f"there is no plugin {name}: {near}"
        elif plugin.status == "ok" and "rq_configure" not in plugin.hooks:
            yield name, "it takes none"


def _reports(patient: Patient) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each process says of its plugins; those that do not answer are told of elsewhere."""
    yield "rq", patient.app.hooks.report()
    directory = patient.instance.directory
    clients: list[tuple[str, Client]] = []
    if patient.facts is not None:
        clients.append(("the manager", ManagerClient(directory, timeout=PATIENCE)))
        clients += [
            (f"queue {queue.name}", QueueClient(directory, queue.name, timeout=PATIENCE))
            for queue in patient.facts.queues
            if queue.counts is not None
        ]
    for process, client in clients:
        with client, contextlib.suppress(UnreachableError, TimeoutError):
            yield process, client.ask("plugins")
