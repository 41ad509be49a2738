"""Everything that is exported: rqcore's own families, and those that plugins give.

What a plugin gives is looked at before anybody else sees it: a family that is none is left out, logged
and counted, and the rest is exported.  Families of the same name are put together when they agree about
their kind; a name of rqcore's own stays rqcore's.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo
from rqcore_metrics import pushes
from rqcore_metrics.families import of_instance
from rqcore_metrics.hookspecs import Distribution, Family, Kind

_log = logging.getLogger(__name__)
_NAME = re.compile(r"rqcore_[a-z0-9_]+")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_KINDS: dict[str, Kind] = {
    "counter": "counter", "gauge": "gauge", "info": "info", "histogram": "histogram",
}  # fmt: skip
#: More of one plugin's metric would harm whoever stores them.
_MOST = 10_000


def collect(hooks: Hooks, instance: InstanceInfo, *, plugin_hooks: bool = True) -> list[Family]:
    """All families, each name once, in the order in which they were found."""
    found = {
        family.name: family
        for family in (
            *of_instance(instance.directory, plugin_hooks=plugin_hooks),
            *pushes.families(instance.directory),
        )
    }
    own = set(found)
    failed: dict[str, int] = {}
    for answer in hooks.call("rq_collect_metrics", instance=instance):
        failed.setdefault(answer.plugin, 0)
        if answer.error:
            failed[answer.plugin] += 1  # logged by the isolation
            continue
        for problem in _take(found, own, answer.value):
            failed[answer.plugin] += 1
            _log.error("plugin %s: rq_collect_metrics gave %s", answer.plugin, problem)
    found["rqcore_metrics_failed"] = Family(
        "rqcore_metrics_failed", "gauge", "Families of a plugin that could not be exported.",
        [({"plugin": plugin}, count) for plugin, count in failed.items()],
    )  # fmt: skip
    return list(found.values())


def _take(found: dict[str, Family], own: set[str], given: Any) -> Iterable[str]:
    """Put a plugin's families among the others; yields what is wrong with any."""
    try:
        for item in given:
            family, problem = checked(item)
            if family is None:
                yield problem
            elif family.name in own:
                yield f"{family.name}, which is rqcore's own name"
            elif family.name not in found:
                found[family.name] = family
            elif found[family.name].kind != family.kind:
                yield f"{family.name} as {family.kind}, which is a {found[family.name].kind}"
            else:
                found[family.name].samples.extend(family.samples)
    except Exception as error:  # noqa: BLE001 - whatever a plugin's generator raises
        yield f"an error: {type(error).__name__}: {error}"


def checked(item: Any) -> tuple[Family | None, str]:
    """The family that this is; or None and what is wrong with it."""
    try:
        name, kind, about = str(item.name), str(item.kind), _utf8(item.help)
        samples = [_sample(labels, value, kind) for labels, value in item.samples]
    except (AttributeError, TypeError, ValueError) as error:
        return None, f"no family: {error}"
    if not _NAME.fullmatch(name):
        return None, f"the name {name!r}; it must begin with rqcore_"
    if kind not in _KINDS:
        return None, f"{name} with the kind {kind!r}; known are {', '.join(_KINDS)}"
    wanted = {"counter": "_total", "info": "_info"}.get(kind, "")
    if not name.endswith(wanted):
        return None, f"{name}, a {kind}, whose name must end in {wanted}"
    if len(samples) > _MOST:
        return None, f"{name} with {len(samples)} samples, more than {_MOST}"
    if len({tuple(sorted(labels.items())) for labels, _ in samples}) < len(samples):
        return None, f"{name} with two samples of the same labels"
    return Family(name, _KINDS[kind], about, samples), ""


def _utf8(text: object) -> str:
    """Text that can be written, whatever bytes it came from."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def _sample(
    labels: Mapping[str, str], value: Any, kind: str
) -> tuple[Mapping[str, str], float | Distribution]:
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is no name of a label")
    texts = {label: _utf8(text) for label, text in labels.items()}
    if kind != "histogram":
        if not isinstance(value, Real):
            raise TypeError(f"{value!r} is no number")
        return texts, float(value)
    pairs = [(float(bound), float(count)) for bound, count in value.buckets]
    bounds, counts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if not bounds or bounds[-1] != math.inf or sorted(set(bounds)) != bounds:
        raise ValueError("the bounds of a histogram must rise, to infinity")
    if sorted(counts) != counts:
        raise ValueError("the buckets of a histogram must count all below their bound")
    return texts, Distribution(pairs, float(value.total))
