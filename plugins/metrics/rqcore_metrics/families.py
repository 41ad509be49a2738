"""The families of rqcore itself: from the queues' books, and from what their processes answer.

A queue that does not answer is there with ``rqcore_queue_up`` 0, and with what its book counts; how many
messages lie where is then not known, and left out.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from time import time
from typing import Any

from rqcore import __version__
from rqcore.hookspecs import hook_kind
from rqcore.instance import Instance
from rqcore_metrics import book, exits
from rqcore_metrics.asking import ask_all
from rqcore_metrics.book import Counts
from rqcore_metrics.hookspecs import Distribution, Family, Kind

#: How long the manager and all the queues together may take to answer: seconds.
PATIENCE = 2.0
_MANAGER = "\0manager"
_MANAGERS = "manager"
_IN_THE_MANAGER = {
    "rq_check_queue_config", "rq_daemon_started", "rq_daemon_stopping", "rq_queue_created",
    "rq_queue_deleted", "rq_queue_process_exited", "rq_resolve_destination",
}  # fmt: skip
_STATES = ("prep", "que", "run", "done", "relayed", "err")

#: By name in the book: the family, its help, and the name of its label, if it has one.
_COUNTS = {
    "enqueued": ("messages_enqueued_total", "Messages that were taken in, by the way they came.", "via"),
    "started": ("messages_started_total", "Runs that were begun.", ""),
    "finished": ("messages_finished_total", "Messages that came to their end.", "outcome"),
    "requeued": ("messages_requeued_total", "Messages that went back to wait.", "cause"),
    "removed": ("messages_removed_total", "Messages that were deleted, by where they lay.", "state"),
}  # fmt: skip
_HISTOGRAMS = {
    "wait": ("message_wait_seconds", "From when a message could have begun until it did."),
    "run": ("message_run_seconds", "How long runs took."),
    "sync": ("fsync_seconds", "How long the disk took to make a turn's changes last."),
}


def of_instance(directory: str, *, plugin_hooks: bool) -> list[Family]:
    """Every family that needs no other plugin."""
    instance = Instance(Path(directory))
    counts = dict(book.read_all(directory))
    names = instance.queue_names()
    commands = ("describe", "plugins") if plugin_hooks else ("describe",)
    paths = {name: str(instance.queue_socket(name)) for name in names}
    answers = ask_all({_MANAGER: str(instance.manager_socket), **paths}, commands, PATIENCE)
    manager = answers.pop(_MANAGER, None)
    found = [
        *_of_manager(instance, manager),
        *_of_queues(
            instance, {name: _value(answers[name][0]) if name in answers else {} for name in names}
        ),
        *_of_books({name: counts[name] for name in counts if name in paths}),
        _exits(directory, set(names)),
    ]
    if plugin_hooks:
        reports = {f"queue {name}": _value(given[1]) for name, given in answers.items()}
        if manager is not None:
            reports = {_MANAGERS: _value(manager[1]), **reports}
        found += _of_plugins(reports)
    return found


def _value(answer: Any) -> dict[str, Any]:
    """What an ``["ok", VALUE]`` holds; empty for anything else."""
    good = isinstance(answer, list) and len(answer) > 1 and answer[0] == "ok"
    return answer[1] if good and isinstance(answer[1], dict) else {}


def _began(pid_file: Path) -> float:
    """When the process was started that has this pid file, which it writes then and never again."""
    try:
        return round(pid_file.stat().st_mtime, 3)
    except OSError:
        return 0.0


def _of_manager(instance: Instance, answers: list[Any] | None) -> list[Family]:
    described = _value(answers[0]) if answers else {}
    found = [
        Family("rqcore_build_info", "info", "The release of rqcore and its Python.",
               [({"version": __version__, "python": platform.python_version()}, 1)]),
        Family("rqcore_up", "gauge", "Does the manager answer?", [({}, float(bool(described)))]),
    ]  # fmt: skip
    if described:
        found.append(Family("rqcore_start_time_seconds", "gauge", "When the manager was started.",
                            [({}, _began(instance.pid_file))]))  # fmt: skip
        services = [child for child in described["children"] if child["kind"] == "service"]
        found.append(Family(
            "rqcore_service_up", "gauge", "Does the service run?",
            [({"service": one["name"]}, float(bool(one["pid"]))) for one in services],
        ))  # fmt: skip
    return found


def _of_queues(instance: Instance, answers: Mapping[str, dict[str, Any]]) -> list[Family]:
    """``answers``: every queue, with what it says of itself; nothing for one that does not answer."""
    here = {name: answer for name, answer in answers.items() if answer}
    now = time()

    def gauge(name: str, about: str, values: Mapping[str, float]) -> Family:
        return _gauge(name, about, [({"queue": queue}, value) for queue, value in values.items()])

    waiting = {name: one["earliest_due"] for name, one in here.items()}
    return [
        gauge("queue_up", "Does the queue take and run messages?",
              {name: float(answer.get("status") == "UP") for name, answer in answers.items()}),
        _gauge("queue_status", "How the queue is, as rq status says it; 1 for the status that it has.",
               [({"queue": name, "status": answer.get("status", "unreachable")}, 1)
                for name, answer in answers.items()]),
        _gauge("queue_messages", "How many messages lie in each state.",
               [({"queue": name, "state": state}, one["counts"][state])
                for name, one in here.items() for state in _STATES]),
        gauge("queue_oldest_due_age_seconds",
              "For how long the first of those that wait and could run has been due.",
              {name: max(0.0, now - due) if due else 0.0 for name, due in waiting.items()}),
        gauge("queue_workers", "How many messages may run at a time.",
              {name: one["workers"] for name, one in here.items()}),
        gauge("queue_workers_busy", "How many messages run.",
              {name: len(one["running"]) for name, one in here.items()}),
        gauge("queue_corrupt_messages", "How many messages could not be read and were set aside.",
              {name: one["corrupt"] for name, one in here.items()}),
        gauge("queue_start_time_seconds", "When the queue's process was started.",
              {name: _began(instance.queue_pid_file(name)) for name in here}),
    ]  # fmt: skip


def _gauge(name: str, about: str, samples: list[tuple[Mapping[str, str], float]]) -> Family:
    return Family(f"rqcore_{name}", "gauge", about, list(samples))


def _of_books(books: Mapping[str, Counts]) -> list[Family]:
    found = []
    for key, (name, about, label) in _COUNTS.items():
        family = Family(f"rqcore_{name}", "counter", about)
        for queue, counts in books.items():
            for (kind, value), count in counts.counts.items():
                if kind == key:
                    labels = {"queue": queue, label: value} if label else {"queue": queue}
                    family.samples.append((labels, count))
        found.append(family)
    found.append(_number(books, "cpu", "script_cpu_seconds_total", "counter",
                         "Processor time of scripts, and of what they waited for."))  # fmt: skip
    found.append(_number(books, "last", "messages_last_finished_timestamp_seconds", "gauge",
                         "When a message last ended so."))  # fmt: skip
    found.append(_number(books, "heartbeat", "heartbeat_timestamp_seconds", "gauge",
                         "When a heartbeat last got through."))  # fmt: skip
    for key, (name, about) in _HISTOGRAMS.items():
        family = Family(f"rqcore_{name}", "histogram", about)
        for queue, counts in books.items():
            values, total = counts.histograms[key]
            if key != "sync" or any(values):
                pairs = list(zip(book.HISTOGRAMS[key], accumulate(values), strict=True))
                family.samples.append(({"queue": queue}, Distribution(pairs, total)))
        found.append(family)
    return found


def _number(books: Mapping[str, Counts], key: str, name: str, kind: Kind, about: str) -> Family:
    """Seconds, or times; a time that never came is left out."""
    family = Family(f"rqcore_{name}", kind, about)
    for queue, counts in books.items():
        for (known, outcome), value in counts.numbers.items():
            if known == key and (value or kind == "counter"):
                labels = {"queue": queue, "outcome": outcome} if outcome else {"queue": queue}
                family.samples.append((labels, value))
    return family


def _exits(directory: str, names: set[str]) -> Family:
    return Family(
        "rqcore_queue_process_failures_total", "counter",
        "How often the queue's process ended by itself or was killed.",
        [({"queue": name}, count) for name, count in exits.read(directory).items()
         if name in names],
    )  # fmt: skip


def _of_plugins(reports: Mapping[str, dict[str, Any]]) -> list[Family]:
    """What plugins cost, process by process: these count since the process was started."""
    calls = Family("rqcore_plugin_hook_calls_total", "counter", "Calls of a plugin's hook.")
    seconds = Family("rqcore_plugin_hook_seconds_total", "counter", "Time in a plugin's hook.")
    errors = Family("rqcore_plugin_errors_total", "counter", "Calls of a plugin that failed.")
    up = _gauge("plugin_up", "Is the plugin called? 0: it failed, or was quarantined.", [])
    for process, report in reports.items():
        failed: dict[str, int] = {}
        for one in report.get("plugins", ()):
            if one["status"] == "disabled":
                continue
            up.samples.append((
                {"plugin": one["name"], "process": process}, float(one["status"] == "ok")
            ))  # fmt: skip
            failed[one["name"]] = 0
        for one in report.get("hooks", ()):
            if process != _MANAGERS and _is_the_managers(one["hook"]):
                continue
            failed[one["plugin"]] = failed.get(one["plugin"], 0) + one["errors"]
            if one["calls"]:
                labels = {"plugin": one["plugin"], "hook": one["hook"], "process": process}
                calls.samples.append((labels, one["calls"]))
                seconds.samples.append((labels, one["seconds"]))
        errors.samples.extend(
            ({"plugin": name, "process": process}, count) for name, count in failed.items()
        )
    return [up, calls, seconds, errors]


def _is_the_managers(hook: str) -> bool:
    """Is it called in the manager?  A queue's process inherits the figures of when it was forked."""
    return hook in _IN_THE_MANAGER or hook_kind(hook) in ("prepare", "register")
