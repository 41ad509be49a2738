"""``Prefer: wait=N``: an answer that waits until something has come so far, or the time is up.

Whatever the hub hears that may concern it is reason to look again, and nothing else is: nobody polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from rqcore_web.api.call import MAX_WAIT
from rqcore_web.api.operations import Parameter, header

if TYPE_CHECKING:
    from starlette.responses import Response

    from rqcore_web.api.call import Call
    from rqcore_web.events import Wanted


async def answer(
    call: Call, look: Callable[[], Awaitable[dict[str, Any]]], concerns: Wanted,
    over: Callable[[dict[str, Any]], bool],
) -> Response:  # fmt: skip
    """What ``look`` finds when it is ``over``, or when the asker waits no longer."""
    if not call.wait:
        return call.cached(await look())
    # It listens from here on: nothing that happens between two looks is missed.
    events = call.site.hub.listen(concerns)
    deadline = asyncio.get_running_loop().time() + call.wait
    try:
        found = await look()
        while not over(found):
            try:
                async with asyncio.timeout_at(deadline):
                    await anext(events)
            except (TimeoutError, StopAsyncIteration):  # the time is up, or the service stops
                break
            found = await look()
    finally:
        await events.aclose()
    response = call.cached(found)
    response.headers["Preference-Applied"] = f"wait={call.wait}"
    return response


def prefer(what: str) -> Parameter:
    """The header, for an operation that waits."""
    return header("Prefer", f"`wait=N`: answer when {what}, or after N seconds, {MAX_WAIT} at most")
