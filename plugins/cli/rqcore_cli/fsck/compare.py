"""What a running queue says of itself, compared with what lies on the disk.

Both change while they are compared.  So a number counts as wrong only when the queue told the same
before and after the disk was counted, and was off by the same amount three times in a row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from time import sleep
from typing import Any

from rqcore.lifecycle import State
from rqcore.message import is_msg_id
from rqcore.stores.ids import HashedIds
from rqcore_cli.fsck.finding import Finding
from rqcore_cli.fsck.spool import HASHED

_TRIES = 6
_IN_A_ROW = 3
_PAUSE = 0.05
_PAGE = 1000
_LISTED = (State.PREP, State.QUE, State.ERR)

#: Asks the queue a command, with its arguments; gives the answer as it comes.
Ask = Callable[[str, Mapping[str, Any] | None], Any]


def compare(queue: str, path: str, ask: Ask) -> Iterator[Finding]:
    """What the running queue gets wrong.  Raises what ``ask`` raises."""
    for state in State:
        told, there = _settled(path, state, ask)
        if told is None:
            yield Finding(
                "busy", f"{path}/{state}", "changes too quickly to be compared", queue, str(state)
            )
        elif told != there:
            missing = list(_unknown(path, state, ask)) if state in _LISTED and told < there else []
            yield from (_of_unknown(queue, path, state, name) for name in missing)
            if len(missing) != there - told:
                yield Finding(
                    "count", f"{path}/{state}", f"the queue tells {told}, there are {there}", queue,
                    str(state), remedy=f"it counts anew after: rq queue restart {queue}",
                )  # fmt: skip


def _of_unknown(queue: str, path: str, state: State, msg_id: str) -> Finding:
    if state is State.ERR:
        remedy = f"the queue takes it up after: rq queue restart {queue}"
    else:
        remedy = f"move it out and in again (mv), or: rq queue restart {queue}"
    return Finding(
        "unknown", f"{path}/{state}/{msg_id}", "the queue does not know it, so it never runs"
        if state is State.QUE else "the queue does not know it", queue, str(state), msg_id, remedy,
    )  # fmt: skip


def _settled(path: str, state: State, ask: Ask) -> tuple[int | None, int]:
    """What the queue tells and what there is, when both can be believed; None when they cannot."""
    gaps: list[int] = []
    there = 0
    for number in range(_TRIES):
        if number:
            sleep(_PAUSE * number)  # a queue in the midst of a step has ended it by then
        before = ask("num_messages", None)[state]
        there = count(path, state)
        after = ask("num_messages", None)[state]
        if min(before, after) <= there <= max(before, after):
            return there, there
        gaps = [*gaps, there - after] if before == after else []
        if len(gaps) >= _IN_A_ROW and len(set(gaps[-_IN_A_ROW:])) == 1:
            return after, there
    return None, there


def count(path: str, state: State) -> int:
    """The messages in a state, by their names alone, as the queue counts them when it starts."""
    if state in HASHED:
        return HashedIds(f"{path}/{state}").count(trust_links=False)
    try:
        return sum(map(is_msg_id, os.listdir(f"{path}/{state}")))
    except FileNotFoundError:
        return 0


def _unknown(path: str, state: State, ask: Ask) -> Iterator[str]:
    """The ids on the disk that the queue does not list."""
    there = {name for name in os.listdir(f"{path}/{state}") if is_msg_id(name)}
    before: str | None = ""
    while before is not None:
        args = {"state": str(state), "limit": _PAGE, "before": before}
        page = ask("list_messages", args)[1]
        there -= {item["msg_id"] for item in page["items"]}
        before = page["next"]
    yield from sorted(name for name in there if os.path.isdir(f"{path}/{state}/{name}"))
