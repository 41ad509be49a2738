"""What plugins give is looked at; a clumsy plugin harms only itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import rqcore_metrics.plugin
from rqcore_metrics.collect import checked, collect
from rqcore_metrics.exposition import exposition
from rqcore_metrics.hookspecs import Distribution, Family

from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, hookimpl
from rqcore.testing import RunningInstance


class Given(NamedTuple):
    """A family of a plugin that imports nothing of this one."""

    name: str
    kind: str
    help: str
    samples: Any


class Plugin:
    def __init__(self, *families: Any) -> None:
        self.families = families

    @hookimpl(optionalhook=True)
    def rq_collect_metrics(self, instance: InstanceInfo) -> Iterator[Any]:
        for family in self.families:
            if isinstance(family, Exception):
                raise family
            yield family


@pytest.fixture
def found(tmp_path: Path, rq_hooks: Callable[..., Hooks]) -> Callable[..., dict[str, Family]]:
    instance = RunningInstance(tmp_path / "rq")
    info = InstanceInfo(str(instance.directory), "http://mq1:3333/", {})

    def ask(**plugins: object) -> dict[str, Family]:
        hooks = rq_hooks(metrics=rqcore_metrics.plugin, **plugins)
        return {family.name: family for family in collect(hooks, info)}

    return ask


def test_a_plugin_needs_no_import_for_it(found: Callable[..., dict[str, Family]]) -> None:
    mine = Given("rqcore_mine_total", "counter", "Mine.", [({"peer": "http://b:3333/"}, 3)])
    families = found(mine=Plugin(mine))
    assert families["rqcore_mine_total"].samples == [({"peer": "http://b:3333/"}, 3.0)]
    assert families["rqcore_metrics_failed"].samples == [({"plugin": "mine"}, 0)]
    assert families["rqcore_up"].samples == [({}, 0.0)]


def test_two_plugins_may_share_a_name(found: Callable[..., dict[str, Family]]) -> None:
    families = found(
        one=Plugin(Given("rqcore_free_bytes", "gauge", "Free.", [({"at": "a"}, 1)])),
        two=Plugin(Given("rqcore_free_bytes", "gauge", "Free.", [({"at": "b"}, 2)])),
    )
    assert sorted(families["rqcore_free_bytes"].samples, key=str) == [
        ({"at": "a"}, 1.0), ({"at": "b"}, 2.0),
    ]  # fmt: skip


BAD: list[tuple[Any, str]] = [
    ("nothing", "no family"),
    (Given("mine_total", "counter", "", []), "must begin with rqcore_"),
    (Given("rqcore_Mine", "gauge", "", []), "must begin with rqcore_"),
    (Given("rqcore_mine", "counter", "", []), "must end in _total"),
    (Given("rqcore_mine", "info", "", []), "must end in _info"),
    (Given("rqcore_mine", "summary", "", []), "known are counter"),
    (Given("rqcore_mine", "gauge", "", [({}, "much")]), "is no number"),
    (Given("rqcore_mine", "gauge", "", [({"Le!": "x"}, 1)]), "no name of a label"),
    (Given("rqcore_mine", "gauge", "", [({"a": "x"}, 1), ({"a": "x"}, 2)]), "the same labels"),
    (Given("rqcore_mine", "gauge", "", [({"a": str(n)}, 1) for n in range(10_001)]), "more than"),
    (Given("rqcore_mine", "gauge", "", 7), "no family"),
    (Given("rqcore_mine", "histogram", "", [({}, 1)]), "no family"),
    (Given("rqcore_mine", "histogram", "", [({}, Distribution([(1, 1)], 1))]), "must rise"),
    (Given("rqcore_mine", "histogram", "", [({}, Distribution([], 1))]), "must rise"),
    (
        Given("rqcore_mine", "histogram", "", [({}, Distribution([(1, 2), (math.inf, 1)], 1))]),
        "count all below",
    ),
]


@pytest.mark.parametrize(("family", "problem"), BAD)
def test_what_is_no_family_says_so(family: Any, problem: str) -> None:
    taken, told = checked(family)
    assert taken is None
    assert problem in told


def test_text_that_stands_for_no_characters_can_be_written() -> None:
    given = Given("rqcore_mine", "gauge", "No \ud800.", [({"a": "\udcff"}, 1)])
    family, _ = checked(given)
    assert family is not None
    text, _ = exposition([family])
    assert b'rqcore_mine{a="?"} 1.0' in text


def test_a_clumsy_plugin_harms_only_itself(
    found: Callable[..., dict[str, Family]], caplog: pytest.LogCaptureFixture
) -> None:
    good = Given("rqcore_good", "gauge", "Good.", [({}, 1)])
    families = found(
        clumsy=Plugin(
            Given("rqcore_clumsy_a", "gauge", "", [({}, 1)]), "x", ValueError("half-way")
        ),
        thief=Plugin(Given("rqcore_up", "gauge", "", [({}, 1)])),
        other=Plugin(good),
        liar=Plugin(Given("rqcore_good", "counter_total", "", [])),
    )
    assert families["rqcore_good"].samples == [({}, 1.0)]
    assert families["rqcore_clumsy_a"].samples == [({}, 1.0)]
    assert families["rqcore_up"].samples == [({}, 0.0)]
    assert {
        labels["plugin"]: value for labels, value in families["rqcore_metrics_failed"].samples
    } == {"clumsy": 2, "thief": 1, "other": 0, "liar": 1}
    for told in ("ValueError: half-way", "rqcore's own name", "a str"):
        assert told in caplog.text or told == "a str"


def test_one_that_raises_at_once_is_counted_too(found: Callable[..., dict[str, Family]]) -> None:
    class Broken:
        @hookimpl(optionalhook=True)
        def rq_collect_metrics(self, instance: InstanceInfo) -> None:
            raise RuntimeError("no")

    families = found(broken=Broken())
    assert families["rqcore_metrics_failed"].samples == [({"plugin": "broken"}, 1)]
