"""What is planned: the schedules of queues in words, with their next runs (`rqcore_web.schedules`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rqcore.config import ConfigError
from rqcore_web import schedules
from rqcore_web.api import operations, schemas
from rqcore_web.api.operations import Operation, one, query
from rqcore_web.problems import ProblemError

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore_web.api.call import Call


async def of_queue(call: Call) -> Response:
    """The schedule of a queue."""
    call.site.spool.queue(call.queue)
    try:
        found = await asyncio.to_thread(_entries, call, call.queue)
    except ConfigError as error:
        raise ProblemError("conflict", f"the config cannot be read: {error}") from error
    return call.answer({"items": found[0], "problems": found[1]})


async def of_all(call: Call) -> Response:
    """The schedules of all queues, what comes next first."""
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in filter(call.sees, call.site.spool.names()):
        try:
            found, wrong = await asyncio.to_thread(_entries, call, name)
        except ConfigError as error:
            found, wrong = [], [str(error)]
        entries += found
        problems += wrong
    entries.sort(key=lambda entry: min(entry["next_runs"], default=float("inf")))
    return call.answer({"items": entries, "problems": problems})


def _entries(call: Call, name: str) -> tuple[list[dict[str, Any]], list[str]]:
    config, _ = call.site.instance.load_queue(name)
    views = schedules.describe(config, call.query["runs"])
    entries = [
        {
            "queue": name, "cron": view.cron, "words": view.words, "tz": view.tz,
            "zone": view.zone, "next_runs": list(view.next_runs), "catchup": view.catchup,
            "missed": view.missed,
            **{f"param{number}": value for number, value in enumerate(view.params, 1)},
        }
        for view in views
    ]  # fmt: skip
    return entries, schedules.problems(config)


_RUNS = query("runs", schemas.whole("how many of the next runs", maximum=100, default=5))
OPERATIONS = (
    Operation(
        "showSchedule", "GET", f"{operations.QUEUE}/schedule", "queues",
        "Show a queue's schedule", "read",
        {200: one("ScheduleList", "in words, in the order of the config")}, of_queue,
        parameters=(_RUNS,), problems=(409,),
    ),
    Operation(
        "showSchedules", "GET", f"{operations.ROOT}/schedule", "instance",
        "Show what is planned", "read",
        {200: one("ScheduleList", "of all queues, what comes next first")}, of_all, parameters=(_RUNS,),
    ),
)  # fmt: skip
