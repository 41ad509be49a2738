"""The log: what every process writes to stderr, as text or as JSON, and the file that it may be.

    start()             once, in the process that all others are forked from
    use_format(name)    "text" or "json", as the main config says; ``RQ_LOG_FORMAT`` says it louder
    process_is(title)   whose lines follow, in each child
    reopen()            begin anew in the file of the same name, whatever became of the old one

Under systemd (``JOURNAL_STREAM`` says so, and is believed only if it is this very stderr) each line
begins with its priority, and what the journal notes by itself is left out.

Log rotation: whoever renames the file then sends SIGUSR1 to the manager, which opens it anew and has
every queue and service do the same.  Each goes on writing to the renamed file until then, so nothing is
lost.  A process that cannot open it (`reopen` then raises `OSError`) keeps the one it has.  Where stderr
is no file (a terminal, a pipe, the journal) there is nothing to reopen.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from types import FrameType

from rqcore import durable, unix
from rqcore.config import LOG_FORMATS as FORMATS
from rqcore.errors import StartError
from rqcore.message import is_msg_id, parse_full_id

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_STDOUT, _STDERR = 1, 2
#: As syslog counts them: debug, info, warning, err, crit.
_PRIORITIES = {10: 7, 20: 6, 30: 4, 40: 3, 50: 2}

_log = logging.getLogger(__name__)
_handler = logging.StreamHandler()
_process = "rq-mgr"
#: The absolute path of the file that stderr is; "" where it is none.
_file = ""


def start() -> None:
    """Begin to log to stderr, at ``RQ_LOG_LEVEL``.  Raises `StartError` for what is none."""
    global _file  # noqa: PLW0603 - a property of the process, like its stderr
    level = os.environ.get("RQ_LOG_LEVEL") or "INFO"
    if level not in _LEVELS:
        raise StartError(f"RQ_LOG_LEVEL is {level!r}; it may be {', '.join(_LEVELS)}")
    _handler.setStream(sys.stderr)
    logging.basicConfig(handlers=[_handler], level=level)
    use_format("text")
    _file = unix.path_of(_STDERR)
    reopen_on_signal()  # also while it is still starting


def use_format(name: str) -> None:
    """Write lines of this form from now on.  Raises `StartError` for a wrong ``RQ_LOG_FORMAT``."""
    wanted = os.environ.get("RQ_LOG_FORMAT") or name
    if wanted not in FORMATS:
        raise StartError(f"RQ_LOG_FORMAT is {wanted!r}; it may be {' or '.join(FORMATS)}")
    formatter: logging.Formatter = _Json() if wanted == "json" else _Text()
    if _is_journal():
        formatter = _Journal(formatter if wanted == "json" else logging.Formatter(_BARE))
    _handler.setFormatter(formatter)


def process_is(title: str) -> None:
    """This process is the one of that title (``rq-que NAME``) from now on."""
    global _process  # noqa: PLW0603 - as above
    _process = title


def reopen() -> None:
    """Go on in the file that has the log's name now, made if there is none.  Raises `OSError`."""
    if not _file:
        return
    old = os.fstat(_STDERR)
    fd = durable.append_log(_file, mode=old.st_mode & 0o777)
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number in (_STDOUT, _STDERR):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(number), old):
                    os.dup2(fd, number)
    finally:
        os.close(fd)


def reopen_on_signal() -> None:
    """Reopen whenever SIGUSR1 comes, whatever this process is doing."""
    signal.signal(signal.SIGUSR1, _on_signal)
    signal.siginterrupt(signal.SIGUSR1, False)


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    try:
        reopen()
    except OSError as error:
        _log.error("%s cannot be opened anew; the old file is written to: %s", _file, error)


def _is_journal() -> bool:
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        ours = os.fstat(_STDERR)
    except OSError:
        return False
    return (device, inode) == (str(ours.st_dev), str(ours.st_ino))


_BARE = "%(name)s: %(message)s"


class _Text(logging.Formatter):
    """A line for people: time (UTC), process, level, who says it, what."""

    def __init__(self) -> None:
        form = "%(asctime)sZ %(process)d %(levelname)s %(name)s: %(message)s"
        super().__init__(form, "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime


class _Json(logging.Formatter):
    """One JSON object a line; docs/service.md has its keys."""

    def format(self, record: logging.LogRecord) -> str:
        milliseconds = int(record.msecs)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{milliseconds:03d}Z", "level": record.levelname.lower(),
            "process": _process, "pid": record.process, "logger": record.name,
            "message": record.getMessage(),
        }  # fmt: skip
        role, _, name = _process.partition(" ")
        if role == "rq-que":
            line["queue"] = name
        msg_id = _msg_id(record.args)
        if msg_id:
            line["msg_id"] = msg_id
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line)


class _Journal(logging.Formatter):
    """What another formatter makes, each line with its priority before it."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        lines = self._inner.format(record).splitlines() or [""]
        return "\n".join(mark + line for line in lines)


def _msg_id(args: object) -> str:
    """The message that a record is about: the first id among what it was given, full ones too."""
    for arg in args if isinstance(args, tuple) else ():
        if isinstance(arg, str):
            if is_msg_id(arg):
                return arg
            address = parse_full_id(arg) if "/" in arg else None
            if address is not None:
                return address.msg_id
    return ""
