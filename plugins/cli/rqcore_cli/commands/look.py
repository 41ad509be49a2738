"""``rq show log wait``: one message's fields, its log, its end."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from rqcore import words
from rqcore_cli.app import App
from rqcore_cli.exits import Exit
from rqcore_cli.follow import End, StatusLine, Tail, deadline, follow
from rqcore_cli.group import command, read_span
from rqcore_cli.names import MESSAGE
from rqcore_cli.output import clean, echo, echo_json, echo_json_line, fields
from rqcore_cli.refs import Ref, ask, find_ref


@command(
    "show",
    short_help="Show a message.",
    examples="""
rq show hello/20260301.0800.00.000.1
rq show 20260301.0800.00.000.1 --json
""",
)
@click.argument("message", type=MESSAGE)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def show(app: App, message: str, *, as_json: bool) -> None:
    """Show a message: its fields, its state, its attachments, and where it lies."""
    ref = find_ref(app, message)
    found = ask(app, ref, "get_message")
    if as_json:
        echo_json({"queue": ref.queue, **found})
    else:
        _print(ref, found)


def _print(ref: Ref, found: dict[str, Any]) -> None:
    now = time.time()
    made = words.id_time(ref.msg_id)
    due = found["due"]
    origin = found.get("orig_msg_id")
    fields([
        ("message", ref), ("url", found["full_id"]), ("status", found["status"]),
        ("dest", found["dest"]), ("src", found["src"]),
        *((name, found[name]) for name in ("param1", "param2", "param3", "param4")),
        ("made", f"{words.moment(made)}, {words.span(now - made)} ago"),
        ("due", words.moment(due) if due > made + 1 else ""),
        ("count", f"{found['count']} of {found['max_count']}" if found["count"] else ""),
        ("origin", "" if origin == found["full_id"] else origin),
        ("cloned from", found.get("cloned_from")),
        ("trace", found.get("traceparent")),
        ("webhooks", " ".join(found.get("post_run_webhook", ()))),
        ("duplicates", " ".join(found.get("dups", ()))),
        ("directory", found["path"]),
    ])  # fmt: skip
    attachments = found["_attachments"]
    if attachments:
        echo()
        echo("attachments")
        fields(
            (f"  {clean(name)}", f"{words.size(a['size'])}, md5 {a['md5']}")
            for name, a in attachments.items()
        )


@command(
    "log",
    short_help="Print a message's log, or follow it.",
    examples="""
rq log hello/20260301.0800.00.000.1
rq log -n 20 -f hello/20260301.0800.00.000.1       the last 20 lines, then what comes
""",
)
@click.argument("message", type=MESSAGE)
@click.option("-f", "--follow", "follows", is_flag=True,
              help="Go on printing until the message has ended.")  # fmt: skip
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N",
              help="Only the last N lines.")  # fmt: skip
@click.pass_context
def log(ctx: click.Context, message: str, lines: int | None, *, follows: bool) -> None:
    """Print what a message's script has printed, byte for byte.

    With -f, how the message ended is told on stderr, and by the exit status, as `rq wait` does.
    """
    app = ctx.ensure_object(App)
    ref = find_ref(app, message)
    if follows:
        ctx.exit(follow_log(app, ref, None, lines))
    path = ask(app, ref, "get_message")["path"]
    tail = Tail(sys.stdout.buffer, lines)
    if not tail.open(path):
        app.say(f"{ref} has no log: it has not run yet")
    tail.copy()
    tail.close()


def follow_log(app: App, ref: Ref, timeout: float | None, lines: int | None = None) -> Exit:
    """Print a message's log until it has ended; returns the exit status that tells how."""
    sys.stdout.flush()
    tail = Tail(sys.stdout.buffer, lines)
    try:
        with deadline(timeout):
            end = follow(app, ref, tail)
    except TimeoutError:
        app.warn(f"{ref} has not ended after {timeout:g} s; it goes on")
        return Exit.TIMEOUT
    except KeyboardInterrupt:
        app.warn(f"no longer following; {ref} goes on: rq log -f {ref}")
        return Exit.INTERRUPTED
    finally:
        tail.close()
    app.say(f"{ref} {end}")
    return end.exit_status


def await_end(app: App, ref: Ref, timeout: float | None) -> End | None:
    """Wait until a message has ended, showing its status on a terminal; None: not in time."""
    line = StatusLine(app)
    try:
        with deadline(timeout):
            return follow(app, ref, on_event=lambda status: line.show(f"{ref} {status}"))
    except TimeoutError:
        line.clear()
        app.warn(f"{ref} has not ended after {timeout:g} s; it goes on")
        return None
    finally:
        line.clear()


@command(
    "wait",
    short_help="Wait until messages have ended.",
    examples="""
rq wait hello/20260301.0800.00.000.1
rq wait --timeout 10m hello/20260301.0800.00.000.1 hello/20260301.0800.00.000.2
""",
)
@click.argument("messages", type=MESSAGE, nargs=-1, required=True, metavar="MSG...")
@click.option("--timeout", callback=read_span, metavar="TIME",
              help="Wait no longer than this in all: 90s, 10m.")  # fmt: skip
@click.option("--jsonl", "as_lines", is_flag=True, help="For programs: one message per line.")
@click.pass_context
def wait(
    ctx: click.Context, messages: tuple[str, ...], timeout: float | None, *, as_lines: bool
) -> None:
    """Wait until messages have ended, and print how each did.

    Exit status: 0 all ended done or relayed, 1 one of them did not, 124 the time was up.
    """
    app = ctx.ensure_object(App)
    refs = [find_ref(app, message) for message in messages]
    until = None if timeout is None else time.monotonic() + timeout
    worst = Exit.OK
    for ref in refs:
        left = None if until is None else max(0.0, until - time.monotonic())
        end = await_end(app, ref, left)
        if end is None:
            ctx.exit(Exit.TIMEOUT)
        if as_lines:
            echo_json_line({"queue": ref.queue, "msg_id": ref.msg_id, "state": end.state,
                            "status": end.status})  # fmt: skip
        else:
            echo(f"{ref} {end}")
            sys.stdout.flush()
        worst = max(worst, end.exit_status)
    ctx.exit(worst)
