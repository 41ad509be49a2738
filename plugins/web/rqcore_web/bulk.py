"""Doing one thing to many messages of a queue, as a job that can be watched and stopped.

`preview` says what it would be about, `start` begins it.  A job is a task of the web service: it goes
from the newest message to the oldest, some at a time, asks the queue for each, and notes what came of
it.  What it did is durable message by message, as if somebody had done it by hand; the job itself is
not: when the service ends, so does the job, where it is.  It is then not known any more, and whoever
asks for it is told so.  Starting it again is safe: what was done does not fit any more, or is refused.

Every job is noted in the audit log when it starts and when it ends, and told to the hub as it goes on
(``job`` events with `Job.view`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from rqcore.errors import NotFoundError, RefusedError, RqError, UnreachableError
from rqcore_web.access import need, who
from rqcore_web.asking import DownError
from rqcore_web.filters import Filter, page
from rqcore_web.spool import STATES

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from rqcore_web.site import Site

_log = logging.getLogger(__name__)

#: How many messages may be named one by one.
MOST_IDS = 10_000
_AT_ONCE = 16
_JOBS_AT_ONCE = 2
_MOST_WAITING = 50
_KEPT_JOBS = 100
_KEPT_OUTCOMES = 1000
_PAGE = 200
_FIRST = 10
#: A preview counts no further, in messages that fit, and in seconds.
_COUNTED, _COUNTING = 100_000, 2.0
_TELL_EVERY = 0.2
_GRACE = 2.0
_SERVICE_ENDED = "the web service ended"


@dataclass(frozen=True, slots=True)
class Action:
    """What is done: the queue's command, the states that it is for, and the scope it needs."""

    command: str
    states: tuple[str, ...]
    scope: str = "operate"


#: What can be done to many messages.
ACTIONS = {
    "run": Action("run_message", ("que",)),
    "clone": Action("clone_message", ("done", "relayed", "err")),
    "retry": Action("retry_message", ("err",)),
    "delete": Action("delete_message", ("prep", "que", "done", "relayed", "err")),
    "kill": Action("destroy_message", ("run",)),
}


@dataclass(frozen=True, slots=True)
class Targets:
    """Which messages of a queue: those named by ``ids``, else those that the filter means."""

    queue: str
    ids: tuple[str, ...] = ()
    filter: Filter | None = None

    def __post_init__(self) -> None:
        if bool(self.ids) == (self.filter is not None):
            raise RefusedError("say which messages: either by ids or by a filter")
        if len(self.ids) > MOST_IDS:
            raise RefusedError(f"at most {MOST_IDS} messages can be named at once; use a filter")
        object.__setattr__(self, "ids", tuple(dict.fromkeys(self.ids)))

    def __str__(self) -> str:
        """In words, for the audit log."""
        if self.filter is None:
            return f"{len(self.ids)} messages by id"
        return f"filter {self.filter}" if str(self.filter) else "all messages"

    def states(self, action: Action) -> tuple[str, ...]:
        """Where the messages lie that the filter means and the action is for."""
        wanted = STATES if self.filter is None else self.filter.states or STATES
        return tuple(state for state in wanted if state in action.states)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job would be about; ``exact`` is False when there were too many to count to the end."""

    total: int
    exact: bool
    first: tuple[str, ...]


@dataclass(slots=True)
class Job:
    """One job; ``state`` is waiting, running, done, cancelled or failed.

    ``total`` is None where it was not counted to the end; ``unknown`` counts messages of which the
    queue did not say what became of the request.  ``outcomes`` has the latest, oldest first:
    ``{"msg_id", "ok", "detail"}``.
    """

    id: str
    action: str
    targets: Targets
    who: str
    state: str = "waiting"
    total: int | None = None
    done: int = 0
    failed: int = 0
    unknown: int = 0
    problem: str = ""
    created_at: float = field(default_factory=time)
    started_at: float | None = None
    ended_at: float | None = None
    outcomes: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_OUTCOMES))
    stopping: bool = False
    told_at: float = 0.0

    def view(self) -> dict[str, Any]:
        """The job as JSON knows it, without its outcomes."""
        return {
            "id": self.id, "action": self.action, "queue": self.targets.queue,
            "filter": None if self.targets.filter is None else str(self.targets.filter),
            "who": self.who, "state": self.state, "total": self.total, "done": self.done,
            "failed": self.failed, "unknown": self.unknown, "problem": self.problem,
            "created_at": self.created_at, "started_at": self.started_at,
            "ended_at": self.ended_at,
        }  # fmt: skip

    @property
    def ended(self) -> bool:
        """Is it over?"""
        return self.ended_at is not None

    def note(self, msg_id: str, detail: str, *, ok: bool) -> None:
        """What came of one message."""
        self.outcomes.append({"msg_id": msg_id, "ok": ok, "detail": detail})
        if ok:
            self.done += 1
        else:
            self.failed += 1


class Jobs:
    """The jobs of the site: those that go on, and the latest that ended."""

    def __init__(self) -> None:
        self._epoch = f"{int(time() * 1000):x}"
        self._number = 0
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(_JOBS_AT_ONCE)

    def all(self) -> list[Job]:
        """All that are known, newest first."""
        return list(reversed(self._jobs.values()))

    def get(self, job_id: str) -> Job:
        """The job of this id.  Raises `NotFoundError`."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFoundError(
                f"no such job: {job_id}. Jobs are known until the web service ends, which ends them, "
                f"and the latest {_KEPT_JOBS} of them; what a job did until then stays done, and "
                "log/audit.jsonl names it"
            ) from None

    def cancel(self, job_id: str) -> Job:
        """Let the job do nothing more than what it has asked for.  Raises `NotFoundError`."""
        job = self.get(job_id)
        job.stopping = True
        return job

    async def close(self) -> None:
        """The service ends, and so do the jobs."""
        for job in self._jobs.values():
            if not job.ended:
                job.stopping, job.problem = True, _SERVICE_ENDED
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, site: Site, request: HTTPConnection, action: str, targets: Targets) -> Job:
        """Begin a job; see the function `start`."""
        if sum(not job.ended for job in self._jobs.values()) >= _MOST_WAITING:
            raise RefusedError(
                f"{_MOST_WAITING} jobs are under way or wait; try again when some of them are done"
            )
        self._number += 1
        job = Job(f"{self._epoch}-{self._number}", action, targets, who(request).name)
        self._jobs[job.id] = job
        over = [one for one in self._jobs.values() if one.ended]
        for old in over[: max(0, len(self._jobs) - _KEPT_JOBS)]:
            del self._jobs[old.id]
        task = asyncio.get_running_loop().create_task(self._run(site, request, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _run(self, site: Site, request: HTTPConnection, job: Job) -> None:
        def note(outcome: str) -> None:
            site.audit.note(request, f"bulk {job.action}", job.targets.queue, job.id, outcome)

        note(f"started: {job.targets}")
        _tell(site, job)
        try:
            async with self._places:
                job.state, job.started_at = "running", time()
                complete = await _Work(site, job).run()
            job.state = "done" if complete else "cancelled"
        except RqError as error:
            job.state, job.problem = "failed", str(error)
        except asyncio.CancelledError:
            job.state, job.problem = "failed", _SERVICE_ENDED
            raise
        except Exception as error:  # noqa: BLE001 - nobody awaits the task: the job has to say it
            _log.exception("job %s failed", job.id)
            job.state, job.problem = "failed", f"{type(error).__name__}: {error}"
        finally:
            job.ended_at = time()
            _tell(site, job)
            unknown = f", {job.unknown} unknown" if job.unknown else ""
            why = f": {job.problem}" if job.problem else ""
            note(f"{job.state}: {job.done} done, {job.failed} refused{unknown}{why}")


class _Work:
    """The work of one job."""

    def __init__(self, site: Site, job: Job) -> None:
        self._site = site
        self._job = job
        self._action = ACTIONS[job.action]
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._obstacle: RqError | None = None

    async def run(self) -> bool:
        """Do it; was it done to the end?  Raises what ends the job: a queue is DOWN or silent."""
        job = self._job
        counted = await preview(self._site, job.action, job.targets)
        job.total = counted.total if counted.exact else None
        async for ids in self._pages():
            await self._all(ids)
            if self._obstacle is not None:
                raise self._obstacle
            if job.stopping:
                return False
        job.total = job.done + job.failed + job.unknown
        return True

    async def _pages(self) -> AsyncIterator[list[str]]:
        targets = self._job.targets
        if targets.filter is None:
            for at in range(0, len(targets.ids), _PAGE):
                yield list(targets.ids[at : at + _PAGE])
        else:
            async for ids in _found(self._site, targets, self._action, _PAGE):
                yield ids

    async def _all(self, ids: list[str]) -> None:
        tasks = []
        for msg_id in ids:
            await self._places.acquire()
            if self._job.stopping or self._obstacle is not None:
                self._places.release()
                break
            tasks.append(asyncio.create_task(self._one(msg_id)))
        await asyncio.gather(*tasks)

    async def _one(self, msg_id: str) -> None:
        job = self._job
        args = {"msg_id": msg_id, "even_down": True}
        try:
            answer = await self._site.spool.ask(job.targets.queue, self._action.command, args)
            job.note(msg_id, str(answer), ok=True)
        except DownError as error:
            job.note(msg_id, str(error), ok=False)
            self._obstacle = error
        except UnreachableError as error:
            job.unknown += 1
            self._obstacle = error
        except RqError as error:
            job.note(msg_id, str(error), ok=False)
        except asyncio.CancelledError:
            job.unknown += 1
            raise
        finally:
            self._places.release()
        if monotonic() - job.told_at >= _TELL_EVERY:
            _tell(self._site, job)


def start(site: Site, request: HTTPConnection, action: str, targets: Targets) -> Job:
    """Begin to do it; returns at once.

    Raises `ForbiddenError`, `NotFoundError` for a queue that does not exist, and `RefusedError` when
    the action is none, is for none of the states that are meant, or too many jobs wait.
    """
    need(request, _action(action).scope, targets.queue)
    _check(site, action, targets)
    return site.jobs.start(site, request, action, targets)


async def preview(site: Site, action: str, targets: Targets) -> Preview:
    """What a job would be about, at this moment.  Raises as `start` and `Spool.ask` do."""
    _check(site, action, targets)
    if targets.filter is None:
        return Preview(len(targets.ids), exact=True, first=targets.ids[:_FIRST])
    if not targets.filter.terms:
        counts = await site.spool.ask(targets.queue, "num_messages")
        total = sum(counts[state] for state in targets.states(ACTIONS[action]))
        first: tuple[str, ...] = ()
        async for ids in _found(site, targets, ACTIONS[action], _FIRST):
            first = tuple(ids)
            break
        return Preview(total, exact=True, first=first)
    found: list[str] = []
    deadline = monotonic() + _COUNTING
    total = 0
    async for ids in _found(site, targets, ACTIONS[action], 1000):
        found += ids[: _FIRST - len(found)] if len(found) < _FIRST else []
        total += len(ids)
        if total >= _COUNTED or monotonic() > deadline:
            return Preview(total, exact=False, first=tuple(found))
    return Preview(total, exact=True, first=tuple(found))


def _action(name: str) -> Action:
    try:
        return ACTIONS[name]
    except KeyError:
        raise RefusedError(
            f"{name!r} cannot be done to many messages; what can: {', '.join(ACTIONS)}"
        ) from None


def _check(site: Site, name: str, targets: Targets) -> None:
    action = _action(name)
    if not site.spool.exists(targets.queue):
        raise NotFoundError(f"no such queue: {targets.queue}")
    if not targets.states(action):
        raise RefusedError(
            f"{name} is for messages in {', '.join(action.states)}; the filter means none of these"
        )


async def _found(
    site: Site, targets: Targets, action: Action, size: int
) -> AsyncIterator[list[str]]:
    """The ids that are meant, newest first, some at a time; some may be none."""
    assert targets.filter is not None
    wanted = Filter(targets.states(action), targets.filter.terms)
    before: str | None = ""
    while before is not None:
        items, before = await page(site.spool, targets.queue, "", wanted, size, before)
        yield [item["msg_id"] for item in items]


def _tell(site: Site, job: Job) -> None:
    job.told_at = monotonic()
    site.hub.tell("job", job.targets.queue, job.view())
