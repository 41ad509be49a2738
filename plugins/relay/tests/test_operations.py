"""An instance with the whole plugin: dead peers, their return, and what people are shown of it."""

from __future__ import annotations

import json
import select
import subprocess
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqcore.testing import PATIENCE, RunningInstance, free_port
from rqcore.unix import Inotify

DONE = "#!/bin/sh\necho 'done fine' >&3\n"


class Near(RunningInstance):
    """The instance that has the queue relay and a site; ``port`` is its site's."""

    port = 0

    def rq(self, *words: str) -> subprocess.CompletedProcess[str]:
        program = Path(sysconfig.get_path("scripts"), "rq")
        environ = {**self.environ, "RQ_DIR": str(self.directory), "NO_COLOR": "1"}
        return subprocess.run(
            [program, *words], env=environ, capture_output=True, text=True, check=False, timeout=60
        )

    def get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.port}/{path}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def peer_until(self, name: str, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until ``peers.json`` says this of a peer; returns what it says then."""
        folder = self.directory / "var" / "relay"
        inotify = Inotify()
        try:
            inotify.add(str(folder), Inotify.MOVED_TO)
            while True:
                found = json.loads((folder / "peers.json").read_text())["peers"]
                if name in found and fits(found[name]):
                    return dict(found[name])
                ready, _, _ = select.select([inotify.fd], [], [], PATIENCE)
                assert ready, f"{name}: {found}\n{self.log_text()}"
                inotify.read()
        finally:
            inotify.close()


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a peer that is there."""
    with RunningInstance(tmp_path_factory.mktemp("living") / "rq") as made:
        yield start_far(made, free_port())


@pytest.fixture(scope="module")
def shared_near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Near]:
    with Near(tmp_path_factory.mktemp("near") / "rq") as made:
        made.use_plugins("cli", "relay", "web")
        made.port = free_port()
        made.configure(port=made.port)
        script = Path(sysconfig.get_path("scripts"), "rq-relay")
        made.queue("relay", script, num_workers=16, fsync="no-fsync")
        made.start()
        yield made


@pytest.fixture
def near(shared_near: Near) -> Iterator[Near]:
    yield shared_near
    shared_near.disconnect()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[RunningInstance]:
    """A peer that is not started yet."""
    with RunningInstance(tmp_path / "far") as made:
        yield made


def start_far(far: RunningInstance, port: int) -> str:
    far.use_plugins("cli", "web")
    far.configure(port=port)
    far.queue("work", DONE)
    far.start()
    return f"http://localhost:{port}/"


def test_many_for_a_dead_peer_delay_no_other_and_go_when_it_is_back(
    near: Near, living: str, far: RunningInstance
) -> None:
    port = free_port()
    dead = f"http://localhost:{port}/"
    with near.client("relay") as client:
        sent = [client.ask("create_message", {"dest": f"{dead}q/work"}) for _ in range(60)]
        msg_id = near.send("relay", dest=f"{living}q/work")
    near.until("relay", msg_id, "relayed")
    entry = near.peer_until(dead, lambda entry: entry["failures"] >= 2 and not entry["running"])
    assert (entry["reachable"], entry["waiting"], entry["messages"]) == (False, 60, 0)
    assert near.ask("relay", "num_messages")["que"] == 60
    for full_id in sent[6:]:
        near.ask("relay", "delete_message", {"msg_id": full_id})
    near.peer_until(dead, lambda entry: entry["waiting"] == 6)
    start_far(far, port)
    entry = near.peer_until(dead, lambda entry: entry["messages"] == 6 and not entry["running"])
    assert (entry["waiting"], entry["destinations"]) == (0, {})
    assert (entry["reachable"], entry["failures"], entry["kind"]) == (True, 0, "rqcore")
    for full_id in sent[:6]:
        msg_id = full_id.rpartition("/")[2]
        assert near.message("relay", msg_id)["state"] == "relayed"


def test_a_peer_that_answers_again_is_not_unreachable_though_nobody_waits(
    near: Near, far: RunningInstance
) -> None:
    port = free_port()
    dead = f"http://localhost:{port}/"
    msg_id = near.send("relay", dest=f"{dead}q/work")
    near.peer_until(dead, lambda entry: entry["failures"] and not entry["running"])
    near.until("relay", msg_id, "que")
    near.ask("relay", "delete_message", {"msg_id": msg_id})
    near.peer_until(dead, lambda entry: entry["reachable"] is False and not entry["waiting"])
    start_far(far, port)
    near.peer_until(dead, lambda entry: entry["reachable"] is None)
    [row] = [row for row in peers(near) if row["peer"] == dead]
    assert (row["reachable"], row["waiting"], row["probe"]["error"]) == (None, 0, None)
    msg_id = near.send("relay", dest=f"{dead}q/work")
    near.until("relay", msg_id, "relayed")
    assert near.peer_until(dead, lambda entry: entry["messages"])["reachable"] is True


def test_a_pause_and_a_reload_lose_nobody(near: Near, living: str) -> None:
    assert near.rq("queue", "pause", "relay").returncode == 0
    sent = [near.send("relay", dest=f"{living}q/work") for _ in range(6)]
    near.configure(plugins={"relay": {"per_peer": 1}})
    assert near.rq("reload").returncode == 0
    assert near.rq("queue", "resume", "relay").returncode == 0
    for msg_id in sent:
        near.until("relay", msg_id, "relayed")
    near.peer_until(living, lambda entry: not entry["running"] and not entry["waiting"])


def peers(near: Near) -> list[dict[str, Any]]:
    report = json.loads(near.rq("relay", "--json").stdout)
    assert report["alive"] is True
    return list(report["peers"])


def test_what_people_are_shown(near: Near, living: str) -> None:
    dead = f"http://localhost:{free_port()}/"
    msg_id = near.send("relay", dest=f"{dead}q/work")
    near.peer_until(dead, lambda entry: entry["failures"] >= 2 and not entry["running"])
    near.until("relay", near.send("relay", dest=f"{living}q/work"), "relayed")
    near.peer_until(living, lambda entry: entry["messages"] and not entry["running"])
    shown = near.rq("relay")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0] == ["PEER", "STATUS", "SINCE", "WAITING", "OLDEST", "RUNNING", "SENT", "RATE"]
    [down] = [line for line in lines if line[:2] == [dead, "unreachable"]]
    assert down[4] == "1"
    assert [living, "reachable"] in [line[:2] for line in lines]
    assert f"{dead} cannot be reached: Connection refused" in shown.stdout
    assert ["1", f"{dead}q/work"] in [[line[0], line[-1]] for line in lines if line]
    page = near.get("-/relay/")
    for text in (dead, living, "unreachable", "Connection refused", "1 message waiting"):
        assert text in page
    assert "Machines that cannot be reached" in near.get("")
    assert "Where they go" in near.get("q/relay")
    message = near.get(f"q/relay/{msg_id}")
    assert "Where it goes" in message
    assert "Connection refused" in message
    metrics = near.get("-/relay/metrics")
    assert f'\nrqcore_relay_up{{peer="{dead}"}} 0\n' in metrics
    assert f'\nrqcore_relay_backlog{{peer="{dead}"}} 1\n' in metrics
    assert f'\nrqcore_relay_up{{peer="{living}"}} 1\n' in metrics
    near.ask("relay", "delete_message", {"msg_id": msg_id})


def test_without_a_running_instance_the_last_picture_is_shown(rq_instance: RunningInstance) -> None:
    near = Near(rq_instance.directory.parent / "still")
    near.use_plugins("cli", "relay")
    shown = near.rq("relay")
    assert shown.returncode == 5
    first, rest = shown.stderr.split("\n", 1)
    assert first == (
        f"rq: RQ does not run in {near.directory}; start it with: rq start; this is how it was:"
    )
    assert "No message has gone to another machine yet" in rest
    report = json.loads(near.rq("relay", "--json").stdout)
    assert (report["alive"], report["peers"], report["transfers"]) == (False, [], None)
