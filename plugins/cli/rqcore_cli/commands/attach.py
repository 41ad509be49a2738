"""``rq attach``: files to a message that is prepared (``rq send --prep``)."""

from __future__ import annotations

import click

from rqcore_cli.app import App
from rqcore_cli.attachments import attach as attach_one
from rqcore_cli.attachments import sources
from rqcore_cli.group import command
from rqcore_cli.names import MESSAGE
from rqcore_cli.refs import ask, find_ref


@command(
    "attach",
    short_help="Attach files to a prepared message.",
    examples="""
rq attach hello/20260301.0800.00.000.1 a.csv b.csv
rq attach hello/20260301.0800.00.000.1 c.csv --commit
generate | rq attach hello/20260301.0800.00.000.1 - --attach-name data.csv
""",
)
@click.argument("message", type=MESSAGE)
@click.argument("files", nargs=-1, required=True, metavar="FILE...",
                type=click.Path(allow_dash=True))  # fmt: skip
@click.option("--attach-name", metavar="NAME", help="What the attachment is to be called.")
@click.option("--commit", is_flag=True, help="Then queue the message.")
@click.pass_obj
def attach(
    app: App, message: str, files: tuple[str, ...], attach_name: str | None, *, commit: bool
) -> None:
    """Attach files to a message that `rq send --prep` has prepared; - is standard input.

    A file of the same name replaces the one that is attached already.
    """
    ref = find_ref(app, message)
    for source in sources(files, attach_name):
        attach_one(app, ref, source)
    if commit:
        ask(app, ref, "commit_message")
        app.say(f"{ref} is queued")
