"""What the facts mean: findings with a level each, the one line that Nagios shows, and its perfdata.

Pure.  The worst level counts: critical, then unknown, then warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from rqcore.words import span_in_words
from rqcore_cli.checking.ranges import METRICS, OFF, Range, Thresholds, number
from rqcore_cli.checking.sources import Facts, Queue
from rqcore_cli.output import clean

#: So many findings are told; how many more there are, is.
_TOLD = 6
_LONGEST = 200


class Level(IntEnum):
    """Nagios's exit statuses."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_WORSE = (Level.OK, Level.WARNING, Level.UNKNOWN, Level.CRITICAL)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    level: Level
    about: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A number, and the ranges that it was held against."""

    label: str
    value: float
    unit: str
    warn: Range
    crit: Range

    def __str__(self) -> str:
        """As perfdata has it."""
        warn, crit = ("" if limit == OFF else str(limit) for limit in (self.warn, self.crit))
        return f"'{self.label}'={number(self.value)}{self.unit};{warn};{crit};0"


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that was found, worst first, and measured; ``fine`` is what to say when nothing is wrong."""

    findings: tuple[Finding, ...]
    measured: tuple[Measured, ...] = ()
    fine: str = ""

    @property
    def level(self) -> Level:
        """The worst."""
        return max((f.level for f in self.findings), key=_WORSE.index, default=Level.OK)

    def line(self, *, perfdata: bool, strict: bool) -> str:
        """The line for Nagios, with perfdata or without."""
        told = "; ".join(_short(finding.text) for finding in self.findings[:_TOLD]) or self.fine
        if len(self.findings) > _TOLD:
            told += f"; and {len(self.findings) - _TOLD} more"
        numbers = " ".join(map(str, self.measured)) if perfdata else ""
        level = Level(self.status(strict=strict))
        return f"RQ {level.name} - {told}" + (f" | {numbers}" if numbers else "")

    def status(self, *, strict: bool) -> int:
        """The exit status: the contract knows no 3, what is unknown is critical there."""
        level = self.level
        return Level.CRITICAL if level is Level.UNKNOWN and not strict else level

    def report(self, facts: Facts | None, *, strict: bool) -> dict[str, Any]:
        """The same for programs."""
        return {
            "status": self.status(strict=strict),
            "level": Level(self.status(strict=strict)).name.lower(),
            "text": self.line(perfdata=False, strict=strict),
            "findings": [{**asdict(f), "level": f.level.name.lower()} for f in self.findings],
            "metrics": [
                {"label": m.label, "value": m.value, "unit": m.unit,
                 "warn": None if m.warn == OFF else str(m.warn),
                 "crit": None if m.crit == OFF else str(m.crit)}
                for m in self.measured
            ],
            "queues": [asdict(queue) for queue in facts.queues] if facts else [],
        }  # fmt: skip


def _label(queue: str, metric: str) -> str:
    """What perfdata calls a number; a name that a site tells may hold what perfdata must not."""
    return "".join("_" if c in "'=|" else c for c in f"{clean(queue)[:_LONGEST]}_{metric}")


def _short(text: str) -> str:
    """One line without the bar, which begins perfdata."""
    line = clean(text).replace("|", "/")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def unknown(text: str) -> Verdict:
    """Nobody answers, or the question is wrong."""
    return Verdict((Finding(Level.UNKNOWN, "rq", text),))


def judge(
    facts: Facts, thresholds: Thresholds, wanted: Iterable[str], unwanted: Iterable[str],
    more: Iterable[Finding] = (),
) -> Verdict:  # fmt: skip
    """Hold the facts against the thresholds; ``more`` is what plugins found.

    ``wanted`` names the queues that matter, all when it names none; ``unwanted`` those that do not.
    """
    chosen = set(wanted)
    queues = [q for q in facts.queues if (q.name in chosen or not chosen)]
    named = thresholds.singled_out() if not chosen else set()
    missing = sorted((chosen | named) - {queue.name for queue in queues} - set(unwanted))
    findings = [
        Finding(Level.CRITICAL, f"queue {name}", f"there is no queue {name}") for name in missing
    ]
    queues = [queue for queue in queues if queue.name not in set(unwanted)]
    measured: list[Measured] = []
    for queue in queues:
        findings += _condition(queue)
        for metric, values in _values(queue):
            warn, crit = thresholds.of(queue.name, metric)
            if values is None:
                if thresholds.named(queue.name, metric):
                    findings.append(_untold(queue, metric))
                continue
            if not values and queue.name in thresholds.singled_out(metric):
                findings.append(
                    Finding(
                        Level.CRITICAL, f"queue {queue.name}", f"queue {queue.name} has no schedule"
                    )
                )
            for label, value, words in values:
                unit = METRICS[metric].unit
                measured.append(Measured(_label(queue.name, label), value, unit, warn, crit))
                level = _level(value, warn, crit)
                if level is not Level.OK:
                    findings.append(
                        Finding(level, f"queue {queue.name}", f"queue {queue.name}: {words}")
                    )
    findings += [
        Finding(Level.CRITICAL, f"service {name}", f"service {name} is {why}")
        for name, why in facts.services.items()
    ]
    findings += more
    findings.sort(key=lambda finding: -_WORSE.index(finding.level))
    return Verdict(tuple(findings), tuple(measured), _fine(queues))


def _level(value: float, warn: Range, crit: Range) -> Level:
    if crit.alerts(value):
        return Level.CRITICAL
    return Level.WARNING if warn.alerts(value) else Level.OK


def _condition(queue: Queue) -> Iterator[Finding]:
    if queue.status != "UP":
        why = f": {queue.why}" if queue.why else ""
        what = {"PAUSE": "paused", "hung": "hanging"}.get(queue.status, queue.status)
        yield Finding(Level.CRITICAL, f"queue {queue.name}", f"queue {queue.name} is {what}{why}")


def _untold(queue: Queue, metric: str) -> Finding:
    return Finding(
        Level.UNKNOWN, f"queue {queue.name}", f"queue {queue.name}: nobody tells its {metric} here"
    )


_Values = list[tuple[str, float, str]]


def _values(queue: Queue) -> Iterator[tuple[str, _Values | None]]:
    """Each metric of a queue: its label, its value, and that in words; None where it is not told."""
    counts = queue.counts
    for metric in METRICS:
        match metric:
            case "corrupt":
                yield metric, _one(metric, queue.corrupt, f"{queue.corrupt} unreadable, set aside")
            case "overdue":
                waits = span_in_words(queue.overdue or 0)
                yield (
                    metric,
                    _one(metric, queue.overdue, f"the next message has been due for {waits}"),
                )
            case "cron_late" | "cron_age":
                yield metric, _of_crons(queue, metric)
            case "waiting" if counts is not None:
                parts = ", ".join(
                    f"{state} {counts.get(state, 0)}" for state in ("prep", "que", "run")
                )
                total = sum(counts.get(state, 0) for state in ("prep", "que", "run"))
                yield metric, _one(metric, total, f"{total} waiting ({parts})")
            case _:
                value = None if counts is None else counts.get(metric)
                yield metric, _one(metric, value, f"{value} in {metric}")


def _one(label: str, value: float | None, words: str) -> _Values | None:
    return None if value is None else [(label, value, words)]


def _of_crons(queue: Queue, metric: str) -> _Values | None:
    if queue.crons is None:
        return None
    values = []
    for place, line in enumerate(queue.crons, 1):
        what = metric.removeprefix("cron_")
        value = line.late if what == "late" else line.age
        told = (
            f"is {span_in_words(value)} late"
            if what == "late"
            else f"ran {span_in_words(value)} ago last"
        )
        values.append((f"cron{place}_{what}", value, f'its schedule "{line.cron}" {told}'))
    return values


def _fine(queues: list[Queue]) -> str:
    def total(*states: str) -> int:
        return sum((queue.counts or {}).get(state, 0) for queue in queues for state in states)

    noun = "queue" if len(queues) == 1 else "queues"
    return f"{len(queues)} {noun}, {total('prep', 'que')} waiting, {total('run')} running"


def plugin_findings(found: Iterable[tuple[str, Any]]) -> Iterator[Finding]:
    """What plugins' checks found, as far as it is not ok: pairs of a plugin's name and a `Check`."""
    levels: Mapping[str, Level] = {"warning": Level.WARNING, "critical": Level.CRITICAL}
    for plugin, check in found:
        if check.level in levels:
            yield Finding(
                levels[check.level],
                f"{plugin}: {check.name}",
                f"{check.name}: {check.text}",
                check.remedy,
            )
