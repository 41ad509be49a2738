"""How an instance is, as `verdict` wants to know it: `look_locally` by its sockets, `look_over_http`.

Whoever does not answer is told apart: a queue is a finding of its own, the manager or the web server an
`UnreachableError`, because then nobody knows anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

from rqcore.client import ManagerClient, QueueClient
from rqcore.errors import RefusedError, RqError, UnreachableError
from rqcore.instance import Instance

_STATES = ("prep", "que", "run", "done", "relayed", "err")
#: No socket is given more of the time that is left: a queue that hangs leaves some to the others.
_SHARE = 0.4
_LEAST = 0.1
_MAX_ANSWER = 64 << 20
_MAX_SECRET = 10_000
_MAX_COUNT = 1 << 63
#: What an HTTP status may mean here.
_HINTS = {
    401: "; name a file with a token or user:password: --auth-file",
    403: "; who asks may not read: give the token the scope read, or see allowed_ips",
    404: "; is it RQ that listens there, and is its root in --url?",
}


@dataclass(frozen=True, slots=True)
class Cron:
    """A line of a queue's schedule; ``late`` and ``age`` are seconds."""

    cron: str
    late: float
    age: float


@dataclass(frozen=True, slots=True)
class Queue:
    """How a queue is; what nobody tells is None.  ``why``: in words, why its status is not UP."""

    name: str
    status: str
    why: str
    counts: Mapping[str, int] | None = None
    corrupt: int | None = None
    overdue: float | None = None
    crons: tuple[Cron, ...] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """An instance: where, its queues, and ``services`` that do not run, each with the reason."""

    place: str
    queues: tuple[Queue, ...]
    services: Mapping[str, str] = field(default_factory=dict)


# --- by the sockets


def look_locally(instance: Instance, patience: float) -> Facts:
    """Ask the manager, and each queue, within ``patience`` seconds.

    Raises `UnreachableError` when RQ does not run, or its manager does not answer in time.
    """
    end = monotonic() + patience
    with ManagerClient(instance.directory, timeout=_time_left(end)) as manager:
        try:
            children = manager.ask("describe")["children"]
        except TimeoutError:
            raise UnreachableError(f"the manager in {instance.directory} does not answer") from None
    queues = {child["name"]: child for child in children if child["kind"] == "queue"}
    names = sorted({*queues, *instance.queue_names()})
    services = {
        child["name"]: f"{child['state']}{_after(child['problem'])}"
        for child in children
        if child["kind"] != "queue" and child["state"] not in ("running", "starting")
    }
    found = tuple(_local_queue(instance, name, queues.get(name), end) for name in names)
    return Facts(str(instance.directory), found, services)


def _local_queue(
    instance: Instance, name: str, child: Mapping[str, Any] | None, end: float
) -> Queue:
    left = _time_left(end)
    with QueueClient(instance.directory, name, timeout=left) as client:
        try:
            about = client.ask("describe")
            crons = tuple(_crons(instance, name, client)) if about["status"] == "UP" else ()
        except TimeoutError:
            return Queue(name, "hung", f"it does not answer within {left:.1f} s")
        except (UnreachableError, RefusedError) as error:
            return _silent(name, child, error)
    due = about["earliest_due"]
    return Queue(
        name, about["status"], about["problem"] or instance.admin_reason(name), about["counts"],
        about["corrupt"], 0.0 if due is None else max(0.0, time() - due), crons,
    )  # fmt: skip


def _silent(name: str, child: Mapping[str, Any] | None, error: RqError) -> Queue:
    if child is None:
        return Queue(name, "not started", "rq reload starts it")
    return Queue(name, str(child["state"]), str(child["problem"] or error))


def _crons(instance: Instance, name: str, client: QueueClient) -> Iterator[Cron]:
    schedule = client.ask("config").get("schedule") or ()
    if not schedule:
        return
    from rqcore.cron import CronLine  # noqa: PLC0415 - a parser that few need

    try:
        with open(instance.queue_dir(name) / "cron.json", "rb") as file:
            last = json.loads(file.read())["last"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # not written yet, or damaged: the queue says so in its log, and begins anew
    now = time()
    for key, line in _lines(schedule):
        if isinstance(last.get(key), int | float):
            try:
                following = CronLine(line["cron"], line["tz"]).next_after(last[key])
            except RefusedError:
                continue  # skipped by the queue, too
            yield Cron(line["cron"], max(0.0, now - following), max(0.0, now - last[key]))


def _lines(schedule: list[dict[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line with the key under which `rqcore.timetable` remembers it."""
    keys: set[str] = set()
    for line in schedule:
        params = [line[f"param{n}"] for n in (1, 2, 3, 4)]
        key = json.dumps([line["cron"], line["tz"], *params])
        while key in keys:
            key += "+"
        keys.add(key)
        yield key, line


def _after(problem: str) -> str:
    return f": {problem}" if problem else ""


def _time_left(end: float) -> float:
    return max(_LEAST, (end - monotonic()) * _SHARE)


# --- over HTTP


@dataclass(frozen=True, slots=True)
class Site:
    """A site of RQ's: its URL, which ends with a slash, and what it wants to see, ``"Basic …"``."""

    url: str
    authorization: str = ""


def site_url(server: str, port: int) -> str:
    """The URL of the site on this host and port."""
    return f"http://{f'[{server}]' if ':' in server else server}:{port}/"


def read_authorization(path: str) -> str:
    """What a file with a token, or with ``user:password``, lets one say.  Raises `RqError`."""
    import base64  # noqa: PLC0415 - few need it

    try:
        with open(path, encoding="utf-8") as file:
            secret = file.readline(_MAX_SECRET).strip()
    except (OSError, UnicodeError) as error:
        raise RqError(f"--auth-file {path} cannot be read: {error}") from None
    if not secret:
        raise RqError(f"--auth-file {path} is empty; write a token into it, or user:password")
    if ":" in secret:
        return f"Basic {base64.b64encode(secret.encode()).decode('ascii')}"
    return f"Bearer {secret}"


def look_over_http(site: Site, patience: float) -> Facts:
    """Ask a web server of RQ's, Ruby's too, within ``patience`` seconds.

    ``q.json`` says all that the contract asks for; how old messages are is known only to the API of
    rqcore, which is asked if it is there.  Raises `UnreachableError`.
    """
    end = monotonic() + patience
    status, answer = _get(site, "q.json", end)
    if status != 200:  # noqa: PLR2004 - as HTTP has it
        raise UnreachableError(
            f"{site.url}q.json is answered with {status}{_HINTS.get(status, '')}"
        )
    with _as_rq_does(site):
        listed = [dict(queue) for queue in answer["queues"]]
    there, told = _get(site, "api/v1/queues", end)
    more = {}
    with _as_rq_does(site):
        if there == 200:  # noqa: PLR2004
            more = {item["name"]: item for item in told["items"]}
        return Facts(
            site.url, tuple(_queue_there(queue, more.get(queue["name"])) for queue in listed)
        )


@contextmanager
def _as_rq_does(site: Site) -> Iterator[None]:
    """What is not where RQ has it makes an `UnreachableError`: somebody else answers."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise UnreachableError(f"{site.url} does not answer as RQ does") from None


def _queue_there(listed: Mapping[str, Any], more: Mapping[str, Any] | None) -> Queue:
    """A queue, of its entry in ``q.json`` and of what the API says of it, if there is one."""
    name, status = str(listed["name"]), str(listed["status"])
    told = listed["counts"]
    counts = {state: _count(told[state]) for state in _STATES if state in told}
    if more is None:
        return Queue(name, status, "", counts or None)
    due = more["earliest_due"]
    overdue = 0.0 if due is None else max(0.0, time() - due)
    if not math.isfinite(overdue + (due or 0)):
        raise ValueError(due)
    return Queue(
        name, status, str(more["problem"] or ""), counts or None,
        overdue=overdue if more["alive"] else None,
    )  # fmt: skip


def _count(told: Any) -> int:
    count = int(told)
    if not 0 <= count < _MAX_COUNT:
        raise ValueError(told)
    return count


def _get(site: Site, path: str, end: float) -> tuple[int, Any]:
    """The status and the JSON of a page; None where it is none.  Raises `UnreachableError`."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection  # noqa: PLC0415 - slow

    parts = urlsplit(site.url)
    left = max(_LEAST, end - monotonic())
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    headers = {"Accept": "application/json", "User-Agent": "check_rq"}
    if site.authorization:
        headers["Authorization"] = site.authorization
    connection = kind(parts.hostname or "", parts.port, timeout=left)
    try:
        connection.request("GET", f"{parts.path}{path}", headers=headers)
        answer = connection.getresponse()
        body = answer.read(_MAX_ANSWER)
    except TimeoutError:
        raise UnreachableError(f"{site.url} does not answer in time") from None
    except (OSError, HTTPException, ValueError) as error:  # a name that can be none is a ValueError
        # Not by the number: TLS and the resolver have numbers of their own.
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreachableError(
            f"{site.url} cannot be reached: {reason or type(error).__name__}"
        ) from None
    finally:
        connection.close()
    try:
        return answer.status, json.loads(body)
    except (ValueError, RecursionError):
        return answer.status, None
