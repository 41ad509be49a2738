"""Which events there are, who wants one, and what is told of it.

Pure.  An event becomes one webhook for each target that wants it:

- each URL in a message's ``post_run_webhook``, at its end, in the form of RQ: ``payload`` is the
  message as JSON, with its full id, its new state and its status;
- each endpoint of the config whose ``events`` and ``queues`` name it.  Its own URL in
  ``post_run_webhook`` is it, too: then it is told of that message's end in any case, and only once.

One end is one webhook for each target: an endpoint that asked for several names of what one end is (it
failed, and did so by its time limit) is told the most particular.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rqcore.message import Message
from rqcore_webhook.options import EVENTS, Endpoint, Options

#: A webhook in the standard form should stay below 20 kB: each param is cut to so many characters.
MAX_PARAM = 3500
_PLAIN_END = {"done": "message.done", "err": "message.err", "relayed": "message.relayed"}

__all__ = [
    "EVENTS",
    "MAX_PARAM",
    "Target",
    "body",
    "end_names",
    "message_data",
    "standard",
    "targets",
]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one webhook goes: an endpoint of the config by its name, else a bare URL."""

    endpoint: str
    url: str
    event: str


def end_names(state: str, *, timed_out: bool, recovered: bool) -> tuple[str, ...]:
    """The names of a message's end, the most particular first."""
    names = [_PLAIN_END[state]]
    if timed_out and state == "err":
        names.insert(0, "message.timeout")
    if recovered and state != "err":
        names.insert(0, "message.recovered")
    return tuple(names)


def targets(
    options: Options, names: Sequence[str], queue: str, urls: Iterable[str] = ()
) -> list[Target]:
    """Who is told of an event in ``queue`` that has these names; ``urls`` are the message's own."""
    own = list(dict.fromkeys(urls))
    found = []
    for name, endpoint in options.endpoints.items():
        event = next((event for event in names if wants(endpoint, event, queue)), "")
        if endpoint.url in own:
            own.remove(endpoint.url)
            event = event or names[-1]
        if event:
            found.append(Target(name, endpoint.url, event))
    return [*found, *(Target("", url, names[-1]) for url in own)]


def wants(endpoint: Endpoint, event: str, queue: str) -> bool:
    """Does the endpoint want to be told of this event?"""
    return event in endpoint.events and any(
        fnmatch.fnmatchcase(queue, pattern) for pattern in endpoint.queues
    )


def message_data(
    message: Message, base_url: str, queue: str, state: str, status: str
) -> dict[str, Any]:
    """The message as the contract's payload has it."""
    fields = message.to_fields()
    fields["msg_id"] = f"{base_url}q/{queue}/{message.msg_id}"
    return {**fields, "state": state, "status": f"{state} - {status}" if status else state}


def body(endpoint: Endpoint | None, event: str, at: float, data: Mapping[str, Any]) -> str:
    """What is sent: the payload of the form, or the body in the standard form."""
    if endpoint is None or endpoint.format == "form":
        told = dict(data) if "msg_id" in data else {"event": event, **data}
        return json.dumps(told)
    return standard(event, at, data)


def standard(event: str, at: float, data: Mapping[str, Any]) -> str:
    """The body in the standard form; ``at`` is when it happened, unix seconds."""
    told = dict(data)
    cut = [
        name
        for name in ("param1", "param2", "param3", "param4")
        if len(str(told.get(name, ""))) > MAX_PARAM
    ]
    for name in cut:
        told[name] = told[name][:MAX_PARAM]
    if cut:
        told["truncated"] = cut
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
    return json.dumps(
        {"type": event, "timestamp": moment.replace("+00:00", "Z"), "data": told},
        separators=(",", ":"),
    )
