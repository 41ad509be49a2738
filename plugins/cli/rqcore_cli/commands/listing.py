"""``rq ls``: messages, newest first."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from rqcore_cli import times
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
    rows = [
        (
            f"{item['queue']}/{item['msg_id']}",
            item["state"],
            times.span(now - times.id_time(item["msg_id"])),
            _params(item),
            str(item["status"]).removeprefix(item["state"]).removeprefix(" - "),
        )
        for item in found
    ]
    if rows:
        table(("MESSAGE", "STATE", "AGE", "PARAMS", "STATUS"), rows, right={"AGE"})
    else:
        app.say("no message")


def _params(item: dict[str, Any]) -> str:
    params = [str(item.get(f"param{number}", "")) for number in (1, 2, 3, 4)]
    while params and not params[-1]:
        params.pop()
    return " ".join(param if len(param) <= 24 else f"{param[:21]}..." for param in params)  # noqa: PLR2004
