"""Logs and ends: what is printed while a message runs, and how its end is told."""

from __future__ import annotations

import io
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_cli import follow

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Gate, Rq


@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=12),
    st.booleans(),
    st.integers(0, 15),
    st.integers(1, 40),
)
def test_the_last_lines_are_found(lines: list[bytes], ended: bool, count: int, block: int) -> None:
    text = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    pieces = text.split(b"\n")
    kept = [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
    wanted = b"".join(kept[-count:]) if count else b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "_BLOCK", block)
        assert text[follow.last_lines(io.BytesIO(text), count) :] == wanted


def test_a_log_that_was_emptied_is_printed_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    log = tmp_path / "job" / "stdio.log"
    log.write_bytes(b"long first text\n")
    out = io.BytesIO()
    tail = follow.Tail(out)
    assert tail.open(str(tmp_path))
    tail.copy()
    log.write_bytes(b"new\n")
    tail.copy()
    tail.close()
    assert out.getvalue() == b"long first text\nnew\n"


@pytest.mark.process
def test_follow_prints_the_log_and_tells_the_end(rq: Rq, running: RunningInstance) -> None:
    done = rq("send", "work", "--param1", "done", "--param2", "it", "--follow")
    assert done.out == "first line of it\n"
    first, last = done.err.splitlines()
    assert last == f"{first} done - said it"
    assert first.startswith("work/")


@pytest.mark.process
def test_follow_ends_as_the_message_does(rq: Rq, running: RunningInstance) -> None:
    failed = rq("send", "work", "--param1", "err", "--follow", status=1)
    assert "err - said" in failed.err
    name = failed.err.splitlines()[0]
    assert rq("log", "-f", name, status=1).out == failed.out
    assert rq("wait", name, status=1).out == f"{name} err - said nothing\n"


@pytest.mark.process
def test_log_follows_what_is_written_while_it_runs(
    rq: Rq, running: RunningInstance, gate: Gate
) -> None:
    name = rq.send("work", "--param1", "wait", "--param2", "x", "--param3", gate.path)
    follower = rq.begin("log", "-f", name)
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"first line of x\n"
    gate.open("binary \udcff\x00 here\n".encode("utf-8", "surrogateescape").decode("latin-1"))
    out, err = follower.communicate(timeout=30)
    assert out == "binary \xff\x00 here\n".encode()
    assert err.decode() == f"{name} done - waited\n"
    assert follower.returncode == 0


@pytest.mark.process
def test_log_follows_a_message_that_has_not_begun(rq: Rq, running: RunningInstance) -> None:
    rq("queue", "pause", "work")
    name = rq.send("work", "--param1", "done", "--param2", "x")
    follower = rq.begin("log", "-f", name)
    assert follower.stderr is not None
    assert follower.stderr.readline().decode() == (
        f"rq: {name} waits, because queue work is PAUSE\n"
    )
    rq("queue", "resume", "work")
    out, err = follower.communicate(timeout=30)
    assert out == b"first line of x\n"
    assert err.decode() == f"{name} done - said x\n"


@pytest.mark.process
def test_follow_goes_on_through_a_resend(rq: Rq, running: RunningInstance) -> None:
    running.queue(
        "twice",
        '#!/bin/sh\necho "run $RQ_COUNT"\n'
        '[ "$RQ_COUNT" = 0 ] && echo "resend 0-again" >&3 || echo "done now" >&3\n',
    )
    rq("reload")
    done = rq("send", "twice", "--follow")
    assert done.out == "run 0\nrun 1\n"
    assert done.err.endswith("done - now\n")


@pytest.mark.process
def test_a_restart_of_the_queue_is_waited_for(rq: Rq, running: RunningInstance, gate: Gate) -> None:
    name = rq.send("work", "--param1", "wait", "--param3", gate.path)
    follower = rq.begin("log", "-f", name)
    assert follower.stdout is not None
    assert follower.stderr is not None
    assert follower.stdout.readline() == b"first line of \n"
    running.kill(int((running.directory / "queue/work/queue.pid").read_text()))
    assert b"went away" in follower.stderr.readline()
    # The first script is ended, and the message runs again.
    assert follower.stdout.readline() == b"first line of \n"
    gate.open()
    _, err = follower.communicate(timeout=30)
    assert err.decode().endswith(f"{name} done - waited\n")
    assert follower.returncode == 0


@pytest.mark.process
def test_a_stop_of_the_instance_ends_the_waiting(rq: Rq, running: RunningInstance) -> None:
    rq("queue", "pause", "work")
    name = rq.send("work")
    waiting = rq.begin("wait", name)
    assert waiting.stderr is not None
    assert b"waits" in waiting.stderr.readline()
    assert running.process is not None
    running.process.terminate()
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 5
    assert b"RQ does not run" in err


@pytest.mark.process
def test_interrupting_a_follower_leaves_the_message(
    rq: Rq, running: RunningInstance, gate: Gate
) -> None:
    name = rq.send("work", "--param1", "wait", "--param3", gate.path)
    follower = rq.begin("log", "-f", name)
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"first line of \n"
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert f"{name} goes on" in err.decode()
    assert running.message("work", name.partition("/")[2])["state"] == "run"
    gate.open()
    assert rq("wait", name).out == f"{name} done - waited\n"


@pytest.mark.process
def test_wait_tells_of_each_and_keeps_to_its_time(
    rq: Rq, running: RunningInstance, gate: Gate
) -> None:
    good = rq.send("work", "--param1", "done")
    bad = rq.send("work", "--param1", "err")
    assert rq("wait", good).out == f"{good} done - said nothing\n"
    done = rq("wait", good, bad, "--jsonl", status=1)
    assert [item["state"] for item in done.json_lines()] == ["done", "err"]
    slow = rq.send("work", "--param1", "wait", "--param3", gate.path)
    late = rq("wait", good, slow, "--timeout", "1s", status=124)
    assert late.out == f"{good} done - said nothing\n"
    assert f"{slow} has not ended" in late.err
    assert rq("send", "work", "--due", "1h", "--wait", "--timeout", "1", status=124).out


@pytest.mark.process
def test_a_message_that_is_deleted_has_failed_to_end(rq: Rq, running: RunningInstance) -> None:
    rq("queue", "pause", "work")
    name = rq.send("work")
    waiting = rq.begin("wait", name)
    assert waiting.stderr is not None
    assert b"waits" in waiting.stderr.readline()
    rq("rm", name)
    out, _ = waiting.communicate(timeout=30)
    assert waiting.returncode in (1, 3)
    assert out in (f"{name} deleted\n".encode(), b"")


@pytest.mark.process
def test_a_log_is_printed_as_it_is(rq: Rq, running: RunningInstance) -> None:
    running.queue("many", "#!/bin/sh\nseq 1000\nprintf 'no end \\377'\necho done >&3\n")
    rq("reload")
    name = rq.send("many", "--wait")
    whole = "".join(f"{n}\n" for n in range(1, 1001)) + "no end \udcff"
    assert rq("log", name).out == whole
    assert rq("log", "-n", "2", name).out == "1000\nno end \udcff"
    assert rq("log", "-n", "0", name).out == ""
    rq("queue", "pause", "many")
    waiting = rq.send("many")
    assert "has not run yet" in rq("log", waiting).err


@pytest.mark.process
def test_a_reader_that_has_enough_is_no_error(rq: Rq, running: RunningInstance) -> None:
    running.queue("long", "#!/bin/sh\nseq 100000\necho done >&3\n")
    rq("reload")
    name = rq.send("long", "--wait")
    follower = rq.begin("log", name)
    assert follower.stdout is not None
    follower.stdout.read(10)
    follower.stdout.close()
    assert follower.wait(30) == 141
    assert follower.stderr is not None
    assert follower.stderr.read() == b""
    follower.stderr.close()
