"""``rq-cleaner``: the script of the queue cleaner; it removes old messages and rotates the logs.

``param1`` is a queue, or ``ALLQUEUES``; ``param2`` is days, or empty to go by the options.  It tells
how far it is once a second at most, and ends with ``done`` and what it did; with ``resend`` when a
queue does not answer, for the others need not wait; with ``fail`` when the message cannot be meant.
It may be killed at any instruction: the next run goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from time import monotonic, time

from rqcore.errors import RqError
from rqcore.instance import Instance
from rqcore.lifecycle import State
from rqcore.words import size
from rqcore_cleaner import leftovers, logs
from rqcore_cleaner.engine import Cleaning, check_queues, counted, unknown_queues
from rqcore_cleaner.options import Options, read_options
from rqcore_cleaner.pace import step_back
from rqcore_cleaner.rules import CLEANED, Rule, rule_for

_PIPE = 3
_ALL = "ALLQUEUES"
_EVERY = 1.0
_LATER = 300
_CENTURY = 36_500


def main() -> int:
    """Clean what the message of this environment names."""
    if "RQ_MSG_DIR" not in os.environ:
        sys.stderr.write(
            "rq-cleaner is the script of the queue cleaner: RQ runs it; clean by hand: rq clean\n"
        )
        return 2
    step_back()
    # INSTANCE/queue/cleaner/run/ID/job
    instance = Instance(Path(os.environ["RQ_MSG_DIR"], "../../../../..").resolve())
    try:
        options = read_options(str(instance.directory))
        queues, days = _asked(instance)
    except (RqError, ValueError) as error:
        _end(f"fail {error}")
        return 0
    _clean(instance, options, queues, days)
    return 0


def _asked(instance: Instance) -> tuple[list[str], float | None]:
    """The queues that are meant, and the days.  Raises `RqError` and `ValueError`."""
    name, days = os.environ.get("RQ_PARAM1", "").strip(), os.environ.get("RQ_PARAM2", "").strip()
    if not name:
        raise ValueError(f"param1 is empty; name a queue, or {_ALL}")
    queues = check_queues(instance, [] if name == _ALL else [name])
    if not days:
        return queues, None
    try:
        number = float(days)
        if not 0 <= number <= _CENTURY:
            raise ValueError(days)
    except ValueError:
        raise ValueError(f"param2 must be a number of days, not {days!r}") from None
    return queues, number


def _clean(instance: Instance, options: Options, queues: list[str], days: float | None) -> None:
    named = os.environ["RQ_PARAM1"].strip() != _ALL
    shown = _Shown()

    def rule(queue: str, state: State) -> Rule:
        return rule_for(options.retention, queue, state, days, named=named)

    cleaning = Cleaning(instance, rule, shown, options.disk)
    shown("looking for old messages")
    cuts = list(cleaning.plans(queues, CLEANED))
    for cut in cuts:
        if cut.most:
            _log(f"{cut.queue}/{cut.state}: {cut.most:,} of {cut.total:,}, keep {cut.rule}")
    report = cleaning.clean(cuts)
    parts = [report.words()]
    for queue, (messages, taken) in report.queues.items():
        _log(f"{queue}: removed {counted(messages)}, {size(taken)}")
    for reason, count in report.tally.kept.most_common():
        _log(f"kept {counted(count)}: {reason}")
    for queue, reason in {**report.unfit, **report.silent}.items():
        _log(f"{queue} is not cleaned: {reason}")
    if not named:
        parts += _housekeeping(instance, options)
        parts += unknown_queues(options.retention, queues)
    verdict = f"resend {_LATER}-" if report.silent else "done "
    _end(f"{verdict}{'; '.join(parts)}")


def _housekeeping(instance: Instance, options: Options) -> list[str]:
    """Logs, and what deleted queues left."""
    parts = []
    rotated, troubles = logs.rotate(instance, options.logs)
    if rotated:
        parts.append(f"rotated {', '.join(rotated)}")
    if options.deleted_queues is not None:
        count, taken, more = leftovers.remove_old(instance, options.deleted_queues, time())
        troubles += more
        if count:
            plural = "" if count == 1 else "s"
            parts.append(f"removed {count} deleted queue{plural}, {size(taken)}")
    left = len(list(leftovers.leftovers(instance)))
    if left:
        parts.append(f"{left} deleted queue{'' if left == 1 else 's'} still on the disk")
    for trouble in troubles:
        _log(trouble)
    return parts


class _Shown:
    """Tells RQ how far it is, not more often than people can read."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, text: str) -> None:
        now = monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            _say(f"run {text}")


def _say(line: str) -> None:
    """Tell RQ; where nobody listens any more, this process ends, for it is about to be ended anyway."""
    try:
        os.write(_PIPE, f"{' '.join(line.split())}\n".encode("utf-8", "surrogateescape"))
    except BrokenPipeError:
        os._exit(1)


def _end(line: str) -> None:
    _log(line)
    _say(line)


def _log(line: str) -> None:
    """Write into the message's log; a disk that is full has no room for it, and stops nothing."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode("utf-8", "replace"))
