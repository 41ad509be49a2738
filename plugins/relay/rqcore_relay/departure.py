"""Everything that waits here leaves for another machine: which queues, whether they can, and how.

In this order: `destination`, `chosen`, `survey` and `obstacles` look; then the queues are paused,
`empty` hands over what waits in them (`rqcore_relay.evacuate`), and `through` waits for relay.
Raises `RqError`, for what cannot be done at all; what is wrong with one message stands in its queue's
``failed``, or in ``lost_way`` when relay gave it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any
from urllib.parse import quote

from rqcore import durable
from rqcore.client import QueueClient
from rqcore.errors import NotFoundError, RefusedError
from rqcore.instance import Instance
from rqcore_relay.evacuate import OURS, RELAY, Evacuation, OutcomeError
from rqcore_relay.local import leads_here
from rqcore_relay.options import read_options
from rqcore_relay.peers import peer_name

#: Queues whose messages are this machine's own affair, unless they are named.
_ITS_OWN = ("cleaner", "rq_router", "webhook")
_PAGE = 500
_NOT_FOUND = 404

#: Told of a number, as it changes.
Tell = Callable[[int], None]


@dataclass(slots=True)
class Leaving:
    """One queue: what lay in it before, what was handed over, and what is left."""

    name: str
    waiting: int
    prep: int
    running: list[str]
    handed: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Departure:
    """The whole: ``copies`` are the short ids in relay; ``later`` those that are not due yet."""

    peer: str
    queues: list[Leaving]
    copies: list[str] = field(default_factory=list)
    relayed: int = 0
    lost_way: list[str] = field(default_factory=list)
    later: int = 0

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "peer": self.peer,
            "queues": [
                {"name": q.name, "waiting": q.waiting, "handed": q.handed, "prep": q.prep,
                 "running": q.running, "failed": q.failed} for q in self.queues
            ],
            "relayed": self.relayed, "err": self.lost_way, "later": self.later,
        }  # fmt: skip


# Before anything is done


def destination(instance: Instance, url: str) -> str:
    """The peer that is meant.  Raises `RefusedError` for what is none, or is this instance."""
    peer = peer_name(url if url.endswith("/") else f"{url}/")
    if peer is None:
        raise RefusedError(f"{url} is no machine's RQ; write its URL, as http://HOST:3333/")
    config, _ = instance.load_config()
    names = {peer_name(name) for name in (config.base_url, *config.hostnames)}
    if peer in names or leads_here(peer, config.base_url, str(instance.directory)):
        raise RefusedError(f"{peer} is this very instance; name another machine")
    return peer


def chosen(instance: Instance, named: tuple[str, ...]) -> list[str]:
    """The queues to evacuate.  Raises `NotFoundError`, `RefusedError`."""
    there = instance.queue_names()
    if RELAY not in there:
        raise NotFoundError("there is no queue relay here; start RQ with rqcore-relay: rq restart")
    if instance.admin_state(RELAY) == "DOWN":
        raise RefusedError(
            "queue relay is DOWN and takes no message; bring it up: rq queue up relay"
        )
    for name in named:
        if name not in there:
            raise NotFoundError(f"there is no queue {name}; see all with: rq queue ls")
        if name == RELAY:
            raise RefusedError("what waits in relay leaves by itself; name other queues")
    return list(dict.fromkeys(named)) or [n for n in there if n not in (RELAY, *_ITS_OWN)]


def obstacles(instance: Instance, peer: str, queues: list[str]) -> tuple[list[str], bool]:
    """Ask the peer for these queues: what an operator should know of them; and is it rqcore?

    Raises `RefusedError` when it has no such queue.
    """
    from rqcore_relay.far import is_rqcore  # noqa: PLC0415 - not for each list of commands
    from rqcore_relay.http import Http, Origin  # noqa: PLC0415 - as above
    from rqcore_relay.verdict import TroubleError  # noqa: PLC0415 - as above

    options = read_options(str(instance.directory))
    warnings, rich = [], False
    if instance.admin_state(RELAY) == "PAUSE":
        warnings.append("relay is paused, and sends nothing before: rq queue resume relay")
    try:
        with Http(Origin.of(peer), options, options.peer(peer)) as http:
            rich = is_rqcore(http.request("OPTIONS", f"{http.origin.root}api/v1/uploads"))
            for name in queues:
                answer = http.request("GET", f"{http.origin.root}q/{quote(name)}.txt")
                if answer.status == _NOT_FOUND:
                    raise RefusedError(
                        f"{peer} has no queue {name}, or tells us of none: make it there, or choose "
                        "queues with --queue"
                    )
                if answer.body.startswith(b"status: DOWN"):
                    warnings.append(f"queue {name} is DOWN there; relay tries until it is not")
    except TroubleError as error:
        warnings.append(f"{error}; relay waits until it answers")
    return warnings, rich


def survey(directory: str, queues: list[str]) -> list[Leaving]:
    """What lies in the queues now.  Raises `RqError` when one does not answer."""
    found = []
    for name in queues:
        with QueueClient(directory, name) as client:
            told = client.ask("describe")
        running = [one["msg_id"] for one in told["running"]]
        found.append(Leaving(name, told["counts"]["que"], told["counts"]["prep"], running))
    return found


# Doing it


def empty(evacuation: Evacuation, departure: Departure, tell: Tell) -> None:
    """Hand over all that waits; the queues are paused.  Raises `RqError` when relay refuses."""
    departure.copies += evacuation.resume()
    for queue in departure.queues:
        dest = f"{departure.peer}q/{queue.name}"
        for msg_id in _waiting(evacuation.client(queue.name)):
            try:
                copy = evacuation.hand(queue.name, msg_id, dest)
            except OutcomeError as error:
                queue.failed.append(str(error))
                continue
            if copy:
                departure.copies.append(copy)
                queue.handed += 1
                tell(sum(q.handed for q in departure.queues))


def _waiting(client: QueueClient) -> Iterator[str]:
    before: str | None = ""
    while before is not None:
        page = client.ask("list_messages", {"state": "que", "limit": _PAGE, "before": before})
        yield from (item["msg_id"] for item in page["items"])
        before = page["next"]


def through(directory: str, departure: Departure, tell: Tell, until: float | None) -> None:
    """Wait until relay is through with what was evacuated; what is due later is only counted.

    That is what was handed over now and, from these queues to this peer, before; what others send
    there is their affair.  Raises `TimeoutError` when it is not through ``until`` then (monotonic).
    """
    rest = set(departure.copies)
    ended = False
    while not ended:
        with QueueClient(directory, RELAY) as client, QueueClient(directory, RELAY) as asked:
            # Subscribed first and looked at then, so that no end falls in between.
            events = client.subscribe({}, timeout=_left(until))
            moving, later = _on_its_way(asked, directory, departure)
            rest |= moving
            departure.later = len(later)
            for msg_id in rest - moving - later:
                rest.discard(msg_id)
                _note_end(departure, msg_id, asked.call("get_message_status", {"msg_id": msg_id}))
            ended = _follow(events, moving, rest, departure, tell, until)


def _follow(
    events: Any, moving: set[str], rest: set[str], departure: Departure, tell: Tell,
    until: float | None,
) -> bool:  # fmt: skip
    """True when nothing is on its way any more; False when relay's process went away."""
    tell(len(moving))
    while moving:
        event = next(events, None)
        if event is None:
            return False
        if _left(until) == 0:
            raise TimeoutError
        ends = event["event"] == "state" and event["new"] not in ("prep", "que", "run")
        if ends and event["msg_id"] in moving:
            moving.discard(event["msg_id"])
            rest.discard(event["msg_id"])
            _note_end(departure, event["msg_id"], ["ok", f"{event['new']} - {event['status']}"])
            tell(len(moving))
    return True


def _note_end(departure: Departure, msg_id: str, answer: Any) -> None:
    match answer:
        case ["ok", str(status)] if status.startswith("relayed"):
            departure.relayed += 1
        case ["ok", str(status)]:
            departure.lost_way.append(f"{RELAY}/{msg_id} is {status}")
        case _:
            departure.lost_way.append(f"{RELAY}/{msg_id} is not there any more")


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - monotonic())


def _on_its_way(
    client: QueueClient, directory: str, departure: Departure
) -> tuple[set[str], set[str]]:
    """What relay carries of ours: ids that it has to, and ids that are not due yet."""
    dests = {f"{departure.peer}q/{queue.name}" for queue in departure.queues}
    copies = set(departure.copies)
    moving: set[str] = set()
    later: set[str] = set()
    for state in ("que", "run"):
        before: str | None = ""
        while before is not None:
            page = client.ask("list_messages", {"state": state, "limit": _PAGE, "before": before})
            for item in page["items"]:
                if item["msg_id"] in copies or (
                    item.get("dest") in dests and _is_ours(directory, item["msg_id"])
                ):
                    # One that failed waits for its next try, which is not what it was sent with.
                    waits = state == "que" and item["due"] > time() and " - " not in item["status"]
                    (later if waits else moving).add(item["msg_id"])
            before = page["next"]
    return moving, later


def _is_ours(directory: str, msg_id: str) -> bool:
    """Did an evacuation make it?  It may start while we look."""
    return any(
        durable.exists(f"{directory}/queue/{RELAY}/{state}/{msg_id}/job/{OURS}")
        for state in ("que", "run", "que")
    )
