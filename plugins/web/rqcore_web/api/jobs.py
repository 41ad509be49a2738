"""One thing done to many messages, and the jobs that do it (`rqcore_web.bulk`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rqcore.errors import NotFoundError, RefusedError
from rqcore_web import bulk, filters
from rqcore_web.api import operations, schemas, waiting
from rqcore_web.api.operations import IDEMPOTENCY_KEY, IF_NONE_MATCH, Answer, Body, Operation, one
from rqcore_web.problems import invalid

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore_web.api.call import Call


async def start(call: Call) -> Response:
    """Begin a job, or say what it would be about."""
    action, asked = call.body["action"], call.body
    if ("ids" in asked) == ("filter" in asked):
        raise invalid([("filter", "say which messages: either by filter or by ids")])
    try:
        wanted = filters.parse(asked["filter"]) if "filter" in asked else None
    except RefusedError as error:
        raise invalid([("filter", str(error))]) from error
    targets = bulk.Targets(call.queue, tuple(asked.get("ids", ())), wanted)
    if asked.get("dry_run"):
        preview = await bulk.preview(call.site, action, targets)
        return call.answer({
            "action": action, "queue": call.queue, "total": preview.total,
            "exact": preview.exact, "first": list(preview.first),
        })  # fmt: skip
    job = _view(call, bulk.start(call.site, call.request, action, targets))
    return call.answer(job, 202, {"Location": job["url"]})


async def list_jobs(call: Call) -> Response:
    """The jobs that are known, newest first."""
    jobs = [job for job in call.site.jobs.all() if call.sees(job.targets.queue)]
    return call.answer({"items": [_view(call, job) for job in jobs]})


async def show(call: Call) -> Response:
    """A job, with what came of the latest messages; at once or when it is over."""
    job = _job(call)

    async def look() -> dict[str, Any]:
        return {**_view(call, job), "outcomes": list(job.outcomes)}

    return await waiting.answer(
        call, look, lambda event: event.type == "job" and event.data["id"] == job.id,
        lambda found: found["ended_at"] is not None,
    )  # fmt: skip


async def cancel(call: Call) -> Response:
    """Let a job do no more."""
    job = _job(call)
    call.need("operate", job.targets.queue)
    call.site.jobs.cancel(job.id)
    call.note(f"cancel bulk {job.action}", job.targets.queue, job.id)
    return call.answer(_view(call, job), 202)


def _job(call: Call) -> bulk.Job:
    name = call.request.path_params["job"]
    job = call.site.jobs.get(name)
    if not call.sees(job.targets.queue):
        raise NotFoundError(f"no such job: {name}")
    return job


def _view(call: Call, job: bulk.Job) -> dict[str, Any]:
    return {**job.view(), "url": call.url(f"jobs/{job.id}")}


_JOB = f"{operations.ROOT}/jobs/{{job}}"
OPERATIONS = (
    Operation(
        "startBulk", "POST", f"{operations.QUEUE}/messages:bulk", "bulk",
        "Run, clone, retry, delete or kill many messages", "operate",
        {202: one("Job", "the job that does it", Location="the job, to be watched"),
         200: one("BulkPreview", "dry_run: what it would be about")},
        start,
        "From the newest to the oldest. The job is told in the events too (`job`). It ends with the web "
        "service; what it did until then stays done.",
        (IDEMPOTENCY_KEY,), Body(schemas.ref("BulkRequest")), key="noted",
    ),
    Operation(
        "listJobs", "GET", f"{operations.ROOT}/jobs", "bulk", "List the jobs", "read",
        {200: one("JobList", "those under way, and the latest that ended")}, list_jobs,
    ),
    Operation(
        "showJob", "GET", _JOB, "bulk", "Show a job", "read",
        {200: one("Job", "the job, with what came of the latest messages",
                  ETag="what If-None-Match takes",
                  Preference_Applied="how long was waited at most"),
         304: Answer("it is as you know it")},
        show, parameters=(waiting.prefer("the job is over"), IF_NONE_MATCH), problems=(404,),
    ),
    Operation(
        "cancelJob", "DELETE", _JOB, "bulk", "Cancel a job", "operate",
        {202: one("Job", "it asks for nothing more; what it did stays done")}, cancel, problems=(404,),
    ),
)  # fmt: skip
