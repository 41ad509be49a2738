"""The relay script is killed before each thing that it does to a file, a connection or a peer.

The script itself has no place for that: the queue ``shaky`` runs it through a few lines that listen to
Python's audit events and kill the process at the one that the message's second parameter names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Pair, Tap

pytestmark = [pytest.mark.process, pytest.mark.crash]

SHAKY = f"""#!{sys.executable}
import os, signal, sys
from rqcore_relay.script import main

last, seen = int(os.environ["RQ_PARAM2"]), []

def listen(event, args):
    changes = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
    if changes or event in {{"os.rename", "os.remove", "socket.connect", "http.client.send"}}:
        seen.append(event)
        if len(seen) == last:
            os.mkdir("killed")
            os.kill(os.getpid(), signal.SIGKILL)

if not os.path.exists("killed"):
    sys.addaudithook(listen)
status = main()
print("acts:", len(seen), flush=True)
sys.exit(status)
"""
BIG = bytes(range(256)) * 2000
SMALL = b"small"


@pytest.fixture(scope="module")
def configured() -> Callable[[Pair], None]:
    def make(pair: Pair) -> None:
        pair.near.queue("shaky", SHAKY, num_workers=4)

    return make


def acts(pair: Pair, **fields: str) -> int:
    """How many things it does when nobody kills it."""
    message = pair.relayed(pair.send(SMALL, BIG, queue="shaky", param2="0", **fields), "shaky")
    return int(pair.log(message).rpartition("acts: ")[2])


def killed_at_each(pair: Pair, **fields: str) -> list[str]:
    """Messages whose script was killed, each one act later, and then run again; all are relayed."""
    last = acts(pair, **fields)
    sent = {
        at: pair.send(SMALL, BIG, queue="shaky", param2=str(at), **fields)
        for at in range(1, last + 1)
    }
    for msg_id in sent.values():
        message = pair.near.until("shaky", msg_id)
        assert Path(message["path"], "job", "killed").exists()
        if message["state"] == "err":  # else it was killed when it had said that it is done
            assert "signal 9" in message["status"]
            pair.near.ask("shaky", "retry_message", {"msg_id": msg_id})
            pair.relayed(msg_id, "shaky")
    return list(sent.values())


def test_to_rqcore_it_arrives_once(pair: Pair, tap: Tap) -> None:
    sent = killed_at_each(pair)
    assert len(sent) > 15
    for msg_id in sent:
        pair.once(msg_id, SMALL, BIG, queue="shaky")
    assert not pair.far.ask("test", "list_messages", {"state": "prep"})["items"]


def test_to_a_plain_peer_it_arrives(pair: Pair, tap: Tap) -> None:
    tap.plain = True
    sent = killed_at_each(pair)
    assert len(sent) > 12
    for msg_id in sent:
        whole = [m for m in pair.arrived(msg_id, "shaky") if m["state"] != "prep"]
        assert whole
        assert all(len(message["_attachments"]) == 2 for message in whole)
        # Only a message whose id was answered and not noted is prepared twice, and that never runs.
        assert len(whole) == 1


def test_to_this_very_host_it_arrives_once(pair: Pair) -> None:
    sent = killed_at_each(pair, dest="here")
    assert len(sent) > 5
    items = pair.near.ask("here", "list_messages", {"state": "done"})["items"]
    came = [pair.near.message("here", item["msg_id"])["orig_msg_id"] for item in items]
    for msg_id in sent:
        assert came.count(pair.near.message("shaky", msg_id)["orig_msg_id"]) == 1
