"""The dashboard and the rules of alerts: they ask for what there is, and the page explains all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from rqcore_metrics import options
from rqcore_metrics.families import of_instance
from rqcore_metrics.hookspecs import rq_collect_metrics
from rqcore_metrics.pushes import families as of_pushes

from rqcore.testing import RunningInstance

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
FILES = resources.files("rqcore_metrics").joinpath("grafana")
DASHBOARD = json.loads(FILES.joinpath("rqcore.json").read_text("utf-8"))
RULES = yaml.safe_load(FILES.joinpath("rqcore.rules.yml").read_text("utf-8"))["groups"][0]["rules"]
#: What other plugins give, as their pages say.
OTHERS = {
    "rqcore_relay_up", "rqcore_relay_backlog", "rqcore_relay_oldest_timestamp_seconds",
    "rqcore_relay_bytes_total", "rqcore_webhook_attempts_total", "rqcore_webhook_endpoint_up",
    "rqcore_spool_free_bytes",
    "rqcore_spool_free_inodes", "rqcore_spool_refusing", "rqcore_http_request_duration_seconds",
}  # fmt: skip


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (one["expr"] for one in DASHBOARD["annotations"]["list"])
    yield from (rule["expr"] for rule in RULES)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all families of this plugin."""
    directory = RunningInstance(tmp_path_factory.mktemp("x") / "rq").directory
    own = [*of_instance(str(directory), plugin_hooks=True), *of_pushes(str(directory))]
    return {family.name for family in own} | {
        "rqcore_metrics_failed", "rqcore_start_time_seconds", "rqcore_service_up",
    }  # fmt: skip


def test_every_expression_asks_for_what_there_is(known: set[str]) -> None:
    asked = set()
    for expression in expressions():
        for name in re.findall(r"rqcore_\w+", expression):
            asked.add(re.sub(r"_seconds_(bucket|count)$", "_seconds", name))
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")
    assert asked <= known | OTHERS
    assert asked >= OTHERS, "one that is not asked for need not be listed"


def test_panels_do_not_lie_over_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers)) > 20


def test_every_panel_says_what_it_shows() -> None:
    for panel in DASHBOARD["panels"]:
        assert panel["type"] == "row" or panel["description"].endswith((".", "?")), panel["title"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_is_wrong_and_what_to_do_and_is_on_the_page(
    rule: dict[str, Any],
) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert re.search(
        rf"^\| `{rule['alert']}` \| {rule['labels']['severity']} \|", PAGE, re.MULTILINE
    )


def test_every_metric_is_on_the_page_and_no_other(known: set[str]) -> None:
    rows = set(
        re.findall(
            r"^\| `(rqcore_\w+?)(?:\{[\w,]*\})?` \| (?:counter|gauge|info|hist)", PAGE, re.MULTILINE
        )
    )
    assert rows == known


def test_every_option_is_on_the_page() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \|", PAGE.partition("## Options")[2].partition("\n## ")[0], re.MULTILINE
    )
    kinds = {"graphite": options.Graphite, "statsd": options.StatsD, "textfile": options.Textfile}
    wanted = [f"{name}.{one.name}" for name, kind in kinds.items() for one in fields(kind)]
    assert rows == [*wanted, "plugin_hooks"]


def test_the_examples_of_the_config_can_be_used() -> None:
    blocks = re.findall(r"^```json instance\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        options.parse_options(json.loads(block)["plugins"]["metrics"], "config.json")


def test_the_hook_is_on_the_page() -> None:
    words = " ".join((rq_collect_metrics.__doc__ or "").split())
    for part in ("Called:", "Process:", "Returns:", "If it raises:"):
        said = words.partition(part)[2].split(".")[0]
        assert " ".join(re.sub(r"[`*]", "", said).split()) in " ".join(
            re.sub(r"[`*]", "", PAGE).split()
        )


def test_the_file_lies_where_people_look_for_it() -> None:
    there = ROOT / "plugins" / "metrics" / "grafana" / "rqcore.json"
    assert json.loads(there.read_text()) == DASHBOARD
