"""What every test of this repository is held to, beyond its own assertions.

A test leaves nothing behind: the environment, the current directory, the open descriptors and the
processes are after it what they were before. What it left is named, counts as its failure, and is
put right, so that the next test is not harmed. Processes are found however far they went (forked,
re-parented, in a session of their own) by a mark in the environment they were started with.

With ``--no-skips`` a skipped test is a failure: CI has to have what the tests need.

No test fails for being slow, short of pytest's own limit: how fast a loaded machine is says nothing
about the code.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

_MARK = "RQCORE_TEST_SESSION"
_PROC = Path("/proc")
_GRACE = 10.0

settings.register_profile(
    "rqcore", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("rqcore")
os.environ[_MARK] = secrets.token_hex(8)


@pytest.fixture(scope="session", autouse=True)
def ports() -> None:
    """The file that keeps ports for this run is open before a test is held to its descriptors."""
    from rqcore.testing import free_port  # noqa: PLC0415 - coverage must see the import

    free_port()


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    environment, cwd = dict(os.environ), os.getcwd()
    descriptors, processes = _descriptors(), _processes()
    yield
    problems = [
        *_environment_problems(environment),
        *_directory_problems(cwd),
        *_process_problems(processes),
        *_descriptor_problems(descriptors),
    ]
    if problems:
        pytest.fail("this test left behind:\n  " + "\n  ".join(problems), pytrace=False)


def _environment_problems(before: dict[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | os.environ.keys()):
        old, new = before.get(name), os.environ.get(name)
        if old == new or name == "PYTEST_CURRENT_TEST":
            continue
        yield f"environment variable {name}: was {old!r}, is {new!r}"
        if old is None:
            del os.environ[name]
        else:
            os.environ[name] = old


def _directory_problems(before: str) -> Iterator[str]:
    try:
        now = os.getcwd()
    except FileNotFoundError:
        now = "a directory that is gone"
    if now != before:
        yield f"current directory: was {before}, is {now}"
        os.chdir(before)


def _descriptor_problems(before: dict[int, str]) -> Iterator[str]:
    # A server's thread may still be closing the connection that the test has just left.
    end = monotonic() + 1
    while (after := _descriptors()) != before and monotonic() < end:
        sleep(0.005)
    for fd in sorted(before.keys() | after.keys()):
        if before.get(fd) == after.get(fd):
            continue
        yield f"descriptor {fd}: was {before.get(fd, 'closed')}, is {after.get(fd, 'closed')}"
        if fd not in before:
            os.close(fd)


def _descriptors() -> dict[int, str]:
    """Every open descriptor and what it stands for, as far as the system tells."""
    found = {}
    for name in os.listdir("/dev/fd"):
        try:
            found[int(name)] = os.readlink(f"/dev/fd/{name}")
        except FileNotFoundError:  # the one that the listing itself was read by
            continue
        except OSError:  # not Linux: there it is no link
            found[int(name)] = "open"
    return found


def _process_problems(before: dict[int, str]) -> Iterator[str]:
    deadline = monotonic() + _GRACE
    # Again until there are none: one that is ended may have started another meanwhile.
    while left := {pid: what for pid, what in _processes().items() if pid not in before}:
        for pid, command in left.items():
            if _is_child(pid) or _outlives(pid, deadline):
                yield f"process {pid}: {command}"
                _end(pid)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        if _is_child(pid):
            os.waitpid(pid, 0)
    except ProcessLookupError:  # it was quicker
        pass
    else:
        _outlives(pid, monotonic() + _GRACE)


def _processes() -> dict[int, str]:
    """Our children, zombies too, and every process that was started by them or from them."""
    if not _PROC.is_dir():
        return {}
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    found = {}
    for name in os.listdir(_PROC):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            # A zombie's environment cannot be read, and children may have been given another.
            if _is_child(int(name)) or mark in (_PROC / name / "environ").read_bytes().split(b"\0"):
                command = (_PROC / name / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(name)] = command or "(a zombie: ended, but nobody waited for it)"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def _is_child(pid: int) -> bool:
    """Also of a zombie, which has no environment any more."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[1]) == os.getpid()


def _outlives(pid: int, deadline: float) -> bool:
    """Is this process, which is not ours to wait for, still there at the deadline?"""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([fd], [], [], max(0.0, deadline - monotonic()))[0]
    finally:
        os.close(fd)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail_instead(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail_instead(collector.config, report)
    return report


def _fail_instead(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if config.getoption("--no-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"with --no-skips this is a failure: {reason}"
