"""``rq send``: a message to a queue, with files if need be, and its end awaited if asked for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from rqcore import words
from rqcore.errors import RefusedError, RqError
from rqcore.message import DEFAULT_MAX_COUNT, PARAM_NAMES, parse_full_id
from rqcore.trace import carried
from rqcore_cli.app import App
from rqcore_cli.attachments import attach, sources
from rqcore_cli.commands.look import await_end, follow_log
from rqcore_cli.exits import Exit
from rqcore_cli.group import command, read_span
from rqcore_cli.names import QUEUE
from rqcore_cli.output import echo, echo_json
from rqcore_cli.refs import Ref, ask, explained
from rqcore_cli.submit import target_queue


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of ``rq send``."""

    queue: str
    files: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()
    attach_name: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    src: str | None = None
    due: float | None = None
    max_count: int | None = None
    webhook: tuple[str, ...] = ()
    force_remote: bool = False
    single: bool = False
    prep: bool = False
    wait: bool = False
    follow: bool = False
    timeout: float | None = None
    as_json: bool = False

    def message(self) -> dict[str, Any]:
        """The message's fields."""
        given = {
            "dest": self.queue, **self.params, "src": self.src, "due": self.due,
            "max_count": self.max_count, "post_run_webhook": list(self.webhook) or None,
            "force_remote": self.force_remote or None, **carried(os.environ, environment=True),
        }  # fmt: skip
        return {key: value for key, value in given.items() if value is not None}


def _read_due(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else words.parse_due(value, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@command(
    "send",
    short_help="Send a message to a queue.",
    examples="""
rq send hello --param1 world
rq send hello --param1 world --follow              watch its log until it has ended
rq send backup --attach db.dump --attach notes.txt --wait
tar cz /etc | rq send backup --attach - --attach-name etc.tgz
rq send report --due 2026-03-01T08:00
rq send http://mq2.example.com:3333/q/hello --param1 world
""",
)
@click.argument("queue", type=QUEUE)
@click.argument("files", nargs=-1, metavar="", type=click.Path(allow_dash=True))
@click.option("--param1", metavar="TEXT", help="What the script gets as RQ_PARAM1.")
@click.option("--param2", metavar="TEXT", help="The same, RQ_PARAM2.")
@click.option("--param3", metavar="TEXT", help="The same, RQ_PARAM3.")
@click.option("--param4", metavar="TEXT", help="The same, RQ_PARAM4.")
@click.option("--attach", "attached", multiple=True, metavar="FILE...",
              type=click.Path(allow_dash=True),
              help="Files to send along; - is standard input. A file on the same file system is "
                   "linked, not copied: replace it afterwards, do not write into it.")  # fmt: skip
@click.option("--attach-name", metavar="NAME", help="What the attachment is to be called.")
@click.option("--due", callback=_read_due, metavar="TIME",
              help="Do not run before: 10m, 2026-03-01T08:00, or unix time.")  # fmt: skip
@click.option("--src", metavar="TEXT", help="Who sends it, for people.")
@click.option("--max-count", type=click.IntRange(min=0), metavar="N",
              help=f"How often it may be tried; {DEFAULT_MAX_COUNT} unless told.")  # fmt: skip
@click.option(
    "--webhook",
    multiple=True,
    metavar="URL",
    help="Whom to tell when it has ended (by a queue webhook).",
)
@click.option("--force-remote", is_flag=True, help="Relay it even if it is for this host.")
@click.option("--single", is_flag=True,
              help="Only if none waits in the queue; else name the one that does.")  # fmt: skip
@click.option("--prep", is_flag=True, help="Only prepare it: rq attach can add files.")
@click.option("--wait", is_flag=True, help="Wait for its end; the exit status tells how it ended.")
@click.option("--follow", is_flag=True, help="Print its log meanwhile, and wait.")
@click.option("--timeout", callback=read_span, metavar="TIME",
              help="Wait no longer (90s, 10m); then exit with 124.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For programs: what was sent, how it ended.")
@click.pass_context
def send(ctx: click.Context, /, **given: Any) -> None:
    """Send a message to a queue, and print its full id.

    With --follow, stdout is the message's log instead, and the id goes to stderr. QUEUE may be a
    queue's URL on another machine.
    """
    params = {name: given.pop(name) for name in PARAM_NAMES}
    params = {name: text for name, text in params.items() if text is not None}
    wanted = Wanted(**given, params=params)
    _check(wanted)
    app = ctx.ensure_object(App)
    ref, whole = _submit(app, wanted)
    about = {"queue": ref.queue, "msg_id": ref.msg_id, "full_id": whole}
    if wanted.follow:
        app.say(f"{ref}")
        ctx.exit(follow_log(app, ref, wanted.timeout))
    if not wanted.as_json:
        echo(whole)
    elif not wanted.wait:
        echo_json(about)
    sys.stdout.flush()
    if wanted.wait:
        end = await_end(app, ref, wanted.timeout)
        if wanted.as_json:
            ended = {"state": end.state, "status": end.status} if end else {"state": None}
            echo_json({**about, **ended})
        elif end is not None:
            app.say(f"{ref} {end}")
        ctx.exit(Exit.TIMEOUT if end is None else end.exit_status)


def _check(wanted: Wanted) -> None:
    waits = wanted.wait or wanted.follow
    if wanted.files and not wanted.attached:
        raise click.UsageError(
            f"unexpected: {' '.join(wanted.files)}; parameters are given as --param1, "
            "files as --attach"
        )
    if wanted.single and (wanted.attached or wanted.prep):
        raise click.UsageError("--single makes a whole message; it takes no --attach or --prep")
    if wanted.prep and waits:
        raise click.UsageError("--prep makes a message that does not run yet; it cannot be awaited")
    if wanted.timeout is not None and not waits:
        raise click.UsageError("--timeout is for --wait and --follow")
    if wanted.as_json and wanted.follow:
        raise click.UsageError("--follow prints the log, so there is no place for --json")


def _submit(app: App, wanted: Wanted) -> tuple[Ref, str]:
    files = sources((*wanted.attached, *wanted.files), wanted.attach_name)
    fields = wanted.message()
    name = target_queue(app, fields)
    if not files:
        kind = "single_que" if wanted.single else "prep" if wanted.prep else "create"
        order = kind if wanted.single else f"{kind}_message"
        return _submitted(app, name, order, fields)
    ref, whole = _submitted(app, name, "prep_message", fields)
    with _taken_back_on_failure(app, ref):
        for source in files:
            attach(app, ref, source)
        if not wanted.prep:
            ask(app, ref, "commit_message")
    return ref, whole


def _submitted(app: App, queue: str, order: str, fields: dict[str, Any]) -> tuple[Ref, str]:
    try:
        whole = app.ask(queue, order, fields)
    except RefusedError as error:
        raise RefusedError(explained(app, queue, error)) from None
    address = parse_full_id(whole)
    assert address is not None, f"queue {queue} answered {whole!r}"
    return Ref(queue, address.msg_id), whole


@contextmanager
def _taken_back_on_failure(app: App, ref: Ref) -> Iterator[None]:
    """A message that did not get all its attachments must not stay, nor run."""
    try:
        yield
    except BaseException:
        try:
            ask(app, ref, "delete_message")
        except RqError as error:
            app.warn(f"{ref} stays in prep without all its attachments: {error}")
        else:
            app.warn(f"{ref} was taken back; nothing was sent")
        raise
