"""What a queue did over a time, in numbers: the site's own memory of it (`rqcore_web.history`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqcore_web.api import operations, schemas
from rqcore_web.api.operations import Operation, one, query
from rqcore_web.history import as_json

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore_web.api.call import Call

_DAY = 86_400


async def of_queue(call: Call) -> Response:
    """The latest span of a queue's history."""
    call.site.spool.queue(call.queue)
    points = call.site.history.series(call.queue, call.query["span"], call.query["points"])
    return call.answer({"seconds": points[0].seconds, "points": as_json(points)})


OPERATIONS = (
    Operation(
        "showHistory", "GET", f"{operations.QUEUE}/history", "queues",
        "Show what a queue did over a time", "read",
        {200: one("History", "oldest first; the last point is not over yet")}, of_queue,
        "Points are all equally long, a round number of minutes, hours or days. Where `covered` is 0, "
        "nobody watched: the numbers are then null, which is not the same as 0.",
        parameters=(
            query("span", schemas.whole("the latest so many seconds", least=60, maximum=400 * _DAY,
                                        default=_DAY)),
            query("points", schemas.whole("at most so many", least=1, maximum=1000, default=100)),
        ),
    ),
)  # fmt: skip
