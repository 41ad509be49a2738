"""``rq ls show run clone retry kill rm``: finding messages and doing things to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Gate, Result, Rq


def names(result: Result) -> list[str]:
    return [f"{item['queue']}/{item['msg_id']}" for item in result.json_lines()]


def done(rq: Rq, *words: str) -> str:
    """Send a message that ends done."""
    return rq.send("work", "--param1", "done", "--wait", *words)


def failed(rq: Rq, text: str) -> str:
    """Have a message that ended err."""
    name = rq.send("work", "--param1", "err", "--param2", text)
    rq("wait", name, status=1)
    return name


@pytest.mark.process
def test_ls_is_newest_first_and_filters(rq: Rq, running: RunningInstance) -> None:
    running.queue("other", "#!/bin/sh\necho done >&3\n")
    rq("reload")
    assert rq("ls").err == "no message\n"
    first = done(rq, "--param2", "Straße")
    second = failed(rq, "x")
    third = rq.send("other", "--wait")
    fourth = rq.send("work", "--due", "1h")
    assert names(rq("ls", "--jsonl")) == [fourth, third, second, first]
    assert names(rq("ls", "work", "--jsonl")) == [fourth, second, first]
    assert names(rq("ls", "--state", "done,err", "--state", "run", "--jsonl")) == [
        third, second, first,
    ]  # fmt: skip
    assert names(rq("ls", "--text", "STRASSE", "--jsonl")) == []
    assert names(rq("ls", "--text", "straß", "--jsonl")) == [first]
    assert names(rq("ls", "--text", "said x", "--jsonl")) == [second]
    assert names(rq("ls", "--newer-than", "1h", "--older-than", "0s", "--jsonl")) == [
        fourth, third, second, first,
    ]  # fmt: skip
    assert rq("ls", "--older-than", "1m", "--json").json() == []
    limited = rq("ls", "--limit", "2", "--jsonl")
    assert names(limited) == [fourth, third]
    assert "and more" in limited.err
    assert "and more" not in rq("ls", "--limit", "4").err
    lines = rq("ls", "work", "--state", "err,done").out.splitlines()
    assert lines[0].split() == ["MESSAGE", "STATE", "AGE", "PARAMS", "STATUS"]
    assert lines[1].split()[:2] == [second, "err"]
    assert lines[1].endswith("  said x")
    assert "there is no state" in rq("ls", "--state", "dnoe", status=2).err
    assert "is no span of time" in rq("ls", "--older-than", "old", status=2).err


@pytest.mark.process
def test_ls_tells_where_a_message_is_for_that_only_passes_through(
    rq: Rq, running: RunningInstance
) -> None:
    rq("queue", "pause", "work")
    running.send("work", param1="stays")
    running.send("work", dest="http://mq2.example.com:3333/q/images", param1="goes")
    goes, stays = rq("ls", "work").out.splitlines()[1:]
    assert rq("ls", "work").out.splitlines()[0].split()[3] == "DEST"
    assert goes.split()[3:] == ["http://mq2.example.com:3333/q/images", "goes"]
    assert stays.split()[3:] == ["stays"]


@pytest.mark.process
def test_ls_goes_through_pages_without_end_or_gap(rq: Rq, running: RunningInstance) -> None:
    rq("queue", "pause", "work")
    sent = [running.send("work", param1=str(n)) for n in range(450)]
    assert names(rq("ls", "--limit", "0", "--jsonl")) == [f"work/{one}" for one in reversed(sent)]
    assert len(names(rq("ls", "--text", "44", "--limit", "0", "--jsonl"))) >= 15


@pytest.mark.process
def test_show_tells_all_of_a_message(rq: Rq, running: RunningInstance) -> None:
    (rq.cwd / "a.txt").write_text("12345")
    name = done(rq, "--param2", "x\x1b[31m", "--src", "me", "--attach", "a.txt")
    out = rq("show", name).out
    msg_id = name.partition("/")[2]
    for line in (
        f"message    {name}",
        f"url        http://localhost:3333/q/{name}",
        r"status     done - said x\x1b[31m",
        "src        me",
        r"param2     x\x1b[31m",
        "  a.txt  5 B, md5 827ccb0eea8a706c4c34a16891f84e7b",
    ):
        assert f"{line}\n" in out
    found = rq("show", name, "--json").json()
    assert found == {"queue": "work", **running.message("work", msg_id)}
    for other in (msg_id, f"/q/{name}", f"http://localhost:3333/q/{name}"):
        assert rq("show", other).out.splitlines()[0] == f"message    {name}"


@pytest.mark.process
def test_a_name_that_leads_nowhere_is_told(rq: Rq, running: RunningInstance) -> None:
    nobody = "20200101.0000.00.000.1"
    assert f"there is no message work/{nobody}" in rq("show", f"work/{nobody}", status=3).err
    assert f"no queue has a message {nobody}" in rq("show", nobody, status=3).err
    assert "there is no queue wrk" in rq("show", f"wrk/{nobody}", status=3).err
    assert "names no message; write QUEUE/ID" in rq("log", "work", status=3).err


@pytest.mark.process
def test_retry_by_name(rq: Rq, running: RunningInstance) -> None:
    name = failed(rq, "x")
    assert rq("retry", name).err == f"{name} back in the queue\n"
    rq("wait", name, status=1)
    assert rq("log", name).out == "first line of x\n" * 2
    good = done(rq)
    refused = rq("retry", good, status=4)
    assert refused.err == (f"rq: {good}: message is in done; only one in err can be retried\n")
    mixed = rq("retry", good, name, status=4)
    assert "1 of 2 messages: back in the queue\n" in mixed.err


@pytest.mark.process
def test_many_are_counted_and_asked_about(rq: Rq, running: RunningInstance) -> None:
    a, b, c = failed(rq, "red"), failed(rq, "green"), failed(rq, "red too")
    assert "say which of its messages" in rq("retry", "work", status=2).err
    preview = rq("retry", "work", "--all-err", "--dry-run")
    assert preview.out.split() == [c, b, a]
    assert preview.err.startswith("would retry 3 messages (3 err of work; made ")
    asked = rq("retry", "work", "--all-err", status=2)
    assert "Nobody can be asked here; say it with --yes" in asked.err
    assert running.client("work").call("num_messages")["err"] == 3
    assert "3 of" not in rq("rm", "work", "--text", "red", "--yes").err
    assert names(rq("ls", "--jsonl")) == [b]
    assert rq("rm", "work", "--text", "red", "--yes").err == "no message to rm\n"
    assert "1 of 1" not in rq("retry", "work", "--all", "--yes").err
    rq("wait", b, status=1)
    assert "is for messages in err" in rq("retry", "work", "--state", "done", status=2).err
    assert "is one message" in rq("retry", b, "--all", status=2).err
    limited = rq("clone", "work", "--all-err", "--limit", "1", "--yes")
    assert limited.out.startswith("http://localhost:3333/q/work/")


@pytest.mark.process
def test_a_terminal_is_asked(rq: Rq, running: RunningInstance) -> None:
    failed(rq, "x")
    for answer, left in (("n", 1), ("y", 0)):
        # A terminal of our own, as the command's standard input.
        ours, theirs = os.openpty()
        try:
            os.write(ours, f"{answer}\n".encode())
            import subprocess
            import sys

            done = subprocess.run(
                [sys.executable, "-m", "rqcore_cli", "rm", "work", "--all-err"],
                stdin=theirs, capture_output=True, check=False, env=rq.environ, cwd=rq.cwd,
            )  # fmt: skip
        finally:
            os.close(ours)
            os.close(theirs)
        assert b"rm 1 message (1 err of work; made " in done.stderr
        assert done.returncode == left
        assert running.client("work").call("num_messages")["err"] == left


@pytest.mark.process
def test_clone_prints_the_new_ids(rq: Rq, running: RunningInstance) -> None:
    name = done(rq, "--param2", "x")
    copy = rq("clone", name).out.strip().removeprefix("http://localhost:3333/q/")
    assert copy != name
    assert rq("log", "-f", copy).out == "first line of x\n"


@pytest.mark.process
def test_run_brings_a_message_forward(rq: Rq, running: RunningInstance) -> None:
    name = rq.send("work", "--param1", "done", "--due", "1h")
    assert rq("run", name).err == f"{name} sent to the front of the queue\n"
    assert "done - said nothing" in rq("wait", name).out
    assert "not in runnable state" in rq("run", name, status=4).err


@pytest.mark.process
def test_kill_ends_the_script(rq: Rq, running: RunningInstance, gate: Gate) -> None:
    name = rq.send("work", "--param1", "wait", "--param3", gate.path)
    running.until("work", name.partition("/")[2], "run")
    assert "is running; destroy it first" in rq("rm", name, status=4).err
    assert rq("kill", name).err == f"{name} told to end\n"
    assert "destroyed on request" in rq("wait", name, status=1).out
    assert "nothing runs" in rq("kill", name, status=4).err
    assert rq("rm", name).err == f"{name} deleted\n"
    assert f"there is no message {name}" in rq("rm", name, status=3).err


@pytest.mark.process
def test_a_queue_that_is_down_can_be_looked_at_and_cleared_up(
    rq: Rq, running: RunningInstance
) -> None:
    name = done(rq, "--param2", "seen")
    rq("queue", "down", "work")
    assert "seen" in rq("show", name).out
    assert rq("log", name).status == 0
    assert rq("wait", name).status == 0
    assert "DOWN" in rq("clone", name, status=4).err
    assert rq("rm", name).status == 0
    assert "there is no message" in rq("show", name, status=3).err
