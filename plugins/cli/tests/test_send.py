"""``rq send`` and ``rq attach``."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rqcore_cli.progress import read_so_far

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq

URL = r"http://localhost:3333/q/work/\d{8}\.\d{4}\.\d\d\.\d{3}\.\d+\n"


def messages_in(running: RunningInstance, state: str) -> list[str]:
    return os.listdir(running.directory / "queue" / "work" / state)


@pytest.mark.process
def test_send_prints_the_full_id_and_nothing_else(rq: Rq, running: RunningInstance) -> None:
    done = rq("send", "work", "--param1", "done", "--param2", "x")
    assert re.fullmatch(URL, done.out)
    assert done.err == ""
    waited = rq("send", "work", "--param1", "done", "--param2", "x", "--wait")
    assert re.fullmatch(URL, waited.out)
    assert waited.err.endswith(" done - said x\n")
    assert rq("send", "/q/work", "--param1", "err", "--wait", "-q", status=1).err == ""


@pytest.mark.process
def test_every_field_arrives(rq: Rq, running: RunningInstance) -> None:
    sent = rq(
        "send", "work", "--param1", "a", "--param2", "", "--param3=--x", "--param4", "é\n",
        "--src", "me", "--due", "1h", "--max-count", "3", "--webhook", "http://a/",
        "--webhook", "http://b/", "--force-remote", "--json",
    ).json()  # fmt: skip
    found = running.message("work", sent["msg_id"])
    assert sent == {"queue": "work", "msg_id": found["msg_id"], "full_id": found["full_id"]}
    wanted = {
        "param1": "a", "param2": "", "param3": "--x", "param4": "é\n", "src": "me",
        "max_count": 3, "post_run_webhook": ["http://a/", "http://b/"], "force_remote": True,
        "state": "que",
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted
    assert abs(found["due"] - time.time() - 3600) < 60
    ended = rq("send", "work", "--param1", "err", "--param2", "x", "--wait", "--json", status=1)
    assert ended.json()["state"] == "err"
    assert ended.json()["status"] == "err - said x"


@pytest.mark.process
def test_the_trace_of_who_sends_is_the_messages(rq: Rq, running: RunningInstance) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    rq.environ |= {"TRACEPARENT": parent, "TRACESTATE": "vendor=1"}
    for words in (("send", "work"), ("sendmesg", "--dest", "work"), ("prepmesg", "--dest", "work")):
        msg_id = rq(*words).out.strip().rpartition("/")[2]
        found = running.message("work", msg_id)
        assert (found["traceparent"], found["tracestate"]) == (parent, "vendor=1")
        assert parent in rq("show", f"work/{msg_id}").out
    rq.environ["TRACEPARENT"] = "nonsense"
    found = running.message("work", rq("send", "work").out.strip().rpartition("/")[2])
    assert not {"traceparent", "tracestate"} & set(found)


@pytest.mark.process
def test_files_are_attached(rq: Rq, running: RunningInstance, tmp_path: Path) -> None:
    (rq.cwd / "one").write_bytes(b"1" * 1000)
    (rq.cwd / "two words").write_bytes(b"2")
    (rq.cwd / "three").write_bytes(b"3")
    done = rq("send", "work", "--param1", "done", "--attach", "one", "two words",
              "--attach", str(rq.cwd / "three"), "--follow")  # fmt: skip
    assert done.out == "first line of \none\nthree\ntwo words\n1002\n"
    assert "attached one, 1.0 kB\n" in done.err
    msg_id = re.findall(r"work/(\S+)", done.err)[0]
    attached = running.message("work", msg_id)["_attachments"]
    assert attached["one"]["md5"] == hashlib.md5(b"1" * 1000).hexdigest()
    assert attached["one"]["size"] == 1000


@pytest.mark.process
def test_a_terminal_is_shown_how_far_it_is(rq: Rq, running: RunningInstance) -> None:
    (rq.cwd / "large").write_bytes(bytes(200_000_000))
    status, seen = rq.on_terminal("send", "work", "--param1", "done", "--attach", "large", "--wait")
    assert status == 0
    assert "\x1b[?25l" in seen  # the cursor is hidden while a bar is drawn
    assert re.search(r"attached large, 200 MB, \S+ [KMG]B/s", seen)
    assert re.search(r"work/\S+ done - said nothing\r\n", seen)


def test_how_far_a_file_is_read_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(bytes(1000))
    assert read_so_far(os.getpid(), str(path)) is None
    with path.open("rb", buffering=0) as file:
        assert read_so_far(os.getpid(), str(path)) == 0
        file.read(300)
        assert read_so_far(os.getpid(), str(path)) == 300
    assert read_so_far(2**22 + 1, str(path)) is None


@pytest.mark.process
def test_standard_input_is_attached_and_leaves_nothing(rq: Rq, running: RunningInstance) -> None:
    data = bytes(range(256)) * 1000
    done = rq("send", "work", "--param1", "done", "--attach", "-", "--attach-name", "in.bin",
              "--wait", stdin=data)  # fmt: skip
    message = running.message("work", done.out.strip().rpartition("/")[2])
    assert Path(message["_attachments"]["in.bin"]["path"]).read_bytes() == data
    assert not os.listdir(running.directory / "tmp")
    done = rq("send", "work", "--param1", "done", "--attach", "-", stdin="x")
    assert "attached stdin, 1 B" in done.err


@pytest.mark.process
def test_what_cannot_be_attached_is_told_before_anything_is_sent(
    rq: Rq, running: RunningInstance
) -> None:
    (rq.cwd / "folder").mkdir()
    (rq.cwd / ".dot").touch()
    (rq.cwd / "folder" / "same").touch()
    (rq.cwd / "same").touch()
    for files, why in (
        (["gone"], "gone cannot be attached: No such file or directory"),
        (["folder"], "folder cannot be attached: it is a directory; pack it first"),
        ([".dot"], "dot-file not allowed: .dot; give another with --attach-name"),
        (["same", "folder/same"], "two attachments would be called 'same'"),
    ):
        assert why in rq("send", "work", "--attach", *files, status=2).err
    assert rq("send", "work", "--attach", ".dot", "--attach-name", "dot").out
    assert messages_in(running, "prep") == []


@pytest.mark.process
def test_a_message_without_all_its_files_is_taken_back(rq: Rq, running: RunningInstance) -> None:
    running.plugin(
        "picky",
        "from rqcore.hookspecs import hookimpl, Reject\n"
        "@hookimpl\n"
        "def rq_check_attachment(attachment):\n"
        "    return Reject('no b here') if attachment.name == 'b' else None\n",
    )
    running.stop()
    running.start()
    (rq.cwd / "a").touch()
    (rq.cwd / "b").touch()
    refused = rq("send", "work", "--attach", "a", "b", status=4)
    assert refused.out == ""
    assert "was taken back; nothing was sent\n" in refused.err
    assert refused.err.endswith("no b here (plugin picky)\n")
    assert messages_in(running, "prep") == []


@pytest.mark.process
def test_prepared_messages_take_files_later(rq: Rq, running: RunningInstance) -> None:
    (rq.cwd / "a").write_text("a")
    name = rq.send("work", "--param1", "done", "--prep")
    assert rq("attach", name, "a").err == "attached a, 1 B\n"
    done = rq("attach", name, "-", "--attach-name", "b", "--commit", stdin="bb")
    assert done.err == f"attached b, 2 B\n{name} is queued\n"
    assert rq("log", "-f", name).out == "first line of \na\nb\n3\n"
    assert f"there is no message {name}" in rq("attach", name, "a", status=3).err


@pytest.mark.process
def test_single_names_the_one_that_waits(rq: Rq, running: RunningInstance) -> None:
    first = rq.send("work", "--due", "1h", "--single")
    assert rq.send("work", "--single", "--param1", "other") == first
    assert len(messages_in(running, "que")) == 1


@pytest.mark.process
def test_a_plugin_names_the_queue(rq: Rq, running: RunningInstance) -> None:
    running.plugin(
        "alias",
        "from rqcore.hookspecs import hookimpl\n"
        "@hookimpl\n"
        "def rq_resolve_destination(dest, origin):\n"
        "    return 'work' if (dest, origin) == ('alias', 'submit') else None\n",
    )
    running.stop()
    running.start()
    name = rq.send("alias", "--param1", "done")
    assert name.startswith("work/")
    assert rq("sendmesg", "--dest", "alias", "--param1", "done").out.startswith("ok ")


@pytest.mark.process
def test_a_queue_elsewhere_needs_the_relay(rq: Rq, running: RunningInstance) -> None:
    url = "http://other.example.com:3333/q/work"
    assert "install rqcore-relay" in rq("send", url, status=3).err
    running.queue("relay", "#!/bin/sh\necho done >&3\n")
    rq("reload")
    assert "/q/relay/" in rq("send", url).out


@pytest.mark.process
def test_refusals_name_the_thing_and_the_remedy(rq: Rq, running: RunningInstance) -> None:
    assert "there is no queue wokr; did you mean work?" in rq("send", "wokr", status=3).err
    rq("queue", "down", "work")
    refused = rq("send", "work", status=4).err
    assert refused == (
        "rq: queue work is DOWN and refuses messages; bring it up with: rq queue up work\n"
    )
    running.stop()
    assert "start it with: rq start" in rq("send", "work", status=5).err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["x"], "unexpected: x; parameters are given as --param1"),
        (["--due", "soon"], "'soon' is no time"),
        (["--single", "--attach", "-"], "--single makes a whole message"),
        (["--prep", "--wait"], "cannot be awaited"),
        (["--timeout", "5"], "--timeout is for --wait and --follow"),
        (["--wait", "--timeout", "x"], "is no span of time"),
        (["--follow", "--json"], "--follow prints the log"),
        (["--parm1", "x"], "--param1"),
        (["--max-count", "x"], "--max-count"),
    ],
)
def test_wrong_usage_is_told(words: list[str], why: str, rq: Rq) -> None:
    error = rq("send", "work", *words, status=2).err
    assert why in error
    assert "usage: rq send [OPTIONS] QUEUE" in error
