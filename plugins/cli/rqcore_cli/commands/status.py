"""``rq status``: the queues and how they are."""

from __future__ import annotations

from typing import Any

import click

from rqcore import words
from rqcore.errors import RefusedError, UnreachableError
from rqcore_cli.app import App
from rqcore_cli.group import command
from rqcore_cli.output import clean, echo, echo_json, echo_json_line, table

STATES = ("prep", "que", "run", "done", "relayed", "err")


def queue_rows(app: App, names: list[str] | None = None) -> list[dict[str, Any]]:
    """What is known of each queue, also of those that do not answer; of all when none is named.

    Raises `UnreachableError` when RQ does not run.
    """
    children = {
        child["name"]: child
        for child in app.ask_manager("describe")["children"]
        if child["kind"] == "queue"
    }
    rows = []
    for name in names or sorted({*children, *app.instance.queue_names()}):
        try:
            row = app.ask(name, "describe")
        except (UnreachableError, RefusedError) as error:
            row = _silent(name, children.get(name), str(error))
        row["problem"] = "; ".join(filter(None, (row["problem"], _explained(row))))
        rows.append(row)
    return rows


def _silent(name: str, child: dict[str, Any] | None, problem: str) -> dict[str, Any]:
    state = child["state"] if child is not None else "not started"
    return {
        "name": name, "status": state, "admin": None, "oper": None, "pid": None, "uptime": None,
        "problem": (child or {}).get("problem") or problem, "counts": dict.fromkeys(STATES),
        "workers": None, "script": None, "running": [], "corrupt": None,
    }  # fmt: skip


def _explained(row: dict[str, Any]) -> str:
    """What to do about an admin state that somebody has set, or about what was set aside."""
    match row["admin"], row["status"]:
        case "DOWN", "DOWN":
            first = "put that right, then " if row["problem"] else ""
            return f"refuses messages; {first}rq queue up {row['name']}"
        case "PAUSE", "PAUSE":
            return f"starts no message; rq queue resume {row['name']}"
        case _ if row["corrupt"]:
            return f"{row['corrupt']} in corrupt/; rq queue show {row['name']}"
        case _:
            return ""


@command(
    "status",
    short_help="Show the queues and how they are.",
    examples="""
rq status
rq status --json
""",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--jsonl", "as_lines", is_flag=True, help="For programs: one queue per line.")
@click.pass_obj
def status(app: App, *, as_json: bool, as_lines: bool) -> None:
    """Show the queues: their state, with the reason, messages by state, workers busy and in all.

    Exit status 5 means that RQ does not run.
    """
    about = app.ask_manager("describe")
    rows = queue_rows(app)
    services = [child for child in about["children"] if child["kind"] != "queue"]
    if as_lines:
        for row in rows:
            echo_json_line(row)
    elif as_json:
        echo_json({**about, "queues": rows, "services": services})
    else:
        _print(app, about, rows, services)
        _print_failed_plugins(app)


def _print(
    app: App, about: dict[str, Any], rows: list[dict[str, Any]], services: list[dict[str, Any]]
) -> None:
    stopping = ", stopping" if about["stopping"] else ""
    echo(
        f"RQ {about['version']} in {clean(about['directory'])}, pid {about['pid']}, "
        f"up {words.span(about['uptime'])}, {about['env']}{stopping}"
    )
    if rows:
        echo()
        table(
            ("QUEUE", "STATUS", *(state.upper() for state in STATES), "WORKERS", "UP", ""),
            [_cells(row) for row in rows],
            right={*(state.upper() for state in STATES), "WORKERS", "UP"},
        )
    else:
        app.say("There is no queue yet. Make one: rq queue create NAME --script FILE")
    if services:
        echo()
        table(
            ("SERVICE", "STATUS", "PID", "RESTARTS", ""),
            [(s["name"], s["state"], s["pid"] or "-", s["restarts"], s["problem"])
             for s in services],
            right={"PID", "RESTARTS"},
        )  # fmt: skip


def _print_failed_plugins(app: App) -> None:
    """What a plugin should bring is missing without a word, unless it is said here."""
    plugins = app.ask_manager("plugins")["plugins"]
    failed = [plugin for plugin in plugins if plugin["status"] in ("failed", "quarantined")]
    if failed:
        echo()
        table(
            ("PLUGIN", "STATUS", ""),
            [(plugin["name"], plugin["status"], plugin["error"]) for plugin in failed],
        )


def _cells(row: dict[str, Any]) -> list[object]:
    counts = [_or_dash(row["counts"][state]) for state in STATES]
    busy = "-" if row["workers"] is None else f"{len(row['running'])}/{row['workers']}"
    uptime = "-" if row["uptime"] is None else words.span(row["uptime"])
    return [row["name"], row["status"], *counts, busy, uptime, row["problem"]]


def _or_dash(value: object) -> object:
    return "-" if value is None else value
