"""A small file system that is really filled: refused in time, cleaned, and taken again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqcore.errors import RefusedError
from rqcore.testing import RunningInstance

pytestmark = [pytest.mark.crash, pytest.mark.process]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a file system"
)
#: Writes what it is asked for, and waits for its ``go`` file, a fifo on another file system.
SCRIPT = """#!/bin/sh
echo "run waiting" >&3
read -r line <"$RQ_PARAM1"
head -c 200000 /dev/zero
echo "done went on" >&3
"""
BYTES, INODES = 16_000_000, 3000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "small"
    place.mkdir()
    options = f"size={BYTES},nr_inodes={INODES},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "rq-test", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def rq(small: Path) -> Iterator[RunningInstance]:
    instance = RunningInstance(small / "rq")
    instance.log = small.parent / "log"  # what the test itself writes has room of its own
    instance.use_plugins("cli", "cleaner")
    levels = {"warning": "4MB", "refuse": "2MB", "warning_inodes": 800, "refuse_inodes": 400}
    instance.configure(plugins={"cleaner": {"disk": levels}})
    instance.queue("test", SCRIPT)
    instance.queue("fast", "#!/bin/sh\necho done fine >&3\n", num_workers=2)
    yield instance
    instance.close()


def send_until_refused(rq: RunningInstance, **fields: Any) -> tuple[list[str], str]:
    """Messages that are taken, and why the next is not."""
    taken: list[str] = []
    while len(taken) < INODES:
        try:
            msg_id = rq.send("fast", **fields)
        except RefusedError as error:
            return taken, str(error)
        taken.append(msg_id)
    raise AssertionError("nothing was refused")


@needs_root
@pytest.mark.parametrize(
    ("fields", "left"),
    [({"param1": "x" * 120_000}, "bytes"), ({}, "inodes")],
    ids=["bytes", "inodes"],
)
def test_a_disk_that_fills_refuses_in_time_and_is_used_again_after_a_cleaning(
    rq: RunningInstance, small: Path, fields: dict[str, str], left: str
) -> None:
    go = small.parent / "go"
    os.mkfifo(go)
    rq.start()
    running = rq.send("test", param1=str(go))
    rq.until("test", running, "run", matching=lambda m: m["status"] == "run - waiting")
    taken, reason = send_until_refused(rq, **fields)
    assert "the disk is too full for new messages: " in reason
    assert reason.endswith("(plugin cleaner)")
    disk = os.statvfs(small)
    free = {"bytes": disk.f_bavail * disk.f_frsize, "inodes": disk.f_favail}
    assert 0.8 * {"bytes": 2_000_000, "inodes": 400}[left] < free[left]
    with pytest.raises(RefusedError, match="too full"):
        rq.ask("test", "prep_message", {"dest": "test"})
    # What runs can end, with its log, however many wait to start.
    go.write_text("go\n")
    ended = rq.until("test", running)
    assert ended["status"] == "done - went on"
    assert Path(ended["path"], "job", "stdio.log").stat().st_size == 200_000
    # The cleaner is let in, and makes room; then all goes on by itself.
    removed = 0
    while removed < len(taken):
        cleaning = rq.until("cleaner", rq.send("cleaner", param1="fast", param2="0"))
        assert cleaning["state"] == "done"
        removed += int(cleaning["status"].split("removed ")[1].split()[0])
    assert removed == len(taken)
    assert sum(rq.ask("fast", "num_messages").values()) == 0
    assert rq.until("fast", rq.send("fast"))["status"] == "done - fine"
    log = rq.log_text()
    for text in (
        "the disk fills: ", "the disk is full but for the reserve", "the disk has room again",
        "the disk has enough room",
    ):  # fmt: skip
        assert log.count(text) == 1, (text, log)
    assert "Traceback" not in log
    rq.stop()


@needs_root
def test_a_disk_that_others_fill_to_the_last_byte_stops_no_cleaning(
    rq: RunningInstance, small: Path, lay: Callable[..., str]
) -> None:
    queue = rq.directory / "queue" / "fast"
    for _ in range(20):
        lay(queue, "done", 5, size=50_000)
    rq.start()
    cleaning = rq.ask("cleaner", "prep_message", {"dest": "cleaner", "param1": "fast"})
    with open(small / "filler", "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(RefusedError, match="too full"):
        rq.send("fast")
    cleaning = cleaning.rpartition("/")[2]
    rq.ask("cleaner", "commit_message", {"msg_id": cleaning})
    ended = rq.until("cleaner", cleaning)
    assert ended["status"].startswith("done - removed 20 messages")
    assert rq.ask("fast", "num_messages")["done"] == 0
    (small / "filler").unlink()
    assert rq.until("fast", rq.send("fast"))["status"] == "done - fine"
    rq.stop()
