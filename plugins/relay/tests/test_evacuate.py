"""``rq evacuate``: two instances, killed in between, and everything runs once, here or there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_relay.departure import Departure, destination, empty, survey, through
from rqcore_relay.evacuate import Evacuation

from rqcore.errors import NotFoundError, RefusedError
from rqcore.testing import free_port

if TYPE_CHECKING:
    from tests.conftest import Pair, Tap

pytestmark = [pytest.mark.process]

#: Waits where it is told to; else it is done.
WAITS = '#!/bin/sh\n[ -z "$RQ_PARAM4" ] || cat "$RQ_PARAM4"\necho \'done fine\' >&3\n'
KEEPER = """
from rqcore.hookspecs import Reject, hookimpl

@hookimpl
def rq_check_removal(message, queue):
    kept = message.param1 == "keep all" or (message.param1 == "keep" and queue.name == "test")
    return Reject("it is needed here") if kept else None
"""


@pytest.fixture(scope="module")
def configured() -> Callable[[Pair], None]:
    def make(pair: Pair) -> None:
        pair.near.use_plugins("cli", "relay")
        pair.near.plugin("keeper", KEEPER)
        pair.near.queue("test", WAITS, num_workers=4)

    return make


def rq(pair: Pair, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts"), "rq")
    environ = {**pair.near.environ, "RQ_DIR": str(pair.near.directory), "NO_COLOR": "1"}
    done = subprocess.run(
        [program, *words], env=environ, capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(autouse=True)
def through_the_tap(tap: Tap) -> Tap:
    """The far instance listens behind it."""
    return tap


def peer(pair: Pair) -> str:
    return f"http://127.0.0.1:{pair.port}/"


@pytest.fixture
def paused(pair: Pair) -> Iterator[Pair]:
    """The queue test takes messages and starts none, and is as it was afterwards."""
    file = pair.near.directory / "config" / "test.pause"
    file.touch()
    yield pair
    file.unlink(missing_ok=True)


def counts(pair: Pair, queue: str) -> dict[str, int]:
    found: dict[str, int] = pair.near.ask(queue, "num_messages")
    return found


def sent(pair: Pair, *files: bytes, **fields: Any) -> str:
    """A message that waits in the near queue test."""
    return pair.send(*files, queue="test", **{"dest": "test", **fields})


def copies(pair: Pair, orig: str) -> list[dict[str, Any]]:
    """What lies in relay of the chain that begins with this full id."""
    found = []
    for state in ("prep", "que", "run", "relayed", "err", "done"):
        items = pair.near.ask("relay", "list_messages", {"state": state, "text": orig})["items"]
        found += [item for item in items if item["orig_msg_id"] == orig]
    return found


def arrived(pair: Pair, orig: str) -> list[dict[str, Any]]:
    """What came of it at the far end."""
    found = []
    for state in ("prep", "que", "run", "done", "err"):
        items = pair.far.ask("test", "list_messages", {"state": state, "text": orig})["items"]
        found += [pair.far.message("test", i["msg_id"]) for i in items if i["orig_msg_id"] == orig]
    return found


def notes(pair: Pair) -> list[str]:
    folder = pair.near.directory / "var" / "relay" / "evacuate"
    return [name for name in os.listdir(folder) if name.endswith(".json")]


def test_everything_that_waits_leaves_and_the_rest_is_told(pair: Pair, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    runs = sent(pair, param4=gate)
    pair.near.until("test", runs, "run")
    rq(pair, "queue", "pause", "test")
    waiting = [sent(pair, b"one", b"two" * 9000, param1="\udcff"), sent(pair, count=3), sent(pair)]
    origs = [pair.near.message("test", msg_id)["orig_msg_id"] for msg_id in waiting]
    due = time.time() + 3000
    later = sent(pair, due=due)
    later_orig = pair.near.message("test", later)["orig_msg_id"]
    pair.near.ask("test", "prep_message", {"dest": "test"})
    words = ("evacuate", "--to", peer(pair), "--queue", "test")
    dry = rq(pair, *words, "--dry-run")
    assert [line.split() for line in dry.stdout.splitlines()][1] == ["test", "4", "0", "1", "1"]
    assert "would pause these queues and send 4 messages" in dry.stderr
    assert counts(pair, "test")["que"] == 4
    asked = rq(pair, *words, status=2)
    assert "send 4 waiting messages" in asked.stderr
    assert "say it with --yes" in asked.stderr
    told = rq(pair, *words, "--yes", "--wait", "--json")
    assert json.loads(told.stdout) == {
        "peer": peer(pair), "relayed": 4, "err": [], "later": 0,
        "queues": [{"name": "test", "waiting": 4, "handed": 4, "prep": 1, "running": [runs],
                    "failed": []}],
    }  # fmt: skip
    assert f"still running here: test/{runs}" in told.stderr
    assert "1 only prepared" in told.stderr
    assert counts(pair, "test") == {
        "prep": 1, "que": 0, "run": 1, "done": 0, "relayed": 0, "err": 0,
    }  # fmt: skip
    assert pair.near.instance.admin_state("test") == "PAUSE"
    first, second, _ = [arrived(pair, orig) for orig in origs]
    assert [len(found) for found in (first, second)] == [1, 1]
    assert {name: a["size"] for name, a in first[0]["_attachments"].items()} == {
        "f0": 3,
        "f1": 27000,
    }
    assert first[0]["param1"] == "\udcff"
    assert second[0]["count"] >= 3
    # What is not due yet goes too, and keeps its time.
    [message] = arrived(pair, later_orig)
    assert (message["state"], message["due"]) == ("que", pytest.approx(due))
    with open(gate, "w") as fifo:
        fifo.write("")
    assert pair.near.until("test", runs)["state"] == "done"
    assert "0 messages handed to relay" in rq(pair, *words, "--yes", "--wait").stderr
    rq(pair, "queue", "resume", "test")


def test_what_is_not_due_waits_here_when_the_other_end_would_run_it(paused: Pair, tap: Tap) -> None:
    tap.plain = True
    msg_id = sent(paused, due=time.time() + 3000)
    orig = paused.near.message("test", msg_id)["orig_msg_id"]
    words = ("evacuate", "--to", peer(paused), "--queue", "test", "--yes", "--wait")
    assert "1 are not due yet; relay sends each when it is due" in rq(paused, *words).stderr
    [copy] = copies(paused, orig)
    assert copy["state"] == "que"
    # One that was to be carried early, to a peer that has become another one since.
    folder = paused.near.directory / "queue" / "relay" / "que" / copy["msg_id"]
    assert os.listdir(folder / "job") == ["relay-evacuated"]
    (folder / "job" / "relay-due").write_text(str(time.time() + 3000))
    paused.near.ask("relay", "run_message", {"msg_id": copy["msg_id"]})
    paused.near.until(
        "relay", copy["msg_id"], "que",
        matching=lambda m: "would run it too early" in m["status"] and m["due"] > time.time() + 2000,
    )  # fmt: skip
    assert arrived(paused, orig) == []
    paused.near.ask("relay", "delete_message", {"msg_id": copy["msg_id"]})


def test_what_came_from_there_may_go_back(paused: Pair) -> None:
    orig = f"{peer(paused)}q/test/20200101.0000.00.000.1"
    sent(paused, orig_msg_id=orig, param1="goes back")
    rq(paused, "evacuate", "--to", peer(paused), "--queue", "test", "--yes", "--wait")
    found = paused.far.ask("test", "list_messages", {"state": "done", "text": "goes back"})["items"]
    assert len(found) == 1


def test_one_that_a_plugin_keeps_stays_and_the_others_go(paused: Pair) -> None:
    kept, other = sent(paused, param1="keep"), sent(paused)
    orig = paused.near.message("test", kept)["orig_msg_id"]
    told = rq(paused, "evacuate", "--to", peer(paused), "--queue", "test", "--yes", status=1)
    assert f"test/{kept} stays: it is needed here" in told.stderr
    assert counts(paused, "test")["que"] == 1
    assert copies(paused, orig) == []
    assert notes(paused) == []
    with pytest.raises(RefusedError, match="not found"):
        paused.near.message("test", other)
    # One that may not be removed from relay either has one copy there, which nobody commits.
    stuck = sent(paused, param1="keep all")
    orig = paused.near.message("test", stuck)["orig_msg_id"]
    for _ in range(2):
        assert len(evacuated(paused).queues[0].failed) == 2
        assert [copy["state"] for copy in copies(paused, orig)] == ["prep"]
    folder = paused.near.directory / "queue" / "relay" / "prep"
    (folder / copies(paused, orig)[0]["msg_id"]).rename(paused.folder / "gone")
    rq(paused, "queue", "resume", "test")
    assert paused.near.until("test", kept)["state"] == "done"
    assert paused.near.until("test", stuck)["state"] == "done"
    assert evacuated(paused).queues[0].failed == notes(paused) == []


def test_what_cannot_be_is_refused_before_anything_is_done(pair: Pair) -> None:
    own = json.loads((pair.near.directory / "config" / "config.json").read_text())["port"]
    to = ("evacuate", "--yes", "--to")
    assert "is no machine's RQ" in rq(pair, *to, "mq2", status=4).stderr
    assert "is this very instance" in rq(pair, *to, f"http://localhost:{own}/", status=4).stderr
    assert "is this very instance" in rq(pair, *to, f"http://127.0.0.1:{own}/", status=4).stderr
    assert "no queue none" in rq(pair, *to, peer(pair), "--queue", "none", status=3).stderr
    assert "leaves by itself" in rq(pair, *to, peer(pair), "--queue", "relay", status=4).stderr
    assert "--timeout" in rq(pair, *to, peer(pair), "--timeout", "soon", status=2).stderr
    with pair.held("here"):
        pair.near.send("here")
        refused = rq(pair, *to, peer(pair), status=4).stderr
        assert "has no queue here" in refused
        assert pair.near.instance.admin_state("test") == "UP", "nothing was paused"
    with pytest.raises(RefusedError):
        destination(pair.near.instance, "ftp://x/")


def test_a_peer_that_is_away_is_told_and_waited_for(paused: Pair) -> None:
    gone = f"http://127.0.0.1:{free_port()}/"
    msg_id = sent(paused)
    orig = paused.near.message("test", msg_id)["orig_msg_id"]
    words = ("evacuate", "--to", gone, "--queue", "test", "--yes", "--wait", "--timeout", "1s")
    told = rq(paused, *words, status=124)
    assert "Connection refused; relay waits until it answers" in told.stderr
    assert "the time is up; relay goes on" in told.stderr
    [copy] = copies(paused, orig)
    with paused.held("relay"):  # a try may be under way
        paused.near.until("relay", copy["msg_id"], "que")
        paused.near.ask("relay", "delete_message", {"msg_id": copy["msg_id"]})


def test_only_what_was_evacuated_is_waited_for(paused: Pair) -> None:
    """Also what an earlier call handed over; but not what others have relay carry to that machine."""
    pause = paused.near.directory / "config" / "relay.pause"
    pause.touch()
    stranger = paused.send(dest=f"{peer(paused)}q/test", due=time.time() + 3000)
    folder = paused.near.directory / "queue" / "relay" / "que" / stranger
    (folder / "status").write_text('{"job_status": "no answer - 2nd try"}')
    sent(paused)
    [earlier] = evacuated(paused).copies
    sent(paused)
    departure = evacuated(paused)
    told: list[int] = []

    def tell(number: int) -> None:
        told.append(number)
        pause.unlink(missing_ok=True)

    through(str(paused.near.directory), departure, tell, time.monotonic() + 20)
    assert told[0] == 2
    assert (departure.relayed, departure.later, departure.lost_way) == (2, 0, [])
    assert paused.near.message("relay", earlier)["state"] == "relayed"
    assert paused.near.message("relay", stranger)["state"] == "que"
    paused.near.ask("relay", "delete_message", {"msg_id": stranger})


def test_a_relay_that_is_down_refuses_and_nothing_leaves(paused: Pair) -> None:
    msg_id = sent(paused, b"x")
    down = paused.near.directory / "config" / "relay.down"
    down.touch()
    words = ("evacuate", "--to", peer(paused), "--queue", "test", "--yes")
    assert "rq queue up relay" in rq(paused, *words, status=4).stderr
    with pytest.raises(RefusedError, match="DOWN"):
        evacuated(paused)
    assert paused.near.message("test", msg_id)["state"] == "que"
    down.unlink()
    with paused.held("relay"):
        assert "rq queue resume relay" in rq(paused, *words, "--dry-run").stderr
    rq(paused, *words, "--wait")
    assert notes(paused) == []


def test_two_at_a_time_are_one_too_many(pair: Pair) -> None:
    with Evacuation(str(pair.near.directory)):
        with pytest.raises(RefusedError, match="another rq evacuate is at work"):
            Evacuation(str(pair.near.directory)).__enter__()
        told = rq(pair, "evacuate", "--to", peer(pair), "--queue", "test", "--yes", status=4)
        assert "another rq evacuate" in told.stderr
    rq(pair, "queue", "resume", "test")


# Killed


def evacuated(pair: Pair, queue: str = "test") -> Departure:
    """Hand over what waits in the queue, without the command's looks before it."""
    directory = str(pair.near.directory)
    departure = Departure(peer(pair), survey(directory, [queue]))
    with Evacuation(directory) as evacuation:
        empty(evacuation, departure, lambda _: None)
    return departure


#: Does the same in a process that is killed before or after the step that is named.
KILLED = """
import os, signal, sys
from rqcore import durable
from rqcore.client import Client
from rqcore_relay.departure import Departure, empty, survey
from rqcore_relay.evacuate import Evacuation

directory, peer, act = sys.argv[1:]
seen = []

def step():
    seen.append(1)
    if len(seen) == int(act):
        os.kill(os.getpid(), signal.SIGKILL)

def stepping(function):
    def call(*args, **more):
        step()
        result = function(*args, **more)
        step()
        return result
    return call

departure = Departure(peer, survey(directory, ["test"]))
Client.call = stepping(Client.call)
durable.write_file = stepping(durable.write_file)
durable.remove_quietly = stepping(durable.remove_quietly)
with Evacuation(directory) as evacuation:
    empty(evacuation, departure, lambda _: None)
"""


def killed_at(act: int, pair: Pair) -> bool:
    """False when it has fewer steps, and came to its end."""
    command = [sys.executable, "-c", KILLED, str(pair.near.directory), peer(pair), str(act)]
    status = subprocess.run(command, check=False, timeout=60).returncode
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.crash
def test_killed_at_any_step_each_message_goes_once(paused: Pair) -> None:
    sent_ones, act = [], 0
    with paused.held("relay"):
        while True:
            msg_id = sent(paused, b"a", b"bb")
            orig = paused.near.message("test", msg_id)["orig_msg_id"]
            act += 1
            was_killed = killed_at(act, paused)
            found = copies(paused, orig)
            waits = counts(paused, "test")["que"]
            committed = [copy for copy in found if copy["state"] != "prep"]
            assert len(found) <= 1
            assert not (waits and committed), "it would run here and there"
            assert waits or found, "it is nowhere"
            departure = evacuated(paused)
            assert counts(paused, "test")["que"] == 0
            [copy] = copies(paused, orig)
            assert copy["state"] == "que"
            assert committed or departure.copies == [copy["msg_id"]]
            assert notes(paused) == []
            sent_ones.append((orig, copy["msg_id"]))
            if not was_killed:
                break
    assert act > 20
    for orig, msg_id in sent_ones:
        paused.relayed(msg_id)
        [message] = arrived(paused, orig)
        assert {n: a["size"] for n, a in message["_attachments"].items()} == {"f0": 1, "f1": 2}


@pytest.mark.crash
def test_a_queue_that_is_resumed_after_a_kill_runs_what_it_still_has(paused: Pair) -> None:
    """Then the copy that was prepared is dropped, wherever the kill came."""
    pause = paused.near.directory / "config" / "test.pause"
    ran = went = 0
    act = 1
    with paused.held("relay"):
        while True:
            pause.touch()
            msg_id = sent(paused, b"a")
            orig = paused.near.message("test", msg_id)["orig_msg_id"]
            was_killed = killed_at(act, paused)
            act += 3
            pause.unlink()
            with contextlib.suppress(NotFoundError, RefusedError):
                assert paused.near.until("test", msg_id)["state"] == "done"
                ran += 1
            evacuated(paused)
            found = [copy["state"] for copy in copies(paused, orig)]
            done = paused.near.ask("test", "list_messages", {"state": "done", "text": orig})[
                "items"
            ]
            assert (len(done), found) in ((1, []), (0, ["que"]))
            went += len(found)
            assert notes(paused) == []
            if not was_killed:
                break
    assert ran > 2
    assert went > 1


def test_notes_that_were_spoiled_are_told(paused: Pair) -> None:
    msg_id = sent(paused)
    folder = paused.near.directory / "var" / "relay" / "evacuate"
    evacuated(paused, "here")
    (folder / f"test.{msg_id}.json").write_text("{")
    with pytest.raises(RefusedError, match="is not what was noted here"):
        evacuated(paused)
    (folder / f"test.{msg_id}.json").unlink()
    # One whose queue is gone, and one whose attachments are others by now.
    note = {"queue": "gone", "msg_id": msg_id, "copy": "http://x/q/relay/20200101.0000.00.000.1",
            "dest": f"{peer(paused)}q/gone", "attachments": {}}  # fmt: skip
    (folder / f"gone.{msg_id}.json").write_text(json.dumps(note))
    (folder / f"test.{msg_id}.json").write_text(json.dumps({**note, "queue": "test"}))
    [copy] = evacuated(paused).copies
    assert notes(paused) == []
    paused.relayed(copy)


def test_a_message_that_cannot_be_looked_at_stays(paused: Pair) -> None:
    msg_id = sent(paused)
    file = paused.near.directory / "queue" / "test" / "que" / msg_id / "msg"
    whole = file.read_bytes()
    file.write_bytes(b"{")
    departure = evacuated(paused)
    assert len(departure.queues[0].failed) == 1
    assert "cannot be looked at" in departure.queues[0].failed[0]
    file.write_bytes(whole)
    with Evacuation(str(paused.near.directory)) as evacuation:
        assert evacuation.hand("test", "20200101.0000.00.000.1", "http://x/q/y") == ""
    paused.near.ask("test", "delete_message", {"msg_id": msg_id})
