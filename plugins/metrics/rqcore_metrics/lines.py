"""Families as lines of Graphite and StatsD: names, values, and packets that are not too large.

Pure.  The path of a metric is the prefix, its name without ``rqcore_``, and the values of its labels:
``rqcore.mq1.queue_messages.test.que``.  With tags it is the name alone, and the labels follow.  What
would end a part of a path, dots above all, becomes ``_``.

A histogram becomes its count and its sum; an info says nothing in numbers, and is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rqcore_metrics.hookspecs import Distribution, Family

#: What goes through an Ethernet in one piece, whatever the headers.
PACKET = 1432
#: Of a longer value of a label only the beginning is told.
_LONGEST = 200
_NOT_IN_A_PATH = re.compile(r"[^A-Za-z0-9_-]")
_NOT_IN_A_TAG = re.compile(r"[;~|,#\s\x00-\x1f]")


@dataclass(frozen=True, slots=True)
class Naming:
    """How metrics are called.  ``{host}`` in the prefix stands for the host, dots replaced."""

    prefix: str
    host: str
    tags: bool

    @property
    def begin(self) -> str:
        """What stands before each name, with its dot."""
        default = "rqcore" if self.tags else "rqcore.{host}"
        return (self.prefix or default).replace("{host}", part(self.host)) + "."

    def path(self, name: str, labels: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The path, and the tags that go with it."""
        short = self.begin + name.removeprefix("rqcore_")
        if not self.tags:
            return ".".join([short, *map(part, labels.values())]), {}
        return short, {"host": tag(self.host), **{key: tag(text) for key, text in labels.items()}}


def part(text: str) -> str:
    """Text as one part of a path."""
    return _NOT_IN_A_PATH.sub("_", text[:_LONGEST]) or "_"


def tag(text: str) -> str:
    """Text as the value of a tag."""
    return _NOT_IN_A_TAG.sub("_", text[:_LONGEST]) or "_"


def graphite(families: Iterable[Family], naming: Naming, now: float) -> bytes:
    """All of it as lines ``path value unixtime``; ``now`` is unix time."""
    lines = []
    for name, labels, value in _numbers(families):
        path, tags = naming.path(name, labels)
        told = "".join(f";{key}={text}" for key, text in tags.items())
        lines.append(f"{path}{told} {_decimal(value)} {int(now)}\n")
    return "".join(lines).encode("ascii", "replace")


def _sendable(value: float | Distribution) -> bool:
    """A gauge may be no number, or without end, which Prometheus alone understands."""
    return math.isfinite(value.total if isinstance(value, Distribution) else value)


def _numbers(families: Iterable[Family]) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for family in families:
        for labels, value in family.samples:
            if not _sendable(value):
                continue
            if isinstance(value, Distribution):
                yield f"{family.name}.count", labels, value.buckets[-1][1]
                yield f"{family.name}.sum", labels, value.total
            elif family.kind != "info":
                yield family.name, labels, value


@dataclass(slots=True)
class Deltas:
    """What StatsD is told: how far counters went since the last time; remembers that in memory.

    The first time there is nothing to compare with, so gauges alone are told.  A counter that went
    back was begun anew.  A histogram becomes its mean, as a timer in milliseconds that stands for all
    values since the last time, so that StatsD counts them rightly.
    """

    naming: Naming
    _before: dict[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)

    def packets(self, families: Iterable[Family]) -> tuple[list[bytes], Deltas]:
        """The datagrams, each of `PACKET` bytes at most; and what to go on with once they are sent."""
        after = Deltas(self.naming)
        lines: list[str] = []
        for family in families:
            for labels, value in family.samples:
                if _sendable(value):
                    lines += self._lines(family, labels, value, after)
        return _packed(lines), after

    def _lines(
        self, family: Family, labels: Mapping[str, str], value: float | Distribution, after: Deltas
    ) -> list[str]:
        name, tags = self.naming.path(family.name, labels)
        told = "|#" + ",".join(f"{key}:{text}" for key, text in tags.items()) if tags else ""
        key = family.name, tuple(labels.values())
        if isinstance(value, Distribution):
            count = self._step(f"{family.name}.count", key[1], value.buckets[-1][1], after)
            total = self._step(f"{family.name}.sum", key[1], value.total, after)
            if count <= 0:
                return []
            mean = _decimal(round(total / count * 1000, 3))
            rate = "" if count == 1 else f"|@{_decimal(1 / count)}"
            return [f"{name}:{mean}|ms{rate}{told}"]
        if family.kind == "counter":
            step = self._step(*key, value, after)
            return [f"{name}:{_decimal(step)}|c{told}"] if step > 0 else []
        if family.kind == "info":
            return []
        # A gauge with a sign is a change of it, so one below zero is set to zero first.
        reset = [f"{name}:0|g{told}"] if value < 0 else []
        return [*reset, f"{name}:{_decimal(value)}|g{told}"]

    def _step(self, name: str, labels: tuple[str, ...], value: float, after: Deltas) -> float:
        after._before[name, labels] = value
        before = self._before.get((name, labels))
        if before is None:
            # One that is new since the last time began at zero; the first time, nobody knows.
            return value if self._before else 0.0
        return value - before if value >= before else value


def _packed(lines: Iterable[str]) -> list[bytes]:
    packets: list[bytes] = []
    packet = b""
    for line in lines:
        data = line.encode("ascii", "replace")
        if packet and len(packet) + 1 + len(data) > PACKET:
            packets.append(packet)
            packet = b""
        packet = packet + b"\n" + data if packet else data
    return [*packets, packet] if packet else packets


def _decimal(value: float) -> str:
    """The number without an exponent, which some servers do not read."""
    if value == int(value):
        return str(int(value))
    return f"{value:.9f}".rstrip("0")
