"""``rq doctor``: all that can be looked at, each with what to do about it, and done where it is safe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from rqcore_cli.app import App
from rqcore_cli.exits import CallError, Exit
from rqcore_cli.group import command
from rqcore_cli.output import clean, echo, echo_json, table
from rqcore_cli.owner import require_owner


@command(
    "doctor",
    short_help="Look at everything, and say what to do about it.",
    examples="""
rq doctor
rq doctor --all
rq doctor --fix                    put right what is safe to, and ask before each
rq doctor --json | jq '.[] | select(.level != "ok")'
""",
)
@click.option("--all", "everything", is_flag=True, help="Show what is well, too.")
@click.option("--fix", is_flag=True, help="Put right what can safely be put right.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one array.")
@click.pass_context
def doctor(ctx: click.Context, *, everything: bool, fix: bool, yes: bool, as_json: bool) -> None:
    """Look at everything, and say what to do about what is wrong.

    It looks at the configuration, the processes, the queues, the plugins, the directory and the machine;
    plugins add what they know. RQ may be running or not. Nothing is changed without --fix. Exit status 1
    means that something is left that is not well.
    """
    from rqcore_cli.doctor.examine import Found, examine  # noqa: PLC0415 - loads plugins

    app = ctx.ensure_object(App)
    if fix and not yes and not sys.stdin.isatty():
        raise CallError("--fix asks before each, and nobody can be asked here; say it with --yes")
    if fix:
        require_owner(app.instance)
    found = examine(app)
    done: dict[int, str] = {}
    for number, item in enumerate(found):
        if fix and item.check.fix is not None:
            done[number] = _fix(app, item, yes=yes)

    def row(number: int, item: Found) -> dict[str, Any]:
        check = item.check
        return {
            "source": item.source, "name": check.name, "level": check.level, "text": check.text,
            "remedy": check.remedy, "fixable": check.fix is not None, "fixed": done.get(number, ""),
        }  # fmt: skip

    rows = [row(number, item) for number, item in enumerate(found)]
    if as_json:
        echo_json(rows)
    else:
        _print(app, rows, everything=everything)
    if any(row["level"] != "ok" and not row["fixed"] for row in rows):
        ctx.exit(Exit.FAILED)


def _fix(app: App, item: Any, *, yes: bool) -> str:
    """What was done; "" when nothing was."""
    check = item.check
    if not yes:
        app.say(f"{clean(check.name)}: {clean(check.text)}\n  {clean(check.remedy)}")
        if not click.confirm("do it?", err=True):
            return ""
    try:
        said: str = check.fix()
    except Exception as error:  # noqa: BLE001 - a plugin's mistake; the other things are still to be done
        app.warn(
            f"{clean(check.name)} could not be put right: {clean(error) or type(error).__name__}"
        )
        return ""
    app.say(f"{clean(check.name)}: {clean(said)}")
    return said


def _print(app: App, rows: list[dict[str, Any]], *, everything: bool) -> None:
    shown = [row for row in rows if everything or (row["level"] != "ok" and not row["fixed"])]
    shown.sort(key=lambda row: ("critical", "warning", "ok").index(row["level"]))
    if shown:
        table(("LEVEL", "WHAT", ""), list(_cells(shown)))
    counts = {
        level: sum(r["level"] == level and not r["fixed"] for r in rows)
        for level in ("critical", "warning")
    }
    fixable = sum(row["fixable"] and not row["fixed"] for row in rows)
    if not any(counts.values()):
        app.say(f"all is well: {len(rows)} things were looked at")
        return
    hint = f"; {fixable} can be put right by: rq doctor --fix" if fixable else ""
    echo()
    warnings = "1 warning" if counts["warning"] == 1 else f"{counts['warning']} warnings"
    echo(f"{counts['critical']} critical, {warnings}, of {len(rows)} things{hint}")


def _cells(rows: Iterable[dict[str, Any]]) -> Iterable[tuple[object, ...]]:
    for row in rows:
        yield row["level"], row["name"], row["text"]
        if row["remedy"] and row["level"] != "ok":
            yield "", "", f"-> {row['remedy']}"
