"""``rq relay``: how the peers are, what waits for them, and what is on its way.

Made by the group that `rq` hands to plugins, so that it looks and behaves like its own commands.
"""

from __future__ import annotations

import json
from time import time
from typing import Any

import click

from rqcore.errors import RqError
from rqcore.faces import App
from rqcore.words import size, span_in_words
from rqcore_relay import evacuating, words
from rqcore_relay.survey import picture

#: The exit status of every command of `rq` that found nobody to answer.
_UNREACHABLE = 5


def register(cli: Any) -> None:
    """Add ``rq relay`` and ``rq evacuate``; ``cli`` is the click group behind ``rq``."""
    evacuating.register(cli)
    cli.command(
        "relay",
        short_help="Show the machines that messages go to, and what waits for them.",
        examples="""
rq relay
rq relay --json
watch rq relay
""",
    )(relay)


@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def relay(app: App, *, as_json: bool) -> None:
    """Show the machines that messages go to: can they be reached, what waits for each, how fast it was.

    A machine that cannot be reached is asked again by itself, every 30 seconds at the latest; when it
    answers, what waits for it is sent at once. One that is down never delays what goes to others.

    Exit status 5 means that RQ or the queue relay does not run; what is known from before is shown.
    """
    directory = str(app.instance.directory)
    rows, running = picture(directory)
    if as_json:
        report = {"at": time(), "alive": running is not None, "peers": rows, "transfers": running}
        click.echo(json.dumps(report, indent=2))
        return
    if running is None:
        app.warn(f"{_silence(app)}; this is how it was:")
    if rows:
        _print(app, rows, running or [], time())
    else:
        app.say(
            "No message has gone to another machine yet. Send one: rq send http://HOST:3333/q/NAME"
        )
    if running is None:
        click.get_current_context().exit(_UNREACHABLE)


def _silence(app: App) -> str:
    """Why the queue does not answer."""
    try:
        app.ask_manager("describe")
    except RqError as error:
        return str(error)
    return "the queue relay does not answer, see rq status"


def _print(app: App, rows: list[dict[str, Any]], running: list[dict[str, Any]], now: float) -> None:
    app.table(
        ("PEER", "STATUS", "SINCE", "WAITING", "OLDEST", "RUNNING", "SENT", "RATE"),
        [
            (
                row["peer"], words.status(row), _age(row["since"], now), row["waiting"],
                _age(row["oldest"], now), row["running"], size(row["bytes"]),
                words.rate(row["rate"]),
            )
            for row in rows
        ],
        right={"SINCE", "WAITING", "OLDEST", "RUNNING", "SENT", "RATE"},
    )  # fmt: skip
    for row in rows:
        _print_trouble(app, row, now)
    lines = [line for row in rows for line in row["destinations"]]
    if lines:
        click.echo()
        app.table(
            ("WAITING", "OLDEST", "FOR"),
            [(line["messages"], _age(line["oldest"], now), line["dest"]) for line in lines],
            right={"WAITING", "OLDEST"},
        )
    if running:
        click.echo()
        app.table(
            ("RUNNING", "TO", "STATUS"),
            [(one["msg_id"], one["dest"], one["status"]) for one in running],
        )


def _print_trouble(app: App, row: dict[str, Any], now: float) -> None:
    error = row["last_error"]
    if error is None or words.is_over(row):
        return
    # Most errors name the peer, by its URL or its host.
    text = error["text"] if row["peer"] in error["text"] else f"{row['peer']}: {error['text']}"
    coming = words.coming(row, now)
    click.echo()
    click.echo(app.clean(text))
    click.echo(f"  {span_in_words(now - error['at'])} ago{'; ' + coming if coming else ''}")


def _age(moment: float | None, now: float) -> str:
    return "-" if moment is None else span_in_words(now - moment)
