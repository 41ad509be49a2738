"""``rq evacuate``: asked for, carried out (`rqcore_relay.departure`), and told to people and programs.

Queues are paused first, so that nothing starts any more, and stay so.  Cut off at any point, the same
command goes on.
"""

from __future__ import annotations

import json
import sys
from time import monotonic
from typing import Any

import click

from rqcore import words
from rqcore.instance import Instance
from rqcore_relay.departure import (
    Departure,
    chosen,
    destination,
    empty,
    obstacles,
    survey,
    through,
)
from rqcore_relay.evacuate import Evacuation

_EVERY = 0.2
_TIMEOUT = 124


def register(cli: Any) -> None:
    """Add ``rq evacuate``; ``cli`` is the click group behind ``rq``."""
    cli.command(
        "evacuate",
        short_help="Send everything that waits here to another machine.",
        examples="""
rq evacuate --to http://mq2.example.com:3333/ --dry-run
rq evacuate --to http://mq2.example.com:3333/ --yes --wait
rq evacuate --to http://mq2.example.com:3333/ --queue images --queue mails
""",
    )(evacuate)


def _span(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else words.parse_span(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.option("--to", "url", required=True, metavar="URL", help="The other machine's RQ.")
@click.option("--queue", "named", multiple=True, metavar="QUEUE",
              help="Only this queue; may be given more than once.")  # fmt: skip
@click.option(
    "--wait", "waits", is_flag=True, help="Until relay is through with what was evacuated."
)
@click.option(
    "--timeout", callback=_span, metavar="TIME", help="Wait no longer than this: 90s, 1h."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def evacuate(ctx: click.Context, /, url: str, named: tuple[str, ...], **given: Any) -> None:
    """Send everything that waits here to another machine, where it is to run.

    The queues are paused and stay so; what runs goes on to its end. What waits is handed to relay,
    each message once, wherever this is interrupted: the same command goes on. What is only prepared
    stays here.

    Exit status: 0 all was handed over, and with --wait has arrived; 1 something stayed; 124 the time
    was up, relay goes on.
    """
    app = ctx.obj
    app.ask_manager("ping")
    instance: Instance = app.instance
    directory = str(instance.directory)
    peer = destination(instance, url)
    queues = chosen(instance, named)
    departure = Departure(peer, survey(directory, queues))
    warnings, rich = obstacles(instance, peer, [q.name for q in departure.queues if q.waiting])
    for warning in warnings:
        app.warn(warning)
    if given["dry_run"]:
        _report(app, departure, as_json=given["as_json"], only=True)
        return
    _confirm(departure, yes=given["yes"])
    line = _Line(app)
    until = None if given["timeout"] is None else monotonic() + given["timeout"]
    for name in queues:
        if instance.admin_state(name) == "UP":
            app.ask_manager("pause_queue", name)
    status = 0
    try:
        with Evacuation(directory, rich=rich) as evacuation:
            total = sum(q.waiting for q in departure.queues)
            empty(evacuation, departure, lambda done: line.show(f"{done} of {total} handed over"))
        _look_again(directory, departure)
        if given["waits"]:
            through(directory, departure, lambda n: line.show(f"{n} on their way to {peer}"), until)
    except TimeoutError:
        app.warn("the time is up; relay goes on: rq relay")
        status = _TIMEOUT
    finally:
        line.clear()
    _report(app, departure, as_json=given["as_json"], only=False)
    stayed = [*(text for q in departure.queues for text in q.failed), *departure.lost_way]
    for text in stayed:
        app.warn(text)
    ctx.exit(status or int(bool(stayed)))


def _confirm(departure: Departure, *, yes: bool) -> None:
    if yes:
        return
    total = sum(q.waiting for q in departure.queues)
    names = ", ".join(q.name for q in departure.queues)
    question = f"Pause {names}, and send {total} waiting messages to {departure.peer}?"
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here; say it with --yes")
    click.confirm(question, abort=True, err=True)


def _look_again(directory: str, departure: Departure) -> None:
    """What runs and what is prepared, now that nothing starts any more."""
    for queue, now in zip(
        departure.queues, survey(directory, [q.name for q in departure.queues]), strict=True
    ):
        queue.prep, queue.running = now.prep, now.running


def _report(app: Any, departure: Departure, *, as_json: bool, only: bool) -> None:
    handed = sum(q.handed for q in departure.queues)
    if as_json:
        click.echo(json.dumps(departure.to_json(), indent=2))
    else:
        _table(departure)
    if only:
        total = sum(q.waiting for q in departure.queues)
        app.say(f"would pause these queues and send {total} messages to {departure.peer}")
        return
    arrived = f", {departure.relayed} arrived" if departure.relayed else ""
    app.say(f"{handed} messages handed to relay for {departure.peer}{arrived}: rq relay")
    if departure.later:
        app.say(f"{departure.later} are not due yet; relay sends each when it is due")
    running = [f"{q.name}/{msg_id}" for q in departure.queues for msg_id in q.running]
    if running:
        app.say(
            f"still running here: {' '.join(running)}; if one asks to run again, evacuate again"
        )
    prepared = sum(q.prep for q in departure.queues)
    if prepared:
        app.say(f"{prepared} only prepared, which wait for their senders, stay here in prep")
    app.say("the queues stay paused; to work here again: rq queue resume NAME")


def _table(departure: Departure) -> None:
    rows = [("QUEUE", "WAITING", "HANDED OVER", "RUNNING", "PREP")]
    rows += [
        (q.name, str(q.waiting), str(q.handed), str(len(q.running)), str(q.prep))
        for q in departure.queues
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        click.echo("  ".join([name.ljust(widths[0]), *cells]))


class _Line:
    """How far it is, in one line of a terminal that is written over."""

    def __init__(self, app: Any) -> None:
        self._on = sys.stderr.isatty() and app.verbosity >= 0
        self._shown = 0.0

    def show(self, text: str) -> None:
        """Show this instead, not too often."""
        if self._on and monotonic() - self._shown > _EVERY:
            self._shown = monotonic()
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Show nothing any more."""
        if self._on:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
