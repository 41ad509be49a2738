"""``rq top``: the queues live; where there is no terminal, as they are now."""

from __future__ import annotations

import os
import sys
from time import time
from typing import Any

import click

from rqcore import words
from rqcore_cli.app import App
from rqcore_cli.commands.status import STATES, queue_rows
from rqcore_cli.group import command
from rqcore_cli.output import echo, echo_json, table


@command(
    "top",
    short_help="Watch the queues live, over the whole screen.",
    examples="""
rq top
rq top --once
rq top --json | jq '.queues[] | select(.counts.err > 0) | .name'
""",
)
@click.option("--once", is_flag=True, help="Show how they are now, and end.")
@click.option("--json", "as_json", is_flag=True, help="For programs: how they are now.")
@click.pass_obj
def top(app: App, *, once: bool, as_json: bool) -> None:
    """Watch the queues live: how many wait, run, fail, how many end in a minute, and what runs.

    Keys: q ends, p holds the picture, / shows only queues whose name holds a text, up and down choose a
    queue, left and right another order. Where stdout is no terminal it shows how they are now, and ends.
    """
    if as_json:
        about = app.ask_manager("describe")
        echo_json({**about, "queues": queue_rows(app)})
    elif once or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        _snapshot(app)
    else:
        _watch(app)


def _watch(app: App) -> None:
    from rqcore_cli.top.loop import Top  # noqa: PLC0415 - only where there is a screen
    from rqcore_cli.top.screen import Screen  # noqa: PLC0415

    app.ask_manager("ping")  # what keeps us from watching is told before the screen is taken
    with Screen() as screen:
        Top(app.instance, screen).run()


def _snapshot(app: App) -> None:
    rows = queue_rows(app)
    table(
        ("QUEUE", "STATUS", *(state.upper() for state in STATES), "WORKERS", ""),
        [_cells(row) for row in rows],
        right={*(state.upper() for state in STATES), "WORKERS"},
    )
    running = [(row["name"], one) for row in rows for one in row["running"]]
    if running:
        echo()
        table(
            ("RUNNING", "FOR", "PID", "SAYS"),
            [_running(name, one) for name, one in running],
            right={"FOR", "PID"},
        )


def _running(name: str, one: dict[str, Any]) -> tuple[object, ...]:
    since = words.span(time() - one["started_at"])
    return f"{name}/{one['msg_id']}", since, one["pid"], one["status"]


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    counts = ["-" if row["counts"][state] is None else row["counts"][state] for state in STATES]
    busy = "-" if row["workers"] is None else f"{len(row['running'])}/{row['workers']}"
    return (row["name"], row["status"], *counts, busy, row["problem"])
