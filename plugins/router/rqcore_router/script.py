"""``rq-router``: the script of the queue rq_router, one process for each message.

It finds the rule that takes the message, and does what the rule says: ends it as ``done`` or ``err``, or
makes copies, in the queue relay for other instances, in the queue itself for this one.  The message then
is ``relayed``; the status tells where to, of several copies the last one, the log of all.

It may be killed at any instruction: a run after that goes on from the notes (`rqcore_router.plan`), and
no copy is made twice.  A copy that cannot be made keeps no other from being made; the message is sent
again (``resend``) or ends in err, and says which copies are missing.  ``rq retry`` makes these alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import SystemRandom
from time import gmtime, strftime, time
from typing import Any

from rqcore import durable
from rqcore.errors import NotFoundError, RefusedError, RqError, UnreachableError
from rqcore.handover import hand_over
from rqcore.message import Message, parse_dest
from rqcore_router.choice import chosen
from rqcore_router.files import Reader
from rqcore_router.hosts import ROUTER, base_of
from rqcore_router.plan import Job, Plan
from rqcore_router.reach import unreachable
from rqcore_router.rules import DEFAULT

RELAY = "relay"
#: A queue that is DOWN says this, and may be up again soon.
_DOWN = "status: DOWN"
_PIPE = 3
_STEP = 10
_LONGEST = 2000
_NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Failure:
    """A copy that was not made; ``passing`` when it may work later without anybody's doing."""

    dest: str
    reason: str
    passing: bool

    def __str__(self) -> str:
        return f"{self.dest}: {self.reason}"


class _NoRulesError(RqError):
    """There are none to go by, at the moment."""


def main() -> int:
    """Route the message of this environment."""
    _tell(route(Job(os.environ)))
    return 0


def route(job: Job) -> str:
    """Do it; returns the line for RQ that tells what came of it."""
    try:
        message = job.message()
        plan = job.begun() or _plan(job, message)
        if plan.action in ("relay", "balance"):
            return _copied(job, message, plan)
    except _NoRulesError as error:
        return f"resend {_STEP}-{error}"
    except (RefusedError, OSError) as error:
        return f"err {error}"
    _log_rule(job, plan, plan.action)
    if plan.action == "done" or plan.rule != DEFAULT:
        return f"{plan.action} {plan.named}"
    named = f"{plan.named}: no other rule takes" if plan.line else plan.named
    return f"err {named} src {message.src!r} and dest {message.dest!r}; see: rq route"


def _plan(job: Job, message: Message) -> Plan:
    standing = Reader(job.directory).look()
    if standing.problems:
        say(standing.reason)
    if standing.rules is None:
        raise _NoRulesError(standing.reason or "there is no rules file config/rq_router_rules.toml")
    if standing.stand_in:
        say(f"the last good rules are used: {standing.stand_in}")
    if message.count > message.max_count:
        raise RefusedError(
            f"the message was passed on {message.count} times, its max_count is {message.max_count}; "
            "the rules of several instances may send it in a circle"
        )
    rule = standing.rules.match(message.src, message.dest)
    copies: list[str] = []
    if rule.route and rule.action in ("relay", "balance"):
        copies = chosen(rule, message.dest, unreachable(job.directory), SystemRandom())
    plan = Plan(rule.name, rule.line, rule.action, rule.log, message.count, tuple(copies))
    say(f"{plan.named}: {plan.action}{''.join(f' {dest}' for dest in copies)}")
    return plan


def _copied(job: Job, message: Message, plan: Plan) -> str:
    job.note(plan)
    attachments = job.attachments()
    made: list[str] = []
    failures: list[Failure] = []
    for number, dest in enumerate(plan.copies):
        try:
            queue = _queue_for(job, message, dest)
            fields = _fields(job, message, plan, dest)
            new_id = hand_over(job.directory, queue, fields, attachments, job.note_of(number))
        except (RefusedError, UnreachableError, OSError) as error:
            failures.append(_failure(dest, error))
            say(f"no copy for {failures[-1]}")
        else:
            made.append(new_id)
            say(f"copy for {dest}: {new_id}")
            _log_rule(job, plan, f"{plan.action} to {dest} as {new_id}")
        if len(plan.copies) > 1:
            _tell(f"run {len(made)} of {len(plan.copies)} copies made")
    if failures:
        return _not_all(message, plan, len(made), failures)
    if len(made) == 1:
        return f"relayed {made[0]}"
    return f"relayed {len(made)} copies, see the log; the last one is {made[-1]}"


def _queue_for(job: Job, message: Message, dest: str) -> str:
    """The queue of this instance that takes a copy for this destination."""
    address = parse_dest(dest)
    if address is None:
        raise RefusedError("is no destination; correct the rules")
    if address.base:
        here = base_of(dest) in map(base_of, job.names) and not message.force_remote
        if not here:
            return RELAY
    if address.queue == ROUTER:
        raise RefusedError("is where the message comes from; correct the rules")
    return address.queue


def _fields(job: Job, message: Message, plan: Plan, dest: str) -> Mapping[str, Any]:
    fields = message.to_fields()
    for name in ("msg_id", "due", "cloned_from", "dups"):
        fields.pop(name, None)
    return {**fields, "dest": dest, "count": plan.count, "orig_msg_id": job.orig_msg_id}


def _failure(dest: str, error: Exception) -> Failure:
    reason = str(error)
    if (
        isinstance(error, NotFoundError)
        and "://" in dest
        and reason.startswith("there is no queue relay")
    ):
        reason = "nothing here carries messages to other instances; install rqcore-relay"
    passing = isinstance(error, UnreachableError | OSError) or reason == _DOWN
    return Failure(dest, reason, passing)


def _not_all(message: Message, plan: Plan, made: int, failures: list[Failure]) -> str:
    missing = "; ".join(map(str, failures))
    text = f"{made} of {len(plan.copies)} copies made; not made: {missing}"
    if any(failure.passing for failure in failures):
        if message.count + 1 < message.max_count:
            return f"resend {max(1, message.count**2) * _STEP}-{text}"
        text = f"given up after {message.count + 1} tries: {text}"
    return f"err {text}"


def _log_rule(job: Job, plan: Plan, what: str) -> None:
    """A rule with ``log true`` leaves a line in the instance's log for each message."""
    if not plan.log:
        return
    stamp = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time()))
    line = f"{stamp} {job.full_id} {plan.named}: {what}"
    fd = durable.append_log(f"{job.directory}/log/rq_router.log")
    try:
        os.write(fd, _as_line(line))
    finally:
        os.close(fd)


def say(text: str) -> None:
    """A line in the message's log."""
    os.write(1, _as_line(text))


def _tell(text: str) -> None:
    """A line for RQ."""
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    os.write(_PIPE, _as_line(shown))


def _as_line(text: str) -> bytes:
    return f"{_NOT_IN_A_LINE.sub(' ', text)}\n".encode("utf-8", "surrogateescape")
