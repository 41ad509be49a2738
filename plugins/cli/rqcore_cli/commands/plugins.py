"""``rq plugins``: which plugins there are, in which processes, and how they fare."""

from __future__ import annotations

from typing import Any

import click

from rqcore.errors import NotFoundError, RefusedError, UnreachableError
from rqcore_cli.app import App
from rqcore_cli.group import command
from rqcore_cli.output import echo_json, echo_json_line, table

_WORST = ("ok", "disabled", "quarantined", "failed")


@command(
    "plugins",
    short_help="Show the plugins and how they fare.",
    examples="""
rq plugins
rq plugins --json
""",
)
@click.option("--json", "as_json", is_flag=True, help="For programs: by process.")
@click.option("--jsonl", "as_lines", is_flag=True, help="For programs: one process per line.")
@click.pass_obj
def plugins(app: App, *, as_json: bool, as_lines: bool) -> None:
    """Show the plugins: their state, their hooks, and what these did in all processes together.

    Calls, errors and milliseconds are counted since each process began.
    """
    reports = _reports(app)
    if as_lines:
        for report in reports:
            echo_json_line(report)
    elif as_json:
        echo_json(reports)
    else:
        _print(reports)


def _reports(app: App) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"process": "rq", **app.hooks.report()}]
    try:
        found.append({"process": "manager", **app.ask_manager("plugins")})
    except (NotFoundError, UnreachableError) as error:
        app.say(f"only the plugins of this command are shown: {error}")
        return found
    for name in app.instance.queue_names():
        try:
            found.append({"process": f"queue {name}", **app.ask(name, "plugins")})
        except (UnreachableError, RefusedError) as error:
            app.warn(str(error))
    return found


def _print(reports: list[dict[str, Any]]) -> None:
    names: dict[tuple[str, str], None] = {}
    for report in reports:
        names |= {(plugin["name"], plugin["source"]): None for plugin in report["plugins"]}
    table(
        ("PLUGIN", "VERSION", "STATUS", "HOOKS", "CALLS", "ERRORS", "MS", "MAX MS", "FROM", ""),
        [_row(name, source, reports) for name, source in names],
        right={"HOOKS", "CALLS", "ERRORS", "MS", "MAX MS"},
    )


def _row(name: str, source: str, reports: list[dict[str, Any]]) -> list[object]:
    infos = [
        (report["process"], plugin)
        for report in reports
        for plugin in report["plugins"]
        if (plugin["name"], plugin["source"]) == (name, source)
    ]
    stats = [hook for report in reports for hook in report["hooks"] if hook["plugin"] == name]
    process, worst = max(infos, key=lambda pair: _WORST.index(pair[1]["status"]))
    problem = next((plugin["error"] for _, plugin in infos if plugin["error"]), "")
    everywhere = len({plugin["status"] for _, plugin in infos}) == 1
    return [
        name, worst["version"] or "-", worst["status"],
        len({hook for _, plugin in infos for hook in plugin["hooks"]}),
        sum(hook["calls"] for hook in stats), sum(hook["errors"] for hook in stats),
        f"{sum(hook['seconds'] for hook in stats) * 1000:.1f}",
        f"{max((hook['max_seconds'] for hook in stats), default=0) * 1000:.1f}",
        source, problem if everywhere else f"in {process}: {problem}",
    ]  # fmt: skip
