"""Families as Prometheus reads them: text format 0.0.4, or OpenMetrics where it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from rqcore_metrics.hookspecs import Distribution, Family


class _Given(Collector):
    """Families, as prometheus_client wants them."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """The families that have samples."""
        return (_metric(family) for family in self._families if family.samples)


def exposition(families: Iterable[Family], accept: str = "") -> tuple[bytes, str]:
    """The text, and the type of its content, by what the asker's ``Accept`` says."""
    encode, content_type = choose_encoder(accept)
    return encode(_Given(list(families))), content_type


def _metric(family: Family) -> Metric:
    name = family.name.removesuffix({"counter": "_total", "info": "_info"}.get(family.kind, ""))
    metric = Metric(name, family.help, family.kind)
    for labels, value in family.samples:
        given = dict(labels)
        if isinstance(value, Distribution):
            for bound, count in value.buckets:
                edge = "+Inf" if math.isinf(bound) else f"{bound:.10g}"
                metric.add_sample(f"{name}_bucket", {**given, "le": _float(edge)}, count)
            metric.add_sample(f"{name}_count", given, value.buckets[-1][1])
            metric.add_sample(f"{name}_sum", given, value.total)
        else:
            metric.add_sample(family.name, given, value)
    return metric


def _float(edge: str) -> str:
    """OpenMetrics wants a bound as a float: ``10.0``."""
    return edge if "." in edge or edge.startswith("+") else f"{edge}.0"
