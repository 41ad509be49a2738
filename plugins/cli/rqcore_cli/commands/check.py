"""``rq check``: how the instance is, for Nagios and for people with a pager."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

from rqcore.errors import RqError
from rqcore_cli.app import App
from rqcore_cli.check_rq import checked_url
from rqcore_cli.checking.ranges import parse_thresholds
from rqcore_cli.checking.runner import Question, answer, check
from rqcore_cli.checking.sources import (
    Facts,
    Site,
    look_locally,
    look_over_http,
    read_authorization,
    site_url,
)
from rqcore_cli.checking.verdict import Finding, Level, Verdict, plugin_findings, unknown
from rqcore_cli.group import Command, read_span
from rqcore_cli.names import QUEUE
from rqcore_cli.output import echo

_PATIENCE = 10.0


class _Check(Command):
    """A wrong call is answered as Nagios wants it, too: one line, and 3 with ``--strict``."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        given = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            question = Question(strict="--strict" in given)
            raise _finished(question, unknown(error.format_message()), None) from None


@click.command(
    "check",
    cls=_Check,
    short_help="Tell in one line how RQ is, as Nagios wants it.",
    examples="""
rq check
rq check -w waiting=100 -c waiting=1000 -c work/overdue=10m
rq check -c backup/cron_age=25h -w done=off -c done=off
rq check -s mq1.example.com --strict            over HTTP, from another machine
""",
)
@click.option("-s", "--server", metavar="HOST", help="Ask this host over HTTP instead.")
@click.option("-p", "--port", type=click.IntRange(1, 65535), metavar="N",
              help="Its port; RQ_PORT, else 3333.")  # fmt: skip
@click.option("--url", metavar="URL", help="Its URL, where it has a root of its own, or TLS.")
@click.option("--auth-file", metavar="FILE",
              help="A file with a token, or with user:password, for HTTP.")  # fmt: skip
@click.option("-w", "--warn", multiple=True, metavar="METRIC=RANGE",
              help="When to warn; METRIC or QUEUE/METRIC.")  # fmt: skip
@click.option("-c", "--crit", multiple=True, metavar="METRIC=RANGE",
              help="When it is critical; `off` for never.")  # fmt: skip
@click.option("--queue", "queues", type=QUEUE, multiple=True, metavar="QUEUE",
              help="Only this queue; may be given again.")  # fmt: skip
@click.option("--exclude", type=QUEUE, multiple=True, metavar="QUEUE",
              help="Not this queue; may be given again.")  # fmt: skip
@click.option("--timeout", callback=read_span, default="10", metavar="TIME",
              help="For the whole, at most: 10, 30s.")  # fmt: skip
@click.option("--strict", is_flag=True,
              help="3, UNKNOWN, for what could not be found out; else that is 2.")  # fmt: skip
@click.option("--no-perfdata", is_flag=True, help="No numbers behind the text.")
@click.option("--json", "as_json", is_flag=True, help="For programs: all that was found.")
@click.pass_obj
def check_command(app: App, /, **given: Any) -> None:
    """Tell in one line how RQ is, and by the exit status: 0 OK, 1 WARNING, 2 CRITICAL.

    Critical: a queue that is not UP, a message in err, what a plugin calls so. What else is too much or
    too old, METRIC and RANGE say. METRIC is waiting (prep, que and run together), prep, que, run, err,
    done, relayed, corrupt, overdue, cron_late or cron_age; RANGE is as Nagios has it, 10 or 5:10 or
    @5:10, a bound also as 10m, or off. Asked are the sockets of the instance; with -s, -p or --url
    its web server, which knows less.
    """
    question = Question(strict=given["strict"])
    facts: Facts | None = None
    try:
        question = Question(
            parse_thresholds(given["warn"], given["crit"]), given["queues"], given["exclude"],
            given["timeout"] or _PATIENCE, given["strict"], not given["no_perfdata"],
        )  # fmt: skip
        look, more = _source(app, given)
    except (RqError, ValueError) as error:
        verdict = unknown(str(error))
    else:
        verdict, facts = check(question, look, more)
    raise _finished(question, verdict, facts, as_json=given["as_json"])


def _finished(
    question: Question, verdict: Verdict, facts: Facts | None, *, as_json: bool = False
) -> click.exceptions.Exit:
    echo(answer(question, verdict, facts, as_json=as_json))
    return click.exceptions.Exit(verdict.status(strict=question.strict))


def _source(
    app: App, given: dict[str, Any]
) -> tuple[Callable[[float], Facts], Callable[[], Iterable[Finding]]]:
    if not (given["server"] or given["port"] or given["url"]):
        return partial(look_locally, app.instance), lambda: _asked_of_plugins(app)
    authorization = read_authorization(given["auth_file"]) if given["auth_file"] else ""
    if given["url"]:
        site = Site(checked_url(given["url"]), authorization)
    else:
        port = given["port"] or int(os.environ.get("RQ_PORT") or 3333)
        site = Site(site_url(given["server"] or "localhost", port), authorization)
    return partial(look_over_http, site), tuple


def _asked_of_plugins(app: App) -> Iterable[Finding]:
    from rqcore_cli.doctor.patient import instance_info  # noqa: PLC0415 - not over HTTP

    found = list(plugin_findings(app.hooks.collect_checks(instance_info(app))))
    found += [
        Finding(
            Level.WARNING,
            f"plugin {p['name']}",
            f"plugin {p['name']} is {p['status']}: {p['error']}",
        )
        for p in app.hooks.report()["plugins"]
        if p["status"] in ("failed", "quarantined")
    ]
    return found
