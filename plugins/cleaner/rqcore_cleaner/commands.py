"""``rq clean``: removing old messages by hand, or seeing what would go.

Made by the group that `rq` hands to plugins, so that it looks and behaves like its own commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import Any

import click

from rqcore import words
from rqcore.faces import App
from rqcore.lifecycle import State
from rqcore_cleaner import listing
from rqcore_cleaner.engine import Cleaning, Report, check_queues, counted, survey
from rqcore_cleaner.options import CLEANED_NAMES, read_options
from rqcore_cleaner.rules import BY_DEFAULT, CLEANED, Rule, rule_for

#: The exit statuses of every command of `rq`.
_FAILED, _UNREACHABLE = 1, 5
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """How the command was called."""

    queues: tuple[str, ...]
    states: tuple[State, ...]
    rule: Rule | None
    dry_run: bool
    yes: bool
    as_json: bool


def register(cli: Any) -> None:
    """Add ``rq clean``; ``cli`` is the click group behind ``rq``."""
    cli.command(
        "clean",
        short_help="Remove old messages, or show what would go.",
        examples="""
rq clean --dry-run
rq clean --hours 48 --queue images
rq clean --keep 1000 --queue images --state done --yes
rq clean --percent 50 --dry-run --json
""",
    )(clean)


@click.option("--hours", type=click.FloatRange(min=0), metavar="H",
              help="Remove what came to rest longer ago.")  # fmt: skip
@click.option("--percent", type=click.FloatRange(0, 100), metavar="P",
              help="Keep so many of a hundred of each queue and state, the newest.")  # fmt: skip
@click.option("--keep", type=click.IntRange(min=0), metavar="N",
              help="Keep so many of each queue and state, the newest.")  # fmt: skip
@click.option("--bytes", "size", metavar="SIZE",
              help="Keep so much of each queue and state, the newest: 500MB, 20GB.")  # fmt: skip
@click.option("--queue", "queues", multiple=True, metavar="QUEUE",
              help="This queue only; may be given more than once. Else all.")  # fmt: skip
@click.option("--state", "states", multiple=True, metavar="STATE",
              help=f"In this state only: {', '.join(CLEANED_NAMES)}.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def clean(ctx: click.Context, /, **given: Any) -> None:
    """Remove old messages, or show what would go.

    Without --hours, --percent, --keep and --bytes it goes by the rules in the main config
    (plugins.cleaner.retention), as the queue cleaner does each night. With them, it goes by those
    alone, for messages in done, relayed and prep; for err only with --state err. What waits or runs
    is never removed, nor what a plugin keeps or somebody reads.

    It shows what would go and asks. Exit status 5: a queue does not run, the others were cleaned.
    """
    app: App = ctx.obj
    rule = _rule(given["hours"], given["percent"], given["keep"], given["size"])
    asked = Asked(
        tuple(app.known(name) for name in given["queues"]),
        _states(given["states"], given_rule=rule is not None),
        rule, given["dry_run"], given["yes"], given["as_json"],
    )  # fmt: skip
    ctx.exit(_run(app, asked))


def _rule(
    hours: float | None, percent: float | None, keep: int | None, size: str | None
) -> Rule | None:
    if (hours, percent, keep, size) == (None,) * 4:
        return None
    try:
        most = None if size is None else words.parse_size(size)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Rule(None if hours is None else hours * _HOUR, keep, most, percent)


def _states(given: tuple[str, ...], *, given_rule: bool) -> tuple[State, ...]:
    names = tuple(dict.fromkeys(name for text in given for name in text.split(",") if name))
    for name in names:
        if name not in CLEANED_NAMES:
            more = "; rq rm removes single messages" if name in ("que", "run") else ""
            raise click.UsageError(
                f"messages in {name} cannot be cleaned, only in {', '.join(CLEANED_NAMES)}{more}"
            )
    return tuple(map(State, names)) or (BY_DEFAULT if given_rule else CLEANED)


def _run(app: App, asked: Asked) -> int:
    options = read_options(str(app.instance.directory))

    def rule(queue: str, state: State) -> Rule:
        return asked.rule or rule_for(options.retention, queue, state)

    progress = _Progress(quiet=asked.as_json)
    cleaning = Cleaning(app.instance, rule, progress, options.disk)
    cuts = list(cleaning.plans(check_queues(app.instance, asked.queues), asked.states))
    found = []
    for cut in cuts:
        progress(f"looking at {cut.queue}/{cut.state}")
        found.append(survey(cut))
    progress.end()
    rows = [row for row in found if row["messages"] or row["being_read"]]
    for queue, reason in cleaning.report.unfit.items():
        app.warn(f"{queue} is not cleaned: {reason}")
    if asked.as_json and asked.dry_run:
        click.echo(json.dumps(rows, indent=2))
    elif not asked.as_json:
        _print(app, rows)
    messages, taken = (sum(row[key] for row in rows) for key in ("messages", "bytes"))
    if not messages:
        app.say("nothing to remove")
    if asked.dry_run or not messages:
        if asked.as_json and not asked.dry_run:
            click.echo(_json(cleaning.report))
        return _FAILED if cleaning.report.unfit else 0
    if not asked.yes:
        _confirm(f"Remove {counted(messages)}, {words.size(taken)}?")
    report = cleaning.clean(cuts)
    progress.end()
    return _tell(app, report, asked)


def _tell(app: App, report: Report, asked: Asked) -> int:
    if asked.as_json:
        click.echo(_json(report))
    app.say(report.words())
    for reason, count in report.tally.kept.most_common():
        app.warn(f"kept {counted(count)}: {reason}")
    for queue, reason in report.silent.items():
        app.warn(f"{queue} is not cleaned: {reason}")
    return _UNREACHABLE if report.silent else _FAILED if report.unfit else 0


def _json(report: Report) -> str:
    queues = {
        name: {"messages": count, "bytes": taken} for name, (count, taken) in report.queues.items()
    }
    return json.dumps(
        {
            "removed": report.tally.removed, "bytes": report.tally.bytes, "queues": queues,
            "being_read": report.tally.read, "kept": dict(report.tally.kept),
            "not_cleaned": {**report.unfit, **report.silent},
        },
        indent=2,
    )  # fmt: skip


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here; say it with --yes")
    click.confirm(question, abort=True, err=True)


def _print(app: App, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    now = time()
    app.table(
        ("QUEUE", "STATE", "WOULD GO", "OF", "BYTES", "OLDEST", "NEWEST", "KEEPS", "BEING READ"),
        [
            (
                row["queue"], row["state"], f"{row['messages']:,}", f"{row['of']:,}",
                words.size(row["bytes"]), _age(row["oldest"], now), _age(row["newest"], now),
                row["keep"], row["being_read"] or "",
            )
            for row in rows
        ],
        right={"WOULD GO", "OF", "BYTES", "OLDEST", "NEWEST", "BEING READ"},
    )  # fmt: skip
    if len(rows) > 1:
        messages, taken = (sum(row[key] for row in rows) for key in ("messages", "bytes"))
        click.echo(f"{counted(messages)}, {words.size(taken)}")


def _age(msg_id: str | None, now: float) -> str:
    return "-" if msg_id is None else words.span(now - listing.made(msg_id))


class _Progress:
    """How far it is, in one line of the terminal; elsewhere nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._width = 0

    def __call__(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r{text.ljust(self._width)}")
            sys.stderr.flush()
            self._width = len(text)

    def end(self) -> None:
        """The line is not needed any more."""
        if self._width:
            sys.stderr.write(f"\r{' ' * self._width}\r")
            sys.stderr.flush()
            self._width = 0
