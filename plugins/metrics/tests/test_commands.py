"""``rq metrics`` and what is below it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

if TYPE_CHECKING:
    from tests.conftest import Counted

pytestmark = pytest.mark.process


def test_the_text(counted: Counted) -> None:
    counted.until("test", counted.send("test"))
    done = counted.rq("metrics")
    assert (done.returncode, done.stderr) == (0, "")
    assert "rqcore_up" in {family.name for family in parse_text(done.stdout)}
    assert 'rqcore_messages_finished_total{outcome="done",queue="test"} 1.0' in done.stdout


def test_openmetrics_and_json(counted: Counted) -> None:
    text = counted.rq("metrics", "--openmetrics").stdout
    assert list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    found = {one["name"]: one for one in json.loads(counted.rq("metrics", "--json").stdout)}
    assert found["rqcore_up"]["samples"] == [{"labels": {}, "value": 1.0}]
    waits = found["rqcore_message_wait_seconds"]["samples"][0]["value"]
    assert waits["buckets"][-1] == [None, waits["count"]]


def test_the_files(counted: Counted) -> None:
    dashboard = json.loads(counted.rq("metrics", "dashboard").stdout)
    assert dashboard["uid"] == "rqcore"
    alerts = counted.rq("metrics", "alerts").stdout
    assert alerts.startswith("# Alerts for rqcore")
    assert "rq metrics dashboard > rqcore.json" in counted.rq("metrics", "--help").stdout


def test_what_was_counted_is_printed_when_rq_does_not_run(rq: Counted) -> None:
    rq.start()
    rq.until("test", rq.send("test"))
    rq.stop()
    done = rq.rq("metrics")
    assert done.returncode == 5
    assert "RQ does not run here" in done.stderr
    assert 'rqcore_messages_finished_total{outcome="done",queue="test"} 1.0' in done.stdout
    assert "rqcore_up 0.0" in done.stdout
    rq.configure(plugins={"metrics": {"statsd": {}}})
    wrong = rq.rq("metrics")
    assert wrong.returncode == 1
    assert 'plugins.metrics.statsd.host" is missing' in wrong.stderr
