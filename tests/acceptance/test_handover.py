"""rqcore.handover: a message goes into another queue once, wherever its bringer was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rqcore import durable
from rqcore.client import QueueClient
from rqcore.durable import Digest, hash_file
from rqcore.errors import NotFoundError, RefusedError, UnreachableError
from rqcore.handover import File, UnknownOutcomeError, hand_over
from rqcore.testing import RunningInstance
from tests.acceptance.helpers import DONE

pytestmark = pytest.mark.process

FIELDS = {"dest": "http://elsewhere:3333/q/there", "src": "me", "param1": "x \udcff", "count": 3}


class Killed(BaseException):
    """The bringer ends here."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstance]:
    with RunningInstance(tmp_path_factory.mktemp("handover") / "rq") as instance:
        instance.queue("there", DONE)
        (instance.directory / "config" / "there.pause").touch()
        instance.queue("down", DONE)
        (instance.directory / "config" / "down.down").touch()
        yield instance.start()


@pytest.fixture
def rq(shared: RunningInstance) -> Iterator[RunningInstance]:
    yield shared
    # The queue is empty again, for the next test.
    for state in ("prep", "que"):
        for item in shared.ask("there", "list_messages", {"state": state})["items"]:
            shared.ask("there", "delete_message", {"msg_id": item["msg_id"]})
    shared.disconnect()


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    (tmp_path / "one").write_bytes(b"first")
    (tmp_path / "two").write_bytes(b"second" * 100_000)
    return [
        ("a one", str(tmp_path / "one"), hash_file(tmp_path / "one")),
        ("two", str(tmp_path / "two"), None),
    ]


def held(rq: RunningInstance, state: str) -> list[dict[str, Any]]:
    items = rq.ask("there", "list_messages", {"state": state})["items"]
    return [rq.message("there", item["msg_id"]) for item in items]


def test_arrives_whole_and_by_links(rq: RunningInstance, files: list[File], tmp_path: Path) -> None:
    new_id = hand_over(rq.directory, "there", FIELDS, files, tmp_path / "note")
    [message] = held(rq, "que")
    assert message["full_id"] == new_id
    assert {name: message[name] for name in FIELDS} == FIELDS
    for name, path, _ in files:
        attached = message["_attachments"][name]
        assert os.path.samefile(attached["path"], path)
        assert attached["sha256"] == hash_file(path).sha256
    assert not held(rq, "prep")
    # The same note again: it has been handed over, to a queue that is DOWN by now even.
    with_down = rq.directory / "config" / "there.down"
    with_down.touch()
    try:
        assert hand_over(rq.directory, "there", FIELDS, files, tmp_path / "note") == new_id
    finally:
        with_down.unlink()
    assert len(held(rq, "que")) == 1


def test_refusals_name_the_reason(rq: RunningInstance, files: list[File], tmp_path: Path) -> None:
    note = tmp_path / "note"
    with pytest.raises(NotFoundError, match="there is no queue nowhere"):
        hand_over(rq.directory, "nowhere", FIELDS, [], note)
    with pytest.raises(RefusedError, match="status: DOWN"):
        hand_over(rq.directory, "down", FIELDS, [], note)
    assert not note.exists()
    with pytest.raises(RefusedError, match='missing required "dest"'):
        hand_over(rq.directory, "there", {}, [], note)
    with pytest.raises(RefusedError, match="No such file"):
        hand_over(rq.directory, "there", FIELDS, [*files, ("x", "/nowhere", None)], note)
    # What was refused only in its last part is taken up where it stopped.
    hand_over(rq.directory, "there", FIELDS, files, note)
    assert (len(held(rq, "prep")), len(held(rq, "que"))) == (0, 1)


def test_nobody_answers(tmp_path: Path) -> None:
    with RunningInstance(tmp_path / "rq") as instance:
        instance.queue("there", DONE)
        with pytest.raises(UnreachableError, match="queue there does not run"):
            hand_over(instance.directory, "there", FIELDS, [], tmp_path / "note")


def test_killed_before_and_after_each_step(
    rq: RunningInstance, files: list[File], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request and each note is the last thing that is done, or the first that is not."""
    real_call, real_write = QueueClient.call, durable.write_file
    step, last, after = 0, 0, False

    def dying(act: Any, *args: Any, **more: Any) -> Any:
        nonlocal step
        step += 1
        if step == last and not after:
            raise Killed
        result = act(*args, **more)
        if step == last:
            raise Killed
        return result

    monkeypatch.setattr(QueueClient, "call", lambda *a, **k: dying(real_call, *a, **k))
    monkeypatch.setattr(durable, "write_file", lambda *a, **k: dying(real_write, *a, **k))
    steps = ["reserve", "note", "prep", "attach", "attach", "note", "commit"]
    for last in range(1, len(steps) + 1):
        for after in (False, True):
            note, step = tmp_path / f"note {last} {after}", 0
            with pytest.raises(Killed):
                hand_over(rq.directory, "there", FIELDS, files, note)
            step = -100
            new_id = hand_over(rq.directory, "there", FIELDS, files, note)
            [message] = held(rq, "que")
            assert message["full_id"] == new_id
            assert set(message["_attachments"]) == {"a one", "two"}
            assert not held(rq, "prep")
            rq.ask("there", "delete_message", {"msg_id": message["msg_id"]})


def test_an_id_is_reserved_for_one_message(rq: RunningInstance) -> None:
    full_id = rq.ask("there", "reserve_id")
    for _ in range(2):
        args = {"reserved_id": full_id, "fields": FIELDS}
        assert rq.ask("there", "prep_reserved", args) == full_id
    assert [m["full_id"] for m in held(rq, "prep")] == [full_id]
    for wrong, reason in (
        ({"reserved_id": full_id, "fields": {**FIELDS, "param1": "y"}}, "that of another message"),
        ({"reserved_id": "29991231.2359.59.999.000001", "fields": FIELDS}, "was not reserved here"),
        ({"reserved_id": "../x", "fields": FIELDS}, "was not reserved here"),
        ({"fields": FIELDS}, "was not reserved here"),
        ({"reserved_id": full_id}, "'fields' must be an object"),
    ):
        with pytest.raises(RefusedError, match=reason):
            rq.ask("there", "prep_reserved", wrong)
    rq.ask("there", "commit_message", {"msg_id": full_id})
    assert rq.ask("there", "prep_reserved", {"reserved_id": full_id, "fields": FIELDS}) == full_id
    assert not held(rq, "prep")


def test_taken_away_before_the_commit_it_is_prepared_again(
    rq: RunningInstance, files: list[File], tmp_path: Path
) -> None:
    note = tmp_path / "note"
    with pytest.raises(RefusedError):
        hand_over(rq.directory, "there", FIELDS, [("x", "/nowhere", None)], note)
    [message] = held(rq, "prep")
    rq.ask("there", "delete_message", {"msg_id": message["msg_id"]})
    new_id = hand_over(rq.directory, "there", FIELDS, files, note)
    assert [m["full_id"] for m in held(rq, "que")] == [new_id]


def test_gone_after_the_commit_nobody_can_tell(rq: RunningInstance, tmp_path: Path) -> None:
    note = tmp_path / "note"
    new_id = hand_over(rq.directory, "there", FIELDS, [], note)
    rq.ask("there", "delete_message", {"msg_id": new_id})
    with pytest.raises(UnknownOutcomeError, match=f"may have arrived as {new_id}"):
        hand_over(rq.directory, "there", FIELDS, [], note)
    assert not held(rq, "que")


def test_a_spoiled_note_is_not_guessed_at(rq: RunningInstance, tmp_path: Path) -> None:
    (tmp_path / "note").write_text(json.dumps({"id": 7}))
    with pytest.raises(UnknownOutcomeError, match="is not what was noted here"):
        hand_over(rq.directory, "there", FIELDS, [], tmp_path / "note")


def test_a_digest_that_is_known_is_taken_as_it_is(rq: RunningInstance, tmp_path: Path) -> None:
    """Nothing is read again: the digest that is given is the one that is shown."""
    (tmp_path / "file").write_bytes(b"abc")
    given = Digest(3, "0" * 32, "1" * 64)
    hand_over(rq.directory, "there", FIELDS, [("f", str(tmp_path / "file"), given)], tmp_path / "n")
    [message] = held(rq, "que")
    assert message["_attachments"]["f"]["sha256"] == "1" * 64


def test_loads_nothing_costly() -> None:
    """Scripts that run once per message use it."""
    code = "import sys, rqcore.handover; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"asyncio", "ssl", "pluggy", "rqcore.instance"} & set(loaded.stdout.split())
