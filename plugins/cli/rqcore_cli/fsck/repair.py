"""``rq fsck --repair``: what is wrong is moved aside or to where it belongs; nothing is ever removed.

What is moved aside goes into ``lost+found/`` of the queue's directory, beside a file NAME.reason that
says what it was, where it lay and when.  One rename each, durable before anything is said.  What is gone
when its turn comes (its queue went on with it) is left alone.  A queue that does not run is kept from
starting meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import time

from rqcore import durable, words
from rqcore_cli.fsck.finding import Finding
from rqcore_cli.fsck.spool import LOST


@contextmanager
def kept_from_starting(path: str) -> Iterator[bool]:
    """Keep a queue that does not run from starting; False when it just starts, or runs after all."""
    lock = durable.lock_file(f"{path}/queue.pid", f"{os.getpid()}\n".encode())
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def repair(path: str, finding: Finding) -> Finding:
    """Do what the finding says, in the queue's directory; returns it with what was done.

    Raises `OSError`: then it lies where it lay.
    """
    if finding.action == "file":
        return _file(path, finding)
    if finding.action == "aside":
        return _aside(path, finding)
    return finding


def _file(path: str, finding: Finding) -> Finding:
    _make_below(os.path.dirname(finding.target), path)
    if os.path.lexists(finding.target):
        return replace(finding, done="left alone: another came to the place where it belongs")
    try:
        durable.move_dir(finding.path, finding.target)
    except FileNotFoundError:
        return replace(finding, done="it is gone")
    below = finding.target.removeprefix(f"{path}/")
    return replace(finding, done=f"moved to where it belongs, {below}")


def _aside(path: str, finding: Finding) -> Finding:
    lost = f"{path}/{LOST}"
    if not durable.exists(lost):
        durable.make_dir(lost)
    below = finding.path.removeprefix(f"{path}/")
    name = (
        f"{finding.msg_id}.pid" if finding.kind == "stale-pid" else os.path.basename(finding.path)
    )
    target = _free(lost, name.lstrip(".") or "nameless")
    # The reason first: nothing lies there unexplained, whatever is killed when.
    reason = f"{finding.kind}: {finding.text}\nfrom: {below}\nat: {words.moment(time())}\n"
    durable.write_file(f"{target}.reason", reason.encode("utf-8", "surrogateescape"))
    try:
        durable.move_dir(finding.path, target)
    except OSError as error:
        durable.remove_file(f"{target}.reason")
        if isinstance(error, FileNotFoundError):
            return replace(finding, done="it is gone")
        raise
    return replace(finding, done=f"moved to {LOST}/{os.path.basename(target)}")


def _free(folder: str, name: str) -> str:
    target, number = f"{folder}/{name}", 1
    while durable.exists(target) or durable.exists(f"{target}.reason"):
        number += 1
        target = f"{folder}/{name}.{number}"
    return target


def _make_below(folder: str, root: str) -> None:
    if folder != root and not durable.exists(folder):
        _make_below(os.path.dirname(folder), root)
        durable.make_dir(folder)
