"""``/metrics`` on the site, as Prometheus and others ask for it."""

from __future__ import annotations

import base64
import os
import signal
import urllib.error
from time import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from tests.conftest import Counted

pytestmark = pytest.mark.process
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def test_what_happens_is_counted(counted: Counted) -> None:
    for msg_id in [counted.send("test") for _ in range(5)]:
        counted.until("test", msg_id)
    counted.until("fails", counted.send("fails"), "err")
    text, kind = counted.get()
    assert kind.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parse_text(text)}
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["rqcore_messages_finished_total", "done", "test"] == 5
    assert values["rqcore_messages_finished_total", "err", "fails"] == 1
    assert values["rqcore_messages_enqueued_total", "create", "test"] == 5
    assert values["rqcore_messages_started_total", "test"] == 5
    assert values["rqcore_queue_messages", "done", "test"] == 5
    assert values["rqcore_queue_messages", "err", "fails"] == 1
    assert values["rqcore_queue_up", "test"] == values["rqcore_up",] == 1
    assert values["rqcore_queue_workers", "test"] == 4
    assert values["rqcore_message_run_seconds_count", "test"] == 5
    assert values["rqcore_message_wait_seconds_bucket", "+Inf", "test"] == 5
    assert values["rqcore_script_cpu_seconds_total", "test"] > 0
    assert values["rqcore_fsync_seconds_count", "test"] > 0
    assert values["rqcore_plugin_up", "metrics", "queue test"] == 1
    assert ("rqcore_plugin_errors_total", "manager", "metrics") in values
    assert ("rqcore_plugin_hook_calls_total", "manager", "metrics", "rq_configure") in values
    assert ("rqcore_plugin_hook_calls_total", "metrics", "queue test", "rq_configure") not in values
    assert (
        values["rqcore_plugin_hook_calls_total", "metrics", "queue test", "rq_message_moved"] == 15
    )
    assert "msg_id" not in text


def test_times_of_starts_stand_still(counted: Counted) -> None:
    began = counted.value("rqcore_start_time_seconds")
    queue = counted.value("rqcore_queue_start_time_seconds", queue="test")
    assert began is not None
    assert queue is not None
    assert 0 <= time() - began < 10 * PATIENCE
    assert -1 < queue - began < PATIENCE
    for _ in range(5):
        now = counted.values()
        assert now("rqcore_start_time_seconds") == began
        assert now("rqcore_queue_start_time_seconds", queue="test") == queue


def test_prometheus_is_given_openmetrics(counted: Counted) -> None:
    text, kind = counted.get(Accept=PROMETHEUS)
    assert kind.startswith("application/openmetrics-text")
    families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert "rqcore_messages_finished" in {family.name for family in families}


def test_a_queue_that_hangs_or_is_paused_or_down(counted: Counted) -> None:
    counted.queue("other", "#!/bin/sh\necho done >&3\n")
    counted.manager.ask("reload")
    counted.manager.ask("pause_queue", "other")
    assert counted.value("rqcore_queue_status", queue="other", status="PAUSE") == 1
    assert counted.value("rqcore_queue_up", queue="other") == 0
    counted.ask("other", "create_message", {"dest": "other"})
    age = counted.value("rqcore_queue_oldest_due_age_seconds", queue="other")
    assert age is not None
    assert 0 <= age < PATIENCE
    assert counted.value("rqcore_queue_messages", queue="other", state="que") == 1
    counted.manager.ask("resume_queue", "other")
    counted.manager.ask("delete_queue", "other")
    assert counted.value("rqcore_queue_up", queue="other") is None
    assert counted.value("rqcore_messages_started_total", queue="other") is None
    assert not (counted.directory / "var/metrics/counts/other").exists()


def test_a_queue_that_does_not_answer_is_not_up_and_keeps_its_counts(counted: Counted) -> None:
    pid = counted.ask("fails", "describe")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        now = counted.values()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert now("rqcore_queue_up", queue="fails") == 0
    assert now("rqcore_queue_status", queue="fails", status="unreachable") == 1
    assert now("rqcore_messages_started_total", queue="fails") is not None
    assert now("rqcore_queue_messages", queue="fails", state="err") is None
    assert now("rqcore_queue_up", queue="test") == 1
    assert counted.value("rqcore_queue_up", queue="fails") == 1


def test_below_a_root_and_for_who_may_read(rq: Counted) -> None:
    rq.configure(
        relative_root="/rq/", basic_auth={"realm": "rq", "users": {"bob": "secret", "ann": "word"}},
        plugins={"web": {"roles": {"bob": "read"}}},
    )  # fmt: skip
    rq.start()
    token = rq.rq("web", "token", "add", "monitor", "--queue", "test").stdout.strip()
    with pytest.raises(urllib.error.HTTPError) as refused:
        rq.get("rq/metrics")
    assert refused.value.code == 401
    refused.value.close()
    basic = base64.b64encode(b"bob:secret").decode()
    whole, _ = rq.get("rq/metrics", Authorization=f"Basic {basic}")
    assert 'rqcore_queue_up{queue="test"} 1.0' in whole
    assert 'rqcore_queue_up{queue="fails"} 1.0' in whole
    part, _ = rq.get("rq/metrics", Authorization=f"Bearer {token}")
    assert 'rqcore_queue_up{queue="test"} 1.0' in part
    assert "fails" not in part
    assert "rqcore_up" not in part
    with pytest.raises(urllib.error.HTTPError) as nothing:
        rq.get("metrics", Authorization=f"Basic {basic}")
    assert nothing.value.code == 404
    nothing.value.close()
