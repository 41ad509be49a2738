"""``rq fsck``: is everything in the spool that should be there, and nothing else?"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from time import monotonic
from typing import Any

import click

from rqcore.client import QueueClient
from rqcore.lifecycle import State
from rqcore_cli.app import App
from rqcore_cli.exits import Exit
from rqcore_cli.follow import StatusLine
from rqcore_cli.fsck.check import Report, check_places, check_queue
from rqcore_cli.fsck.finding import Finding
from rqcore_cli.group import command
from rqcore_cli.names import QUEUE
from rqcore_cli.output import echo, echo_json, table
from rqcore_cli.owner import require_owner
from rqcore_cli.spoolstore import DIRECTORY

#: As fsck(8) has them: everything that was wrong is mended; something is not; not all was looked at.
MENDED, WRONG, NOT_LOOKED = 1, 4, 8
_PATIENCE = 30.0


@command(
    "fsck",
    short_help="Check what lies in the spool, and move aside what is wrong.",
    examples="""
rq fsck
rq fsck images --deep                        read every attachment and compare its digest
rq fsck --repair                             move aside what is wrong; nothing is removed
rq fsck --json | jq '.findings[] | select(.level == "fault")'
""",
)
@click.argument("queues", type=QUEUE, nargs=-1, metavar="[QUEUE]...")
@click.option("--deep", is_flag=True,
              help="Read all attachments, and compare them with their digests.")  # fmt: skip
@click.option("--repair", "mend", is_flag=True,
              help="Move what is wrong into lost+found, or where it belongs.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def fsck(
    ctx: click.Context, queues: tuple[str, ...], *, deep: bool, mend: bool, as_json: bool
) -> None:
    """Check what lies in the spool: all queues, or those named.

    Every count and state is derived from the disk and compared with what the running queues say.
    It works while RQ runs, and when it does not; without --repair it changes nothing.

    Exit status: 0 nothing is wrong, 1 what was wrong is mended, 4 something is wrong,
    8 something could not be looked at.
    """
    app = ctx.ensure_object(App)
    began = monotonic()
    names = [app.known(name) for name in queues] or app.instance.queue_names()
    for name in names if mend else ():
        require_owner(app.instance, name)
    reports = [_check(app, name, deep=deep, mend=mend) for name in names]
    beside, problems = ([], []) if queues else check_places(app.instance)
    problems += [problem for report in reports for problem in report.problems]
    findings = [*(finding for report in reports for finding in report.findings), *beside]
    seconds = monotonic() - began
    if as_json:
        echo_json(_document(app, reports, findings, problems, seconds))
    else:
        _print(app, reports, findings, seconds)
    for problem in problems:
        app.warn(problem)
    ctx.exit(_status(findings, problems))


def _check(app: App, name: str, *, deep: bool, mend: bool) -> Report:
    line = StatusLine(app)

    def tell(count: int) -> None:
        line.show(f"{name}: {count} looked at")

    with QueueClient(app.instance.directory, name, _PATIENCE) as client:

        def ask(order: str, args: Mapping[str, Any] | None) -> Any:
            return client.call(order, args)

        try:
            return check_queue(app.instance, name, ask, deep=deep, mend=mend, tell=tell)
        finally:
            line.clear()


def _status(findings: list[Finding], problems: list[str]) -> int:
    if problems:
        return NOT_LOOKED
    if any(finding.open_fault for finding in findings):
        return WRONG
    return MENDED if any(f.level == "fault" for f in findings) else Exit.OK


def _document(
    app: App, reports: list[Report], findings: list[Finding], problems: list[str], seconds: float
) -> dict[str, Any]:
    return {
        "directory": str(app.instance.directory),
        "queues": [
            {"name": r.queue, "store": r.store, "running": r.running,
             "counts": {str(state): r.counts[state] for state in State}, "told": r.told}
            for r in reports
        ],
        "findings": [finding.to_json() for finding in findings],
        "problems": problems,
        "messages": sum(report.messages for report in reports),
        "faults": sum(f.level == "fault" for f in findings),
        "left": sum(finding.open_fault for finding in findings),
        "notes": sum(f.level == "note" for f in findings),
        "seconds": round(seconds, 3),
    }  # fmt: skip


def _print(app: App, reports: list[Report], findings: list[Finding], seconds: float) -> None:
    wrong = Counter(f.queue for f in findings if f.level == "fault")
    if app.verbosity < 0:  # for cron: what is wrong, and else nothing
        findings = [f for f in findings if f.level == "fault"]
    elif reports:
        table(
            ("QUEUE", "", *(state.upper() for state in State), "FAULTS"),
            [_row(report, wrong[report.queue]) for report in reports],
            right={*(state.upper() for state in State), "FAULTS"},
        )
        if findings:
            echo()
    for finding in sorted(findings, key=lambda f: (f.level, f.queue, f.path)):
        for line in finding.lines(str(app.instance.directory)):
            echo(line)
    sys.stdout.flush()
    messages = sum(report.messages for report in reports)
    app.say(f"{messages} messages in {len(reports)} queues, {seconds:.1f} s: {_verdict(findings)}")


def _row(report: Report, wrong: int) -> list[object]:
    if report.store != DIRECTORY:
        return [report.queue, f"store {report.store}: not looked at", *["-"] * len(State), "-"]
    how = "runs" if report.running else "stopped"
    return [report.queue, how, *(report.counts[state] for state in State), wrong]


def _verdict(findings: list[Finding]) -> str:
    faults = sum(f.level == "fault" for f in findings)
    notes = sum(f.level == "note" for f in findings)
    left = sum(finding.open_fault for finding in findings)
    parts = [f"{faults} fault{'s'[: faults != 1]}" if faults else "nothing is wrong"]
    if faults and left < faults:
        parts.append(f"{faults - left} of them mended")
    if notes:
        parts.append(f"{notes} note{'s'[: notes != 1]}")
    return ", ".join(parts)
