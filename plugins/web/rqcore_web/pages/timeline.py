"""A message's life so far, as a list of moments: made, due, each of its runs, where it lies now.

Pure.  It is made of what the message itself says, of its runs (`rqcore_web.runs`), and, while it runs,
of what its queue says of that run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rqcore_web.filters import id_time, status_text
from rqcore_web.words import duration, plural

#: A message is due when it is made; a difference of less is no wish.
_AT_ONCE = 1.5
_WORTH_TELLING = 0.0005
_ENDINGS = {
    "done": "Succeeded",
    "err": "Failed",
    "relayed": "Was relayed",
    "que": "Was sent back, to run again",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened: ``kind`` is a state, for its glyph and colour; ``at`` may be unknown.

    ``said`` is what the script said; ``until`` is given while it goes on.
    """

    kind: str
    what: str
    at: float | None = None
    detail: str = ""
    said: str = ""
    going_on: bool = False


def timeline(
    message: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    running: Mapping[str, Any] | None,
    now: float,
) -> list[Moment]:
    """What happened, oldest first."""
    return list(_moments(message, runs, running, now))


def _moments(
    message: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    running: Mapping[str, Any] | None,
    now: float,
) -> Iterator[Moment]:
    state, due = message["state"], float(message.get("due") or 0)
    made = id_time(message["msg_id"])
    yield Moment("prep", "Made", made, _origin(message))
    free = made or 0.0
    if not runs and due > free + _AT_ONCE and (state not in ("prep", "que") or due <= now):
        yield Moment("que", "Was due", due)
        free = due
    for number, run in enumerate(runs, 1):
        yield from _run(number, run, free)
        free = float(run.get("ended") or run["began"])
    if running is not None:
        began = float(running["started_at"])
        yield Moment(
            "run", f"Run {len(runs) + 1}" if runs else "Runs", began,
            _waited(began - max(free, min(due, began))) + f", pid {running['pid']}", going_on=True,
        )  # fmt: skip
    else:
        yield from _rest(message, runs, due, now)


def _origin(message: Mapping[str, Any]) -> str:
    parts = []
    if message.get("src"):
        parts.append(f"by {message['src']}")
    if message.get("cloned_from"):
        parts.append(f"a clone of {message['cloned_from']}")
    return ", ".join(parts)


def _run(number: int, run: Mapping[str, Any], free: float) -> Iterator[Moment]:
    began, ended = float(run["began"]), float(run.get("ended") or run["began"])
    yield Moment("run", f"Run {number}", began, _waited(began - free) if free else "")
    state = str(run.get("state", ""))
    yield Moment(
        state, _ENDINGS.get(state, f"Went to {state}"), ended, f"after {duration(ended - began)}",
        str(run.get("status", "")),
    )  # fmt: skip


def _waited(seconds: float) -> str:
    return f"waited {duration(seconds)}" if seconds > _WORTH_TELLING else "at once"


def _rest(
    message: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], due: float, now: float
) -> Iterator[Moment]:
    """Where it lies now, unless its last run says so."""
    state = message["state"]
    if state == "prep":
        yield Moment("prep", "Waits for its commit", detail="until then it takes attachments",
                     going_on=True)  # fmt: skip
    elif state == "que" and due > now:
        yield Moment("que", "Is due", due, going_on=True)
    elif state == "que":
        said = status_text(message)
        waits = "Waits with another one" if said.startswith("set aside") else "Waits for a worker"
        yield Moment("que", waits, going_on=True, said=said)
    elif state == "run":
        yield Moment("run", "Runs", going_on=True)
    elif not runs or runs[-1].get("state") != state:
        yield Moment(state, _ENDINGS.get(state, state), said=status_text(message))
    if message.get("dups"):
        count = plural(len(message["dups"]), "duplicate")
        yield Moment("que", f"Stands for {count}", detail="coalesced: they share its fate")
