"""The hook by which plugins add to what is exported.  rqcore-metrics brings it, and asks it.

Implement it with ``@hookimpl(optionalhook=True)``, so that your plugin works where rqcore-metrics is
not installed.  It follows the rules of `rqcore.hookspecs`: a plain function, called alone, timed and
counted; one that fails is missing from what is exported, and is counted in
``rqcore_metrics_failed{plugin}``.

Nothing of this package has to be imported for it: a family is whatever has a ``name``, a ``kind``, a
``help`` and ``samples``; `Family` is there for those who want it, a NamedTuple of these will do.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rqcore.hookspecs import InstanceInfo, hookspec

Kind = Literal["counter", "gauge", "info", "histogram"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a sample of a histogram.

    ``buckets``: pairs of an upper bound and how many values were at most that (cumulative), bounds
    rising, the last one infinite.  ``total`` is the sum of all values.
    """

    buckets: Sequence[tuple[float, float]]
    total: float


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics of one name.

    ``name`` begins with ``rqcore_`` and says the unit (``_seconds``, ``_bytes``); a counter's ends in
    ``_total``, an info's in ``_info``.  ``samples`` are pairs of labels and a value: a number, or for
    a histogram a `Distribution` (whatever has ``buckets`` and ``total``).  Labels have few values:
    a queue, a peer, an endpoint; never a message's id.
    """

    name: str
    kind: Kind
    help: str
    samples: list[tuple[Mapping[str, str], float | Distribution]] = field(default_factory=list)


@hookspec
def rq_collect_metrics(instance: InstanceInfo) -> Iterable[Family]:
    """Give the metrics of what your plugin does.

    Be quick and do not wait: read your state files.  Counters count since the instance was made, or
    since your plugin was installed; they survive restarts.

    Called: for each scrape of ``/metrics``, each interval of a push, and by ``rq metrics``; perhaps
        in several threads at once.
    Process: web, the service ``metrics``, or the ``rq`` command, perhaps of another user.

    Args:
        instance: the instance.
    Returns: families: whatever has ``name``, ``kind`` ("counter", "gauge", "info" or "histogram"),
        ``help`` and ``samples``, a list of pairs ``(labels, value)``.
    If it raises: the plugin's families are missing; logged and counted.
    Since: 0.1

    """
