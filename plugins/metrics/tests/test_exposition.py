"""What is exported is what Prometheus' own parsers read, in both forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from rqcore_metrics.exposition import exposition
from rqcore_metrics.hookspecs import Distribution, Family

ODD = 'a "quoted"\\ line\nand another: ü'
FAMILIES = [
    Family("rqcore_up", "gauge", "Is it?", [({}, 1)]),
    Family("rqcore_taken_total", "counter", "Taken.", [({"queue": "a", "via": ODD}, 7),
                                                       ({"queue": "b", "via": ""}, 0.5)]),
    Family("rqcore_build_info", "info", "What it is.", [({"version": "1.2"}, 1)]),
    Family("rqcore_run_seconds", "histogram", "Runs.", [
        ({"queue": "a"}, Distribution([(0.01, 1), (10, 3), (math.inf, 4)], 99.5)),
    ]),
    Family("rqcore_nothing", "gauge", "Has no samples."),
]  # fmt: skip
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def read(families: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


EXPECTED = {
    ("rqcore_up", ()): 1,
    ("rqcore_taken_total", (("queue", "a"), ("via", ODD))): 7,
    ("rqcore_taken_total", (("queue", "b"), ("via", ""))): 0.5,
    ("rqcore_build_info", (("version", "1.2"),)): 1,
    ("rqcore_run_seconds_bucket", (("le", "0.01"), ("queue", "a"))): 1,
    ("rqcore_run_seconds_bucket", (("le", "10.0"), ("queue", "a"))): 3,
    ("rqcore_run_seconds_bucket", (("le", "+Inf"), ("queue", "a"))): 4,
    ("rqcore_run_seconds_count", (("queue", "a"),)): 4,
    ("rqcore_run_seconds_sum", (("queue", "a"),)): 99.5,
}


def test_text() -> None:
    text, kind = exposition(FAMILIES)
    assert kind.startswith("text/plain; version=0.0.4")
    families = list(parse_text(text.decode()))
    assert read(families) == EXPECTED
    kinds = {family.name: family.type for family in families}
    assert kinds["rqcore_taken"] == "counter"
    assert kinds["rqcore_run_seconds"] == "histogram"
    assert "rqcore_nothing" not in kinds
    assert b"_created" not in text


def test_openmetrics() -> None:
    text, kind = exposition(FAMILIES, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    families = list(parse_openmetrics(text.decode()))  # type: ignore[no-untyped-call]
    assert read(families) == EXPECTED
    assert {family.name: family.type for family in families}["rqcore_build"] == "info"


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "nonsense;;;=,", "text/plain"])
def test_whoever_asks_for_nothing_better_is_given_text(accept: str) -> None:
    _, kind = exposition(FAMILIES, accept)
    assert kind.startswith("text/plain; version=0.0.4")
