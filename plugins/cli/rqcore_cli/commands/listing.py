"""``rq ls``: messages, newest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import click

from rqcore import words
from rqcore.message import parse_dest
from rqcore_cli.app import App
from rqcore_cli.group import command
from rqcore_cli.names import QUEUE
from rqcore_cli.output import echo_all, table
from rqcore_cli.selection import STATES, filter_options, messages, read_filter, read_states

_LIMIT = 50


@command(
    "ls",
    short_help="List messages.",
    examples="""
rq ls                                      the newest of all queues
rq ls hello --state err,run
rq ls hello --text world --newer-than 2h
rq ls hello --limit 0 --jsonl | jq -r .msg_id
""",
)
@click.argument("queues", type=QUEUE, nargs=-1, metavar="[QUEUE]...")
@click.option("--state", "states", multiple=True, metavar="STATE",
              help=f"Only in these states: {', '.join(STATES)}.")  # fmt: skip
@filter_options
@click.option("--limit", type=click.IntRange(min=0), default=_LIMIT, show_default=True,
              metavar="N", help="So many at most; 0 for all.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For programs: one array.")
@click.option("--jsonl", "as_lines", is_flag=True, help="For programs: one message per line.")
@click.pass_obj
def ls(app: App, /, queues: tuple[str, ...], states: tuple[str, ...], **given: Any) -> None:
    """List messages, newest first, of all queues or of those named."""
    chosen_states = read_states(states) or STATES
    wanted = read_filter(chosen_states, given["text"], given["older"], given["newer"])
    names = [app.known(name) for name in queues] or app.instance.queue_names()
    limit = given["limit"]
    found = messages(app, names, wanted)
    chosen = islice(found, limit or None)
    if given["as_json"] or given["as_lines"]:
        echo_all(chosen, lines=given["as_lines"])
    else:
        _print(app, chosen)
    if limit and next(found, None) is not None:
        app.say("... and more; all of them with: --limit 0, fewer with: --text, --state")


def _print(app: App, found: Iterator[dict[str, Any]]) -> None:
    now = time.time()
    items = list(found)
    if not items:
        app.say("no message")
        return
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "MESSAGE": lambda item: f"{item['queue']}/{item['msg_id']}",
        "STATE": lambda item: str(item["state"]),
        "AGE": lambda item: words.span(now - words.id_time(item["msg_id"])),
        "DEST": _elsewhere,
        "PARAMS": _params,
        "STATUS": lambda item: str(item["status"]).removeprefix(item["state"]).removeprefix(" - "),
    }
    if not any(map(_elsewhere, items)):
        del columns["DEST"]
    table(
        tuple(columns),
        [tuple(cell(item) for cell in columns.values()) for item in items],
        right={"AGE"},
    )


def _elsewhere(item: dict[str, Any]) -> str:
    """Where a message is for that only passes through its queue, as through relay."""
    dest = str(item.get("dest", ""))
    address = parse_dest(dest)
    return "" if address is not None and address.queue == item["queue"] else dest


def _params(item: dict[str, Any]) -> str:
    params = [str(item.get(f"param{number}", "")) for number in (1, 2, 3, 4)]
    while params and not params[-1]:
        params.pop()
    return " ".join(param if len(param) <= 24 else f"{param[:21]}..." for param in params)  # noqa: PLR2004
