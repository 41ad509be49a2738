"""The relay script between two real instances: what arrives, and whatever is cut off on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Pair, Tap, When

pytestmark = pytest.mark.process

BIN = sysconfig.get_path("scripts")
SMALL = b"small \xff\x00"
#: Each request of a transfer to rqcore with a small and a large file, as method and part of the path.
RICH = [
    ("OPTIONS", "uploads"), ("POST", "/messages"), ("POST", "/attachments/f0"),
    ("POST", "/attachments/f1"), ("PATCH", "/uploads/"), ("POST", "/commit"),
]  # fmt: skip
PLAIN = [
    ("OPTIONS", "uploads"), ("POST", "/new_message"), ("POST", "/attach/new"), ("POST", "/q/test/2"),
]  # fmt: skip


def result(message: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(message["path"], "job/relay-result.json").read_text())
    return found


@pytest.mark.parametrize("plain", [False, True], ids=["rqcore", "plain"])
def test_fields_files_log_and_result(pair: Pair, tap: Tap, big: bytes, plain: bool) -> None:
    tap.plain = plain
    fields: dict[str, Any] = {
        "src": "me", "param1": "ü \udcff\n", "param2": "2", "param3": "x" * 5000, "param4": "4",
        "count": 3, "max_count": 30, "post_run_webhook": ["http://hook/"],
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1",
    }  # fmt: skip
    msg_id = pair.send(SMALL, big, b"", **fields)
    message = pair.relayed(msg_id)
    there = pair.once(msg_id, SMALL, big, b"")
    assert message["status"] == f"relayed - {there['full_id']}"
    assert {name: there[name] for name in fields} == {**fields, "count": 4}
    assert (there["dest"], there["orig_msg_id"]) == (pair.url, message["full_id"])
    job = Path(message["path"]) / "job"
    assert f"attempting remote {pair.url}\n" in pair.log(message)
    assert not (job / "relay_id").exists()
    told = result(message)
    assert told["peer"] == f"http://127.0.0.1:{pair.port}/"
    assert told["kind"] == ("plain" if plain else "rqcore")
    assert (told["reached"], told["error"], told["sent"], told["resent"]) == (
        True, None, len(SMALL) + len(big), 0,
    )  # fmt: skip
    assert (tap.seen[1][1] == "/q/test/new_message") is plain


def test_names_of_files_are_kept(pair: Pair, tap: Tap) -> None:
    names = ['say "hi" \\ there', "ümläut ;x=1", os.fsdecode(b"no \xff text"), "a'b+c,d=e#f!"]
    for plain in (False, True):
        tap.plain = plain
        full_id = pair.near.ask("relay", "prep_message", {"dest": pair.url})
        for name in names:
            args = {"msg_id": full_id, "pathname": __file__, "name": name}
            pair.near.ask("relay", "attach_message", args)
        pair.near.ask("relay", "commit_message", {"msg_id": full_id})
        msg_id = full_id.rpartition("/")[2]
        pair.relayed(msg_id)
        [there] = pair.arrived(msg_id)
        assert sorted(there["_attachments"]) == sorted(names)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("method", "path"), RICH, ids=lambda x: x)
def test_cut_off_from_rqcore(
    pair: Pair, tap: Tap, big: bytes, method: str, path: str, when: When
) -> None:
    rule = tap.rule(method, path, when)
    msg_id = pair.send(SMALL, big)
    pair.relayed(msg_id)
    assert rule.used
    pair.once(msg_id, SMALL, big)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("method", "path"), PLAIN, ids=lambda x: x)
def test_cut_off_from_a_plain_peer(
    pair: Pair, tap: Tap, big: bytes, method: str, path: str, when: When
) -> None:
    tap.plain = True
    rule = tap.rule(method, path, when)
    msg_id = pair.send(SMALL, big)
    pair.relayed(msg_id)
    assert rule.used
    committed = [m for m in pair.arrived(msg_id) if m["state"] != "prep"]
    assert len(committed) == 1
    assert len(committed[0]["_attachments"]) == 2


def has_come(pair: Pair, size: int) -> None:
    """Wait until the far end has so much of the file, in blocks of a megabyte."""
    url = f"http://127.0.0.2:{pair.port}/api/v1/uploads"
    while True:
        with urllib.request.urlopen(url) as answer:
            if any(item["offset"] >= size for item in json.load(answer)["items"]):
                return


def test_a_file_that_was_cut_off_goes_on_where_it_was(pair: Pair, tap: Tap) -> None:
    big = os.urandom(12_000_000)
    rule = tap.rule("PATCH", "/uploads/", "within", at=9_000_000)
    rule.act = lambda: has_come(pair, 7_900_000)
    msg_id = pair.send(big)
    message = pair.relayed(msg_id)
    assert rule.used
    assert message["count"] == 0  # one run got over it
    pair.once(msg_id, big)
    assert tap.passed < len(big) + (1 << 20) + (1 << 17)  # a block of each way station's at most
    told = result(message)
    assert told["sent"] - told["resent"] == len(big)
    assert [method for method, _ in tap.seen].count("HEAD") == 1


def test_a_file_that_is_cut_off_again_and_again_arrives(pair: Pair, tap: Tap, big: bytes) -> None:
    rules = [
        tap.rule("PATCH", "/uploads/", "within", at=at) for at in range(100_000, 800_000, 90_000)
    ]
    msg_id = pair.send(big)
    message = pair.relayed(msg_id)
    assert sum(rule.used for rule in rules) > 3
    assert message["count"] == 0
    pair.once(msg_id, big)


def test_a_file_that_was_cut_off_goes_on_in_the_next_run(pair: Pair, tap: Tap, big: bytes) -> None:
    rule = tap.rule("PATCH", "/uploads/", "within", at=2_000_000)
    with pair.held():
        msg_id = pair.send(big, SMALL)
        rule.act = lambda: pair.near.kill(pair.script_pid(msg_id))
    pair.near.until("relay", msg_id, "err")
    passed = tap.passed
    pair.near.ask("relay", "retry_message", {"msg_id": msg_id})
    pair.relayed(msg_id)
    pair.once(msg_id, big, SMALL)
    assert 0 < tap.passed - passed < len(big) - 1_000_000


def test_what_is_going_on_is_the_status(pair: Pair, tap: Tap, big: bytes) -> None:
    """Before the peer has said a word, and while it is cut off in the midst of a file."""

    def sees(text: str) -> Callable[[], object]:
        return lambda: pair.near.until(
            "relay", msg_id, "run", matching=lambda found: text in found["status"]
        )

    with pair.held():
        msg_id = pair.send(big)
        tap.rule(
            "OPTIONS",
            "",
            "before",
            act=sees(f"run - connecting to http://127.0.0.1:{pair.port}/"),
            cut=False,
        )
        tap.rule("PATCH", "", "within", at=1_000_000)
        tap.rule("HEAD", "", "before", act=sees("it goes on soon: "), cut=False)
    pair.relayed(msg_id)


def test_files_go_side_by_side(pair: Pair, tap: Tap, big: bytes) -> None:
    """The second one has begun before the first has been answered."""
    begun: list[int] = []
    tap.rule("PATCH", "/uploads/", "after", cut=False, act=lambda: begun.append(len(tap.seen)))
    files = [bytes([n]) * 1_500_000 for n in range(6)]
    msg_id = pair.send(*files)
    pair.relayed(msg_id)
    pair.once(msg_id, *files)
    posts = [path for method, path in tap.seen[: begun[0]] if method == "POST" and "/f" in path]
    assert len(posts) > 1


def test_what_arrived_damaged_is_sent_again(pair: Pair, tap: Tap, big: bytes) -> None:
    """The digest that was taken when the file was attached is the last word."""
    path = pair.folder / "spoiled"
    path.write_bytes(big)
    full_id = pair.near.ask("relay", "prep_message", {"dest": pair.url})
    args = {"msg_id": full_id, "pathname": str(path), "name": "f0"}
    pair.near.ask("relay", "attach_message", args)  # a link: it is the same file
    times = os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns

    def write(content: bytes) -> None:
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=times)

    write(b"spoiled")
    rule = tap.rule("PATCH", "/uploads/", "after", cut=False, act=lambda: write(big[:7]))
    pair.near.ask("relay", "commit_message", {"msg_id": full_id})
    msg_id = full_id.rpartition("/")[2]
    message = pair.relayed(msg_id)
    assert rule.used
    assert message["count"] == 1
    assert "was announced" in pair.log(message)
    pair.once(msg_id, big)


def test_this_very_host_is_handed_to_by_links(pair: Pair) -> None:
    port = json.loads((pair.near.directory / "config/config.json").read_text())["port"]
    for dest in (
        "here",
        "/q/here",
        f"http://127.0.0.1:{port}/q/here",
        f"http://LOCALHOST:{port}/q/here/",
    ):
        msg_id = pair.send(SMALL, dest=dest)
        message = pair.relayed(msg_id)
        new_id = message["status"].rpartition("/")[2]
        there = pair.near.message("here", new_id)
        assert message["status"] == f"relayed - {there['full_id']}"
        assert (there["count"], there["orig_msg_id"]) == (1, message["full_id"])
        [mine], [theirs] = message["_attachments"].values(), there["_attachments"].values()
        assert os.path.samefile(mine["path"], theirs["path"])
        told = result(message)
        assert (told["kind"], told["reached"]) == ("local", None)


def test_a_loop_is_told(pair: Pair, tap: Tap) -> None:
    msg_id = pair.send(orig_msg_id=f"{pair.url}/20260101.0000.00.000.7")
    message = pair.near.until("relay", msg_id)
    assert message["state"] == "err"
    assert message["status"] == ("err - Relay loop detected: RQ_DEST queue same as RQ_ORIG_MSG_ID")
    assert result(message)["reached"] is None
    # A queue whose name only begins alike is another one.
    pair.relayed(pair.send(orig_msg_id=f"{pair.url}2/20260101.0000.00.000.7"))


@pytest.mark.parametrize("dest", ["relay", "/q/relay", "{far}/q/relay", "{far}/root/q/relay/"])
def test_relay_is_no_destination(pair: Pair, tap: Tap, dest: str) -> None:
    """Each hop would make a new message, without end."""
    msg_id = pair.send(SMALL, dest=dest.format(far=f"http://127.0.0.1:{pair.port}"))
    message = pair.near.until("relay", msg_id)
    assert message["status"] == (
        "err - relay cannot be a destination; name the queue that is to run the message"
    )
    assert tap.seen == []
    assert pair.near.ask("relay", "num_messages")["que"] == 0


def test_what_goes_in_a_circle_ends(pair: Pair, tap: Tap) -> None:
    message = pair.near.until("relay", pair.send(count=16))
    assert message["status"] == (
        "err - the message goes in a circle: it was passed on 16 times, its max_count is 15"
    )
    assert tap.seen == []


def test_a_queue_of_any_name(pair: Pair, tap: Tap) -> None:
    for tap.plain in (False, True):
        msg_id = pair.send(SMALL, dest=pair.url.replace("test", "größe"))
        pair.relayed(msg_id)
        [there] = pair.arrived(msg_id, at="größe")
        assert list(there["_attachments"]) == ["f0"]


def test_notes_that_cannot_be_written_are_no_end(pair: Pair, tap: Tap, big: bytes) -> None:
    """Nothing is given up because the own disk is full: it is tried again."""
    with pair.held():
        msg_id = pair.send(big)
        job = pair.near.directory / "queue/relay/que" / msg_id / "job"
        for name in (".relay.json.tmp", ".relay-result.json.tmp"):
            (job / name).mkdir(parents=True)
    message = pair.near.until("relay", msg_id, "que", matching=lambda found: found["count"] > 1)
    assert "cannot be done here: Is a directory" in message["status"]
    for name in (".relay.json.tmp", ".relay-result.json.tmp"):
        Path(message["path"], "job", name).rmdir()
    pair.near.ask("relay", "run_message", {"msg_id": msg_id})
    pair.relayed(msg_id)
    pair.once(msg_id, big)


def test_by_hand_it_says_what_it_is() -> None:
    done = subprocess.run(
        ["rq-relay"], capture_output=True, text=True, check=False, env={"PATH": BIN}
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "RQ runs it for each message" in done.stderr


@pytest.mark.parametrize("host", ["a" * 70 + ".invalid", "a..b"])
def test_a_host_that_cannot_be(pair: Pair, host: str) -> None:
    message = pair.near.until("relay", pair.send(dest=f"http://{host}:1/q/test"))
    assert message["status"] == f"err - no host can be called {host}; correct dest"
    assert result(message)["reached"] is None


def test_force_remote_goes_by_http(pair: Pair) -> None:
    msg_id = pair.send(force_remote=True, dest="here")
    message = pair.near.until("relay", msg_id, "que", matching=lambda found: found["count"] > 0)
    log = pair.log(message)
    assert "FORCE REMOTE\n" in log
    assert "attempting remote http://localhost:" in log
    assert "cannot be reached: Connection refused" in message["status"]
    told = result(message)
    assert (told["reached"], told["kind"]) == (False, "")
    pair.near.ask("relay", "delete_message", {"msg_id": msg_id})


def test_the_peers_own_word(pair: Pair, tap: Tap) -> None:
    """A queue that is not there, or DOWN, is told as the far end tells it; it is tried again."""
    down = pair.far.directory / "config" / "test.down"
    down.touch()
    try:
        msg_id = pair.send()
        message = pair.near.until("relay", msg_id, "que", matching=lambda found: found["count"] > 1)
    finally:
        down.unlink()
    assert "status: DOWN" in message["status"]
    assert result(message)["reached"] is True
    pair.near.ask("relay", "run_message", {"msg_id": msg_id})
    pair.relayed(msg_id)
    pair.once(msg_id)
    msg_id = pair.send(dest=pair.url.replace("test", "nowhere"), max_count=1)
    message = pair.near.until("relay", msg_id)
    assert message["status"].startswith(
        "err - given up after 1 try (max_count of the message is 1): "
    )
    assert "no such queue: nowhere" in message["status"]
    assert message["status"].endswith(f"; to take it up again: rq retry relay/{msg_id}")


def test_what_was_given_up_is_taken_up_again(pair: Pair, tap: Tap, big: bytes) -> None:
    """`rq retry`: what has arrived is not sent again, and the last word said where it lies."""
    rule = tap.rule("POST", "/commit", "before")
    msg_id = pair.send(SMALL, big, max_count=1)
    message = pair.near.until("relay", msg_id)
    [prepared] = pair.arrived(msg_id)
    assert rule.used
    assert message["state"] == "err"
    assert f"a prepared copy may lie at {prepared['full_id']}" in message["status"]
    seen = len(tap.seen)
    pair.near.ask("relay", "retry_message", {"msg_id": msg_id})
    pair.relayed(msg_id)
    there = pair.once(msg_id, SMALL, big)
    assert there["msg_id"] == prepared["msg_id"]
    assert [method for method, _ in tap.seen[seen:]] == ["GET", "POST"]  # looked at, and committed


@pytest.mark.parametrize("plain", [False, True], ids=["rqcore", "plain"])
def test_a_prepared_message_that_is_gone_is_begun_anew(
    pair: Pair, tap: Tap, plain: bool
) -> None:  # fmt: skip
    tap.plain = plain

    def take_away() -> None:
        [lost] = pair.arrived(msg_id)
        pair.far.ask("test", "delete_message", {"msg_id": lost["msg_id"]})

    path = "/attach/new" if plain else "/attachments/f0"
    with pair.held():
        msg_id = pair.send(SMALL)
        tap.rule("POST", path, "before", act=take_away, cut=not plain)
    message = pair.relayed(msg_id)
    assert message["count"] == 1
    pair.once(msg_id, SMALL)


def test_gone_after_the_commit_is_never_sent_again(pair: Pair, tap: Tap) -> None:
    """The answer was lost, and the message has run and was cleaned away: nobody knows."""

    def run_and_clean() -> None:
        [there] = pair.arrived(msg_id)
        pair.far.until("test", there["msg_id"], "done")
        pair.far.ask("test", "delete_message", {"msg_id": there["msg_id"]})

    with pair.held():
        msg_id = pair.send()
        tap.rule("POST", "/commit", "after", act=run_and_clean)
    message = pair.near.until("relay", msg_id)
    assert message["state"] == "err"
    assert "the message may have arrived as http://127.0.0.1" in message["status"]
    assert not pair.arrived(msg_id)
