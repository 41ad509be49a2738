"""``check_rq``: RQ's Nagios check, with the options that it always had, over HTTP.

``bin/check_rq`` in the tree and the command that is installed both come here.  It needs Python and the
two packages, nothing else.  Exit statuses are Nagios's: 0 OK, 1 WARNING, 2 CRITICAL; with ``--strict``
also 3, UNKNOWN, for what could not be found out, which is 2 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import NoReturn
from urllib.parse import urlsplit

from rqcore.errors import RqError
from rqcore_cli.checking.ranges import Thresholds, contract_thresholds, parse_thresholds
from rqcore_cli.checking.runner import Question, answer, check
from rqcore_cli.checking.sources import (
    Facts,
    Site,
    look_over_http,
    read_authorization,
    site_url,
)
from rqcore_cli.checking.verdict import unknown
from rqcore_cli.output import clean

_MAX_PORT = 65535
_LONGEST = 86_400


class _Parser(argparse.ArgumentParser):
    """A mistake in the call is a line for Nagios, too."""

    strict = False

    def error(self, message: str) -> NoReturn:
        raise RqError(f"{message}; see check_rq --help")


def main(argv: list[str] | None = None) -> int:
    """Run it with these arguments, or the process's own; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    with contextlib.suppress(AttributeError):  # what the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # A mistake is told before the options are known.
    question = Question(strict="--strict" in arguments)
    try:
        given = _parser().parse_args(arguments)
        question = Question(
            _thresholds(given), tuple(given.queue), tuple(given.exclude), given.timeout, given.strict,
            not given.no_perfdata,
        )  # fmt: skip
        site = _site(given)
        if not 0 < given.timeout <= _LONGEST:
            raise RqError(
                f"--timeout {given.timeout:g} is no number of seconds from 1 to {_LONGEST}"
            )
    except (RqError, ValueError) as error:
        verdict, facts = unknown(str(error)), None
    else:
        verdict, facts = check(question, lambda patience: look_over_http(site, patience))
        if given.dump and facts is not None:
            _dump(facts)
            return verdict.status(strict=question.strict)
    sys.stdout.write(f"{answer(question, verdict, facts, as_json=False)}\n")
    return verdict.status(strict=question.strict)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "check_rq",
        description="Check the queues of an RQ over HTTP: one line, and Nagios's exit status.",
        epilog="Example: check_rq -s mq1.example.com -t 10:20:3000:3500:3000:3500",
    )  # fmt: skip
    add = parser.add_argument
    add("-s", "--server", metavar="HOST", default="localhost", help="the host; default localhost")
    add("-p", "--port", metavar="N", default=os.environ.get("RQ_PORT") or "3333",
        help="its port; default RQ_PORT, else 3333")  # fmt: skip
    add("-t", "--thresh", metavar="W:C:WMAX:CMAX:RW:RC", default="",
        help="warning and critical of prep+que+run (W:C), of done and of relayed (RW:RC)")  # fmt: skip
    add("-d", "--dump", action="store_true", help="print what each queue says instead")
    add("--url", default="", help="the site's URL instead, where it has a root or TLS")
    add("--auth-file", metavar="FILE", default="", help="a file with a token or user:password")
    add("-w", "--warn", action="append", default=[], metavar="METRIC=RANGE", help="see rq check")
    add("-c", "--crit", action="append", default=[], metavar="METRIC=RANGE", help="see rq check")
    add("--queue", action="append", default=[], metavar="NAME", help="only these queues")
    add("--exclude", action="append", default=[], metavar="NAME", help="not these queues")
    add("--timeout", type=float, default=10.0, metavar="SECONDS", help="for the whole; default 10")
    add("--strict", action="store_true", help="3, UNKNOWN, for what could not be found out")
    add("--no-perfdata", action="store_true", help="no numbers behind the text")
    return parser


def _thresholds(given: argparse.Namespace) -> Thresholds:
    old = contract_thresholds(given.thresh)
    new = parse_thresholds(given.warn, given.crit)
    return Thresholds({**old.warn, **new.warn}, {**old.crit, **new.crit})


def _site(given: argparse.Namespace) -> Site:
    authorization = read_authorization(given.auth_file) if given.auth_file else ""
    if given.url:
        return Site(checked_url(given.url), authorization)
    if not (given.port.isascii() and given.port.isdecimal() and 0 < int(given.port) <= _MAX_PORT):
        raise RqError(f"--port {given.port} is no port; give a number from 1 to {_MAX_PORT}")
    return Site(site_url(given.server, int(given.port)), authorization)


def checked_url(url: str) -> str:
    """The URL with its slash at the end.  Raises `RqError` when it is none."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise RqError(f"--url {url} is no URL; write it as http://HOST:PORT/")
    if "@" in url:  # it would stand in every line on a pager
        raise RqError("--url holds a password; write user:password into a file for --auth-file")
    return url if url.endswith("/") else f"{url}/"


def _dump(facts: Facts) -> None:
    for queue in facts.queues:
        sys.stdout.write(f"{clean(queue.name)}\n\tstatus -> {clean(queue.status)}\n")
        for state, count in (queue.counts or {}).items():
            sys.stdout.write(f"\t{state} -> {count}\n")
