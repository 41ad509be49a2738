"""``rq run clone retry kill rm``: doing something to messages, to one or to thousands.

Messages are named, or a queue is, with a filter; then their number is told and a yes asked for.
Each message is asked for alone: one that cannot be changed does not keep the others from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from rqcore.errors import RqError
from rqcore_cli.app import App
from rqcore_cli.exits import Exit, exit_status
from rqcore_cli.group import Command, command
from rqcore_cli.names import MESSAGE
from rqcore_cli.output import echo
from rqcore_cli.refs import Ref, ask
from rqcore_cli.selection import Bulk, choose, filter_options, read_states


def _do(
    ctx: click.Context, refs: list[Ref], order: str, done: str, tell: Callable[[Any], None]
) -> None:
    app = ctx.ensure_object(App)
    changed = 0
    worst = Exit.OK
    for ref in refs:
        try:
            answer = ask(app, ref, order)
        except RqError as error:
            app.warn(str(error))
            worst = worst or exit_status(error)
        else:
            changed += 1
            tell(answer)
    if len(refs) == 1 and changed:
        app.say(f"{refs[0]} {done}")
    elif len(refs) > 1:
        app.say(f"{changed} of {len(refs)} messages: {done}")
    ctx.exit(worst)


def _bulk_command(
    name: str, order: str, done: str, eligible: tuple[str, ...], *, help_line: str, text: str,
    examples: str, tell: Callable[[Any], None] = lambda _: None,
) -> Command:  # fmt: skip
    """A command that does one thing to messages in any of the ``eligible`` states."""
    all_err = name != "retry" and "err" in eligible

    @command(name, short_help=help_line, help=text, examples=examples)
    @click.argument("targets", type=MESSAGE, nargs=-1, required=True, metavar="MSG... | QUEUE...")
    @click.option("--all", "everything", is_flag=True,
                  help=f"All messages of the QUEUE in {', '.join(eligible)}.")  # fmt: skip
    @click.option("--state", "states", multiple=True, metavar="STATE",
                  help="Those of the QUEUE in these states.")  # fmt: skip
    @filter_options
    @click.option("--limit", type=click.IntRange(min=1), metavar="N", default=None,
                  help="So many at most, the newest.")  # fmt: skip
    @click.option("--dry-run", is_flag=True, help="Only print which messages it would be.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.pass_context
    def change(ctx: click.Context, /, **given: Any) -> None:
        given["states"] = read_states(given["states"])
        given["limit"] = given["limit"] or 0
        if given.pop("all_err", False):
            given["states"] = (*given["states"], "err")
        refs = choose(ctx.ensure_object(App), Bulk(**given), name, eligible)
        _do(ctx, refs, order, done, tell)

    if all_err or name == "retry":
        change.params.append(
            click.Option(["--all-err"], is_flag=True, help="All failed messages of the QUEUE.")
        )
    return change


run = _bulk_command(
    "run", "run_message", "sent to the front of the queue", ("que",),
    help_line="Send queued messages to the front of their queue.",
    text="Send queued messages to the front of their queue, also those that are not due yet.",
    examples="""
rq run hello/20260301.0800.00.000.1
rq run hello --text urgent
""",
)  # fmt: skip

clone = _bulk_command(
    "clone", "clone_message", "cloned", ("done", "relayed", "err"),
    help_line="Send finished messages again, as new ones.",
    text="Send finished messages again, as new ones with the same attachments; prints the new ids.",
    examples="""
rq clone hello/20260301.0800.00.000.1
rq clone hello --all-err --newer-than 1d
""",
    tell=echo,
)  # fmt: skip

retry = _bulk_command(
    "retry", "retry_message", "back in the queue", ("err",),
    help_line="Send failed messages back to their queue.",
    text="Send failed messages back to their queue, with all they left in their directory.",
    examples="""
rq retry hello/20260301.0800.00.000.1
rq retry hello --all-err --dry-run
rq retry hello --all-err --text timeout --yes
""",
)  # fmt: skip

kill = _bulk_command(
    "kill", "destroy_message", "told to end", ("run",),
    help_line="End the scripts of running messages.",
    text="End the scripts of running messages: SIGTERM, later SIGKILL, to all their processes. "
    "The messages go to err.",
    examples="""
rq kill hello/20260301.0800.00.000.1
rq kill hello --all
""",
)  # fmt: skip

rm = _bulk_command(
    "rm", "delete_message", "deleted", ("prep", "que", "done", "relayed", "err"),
    help_line="Delete messages that do not run.",
    text="Delete messages, with their attachments and logs. A running one must be killed first.",
    examples="""
rq rm hello/20260301.0800.00.000.1
rq rm hello --state done,relayed --older-than 30d --dry-run
""",
)  # fmt: skip
