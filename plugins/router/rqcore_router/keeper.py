"""What follows from the state of the rules: the last good ones are kept, and the queue is DOWN or not.

`settle` may be called by any process, at any time, and more than one at once:

- good rules are copied to ``var/router/``, durably, before anybody falls back on them;
- bad ones, with none to fall back on, take the queue rq_router DOWN: the file ``config/rq_router.down``
  holds the reason;
- that file is removed when there are rules again, or none are wanted, if it is ours: one that an
  operator has put there begins otherwise, and stays.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from rqcore import durable
from rqcore_router.files import MOST, Reader, Standing, last_good
from rqcore_router.hosts import ROUTER

_log = logging.getLogger(__name__)
#: So begins our own reason for DOWN.
MARK = "rqcore-router: "


def settle(directory: str | os.PathLike[str]) -> Standing:
    """Bring about what the rules file asks for, and say how the rules stand.  Raises `OSError`."""
    where = os.fspath(directory)
    with _alone(where):
        standing = Reader(where).look()
        if standing.data:
            _keep(where, standing)
        down = f"{where}/config/{ROUTER}.down"
        if standing.problems and standing.rules is None:
            _take_down(down, standing)
        else:
            _bring_up(down)
    return standing


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    for folder in (f"{directory}/var", f"{directory}/var/router"):
        with contextlib.suppress(FileExistsError):
            durable.make_dir(folder)
    with durable.alone(f"{directory}/var/router/lock"):
        yield


def _keep(directory: str, standing: Standing) -> None:
    path = f"{directory}/var/router/{os.path.basename(standing.file)}"
    others = [other for other in last_good(directory) if other != path]
    if _content(path) != standing.data:
        durable.write_file(path, standing.data)
    for other in others:
        durable.remove_file(other)


def _take_down(down: str, standing: Standing) -> None:
    known = _content(down)
    text = f"{MARK}{standing.reason}\n".encode("utf-8", "surrogateescape")
    if known is None or (known != text and known.startswith(MARK.encode())):
        durable.write_file(down, text)
        _log.error("queue %s is taken DOWN, it refuses messages: %s", ROUTER, standing.reason)


def _bring_up(down: str) -> None:
    known = _content(down)
    if known is not None and known.startswith(MARK.encode()):
        durable.remove_file(down)
        _log.warning("queue %s is not DOWN any more", ROUTER)


def _content(path: str) -> bytes | None:
    """None when there is no file; an unreadable one holds nothing of ours."""
    try:
        return durable.read_file(path, MOST)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s cannot be read: %s", path, error)
        return b""
