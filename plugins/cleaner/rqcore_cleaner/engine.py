"""One cleaning: every queue and state by its rule; what the script and ``rq clean`` have in common.

`plans` looks (at names, at sizes where a rule bounds bytes), `clean` removes, `survey` tells what would
go.  A queue that does not answer costs only itself.  Nothing is remembered between two cleanings but
the totals: whoever is killed just begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

from rqcore.config import ConfigError
from rqcore.errors import RqError, UnreachableError
from rqcore.instance import Instance
from rqcore.lifecycle import State
from rqcore.schema import did_you_mean
from rqcore.words import size, span_in_words
from rqcore_cleaner import disk, listing, totals
from rqcore_cleaner.choosing import Cut, going, plan
from rqcore_cleaner.disk import Level
from rqcore_cleaner.listing import Listing
from rqcore_cleaner.options import DiskOptions
from rqcore_cleaner.removal import Remover, Tally, is_read
from rqcore_cleaner.rules import EVERY, Rule, Rules

Rule_for = Callable[[str, State], Rule]


@dataclass
class Report:
    """What a cleaning did.

    ``silent`` are queues that do not answer, ``unfit`` those that cannot be cleaned at all, each with
    its reason.
    """

    tally: Tally = field(default_factory=Tally)
    silent: dict[str, str] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    #: By queue: messages and bytes.
    queues: dict[str, tuple[int, int]] = field(default_factory=dict)

    def words(self) -> str:
        """In one line."""
        tally = self.tally
        text = f"removed {counted(tally.removed)}, {size(tally.bytes)}"
        if tally.read:
            text += f"; {tally.read:,} left that somebody reads"
        if tally.kept:
            reason, _ = tally.kept.most_common(1)[0]
            text += f"; {tally.kept.total():,} kept: {reason}"
        if self.unfit or self.silent:
            queue, reason = next(iter({**self.silent, **self.unfit}.items()))
            names = ", ".join(sorted({*self.silent, *self.unfit}))
            text += f"; not cleaned: {names} ({queue}: {reason})"
        return text


class Cleaning:
    """Cleans queues of one instance; ``say`` is told how it goes, once in a while.

    It takes its time while others work, but not when the disk fills.
    """

    def __init__(
        self, instance: Instance, rule_for: Rule_for, say: Callable[[str], None],
        options: DiskOptions,
    ) -> None:  # fmt: skip
        self._instance = instance
        self._options = options
        self._rule_for = rule_for
        self._say = say
        self.report = Report()
        self._began = monotonic()

    def plans(self, queues: Sequence[str], states: Sequence[State]) -> Iterator[Cut]:
        """What would go of each state; a queue that cannot be cleaned is noted, and left out."""
        now = time()
        for queue in queues:
            problem = self._problem(queue)
            if problem:
                self.report.unfit[queue] = problem
                continue
            path = str(self._instance.queue_dir(queue))
            try:
                yield from [
                    plan(queue, path, state, self._rule_for(queue, state), now) for state in states
                ]
            except OSError as error:  # it belongs to another user
                reason = f"{error.filename} cannot be read: {error.strerror}"
                self.report.unfit[queue] = f"{reason}; clean as the instance's owner"

    def _problem(self, queue: str) -> str:
        """Why a queue cannot be cleaned; empty when it can."""
        try:
            config, _ = self._instance.load_queue(queue)
            store = config.store or self._instance.load_config()[0].store
        except ConfigError as error:
            return str(error.problems[0])
        if store != "directory":
            return f"its messages are in the store {store!r}, which only its own tools can clean"
        return ""

    def clean(self, cuts: Sequence[Cut]) -> Report:
        """Remove what these plans say."""
        expected = sum(cut.most for cut in cuts)
        self._began = monotonic()
        for queue in dict.fromkeys(cut.queue for cut in cuts):
            mine = [cut for cut in cuts if cut.queue == queue]
            before = self.report.tally.removed, self.report.tally.bytes
            try:
                self._clean_queue(queue, mine, expected)
            except UnreachableError as error:
                self.report.silent[queue] = str(error)
            tally = self.report.tally
            done = tally.removed - before[0], tally.bytes - before[1]
            if done[0]:
                self.report.queues[queue] = done
            for cut in mine:
                Listing(cut.path, cut.state).remove_empty(time())
        totals.add(str(self._instance.directory), self.report.queues)
        return self.report

    def _clean_queue(self, queue: str, cuts: Sequence[Cut], expected: int) -> None:
        if not any(cut.most for cut in cuts):
            return
        so_far = self.report.tally

        def progress(mine: Tally) -> None:
            done = so_far.removed + so_far.left + mine.removed + mine.left
            self._say(self._progress(queue, so_far, mine, done, expected))

        with Remover(str(self._instance.directory), queue, progress, self._hurried) as remover:
            try:
                for cut in cuts:
                    remover.state = cut.state
                    remover.remove(going(cut))
            finally:
                so_far.add(remover.tally)

    def _hurried(self) -> bool:
        return disk.state(str(self._instance.directory), self._options)[0] is not Level.OK

    def _progress(self, queue: str, before: Tally, mine: Tally, done: int, expected: int) -> str:
        seconds = monotonic() - self._began
        left = max(0, expected - done)
        rest = f", {span_in_words(seconds * left / done)} left" if done and left else ""
        removed, taken = before.removed + mine.removed, before.bytes + mine.bytes
        return f"{queue}: removed {removed:,} of {expected:,} messages, {size(taken)}{rest}"


def survey(cut: Cut) -> dict[str, Any]:
    """What would go by this plan, its sizes and ages looked at."""
    messages = taken = read = 0
    oldest = newest = ""
    for item in going(cut):
        if is_read(item.path):
            read += 1
            continue
        messages += 1
        taken += listing.size(item.path)
        oldest, newest = oldest or item.msg_id, item.msg_id
    return {
        "queue": cut.queue, "state": str(cut.state), "keep": str(cut.rule), "messages": messages,
        "bytes": taken, "of": cut.total, "being_read": read,
        "oldest": oldest or None, "newest": newest or None,
    }  # fmt: skip


def unknown_queues(rules: Rules, queues: Sequence[str]) -> list[str]:
    """Rules that are for nobody, in words: a misspelt name leaves its queue to another rule."""
    return [
        f"a rule names {name}, and there is no such queue; {did_you_mean(name, queues) or 'correct it'}"
        for name in rules
        if name not in (EVERY, *queues)
    ]


def counted(count: int) -> str:
    """``1 message``, ``1,234 messages``."""
    return "1 message" if count == 1 else f"{count:,} messages"


def check_queues(instance: Instance, queues: Sequence[str]) -> list[str]:
    """The queues that are named, or all.  Raises `RqError` for one that is not there."""
    known = instance.queue_names()
    for queue in queues:
        if queue not in known:
            raise RqError(f"there is no queue {queue}; there are: {', '.join(known) or 'none'}")
    return list(queues) or known
