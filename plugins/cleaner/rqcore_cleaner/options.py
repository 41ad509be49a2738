"""The options of this plugin: what the main config has under ``"plugins": {"cleaner": {...}}``.

`parse_options` checks them, in every process that loads the plugin; the script of the queue cleaner,
which loads no plugins, reads them from the main config with `read_options`.  What is wrong is a
`ConfigError` that names every problem at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from rqcore import words
from rqcore.errors import RefusedError
from rqcore.lifecycle import State
from rqcore.message import queue_name_problem
from rqcore.options import given_options, option_names, strict_section
from rqcore.schema import Report, Section, kind
from rqcore_cleaner.rules import CLEANED, EVERY, Rule, Rules

_PLACE = "plugins.cleaner"
_SPANS = "write it as 90s, 12h, 2d or 4w"
_SIZES = "write it as 500kB, 10MB or 20GB"
_MOST = 10**15
_ALL = 100
_KEEP = "keep"
_RULE = ("age", "number", "bytes")
T = TypeVar("T")
#: The names of the states that may have a rule.
CLEANED_NAMES = tuple(map(str, CLEANED))


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of a file system: ``percent`` of its whole, no more than ``most``; or ``most`` alone."""

    most: int
    percent: float | None = None

    def of(self, whole: int) -> int:
        """The level of a file system with so much in all."""
        if self.percent is None:
            return self.most
        return min(self.most, int(whole * self.percent / _ALL))


@dataclass(frozen=True, slots=True)
class LogOptions:
    """A log of ``size`` bytes or more is rotated; ``keep`` former ones stay; 0 rotates none."""

    size: int = 10_000_000
    keep: int = 10


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """What must stay free of the spool's file system: bytes, and inodes."""

    warning: Amount = Amount(2_000_000_000, 10)
    refuse: Amount = Amount(500_000_000, 5)
    warning_inodes: Amount = Amount(100_000, 10)
    refuse_inodes: Amount = Amount(20_000, 5)
    #: Their messages are refused only below half of that.
    reserved: tuple[str, ...] = ("webhook",)


@dataclass(frozen=True, slots=True)
class Options:
    """See docs/cleaner.md for each."""

    #: When the queue cleaner cleans all, when the queue is made; later its own config says it.
    schedule: str = "17 4 * * *"
    retention: Rules = field(default_factory=dict, hash=False)
    #: Seconds after which what a deleted queue became goes; None: never.
    deleted_queues: float | None = None
    logs: LogOptions = LogOptions()
    disk: DiskOptions = DiskOptions()


def parse_options(given: Mapping[str, object], file: str) -> Options:
    """The options, every default filled in.  Raises `ConfigError` with all problems.

    ``file`` is the path of the main config.
    """
    report = Report(file)
    section = strict_section(report, given, option_names(Options), _PLACE)
    options = Options(
        schedule=_schedule(section),
        retention=_retention(section),
        deleted_queues=_span(section, "deleted_queues"),
        logs=_logs(section),
        disk=_disk(section),
    )
    report.finish()
    return options


def read_options(directory: str) -> Options:
    """The options of the instance in ``directory``, from its main config.  Raises `ConfigError`."""
    return parse_options(*given_options(directory, "cleaner"))


def _inner(section: Section, key: str, known: Iterable[str]) -> Section:
    return strict_section(section.report, section.mapping(key), known, section.at(key))


def _schedule(section: Section) -> str:
    default = Options().schedule
    text = section.text("schedule", default)
    if text == default:
        return text
    from rqcore.cron import CronLine  # noqa: PLC0415 - slow to import, and hardly ever asked

    try:
        CronLine(text, "")
    except RefusedError as error:
        section.refuse("schedule", f"is no time: {error}", f"such as {default}")
    return text


def _retention(section: Section) -> Rules:
    found: dict[str, Mapping[State, Rule]] = {}
    given = section.mapping("retention")
    queues = Section(section.report, given, list(given), section.at("retention"))
    for name in given:
        problem = None if name == EVERY else queue_name_problem(name)
        if problem is not None:
            queues.refuse(name, problem, 'name a queue, or "*" for every one', show=False)
            continue
        states = _inner(queues, name, CLEANED_NAMES)
        found[name] = {
            State(state): _rule(states, state)
            for state in queues.mapping(name)
            if state in CLEANED_NAMES
        }
    return found


def _rule(states: Section, state: str) -> Rule:
    value = states.get(state)
    if value == _KEEP:
        return Rule()
    if not isinstance(value, Mapping) or not value:
        remedy = 'such as {"age": "2d"}, or "keep" for all'
        found = "" if isinstance(value, Mapping) else f", not {kind(value)}"
        states.refuse(state, f"must say what is kept{found}", remedy, show=False)
        return Rule()
    bounds = strict_section(states.report, value, _RULE, states.at(state))
    return Rule(
        age=_span(bounds, "age"),
        number=None if bounds.get("number") is None else bounds.whole("number", 1000, 0, _MOST),
        size=_size(bounds, "bytes"),
    )


def _span(section: Section, key: str) -> float | None:
    return None if section.get(key) is None else _read(section, key, 0.0, words.parse_span, _SPANS)


def _size(section: Section, key: str) -> int | None:
    return None if section.get(key) is None else _read(section, key, 0, words.parse_size, _SIZES)


def _logs(section: Section) -> LogOptions:
    inner, default = _inner(section, "logs", option_names(LogOptions)), LogOptions()
    return LogOptions(
        size=_read(inner, "size", default.size, words.parse_size, _SIZES),
        keep=inner.whole("keep", default.keep, 1, 1000),
    )


def _disk(section: Section) -> DiskOptions:
    inner, default = _inner(section, "disk", option_names(DiskOptions)), DiskOptions()
    found = {
        key: _read(inner, key, getattr(default, key), _level, "write it as 2GB, 10% or 50000")
        for key in ("warning", "refuse", "warning_inodes", "refuse_inodes")
    }
    for high, low in (("warning", "refuse"), ("warning_inodes", "refuse_inodes")):
        # What is a part of the disk and what is not can be compared only where the disk is known.
        same = (found[high].percent is None) is (found[low].percent is None)
        above = (found[high].percent or found[high].most) < (found[low].percent or found[low].most)
        if inner.get(high) is not None and inner.get(low) is not None and same and above:
            inner.refuse(high, f"is below {low}", "warn before messages are refused")
    reserved = inner.texts("reserved") if inner.get("reserved") is not None else default.reserved
    return DiskOptions(**found, reserved=reserved)


def _level(text: str) -> Amount:
    number, percent, rest = text.strip().partition("%")
    if not percent:
        return Amount(words.parse_size(number))
    if rest or not 0 <= float(number) <= _ALL:
        raise ValueError(f"{text!r} is no part of a disk")
    return Amount(_MOST, float(number))


def _read(section: Section, key: str, default: T, parse: Callable[[str], T], remedy: str) -> T:
    """A value that is text in a form of its own; bare numbers are taken as such text."""
    value = section.get(key)
    if value is None:
        return default
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    try:
        if not isinstance(value, str):
            raise ValueError(f"must be text, not {kind(value)}")  # noqa: TRY004 - told as the others
        found = parse(value)
    except ValueError as error:
        section.refuse(key, f"cannot be read: {error}", remedy, show=False)
        return default
    return found
