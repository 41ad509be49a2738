"""Choosing messages: by name, or all of a queue that match a filter.

`Filter` is what ``ls`` and the commands that change many messages have in common; `messages` goes
through them newest first, a page at a time.  `choose` is for the latter: it tells what would be
done and to how many, and asks, before anything is done to messages that were not named one by one.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import click

from rqcore import words
from rqcore_cli.app import App
from rqcore_cli.exits import CallError
from rqcore_cli.output import echo
from rqcore_cli.prompt import confirm
from rqcore_cli.refs import Ref, find_ref, split_ref

STATES = ("prep", "que", "run", "done", "relayed", "err")
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages: in these states, with this text in a field, made in this time (unix)."""

    states: tuple[str, ...] = STATES
    text: str | None = None
    made_after: float | None = None
    made_before: float | None = None


def read_states(value: Sequence[str]) -> tuple[str, ...]:
    """States as they are written, ``err`` or ``que,run``.  Raises `CallError`."""
    found = tuple(dict.fromkeys(s for item in value for s in item.split(",") if s))
    for state in found:
        if state not in STATES:
            raise CallError(f"there is no state {state!r}; there are: {', '.join(STATES)}")
    return found


def read_filter(
    states: tuple[str, ...], text: str | None, older: str | None, newer: str | None
) -> Filter:
    """The filter that the options describe.  Raises `CallError`."""
    now = time.time()
    try:
        before = None if older is None else now - words.parse_span(older)
        after = None if newer is None else now - words.parse_span(newer)
    except ValueError as error:
        raise CallError(str(error)) from None
    return Filter(states, text, made_after=after, made_before=before)


def filter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options ``--text --older-than --newer-than``, as click decorators."""
    for option in (
        click.option("--newer-than", "newer", metavar="TIME", help="Made since then: 90s, 1h."),
        click.option("--older-than", "older", metavar="TIME", help="Made before: 90s, 1h, 2d."),
        click.option(
            "--text",
            metavar="TEXT",
            help="With this in a field or the status, in upper or lower case.",
        ),
    ):
        function = option(function)
    return function


def messages(app: App, queues: Sequence[str], wanted: Filter) -> Iterator[dict[str, Any]]:
    """Messages with their fields, status and ``queue``, newest first.

    Raises `UnreachableError` when a queue does not answer.
    """
    parts = [_of_state(app, queue, state, wanted) for queue in queues for state in wanted.states]
    return heapq.merge(*parts, key=lambda item: str(item["msg_id"]), reverse=True)


def _of_state(app: App, queue: str, state: str, wanted: Filter) -> Iterator[dict[str, Any]]:
    before = "" if wanted.made_before is None else words.id_stamp(wanted.made_before)
    end = "" if wanted.made_after is None else words.id_stamp(wanted.made_after)
    while True:
        args = {"state": state, "limit": _PAGE, "before": before, "text": wanted.text or ""}
        page = app.ask(queue, "list_messages", args)
        for item in page["items"]:
            if item["msg_id"] < end:
                return
            yield {"queue": queue, **item}
        before = page["next"]
        if before is None or before < end:
            return


@dataclass(frozen=True, slots=True)
class Bulk:
    """How a command that changes many messages was called."""

    targets: tuple[str, ...]
    everything: bool
    states: tuple[str, ...]
    text: str | None
    older: str | None
    newer: str | None
    limit: int
    dry_run: bool
    yes: bool

    @property
    def filtered(self) -> bool:
        """Were messages described, rather than named?"""
        given = (self.everything, self.states, self.text, self.older, self.newer, self.limit)
        return any(given)


def choose(app: App, bulk: Bulk, verb: str, eligible: tuple[str, ...]) -> list[Ref]:
    """The messages to do it to.  ``eligible``: the states in which ``verb`` makes sense.

    None when it is a dry run, which prints them.  Raises `CallError` for what is ambiguous
    or needs a yes, `click.Abort` when the user says no.
    """
    if not bulk.filtered:
        return _named(app, bulk, verb)
    queues = [app.known(_queue_name(target)) for target in bulk.targets]
    states = tuple(s for s in (bulk.states or eligible) if s in eligible)
    if not states:
        raise CallError(
            f"rq {verb} is for messages in {' or '.join(eligible)}, not in {', '.join(bulk.states)}"
        )
    wanted = read_filter(states, bulk.text, bulk.older, bulk.newer)
    found = list(islice(messages(app, queues, wanted), bulk.limit or None))
    refs = [Ref(item["queue"], item["msg_id"]) for item in found]
    if not refs:
        app.say(f"no message to {verb}")
        return []
    summary = _summary(found)
    if bulk.dry_run:
        for ref in refs:
            echo(str(ref))
        app.say(f"would {verb} {summary}")
        return []
    if not bulk.yes:
        confirm(f"{verb} {summary}?")
    return refs


def _named(app: App, bulk: Bulk, verb: str) -> list[Ref]:
    for target in bulk.targets:
        if split_ref(target) is None and target in app.instance.queue_names():
            raise CallError(
                f"{target} is a queue; say which of its messages to {verb}: "
                "--all, --state, --text, --older-than, --newer-than"
            )
    refs = [find_ref(app, target) for target in bulk.targets]
    if bulk.dry_run:
        for ref in refs:
            echo(str(ref))
        return []
    return refs


def _queue_name(target: str) -> str:
    ref = split_ref(target)
    if ref is not None:
        raise CallError(f"{target} is one message; filters choose among those of a queue")
    return target.removeprefix("/q/")


def _summary(found: list[dict[str, Any]]) -> str:
    counts = Counter((item["queue"], item["state"]) for item in found)
    parts = ", ".join(f"{count} {state} of {queue}" for (queue, state), count in counts.items())
    now = time.time()
    ages = [words.span(now - words.id_time(found[place]["msg_id"])) for place in (-1, 0)]
    made = " to ".join(dict.fromkeys(ages))
    return f"{len(found)} message{'s'[: len(found) > 1]} ({parts}; made {made} ago)"
