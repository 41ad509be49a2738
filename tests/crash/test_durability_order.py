"""Nobody is told "ok" before the disk has it: the order of a queue process's own system calls.

strace listens to a queue process of a real instance.  What it writes down is replayed against a model
of a disk that keeps only what was synced: before each word to a client everything that the word
promises must be there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rqcore import unix, wire
from rqcore.address import reachable
from rqcore.testing import PATIENCE, RunningInstance

pytestmark = [
    pytest.mark.crash,
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

_CALLS = (
    "openat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,"
    "write,pwrite64,fsync,fdatasync,syncfs,sync,sendto,sendmsg,execve,vfork,clone,clone3"
)


class Call(NamedTuple):
    """One system call: its name, and what is in its quotes, or the paths of its descriptors."""

    name: str
    fd: str
    texts: tuple[str, ...]
    line: str


@contextmanager
def listening(rq: RunningInstance, queue: str) -> Iterator[Callable[[], list[Call]]]:
    """Have strace listen to a queue process; what is given returns all that it heard, at the end."""
    pid: int = rq.ask(queue, "describe")["pid"]
    output = rq.directory.parent / "strace"
    tracer = subprocess.Popen(
        ["strace", "-y", "-s", "300", "-e", f"trace={_CALLS}", "-e", "signal=none",
         "-o", str(output), "-p", str(pid)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace may not look into processes here: {said.strip()}")

        def heard() -> list[Call]:
            # What a client has got may not be written down yet, what came before its next answer is.
            assert rq.client(queue).call("ping") == ["pong"]
            tracer.terminate()
            tracer.wait(PATIENCE)
            lines = [line for line in output.read_text().splitlines() if "pong" not in line]
            return [call for line in lines if (call := parse(line))]

        yield heard
    finally:
        tracer.stderr.close()
        tracer.kill()
        tracer.wait()


def parse(line: str) -> Call | None:
    """None for a call that failed: it changed nothing."""
    found = re.fullmatch(r"(\w+)\((.*)\)\s+= (-?\d+|\?)(.*)", line)
    if found is None or found[3].startswith("-"):
        return None
    fd = re.match(r"\d+<([^>]*)>", found[2])
    texts = tuple(re.findall(r'"((?:[^"\\]|\\.)*)"', found[2]))
    if found[1] == "openat":
        opened = re.match(r"<([^>]*)>", found[4])
        return Call("open", opened[1] if opened else "", (*texts, found[2]), line)
    return Call(re.sub(r"(at2?|64)$", "", found[1]), fd[1] if fd else "", texts, line)


class Disk:
    """What would be there after a power cut: bytes and names that were synced."""

    def __init__(self) -> None:
        #: Files whose bytes, directories whose entries, were changed and not synced since.
        self.dirty: set[str] = set()
        self.synced: list[str] = []

    def take(self, call: Call) -> None:
        match call.name:
            case "open" if "O_CREAT" in call.texts[-1]:
                self.dirty |= {call.fd, os.path.dirname(call.fd)}
            case "write" | "pwrite" if call.fd.startswith("/"):
                self.dirty.add(call.fd)
            case "mkdir" | "unlink" | "rmdir":
                self.dirty.add(os.path.dirname(call.texts[0]))
            case "link":
                self.dirty.add(os.path.dirname(call.texts[1]))
            case "rename":
                old, new = call.texts
                self.dirty = {
                    new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path
                    for path in self.dirty
                }
                self.dirty |= {os.path.dirname(old), os.path.dirname(new)}
            case "fsync" | "fdatasync":
                self.dirty.discard(call.fd)
                self.synced.append(call.fd)
            case "syncfs" | "sync":
                self.dirty.clear()
                self.synced.append("everything")
            case _:  # such as a write into a pipe: nothing that has to last
                pass

    def unsafe(self, folder: str) -> set[str]:
        """What of this directory, or of the way to it, a power cut would take."""
        above = {folder}
        while folder not in ("/", ""):
            folder = os.path.dirname(folder)
            above.add(folder)
        first = min(above & self.dirty, default=None)
        inside = {path for path in self.dirty if path.startswith(f"{max(above, key=len)}/")}
        return inside | ({first} if first else set())


def words(calls: list[Call]) -> Iterator[tuple[str, Disk, set[str]]]:
    """Each word to a client, the disk at that moment, and where the spool's messages lie then."""
    disk = Disk()
    places: set[str] = set()
    for call in calls:
        disk.take(call)
        if call.name == "rename":
            places.discard(call.texts[0])
            places.add(call.texts[1])
        said = call.texts[0] if call.texts else ""
        if call.name in ("sendto", "sendmsg", "write") and "rq1 " in said:
            yield said, disk, places


SCRIPT = """#!/bin/sh
[ "$RQ_COUNT" = 0 ] && [ "$RQ_PARAM1" = again ] && { echo "resend 0-x" >&3; exit; }
echo "done fine" >&3
"""


@pytest.fixture(params=["fsync", "syncfs"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways of a commit: each thing by itself, and everything at once."""
    if request.param == "syncfs" and not unix.HAVE_SYNCFS:
        pytest.skip("this system has no syncfs")
    return str(request.param)


@pytest.fixture
def rq(rq_instance: RunningInstance, way: str) -> RunningInstance:
    cost = {"fsync": 1e9, "syncfs": 0.0}[way]
    rq_instance.plugin(
        "way",
        "from rqcore import durable\nfrom rqcore.hookspecs import hookimpl\n"
        "@hookimpl\ndef rq_spool_ready(): pass\n"
        "init = durable.Sync.__init__\n"
        "def chosen(self, *args, **options):\n"
        f"    init(self, *args, **options)\n    self._syncfs_cost = {cost}\n"
        "durable.Sync.__init__ = chosen\n",
    )
    rq_instance.queue("test", SCRIPT)
    return rq_instance


def place(places: set[str], msg_id: str) -> str:
    [found] = [p for p in places if p.endswith(f"/{msg_id}")]
    return found


def test_an_answer_follows_the_disk(rq: RunningInstance, way: str, tmp_path: Path) -> None:
    attachment = tmp_path / "attachment"
    attachment.write_text("content")
    (rq.directory / "config" / "test.pause").touch()
    rq.start()
    with listening(rq, "test") as heard:
        created = rq.send("test")
        prepared = rq.ask("test", "prep_message", {"dest": "test"}).rpartition("/")[2]
        args: dict[str, Any] = {"msg_id": prepared, "pathname": str(attachment)}
        rq.ask("test", "attach_message", args)
        rq.ask("test", "commit_message", {"msg_id": prepared})
        rq.ask("test", "delete_message", {"msg_id": created})
        calls = heard()
    answers = [
        (said, disk.unsafe(place(places, created if number == 0 else prepared)), list(disk.synced))
        for number, (said, disk, places) in enumerate(words(calls))
        if number < 4
    ]
    assert all(r"[\"ok\"" in said for said, _, _ in answers)
    assert [unsafe for _, unsafe, _ in answers] == [set()] * 4
    counts = [len(synced) for _, _, synced in answers]
    assert counts == sorted(set(counts)), "each answer after a sync of its own"
    assert ("everything" in answers[-1][2]) is (way == "syncfs")
    *_, (last, disk, _) = words(calls)
    assert "msg deleted" in last
    que = f"{rq.directory}/queue/test/que"
    assert que not in disk.dirty
    rq.stop()


def test_a_verdict_is_told_when_the_disk_has_it(rq: RunningInstance) -> None:
    (rq.directory / "config" / "test.pause").touch()
    rq.start()
    msg_id = rq.send("test", param1="again")
    with rq.client("test") as follower, listening(rq, "test") as heard:
        events = follower.subscribe({"msg_id": msg_id}, timeout=PATIENCE)
        (rq.directory / "config" / "test.pause").unlink()
        while next(events).get("new") != "done":
            pass
        calls = heard()
    told = []
    for said, disk, places in words(calls):
        if r"\"event\": \"state\"" not in said:
            continue
        told.append(re.findall(r'\\"step\\": \\"(\w+)\\"', said)[0])
        at = place(places, msg_id)
        unsafe = {path for path in disk.unsafe(at) if "/job" not in path and "pid" not in path}
        if told[-1] in ("resend", "finish"):
            assert unsafe <= {at}, said  # its directory's entry "pid" need not last
            assert not any(path.endswith(("/msg", "/status")) for path in unsafe)
    assert told == ["start", "resend", "start", "finish"]
    rq.stop()


def test_what_was_promised_is_never_replaced_by_what_may_be_lost(rq: RunningInstance) -> None:
    """A resend writes the message anew: its bytes are on the disk before they get the name."""
    rq.start()
    with listening(rq, "test") as heard:
        msg_id = rq.send("test", param1="again")
        rq.until("test", msg_id, "done")
        calls = heard()
    disk = Disk()
    replaced = 0
    for call in calls:
        if call.name == "rename" and call.texts[0].endswith("/.msg.tmp"):
            assert call.texts[0] not in disk.dirty
            replaced += 1
        disk.take(call)
    assert replaced == 1
    rq.stop()


def test_a_message_of_many_clients_is_answered_after_one_sync(
    rq: RunningInstance, way: str
) -> None:
    """Group commit: what came together while the queue was busy is synced together."""
    (rq.directory / "config" / "test.pause").touch()
    rq.start()
    path = f"{rq.directory}/queue/test/queue.sock"
    pid: int = rq.ask("test", "describe")["pid"]
    with listening(rq, "test") as heard:
        os.kill(pid, signal.SIGSTOP)
        clients = []
        for _ in range(20):
            client = socket.socket(socket.AF_UNIX)
            with reachable(path) as short:
                client.connect(short)
            client.sendall(wire.encode(b'create_message {"dest": "test"}'))
            clients.append(client)
        os.kill(pid, signal.SIGCONT)
        for client in clients:
            client.settimeout(PATIENCE)
            assert b'"ok"' in client.recv(4096)
            client.close()
        calls = heard()
    said = [(len(disk.synced), disk.unsafe(f"{rq.directory}/queue/test/que"))
            for text, disk, _ in words(calls) if "ok" in text]  # fmt: skip
    assert len(said) == 20
    assert all(unsafe == set() for _, unsafe in said)
    if way == "syncfs":
        assert len({synced for synced, _ in said}) < 10, "fewer syncs than messages"
    rq.stop()


def test_a_queue_without_fsync_syncs_nothing(rq_instance: RunningInstance, tmp_path: Path) -> None:
    rq = rq_instance
    attachment = tmp_path / "attachment"
    attachment.write_text("content")
    rq.queue("test", SCRIPT, fsync="no-fsync")
    rq.start()
    with listening(rq, "test") as heard:
        msg_id = rq.send("test", param1="again")
        rq.until("test", msg_id, "done")
        rq.ask("test", "delete_message", {"msg_id": msg_id})
        calls = heard()
    assert {call.name for call in calls} >= {"rename", "mkdir"}
    disk = Disk()
    for call in calls:
        disk.take(call)
    assert disk.synced == []
    rq.stop()
