"""``rq queue …``: making, listing, stopping and changing queues."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any

import click

from rqcore import words
from rqcore.errors import NotFoundError, RefusedError, UnreachableError
from rqcore.message import queue_name_problem
from rqcore_cli.app import App
from rqcore_cli.commands.status import queue_rows
from rqcore_cli.group import Group, command
from rqcore_cli.names import QUEUE
from rqcore_cli.output import clean, echo, echo_all, echo_json, fields, table
from rqcore_cli.prompt import confirm

#: Orders that may have a reason.
_WHY = ("down_queue", "pause_queue")


@click.command(
    "queue",
    cls=Group,
    short_help="Make, list, stop and change queues.",
    examples="""
rq queue create hello --script ./hello.sh --workers 4
rq queue ls
rq queue pause hello                      take messages, start none
rq queue config hello --set num_workers=8
""",
)
def queue() -> None:
    """Make, list, stop and change queues."""


@command("ls", short_help="List the queues.", examples="rq queue ls\nrq queue ls --jsonl")
@click.option("--json", "as_json", is_flag=True, help="For programs: one array.")
@click.option("--jsonl", "as_lines", is_flag=True, help="For programs: one queue per line.")
@click.pass_obj
def ls(app: App, *, as_json: bool, as_lines: bool) -> None:
    """List the queues, with what they run; `rq status` shows how many messages they have."""
    rows = queue_rows(app)
    if as_json or as_lines:
        echo_all(rows, lines=as_lines)
    elif rows:
        table(
            ("QUEUE", "STATUS", "WORKERS", "SCRIPT", ""),
            [(r["name"], r["status"], r["workers"] or "-", r["script"] or "-", r["problem"])
             for r in rows],
            right={"WORKERS"},
        )  # fmt: skip
    else:
        app.say("There is no queue yet. Make one: rq queue create NAME --script FILE")


@command("show", short_help="Show a queue.", examples="rq queue show hello")
@click.argument("name", type=QUEUE)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def show(app: App, name: str, *, as_json: bool) -> None:
    """Show a queue: its state, its script, its messages by state, and what runs now."""
    app.known(name)
    row = queue_rows(app, [name])[0]
    if as_json:
        echo_json(row)
        return
    counts = ", ".join(f"{count} {state}" for state, count in row["counts"].items() if count)
    fields([
        ("queue", row["name"]), ("status", row["status"]), ("reason", row["problem"]),
        ("script", row["script"]), ("messages", counts or "none"),
        ("corrupt", _set_aside(app, name, row["corrupt"])),
        ("workers", row["workers"] and f"{len(row['running'])} of {row['workers']} busy"),
        ("pid", row["pid"]),
        ("up", "" if row["uptime"] is None else words.span(row["uptime"])),
        ("directory", app.instance.queue_dir(name)),
    ])  # fmt: skip
    if row["running"]:
        echo()
        table(
            ("RUNNING", "PID", "STATUS"),
            [(f"{name}/{run['msg_id']}", run["pid"], run["status"]) for run in row["running"]],
            right={"PID"},
        )


def _set_aside(app: App, name: str, count: int | None) -> str:
    """Where what could not be read lies, why, and how it comes back."""
    if not count:
        return ""
    folder = os.path.join(app.instance.queue_dir(name), "corrupt")
    return f"{count} in {folder}, each with its NAME.reason; mended, move it back into que"


@command(
    "create",
    short_help="Make a queue.",
    examples="""
rq queue create hello --script ./hello.sh
rq queue create mail --script bin/mail --workers 4 --set 'blocking_params=[1]'
rq queue create --from /etc/rq/mail.json
""",
)
@click.argument("name", required=False)
@click.option("--script", metavar="FILE", help="The program that is run for each message.")
@click.option("--workers", type=click.IntRange(1, 128), metavar="N", help="Messages run at once.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="A key of the queue's config; VALUE is JSON, or text.")  # fmt: skip
@click.option("--from", "link", type=click.Path(dir_okay=False), metavar="FILE",
              help="Use this config file where it is; the queue's name stands in it.")  # fmt: skip
@click.pass_obj
def create(
    app: App, name: str | None, script: str | None, workers: int | None,
    settings: tuple[str, ...], link: str | None,
) -> None:  # fmt: skip
    """Make a queue, and start it.

    A relative SCRIPT that is not found here is one of the instance's directory.
    """
    if link is not None:
        if name or script or workers or settings:
            raise click.UsageError("--from takes everything from the file; give nothing else")
        app.ask_manager("create_queue_link", os.path.abspath(link))
        app.say(f"the queue of {link} is made")
        return
    if not name or not script:
        raise click.UsageError("give NAME and --script FILE, or --from FILE")
    problem = queue_name_problem(name)
    if problem is not None:
        raise RefusedError(f"{clean(name)}: {problem}; use letters, digits, - and _")
    if os.path.lexists(app.instance.queue_config_file(name)):
        raise RefusedError(f"there is a queue {name} already; see it with: rq queue show {name}")
    path = _script_path(app, script)
    config = {"name": name, "script": path, "num_workers": workers or 1, **_settings(settings)}
    app.ask_manager("create_queue", config)
    app.say(f"queue {name} is made; send it a message with: rq send {name}")
    _warn_unfit_script(app, path)
    _warn_of_others(app, name, config)


def _script_path(app: App, script: str) -> str:
    """The script as the queue's config names it: what is found here is named absolutely."""
    here = os.path.abspath(script)
    if os.path.exists(here) or not os.path.exists(os.path.join(app.instance.directory, script)):
        return here
    return script


def _warn_unfit_script(app: App, script: str) -> None:
    path = os.path.join(app.instance.directory, script)
    try:
        info = os.stat(path)
    except OSError as error:
        app.warn(f"{path}: {error.strerror}; the queue starts no message until it is there")
        return
    if not stat.S_ISREG(info.st_mode) or not os.access(path, os.X_OK):
        app.warn(f"{path} is not executable; make it so with: chmod +x {path}")


def _warn_of_others(app: App, name: str, config: dict[str, Any]) -> None:
    """Keys that are a plugin's, or nobody's; what is wrong was refused already."""
    from rqcore.config import parse_queue  # noqa: PLC0415 - only for this

    _, warnings = parse_queue(config, str(app.instance.queue_config_file(name)), name)
    for warning in warnings:
        app.warn(str(warning))


def _settings(given: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--set {item}: write KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    _refuse_misspelt(found)
    return found


def _refuse_misspelt(keys: Iterable[str]) -> None:
    """What looks like one of our keys was meant to be it; any other may be a plugin's."""
    from rqcore.config import OLD_COALESCE_KEYS, QUEUE_KEYS  # noqa: PLC0415 - only for this
    from rqcore.schema import did_you_mean  # noqa: PLC0415

    known = (*QUEUE_KEYS, *OLD_COALESCE_KEYS)
    for key in keys:
        hint = "" if key in known else did_you_mean(key, known)
        if hint:
            raise click.UsageError(
                f"--set {clean(key)}: rqcore knows no such key; {hint} "
                "If a plugin reads it, write it into config.json"
            )


@command(
    "delete",
    short_help="Delete a queue; its directory is kept under another name.",
    examples="rq queue delete hello\nrq queue delete hello --yes",
)
@click.argument("name", type=QUEUE)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(app: App, name: str, *, yes: bool) -> None:
    """Delete a queue.

    Nothing is destroyed: its directory becomes NAME.deleted.NUMBER, to be removed by hand.
    """
    app.known(name)
    if not yes:
        confirm(f"Delete queue {name} with {_messages(app, name)}?")
    app.ask_manager("delete_queue", name)
    app.say(
        f"queue {name} is deleted; what it had lies in {app.instance.queues_dir}/{name}.deleted.*"
    )


def _messages(app: App, name: str) -> str:
    try:
        counts = app.ask(name, "num_messages")
    except UnreachableError:
        return "all its messages"
    found = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"its messages ({found})" if found else "no messages"


def _admin(name: str, order: str, help_line: str, done: str) -> click.Command:
    why = order in _WHY
    examples = f"rq queue {name} hello" + (
        f"\nrq queue {name} hello -m 'the disk is being replaced'" if why else ""
    )

    @command(name, short_help=help_line, help=help_line, examples=examples)
    @click.argument("names", type=QUEUE, nargs=-1, required=True, metavar="NAME...")
    @click.pass_obj
    def change(app: App, names: tuple[str, ...], reason: str = "") -> None:
        for queue_name in names:
            app.known(queue_name)
        still_down = []
        for queue_name in names:
            if reason:
                _write_reason(app, order, queue_name, reason)
            try:
                app.ask_manager(order, queue_name)
            except UnreachableError as error:
                _by_hand(app, order, queue_name, error)
            if order == "up_queue" and _is_down(app, queue_name):
                still_down.append(queue_name)
            else:
                app.say(f"queue {queue_name} {done}{_but(app, queue_name, order)}")
        if still_down:
            raise RefusedError("\n".join(_down_again(app, name) for name in still_down))

    if why:
        text = "Why; rq status, rq check and the site show it."
        change.params.append(
            click.Option(["-m", "--reason"], default="", metavar="TEXT", help=text)
        )
    return change


def _write_reason(app: App, order: str, name: str, reason: str) -> None:
    """The file is the state, and its first line is the reason for it."""
    from rqcore import durable  # noqa: PLC0415 - only for this

    file = app.instance.down_file(name) if order == "down_queue" else app.instance.pause_file(name)
    durable.write_file(file, f"{' '.join(reason.split())}\n".encode("utf-8", "surrogateescape"))


def _is_down(app: App, name: str) -> bool:
    """Is it DOWN although it was brought up?  What takes it down again has the word before us.

    The queue tells its plugins that it is up at the latest when it is asked; one of them may know
    why it must not be.
    """
    with contextlib.suppress(RefusedError, UnreachableError):  # the files count, who ever answers
        app.ask(name, "describe")
    return app.instance.admin_state(name) == "DOWN"


def _down_again(app: App, name: str) -> str:
    reason = clean(app.instance.admin_reason(name)) or "nobody says why"
    return f"queue {name} is DOWN still, it was taken down again at once: {reason}"


def _by_hand(app: App, order: str, name: str, error: UnreachableError) -> None:
    """While RQ does not run, the files are changed here; they are what counts at its start."""
    from rqcore import durable  # noqa: PLC0415 - only for this

    act: dict[str, Callable[[], object]] = {
        "down_queue": lambda: durable.touch_file(app.instance.down_file(name)),
        "up_queue": lambda: durable.remove_file(app.instance.down_file(name)),
        "pause_queue": lambda: durable.touch_file(app.instance.pause_file(name)),
        "resume_queue": lambda: durable.remove_file(app.instance.pause_file(name)),
    }
    if order not in act or "no permission" in str(error):
        raise error
    act[order]()
    app.say("RQ does not run; this counts from its next start:")


def _but(app: App, name: str, order: str) -> str:
    """Two states can overlay each other: a queue that was brought up may still be paused."""
    state = app.instance.admin_state(name)
    if order == "up_queue" and state == "PAUSE":
        return f", but paused: rq queue resume {name}"
    if order == "resume_queue" and state == "DOWN":
        reason = clean(app.instance.admin_reason(name))
        return f", but it is down{reason and f' ({reason})'}: rq queue up {name}"
    return ""


@command(
    "config",
    short_help="Show a queue's config, or change it.",
    examples="""
rq queue config hello                             what is in force, defaults included
rq queue config hello --raw                       as it is written
rq queue config hello --set num_workers=8
rq queue config hello --set 'env_vars={"TZ": "UTC"}' --unset exec_prefix
""",
)
@click.argument("name", type=QUEUE)
@click.option("--raw", is_flag=True, help="As it is written, without the defaults.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Change a key; VALUE is JSON, or text. Checked, then loaded.")  # fmt: skip
@click.option("--unset", multiple=True, metavar="KEY", help="Leave a key to its default.")
@click.pass_obj
def config(
    app: App, name: str, settings: tuple[str, ...], unset: tuple[str, ...], *, raw: bool
) -> None:
    """Show a queue's config as JSON, or change it."""
    app.known(name)
    known, warnings = app.instance.load_queue(name)
    if not settings and not unset:
        for warning in warnings:
            app.warn(str(warning))
        shown = {key: getattr(known, key) for key in known.__dataclass_fields__ if key != "raw"}
        echo(json.dumps(known.raw if raw else shown, indent=2, default=_plain))
        return
    changed = {**known.raw, **_settings(settings)}
    for key in unset:
        if key not in changed:
            raise NotFoundError(f"the config of queue {name} has no key {clean(key)}")
        del changed[key]
    _write_config(app, name, changed)


def _plain(value: Any) -> Any:
    """The parts of a config that JSON does not know: a line of the schedule, a frozen mapping."""
    parts = getattr(value, "__dataclass_fields__", None)
    return {key: getattr(value, key) for key in parts} if parts else dict(value)


def _write_config(app: App, name: str, changed: dict[str, Any]) -> None:
    from rqcore import durable  # noqa: PLC0415 - only for this
    from rqcore.config import parse_queue  # noqa: PLC0415

    # A link stays a link: the file elsewhere is changed.
    file = os.path.realpath(app.instance.queue_config_file(name))
    _, warnings = parse_queue(changed, file, name)
    for warning in warnings:
        app.warn(str(warning))
    durable.write_file(file, json.dumps(changed, indent=2).encode() + b"\n")
    try:
        app.ask_manager("reload")
    except UnreachableError:
        app.say(f"{file} is written; RQ does not run")
    except RefusedError as error:
        app.warn(f"{file} is written, but not loaded: {error}")
    else:
        app.say(f"{file} is written and loaded")


for _command in (
    ls, show, create, delete, config,
    _admin("pause", "pause_queue", "Take messages, but start none.", "is paused"),
    _admin("resume", "resume_queue", "Start messages again.", "is resumed"),
    _admin("down", "down_queue", "Refuse messages, and start none.", "is down"),
    _admin("up", "up_queue", "Take messages again.", "is up"),
    _admin("restart", "restart_queue", "Start a queue's process anew.", "is restarted"),
):  # fmt: skip
    queue.add_command(_command)
