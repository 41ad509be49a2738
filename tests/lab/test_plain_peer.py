"""The plain far end of the lab, asked by curl: it is what the contract says, and no more."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rqcore.testing import free_port
from tests.lab import plain_peer


class Peer:
    """The process, and curl."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "q" / "test").mkdir(parents=True)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, plain_peer.__file__, str(self.folder), "127.0.0.1", str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def curl(self, path: str, *options: str) -> Any:
        url = path if "://" in path else f"http://127.0.0.1:{self.port}/{path}"
        return json.loads(subprocess.check_output(["curl", "-sS", *options, url]))

    def prepare(self, **fields: Any) -> str:
        message = json.dumps(
            {"dest": f"http://127.0.0.1:{self.port}/q/test", **fields, "_method": "prep"}
        )
        said, full_id = self.curl(
            "q/test/new_message", "-d", "x_format=json", "--data-urlencode", f"mesg={message}"
        )
        assert said == "ok"
        return str(full_id)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    made = Peer(tmp_path_factory.mktemp("plain"))
    yield made
    made.end()


@pytest.fixture
def peer(shared: Peer) -> Peer:
    return shared


def test_a_message_comes_in_two_phases_with_its_files(peer: Peer, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000 + b"\r\n--"
    (tmp_path / "a file").write_bytes(data)
    full_id = peer.prepare(param1="x", orig_msg_id="http://far/q/test/1")
    form = ("-F", f"filedata=@{tmp_path / 'a file'}", "-F", "x_format=json")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    for _ in range(2):  # the same name again replaces it
        assert peer.curl(f"{full_id}/attach/new", *form) == ["ok", f"{md5}-Attached successfully"]
    message = peer.curl(f"{full_id}.json")
    assert (message["state"], message["param1"]) == ("prep", "x")
    assert message["orig_msg_id"] == "http://far/q/test/1"
    assert message["_attachments"]["a file"]["md5"] == md5
    commit = ("-d", "_method=commit", "-d", "x_format=json")
    assert peer.curl(full_id, *commit) == ["ok", "msg commited"]
    assert peer.curl(f"{full_id}/state.json") == ["done"]
    assert subprocess.check_output(["curl", "-sS", f"{full_id}/attach/a%20file"]) == data
    assert peer.curl(full_id, *commit) == ["fail", "cannot find message"]
    assert peer.curl(f"{full_id}/attach/new", *form) == ["fail", "cannot find message"]


def test_a_message_that_is_sent_at_once_is_there_at_once_and_twice_when_sent_twice(
    peer: Peer,
) -> None:
    ids = set()
    for _ in range(2):
        said, full_id = peer.curl(
            "q/test/new_message", "-H", "Content-Type: application/json", "-H", "Idempotency-Key: 1",
            "-d", '{"dest": "test", "count": 3}',
        )  # fmt: skip
        assert said == "ok"
        assert peer.curl(f"{full_id}.json")["state"] == "done"
        ids.add(full_id)
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("path", "options", "answer"),
    [
        ("q/none/new_message", ["-d", 'mesg={"dest":"x"}'], ["fail", "no such queue: none"]),
        (
            "q/test/new_message", ["-d", "mesg={}"],
            ["fail", 'input missing required "dest" parameter'],
        ),
        ("q/test/20260101.0000.00.000.1.json", [], ["fail", "msg not found"]),
        ("api/v1/uploads", ["-X", "OPTIONS"], ["fail", "not found"]),
        ("api/v1/messages", ["-d", "x"], ["fail", "no such page: /api/v1/messages"]),
    ],
)  # fmt: skip
def test_what_it_does_not_know_it_refuses(
    peer: Peer, path: str, options: list[str], answer: list[str]
) -> None:
    assert peer.curl(path, *options) == answer


def test_a_queue_that_is_down_refuses(peer: Peer) -> None:
    down = peer.folder / "test.down"
    down.touch()
    message = ("-d", 'mesg={"dest":"test"}')
    assert peer.curl("q/test/new_message", *message) == ["fail", "status: DOWN"]
    down.unlink()
    assert peer.curl("q/test/new_message", *message)[0] == "ok"


def test_what_it_has_answered_survives_its_end(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    full_id = peer.prepare(param1="kept")
    peer.end()
    peer.start()
    assert peer.curl(f"{full_id}.json")["param1"] == "kept"
    peer.end()
