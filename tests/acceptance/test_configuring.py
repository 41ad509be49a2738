"""A queue's config is changed by the manager's ``configure_queue``: checked, durable, in force."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rqcore.testing import RunningInstance
from tests.acceptance.helpers import DONE, Gate, Journal, Raw, queue_pid, running

pytestmark = pytest.mark.process

WAITS = '#!/bin/bash\necho "run ready" >&3\nread x < "$RQ_PARAM1"\necho "done waited" >&3\n'
OBJECTS = (
    "from rqcore.hookspecs import hookimpl\n\n\n@hookimpl\n"
    "def rq_check_queue_config(config):\n"
    '    return ["too many workers"] if config.get("num_workers") == 7 else []\n'
)


def config_file(rq: RunningInstance, name: str) -> Path:
    return rq.directory / "queue" / name / "config.json"


def configure(rq: RunningInstance, name: str, config: Any, **more: Any) -> Any:
    return rq.manager.call("configure_queue", {"name": name, "config": config, **more})


def test_it_is_in_force_when_it_is_answered(rq_instance: RunningInstance, tmp_path: Path) -> None:
    """Only for that queue, and what runs there is not disturbed."""
    rq = rq_instance
    rq.queue("test", WAITS)
    rq.queue("other", DONE)
    journal = Journal(rq)
    rq.start()
    gate = Gate(tmp_path / "gate")
    msg_id = rq.send("test", param1=str(gate.path))
    rq.until("test", msg_id, "run", matching=running)
    pid = queue_pid(rq, "test")
    config = json.loads(config_file(rq, "test").read_text())
    for workers in (2, 3, 4):
        assert configure(rq, "test", {**config, "num_workers": workers}) == ["ok", "test"]
        assert rq.ask("test", "config")["num_workers"] == workers
    assert json.loads(config_file(rq, "test").read_text()) == {**config, "num_workers": 4}
    assert queue_pid(rq, "test") == pid
    journal.until("queue_config_reloaded", queue="test", count=3)
    assert not journal.facts("queue_config_reloaded", queue="other")
    gate.open()
    rq.until("test", msg_id, "done")


def test_a_link_stays_one_and_secrets_stay_secret(
    rq_instance: RunningInstance, tmp_path: Path
) -> None:
    rq = rq_instance
    rq.queue("test", DONE)
    link, target = config_file(rq, "test"), tmp_path / "kept elsewhere.json"
    link.rename(target)
    link.symlink_to(target)
    target.chmod(0o600)
    rq.start()
    config = json.loads(target.read_text())
    assert configure(rq, "test", {**config, "num_workers": "5"}) == ["ok", "test"]
    assert link.is_symlink()
    assert os.readlink(link) == str(target)
    assert json.loads(target.read_text())["num_workers"] == "5"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept elsewhere.json", "rq"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_workers": 0, "script": None}, ["num_workers", "script"]),
        ({"num_workers": 7}, ["too many workers"]),
        ({"name": "another"}, ["cannot be renamed"]),
    ],
)
def test_what_is_wrong_is_refused(
    rq_instance: RunningInstance, change: dict[str, Any], words: list[str]
) -> None:
    rq = rq_instance
    rq.queue("test", DONE)
    rq.plugin("objects", OBJECTS)
    rq.start()
    before = config_file(rq, "test").read_bytes()
    word, reason = configure(rq, "test", {**json.loads(before), **change})
    assert word == "fail"
    for expected in words:
        assert expected in reason
    assert config_file(rq, "test").read_bytes() == before
    assert rq.ask("test", "config")["num_workers"] == 1


def test_whoever_saw_another_version_is_refused(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.queue("test", DONE)
    rq.start()
    seen = config_file(rq, "test").read_bytes()
    digest, config = hashlib.sha256(seen).hexdigest(), json.loads(seen)
    assert configure(rq, "test", {**config, "num_workers": 2}, sha256=digest) == ["ok", "test"]
    word, reason = configure(rq, "test", {**config, "num_workers": 3}, sha256=digest)
    assert (word, "changed meanwhile" in reason) == ("fail", True)
    assert rq.ask("test", "config")["num_workers"] == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"name": "nobody", "config": {}}, "no such queue: nobody"),
        ({"name": "../x", "config": {}}, "invalid characters"),
        ({"name": "test"}, "'config'"),
        ({"name": "test", "config": [1]}, "'config'"),
        ({"config": {}}, "queue name"),
    ],
)
def test_what_is_no_order(rq_instance: RunningInstance, args: dict[str, Any], words: str) -> None:
    rq_instance.queue("test", DONE)
    rq_instance.start()
    word, reason = rq_instance.manager.call("configure_queue", args)
    assert (word, words in reason) == ("fail", True), reason


def test_a_queue_that_failed_by_its_config_is_mended(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.queue("test", DONE)
    good = json.loads(config_file(rq, "test").read_text())
    config_file(rq, "test").write_text('{"script": ')
    rq.start()
    assert configure(rq, "test", good) == ["ok", "test"]
    rq.until("test", rq.send("test"), "done")


def test_a_process_that_ends_meanwhile_is_followed_by_one_that_knows(
    rq_instance: RunningInstance,
) -> None:
    rq = rq_instance
    rq.queue("test", DONE)
    rq.start()
    config = json.loads(config_file(rq, "test").read_text())
    pid = queue_pid(rq, "test")
    os.kill(pid, signal.SIGSTOP)
    with Raw(rq) as raw:
        order = {"name": "test", "config": {**config, "num_workers": 9}}
        raw.send(b"configure_queue " + json.dumps(order).encode(), b"ping")
        os.kill(pid, signal.SIGKILL)
        assert raw.answer() == ["ok", "test"]
    rq.serving("test")
    assert rq.ask("test", "config")["num_workers"] == 9
