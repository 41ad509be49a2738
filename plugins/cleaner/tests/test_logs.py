"""Logs are rotated and no line is lost, whoever is killed when."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rqcore_cleaner import logs
from rqcore_cleaner.options import LogOptions

from rqcore import durable
from rqcore.instance import Instance
from rqcore.testing import RunningInstance
from rqcore.unix import Inotify

SMALL = LogOptions(size=10, keep=3)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    for name in ("log", "config"):
        (tmp_path / name).mkdir()
    return Instance(tmp_path)


def content(instance: Instance) -> dict[str, str]:
    """Every log by name, unpacked."""
    found = {}
    for path in instance.log_dir.iterdir():
        data = path.read_bytes()
        found[path.name] = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return found


def test_logs_move_up_and_are_packed_one_rotation_later(instance: Instance) -> None:
    log = instance.log_dir / "rqcore.log"
    for number in range(6):
        log.write_text(f"this is log {number}\n")
        assert logs.rotate(instance, SMALL) == (["rqcore.log"], [])
    assert content(instance) == {
        "rqcore.log.1": "this is log 5\n", "rqcore.log.2.gz": "this is log 4\n",
        "rqcore.log.3.gz": "this is log 3\n",
    }  # fmt: skip


def test_only_what_is_large_and_a_file_is_rotated(instance: Instance) -> None:
    folder = instance.log_dir
    (folder / "small").write_text("short")
    (folder / ".hidden").write_text("x" * 100)
    (folder / "directory").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    before = sorted(os.listdir(folder))
    assert logs.rotate(instance, SMALL) == ([], [])
    (folder / "large").write_text("x" * 100)
    assert logs.rotate(instance, LogOptions(size=0)) == ([], [])
    (folder / "large").unlink()
    assert sorted(os.listdir(folder)) == before
    assert logs.rotate(Instance(folder / "nowhere"), SMALL) == ([], [])


def test_a_packed_log_keeps_its_time_and_its_mode(instance: Instance) -> None:
    log = instance.log_dir / "a"
    for _ in range(2):
        log.write_text("x" * 20)
        log.chmod(0o640)
        os.utime(log, (1_700_000_000, 1_700_000_000))
        logs.rotate(instance, SMALL)
    info = (instance.log_dir / "a.2.gz").stat()
    assert (info.st_mode & 0o777, info.st_mtime) == (0o640, 1_700_000_000)


class KilledError(BaseException):
    pass


@contextmanager
def killed_at(step: int) -> Iterator[list[str]]:
    """The process ends before its so-manieth change of the file system."""
    done: list[str] = []
    real = {name: getattr(os, name) for name in ("rename", "unlink")}

    def act(name: str) -> Any:
        def changed(*args: Any, **more: Any) -> None:
            if len(done) == step:
                raise KilledError
            done.append(name)
            real[name](*args, **more)

        return changed

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(os, name, act(name))
        patch.setattr(durable, "remove_quietly", lambda _: None)  # nobody clears up after a kill
        yield done


@pytest.mark.parametrize("step", range(7))
def test_no_line_is_lost_whenever_it_is_killed(instance: Instance, step: int) -> None:
    lines = []
    log = instance.log_dir / "rqcore.log"
    options = LogOptions(size=10, keep=50)
    for number in range(5):
        lines.append(f"this is log {number}\n")
        with log.open("a") as file:
            file.write(lines[-1])
        if number == 2:
            with killed_at(step) as done, suppress(KilledError):
                logs.rotate(instance, options)
            assert len(done) <= step
            assert step > 4 or len(done) == step, "it was killed there"
        else:
            logs.rotate(instance, options)
    found = content(instance)
    assert sorted("".join(found.values()).splitlines(keepends=True)) == lines
    order = sorted(found, key=lambda name: -int(name.split(".")[2]))
    assert "".join(found[name] for name in order) == "".join(lines)


def test_a_former_log_that_somebody_still_writes_to_is_not_packed(instance: Instance) -> None:
    log = instance.log_dir / "a"
    with log.open("w", buffering=1) as writer:
        writer.write("first line\n")
        logs.rotate(instance, SMALL)
        log.write_text("second line\n")
        logs.rotate(instance, SMALL)
        assert sorted(os.listdir(instance.log_dir)) == ["a.1", "a.2"]
        writer.write("it goes on\n")
    logs.rotate(instance, SMALL)
    assert content(instance) == {"a.1": "second line\n", "a.2.gz": "first line\nit goes on\n"}


def test_what_cannot_be_rotated_costs_only_itself(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (instance.log_dir / name).write_text("x" * 20)
    real = os.rename

    def refuse(old: str, new: str) -> None:
        if old.endswith("/a"):
            raise PermissionError(1, "Operation not permitted")
        real(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    assert logs.rotate(instance, SMALL) == (
        ["b"], ["a is not rotated: Operation not permitted"],
    )  # fmt: skip


HEARS = """
import fcntl, signal, sys
fd = open(sys.argv[1], "w")
fcntl.flock(fd, fcntl.LOCK_EX)
fd.write(f"{__import__('os').getpid()}\\n"); fd.flush()
if sys.argv[2] == "hears":
    signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("kind", ["hears", "deaf"])
def test_the_manager_is_told_if_it_has_ears(instance: Instance, kind: str) -> None:
    """A signal that it does not handle would end it."""
    (instance.log_dir / "a").write_text("x" * 20)
    command = [sys.executable, "-c", HEARS, str(instance.pid_file), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as manager:
        assert manager.stdout is not None
        assert manager.stdout.readline() == "ready\n"
        assert logs.rotate(instance, SMALL)[0] == ["a"]
        if kind == "hears":
            assert manager.stdout.readline() == "heard\n"
        manager.send_signal(signal.SIGTERM)
        assert manager.wait(30) == 7
    # A pid that was left behind is nobody's.
    (instance.log_dir / "a").write_text("x" * 20)
    instance.pid_file.write_text(f"{os.getpid()}\n")
    assert logs.rotate(instance, SMALL)[0] == ["a"]


@pytest.mark.process
def test_a_running_instance_writes_on_in_a_new_log(rq_instance: RunningInstance) -> None:
    rq = rq_instance
    rq.use_plugins("cli", "cleaner")
    options = {"logs": {"size": 1}, "deleted_queues": "0s", "retention": {"tset": {"done": "keep"}}}
    rq.configure(plugins={"cleaner": options})
    (rq.directory / "queue" / "old.deleted.1" / "done").mkdir(parents=True)
    rq.queue("test", "#!/bin/sh\necho done fine >&3\n")
    rq.start()
    folder = rq.directory / "log"
    inotify = Inotify()
    try:
        inotify.add(str(folder), Inotify.CREATE)
        msg_id = rq.send("cleaner", param1="ALLQUEUES")
        message = rq.until("cleaner", msg_id)
        parts = message["status"].split("; ")
        assert parts[:2] == ["done - removed 0 messages, 0 B", "rotated test.log"]
        assert parts[2].startswith("removed 1 deleted queue, ")
        assert parts[3:] == [
            "a rule names tset, and there is no such queue", 'did you mean "test"?'
        ]  # fmt: skip
        assert not list(rq.directory.glob("queue/*.deleted.*"))
        while not (folder / "test.log").exists():
            inotify.read()
    finally:
        inotify.close()
    (rq.directory / "config" / "nothing").touch()
    rq.manager.ask("reload")
    rq.stop()
    assert "RQ is ready" in (folder / "test.log.1").read_text()
    assert "RQ stops" in (folder / "test.log").read_text()
