"""A whole instance, checked: each queue walked, compared with what it says, and repaired if asked to.

`check_queue` is one queue, in this order: look, look again at whatever seemed wrong, compare with the
running queue, repair.  `check_places` is what lies beside the queues.  Neither raises for what is wrong
with a queue: what could not be looked at stands in the report's ``problems``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from time import sleep

from rqcore.config import ConfigError
from rqcore.errors import RqError, UnreachableError
from rqcore.instance import Instance
from rqcore.lifecycle import State
from rqcore.message import is_msg_id, queue_name_problem
from rqcore_cli.fsck.compare import Ask, compare
from rqcore_cli.fsck.finding import Finding
from rqcore_cli.fsck.repair import kept_from_starting, repair
from rqcore_cli.fsck.spool import HASHED, Walk
from rqcore_cli.spoolstore import DIRECTORY, driver

#: Seconds between two looks at what a running queue may have been in the midst of.
_PAUSE = 0.5
_DELETED = ".deleted."


@dataclass(slots=True)
class Report:
    """What became of one queue: its counts by the disk, and what the running queue told."""

    queue: str
    running: bool = False
    store: str = DIRECTORY
    counts: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    told: dict[str, int] | None = None
    messages: int = 0
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_queue(
    instance: Instance, name: str, ask: Ask, *, deep: bool, mend: bool, tell: Callable[[int], None]
) -> Report:
    """Check one queue; ``ask`` asks its process, and raises `UnreachableError` where there is none."""
    path = str(instance.queue_dir(name))
    report = Report(name)
    try:
        report.store = driver(instance, name)
    except ConfigError as error:
        report.problems.append(str(error))
    if report.store != DIRECTORY:
        return report
    try:
        report.told = ask("num_messages", None)
        report.running = True
    except TimeoutError:
        report.running = True
        report.problems.append(f"queue {name} does not answer; it may hang: rq doctor")
    except UnreachableError as error:
        # Whoever may not ask it does not know whether it runs: what it has is left alone.
        report.running = "no permission" in str(error)
        if report.running:
            report.problems.append(str(error))
    walk = Walk(name, path, report.running, deep, tell)
    try:
        _look(report, walk, ask)
        if mend:
            _mend(report, path)
    except (OSError, RqError) as error:
        report.problems.append(f"queue {name} could not be looked at to the end: {error}")
    report.counts = walk.counts
    report.messages = sum(walk.counts.values())
    return report


def _look(report: Report, walk: Walk, ask: Ask) -> None:
    candidates = list(walk.look())
    if candidates and report.running:
        sleep(_PAUSE)
        candidates = walk.again(candidates)
    report.findings = candidates
    if report.told is not None:
        try:
            # What is no message on the disk cannot be one that the queue knows.
            known = {(finding.state, finding.msg_id) for finding in candidates}
            report.findings += [
                finding
                for finding in compare(report.queue, walk.path, ask)
                if finding.kind != "unknown" or (finding.state, finding.msg_id) not in known
            ]
        except UnreachableError:
            report.problems.append(f"queue {report.queue} went away while it was looked at")


def _mend(report: Report, path: str) -> None:
    if not any(finding.action for finding in report.findings):
        return
    lock = nullcontext(enter_result=True) if report.running else kept_from_starting(path)
    with lock as free:
        if not free:
            report.problems.append(
                f"queue {report.queue} has just been started; run rq fsck --repair once more"
            )
            return
        mended: list[Finding] = []
        for finding in report.findings:
            try:
                mended.append(repair(path, finding))
            except OSError as error:
                report.problems.append(f"{finding.path} cannot be moved: {error}")
                mended.append(finding)
        report.findings = mended
    moved = any(f.done.startswith("moved") and f.state in HASHED for f in mended)
    if moved and report.running:
        report.findings.append(Finding(
            "count", f"{path}", "finished messages were moved, which the running queue has not counted",
            report.queue, remedy=f"it counts anew after: rq queue restart {report.queue}",
        ))  # fmt: skip


def check_places(instance: Instance) -> tuple[list[Finding], list[str]]:
    """What lies in ``queue/`` and is no queue; and what could not be looked at."""
    root = str(instance.queues_dir)
    found: list[Finding] = []
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{root} cannot be read: {error.strerror}"]
    queues = set(instance.queue_names())
    for name in names:
        path = f"{root}/{name}"
        if name in queues or not os.path.isdir(path):
            continue
        messages = _messages(path)
        if _DELETED in name:
            found.append(Finding(
                "deleted-queue", path, f"it holds {_many(messages)}",
                remedy="rename it to the queue's name and run rq reload to have it back, or remove it",
            ))  # fmt: skip
        elif messages and queue_name_problem(name) is None:
            found.append(Finding(
                "no-config", path, f"it holds {_many(messages)}, and has no config.json: no process "
                "works for it", remedy="restore its config.json, then: rq reload",
            ))  # fmt: skip
    return found, []


def _many(messages: int) -> str:
    return f"{messages} message{'s'[: messages != 1]}"


def _messages(path: str) -> int:
    """Directories with the name of a message, wherever they lie below."""
    total = 0
    for _, names, _ in os.walk(path):
        total += sum(map(is_msg_id, names))
        names[:] = [name for name in names if not is_msg_id(name)]
    return total
