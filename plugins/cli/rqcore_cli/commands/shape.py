"""``rq shape``: how old what waits is, by queue or by destination; Postfix's qshape for messages."""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import click

from rqcore import words
from rqcore.errors import RqError
from rqcore_cli.app import App
from rqcore_cli.exits import CallError, Exit
from rqcore_cli.follow import StatusLine
from rqcore_cli.group import command, read_span
from rqcore_cli.names import QUEUE
from rqcore_cli.output import echo_json, table
from rqcore_cli.waiting import waiting

_BY = ("queue", "dest", "host", "src", "param1", "param2", "param3", "param4")
_STATES = ("prep", "que")
_FIRST, _BUCKETS, _MOST_BUCKETS = 300.0, 9, 20
_SHOWN = 25
_OFTEN = 5000


@command(
    "shape",
    short_help="Show what waits, by age and by queue or destination.",
    examples="""
rq shape
rq shape --by dest
rq shape relay --by host                 which machine keeps us waiting
rq shape mail --by param1 --first 1m --json
""",
)
@click.argument("queues", type=QUEUE, nargs=-1, metavar="[QUEUE]...")
@click.option("--by", type=click.Choice(_BY), default="queue", show_default=True, metavar="FIELD",
              help=f"What makes a row: {', '.join(_BY)}.")  # fmt: skip
@click.option("--state", "states", multiple=True, metavar="STATE",
              help="Only what waits in: prep, que.")  # fmt: skip
@click.option("--first", callback=read_span, default="5m", show_default=True, metavar="TIME",
              help="The first column's age; each further one is twice as old.")  # fmt: skip
@click.option("--buckets", type=click.IntRange(1, _MOST_BUCKETS), default=_BUCKETS,
              show_default=True, metavar="N", help="So many columns of ages.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=0), default=_SHOWN, show_default=True,
              metavar="N", help="So many rows at most; 0 for all.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def shape(ctx: click.Context, /, queues: tuple[str, ...], **given: Any) -> None:
    """Show how long messages have waited, in columns of ages, by queue or what else they have in common.

    A message's age is the time since it could have run: since it was made, or since it was due. What is
    not due yet stands under LATER. RQ need not run.
    """
    states = _read_states(given["states"])
    app = ctx.ensure_object(App)
    first = given["first"] or _FIRST
    bounds = [first * 2**n for n in range(given["buckets"])]
    names = [app.known(name) for name in queues] or app.instance.queue_names()
    unknown: list[str] = []
    rows = _count(_all(app, names, states, None if queues else unknown), given["by"], bounds)
    ordered = sorted(rows.items(), key=lambda row: (-sum(row[1]), row[0]))
    if given["as_json"]:
        echo_json({
            "by": given["by"], "bounds": bounds,
            "rows": [{given["by"]: name, "total": sum(row), "later": row[0], "ages": row[1:]}
                     for name, row in ordered],
        })  # fmt: skip
    elif not ordered:
        app.say("nothing waits")
    else:
        _print(app, given["by"], bounds, ordered, given["limit"])
    for text in unknown:
        app.warn(text)
    if unknown:
        ctx.exit(Exit.FAILED)


def _read_states(given: tuple[str, ...]) -> tuple[str, ...]:
    states = tuple(dict.fromkeys(s for item in given for s in item.split(",") if s)) or ("que",)
    for state in states:
        if state not in _STATES:
            raise CallError(f"nothing waits in {state!r}; messages wait in prep and in que")
    return states


def _count(
    found: Iterator[tuple[str, dict[str, Any]]], by: str, bounds: list[float]
) -> dict[str, list[int]]:
    """By name: how many are due later, then how many there are of each age."""
    rows: dict[str, list[int]] = {}
    now = time.time()
    for queue, message in found:
        row = rows.setdefault(_name(queue, message, by), [0] * (len(bounds) + 2))
        age = now - max(words.id_time(message["msg_id"]), _due(message))
        row[0 if age < 0 else 1 + bisect_left(bounds, age)] += 1
    return rows


def _all(
    app: App, queues: list[str], states: tuple[str, ...], unknown: list[str] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each message and its queue; a queue that cannot be looked at is ``unknown``, where that may be."""
    line = StatusLine(app) if sys.stdout.isatty() else None
    seen = 0
    for queue in queues:
        try:
            for message in waiting(app, queue, states):
                seen += 1
                if line is not None and seen % _OFTEN == 0:
                    line.show(f"{seen} messages")
                yield queue, message
        except RqError as error:
            if unknown is None:
                raise
            unknown.append(f"queue {queue} is not counted: {error}")
    if line is not None:
        line.clear()


def _due(message: dict[str, Any]) -> float:
    due = message.get("due", 0)
    return float(due) if isinstance(due, int | float) else 0.0


def _name(queue: str, message: dict[str, Any], by: str) -> str:
    if by == "queue":
        return queue
    if by == "host":
        return urlsplit(str(message.get("dest", ""))).netloc or "(here)"
    return str(message.get(by, "")) or "(none)"


def _print(
    app: App, by: str, bounds: list[float], rows: list[tuple[str, list[int]]], limit: int
) -> None:
    ages = [words.span(bound) for bound in bounds]
    total = [sum(column) for column in zip(*(row for _, row in rows), strict=True)]
    columns = (by.upper(), "TOTAL", "LATER", *ages, f">{ages[-1]}")
    shown = rows[: limit or None]
    table(
        columns,
        [
            (name, sum(row), *(count or "." for count in row))
            for name, row in [("TOTAL", total), *shown]
        ],
        right=set(columns[1:]),
    )
    if len(rows) > len(shown):
        app.say(f"... and {len(rows) - len(shown)} more; all of them with: --limit 0")
