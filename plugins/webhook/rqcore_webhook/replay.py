"""``rq webhook replay``: what was not delivered is sent again, what was never queued is queued.

Two searches, each over what was made since a time, by the sockets of the queues:

- webhooks of the queue webhook that failed (``err``), or with ``delivered`` also those that succeeded:
  sent again with the same webhook id, so that a receiver which remembers ids takes each once;
- ended messages of all other queues that an endpoint of the config wants to be told of and that have no
  webhook for it: it was disabled, or is new.  For them the outbox gets an entry, and what waits there
  is not found again.  One at a time finds and sends (`alone`), so two that are started at once send
  each webhook once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any

from rqcore import durable
from rqcore.message import load_message
from rqcore.words import id_stamp
from rqcore_webhook import events
from rqcore_webhook.dispatch import QUEUE, SENT_FILE
from rqcore_webhook.options import Options
from rqcore_webhook.outbox import Outbox, Webhook, entry_of
from rqcore_webhook.words import json_lines

#: ``ask(queue, command, args)``; raises `RqError`.
Ask = Callable[[str, str, Mapping[str, Any]], Any]
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Found:
    """Something to be sent again: ``again`` does it, and returns nothing."""

    target: str
    event: str
    about: str
    why: str
    again: Callable[[], object]


def alone(directory: str) -> AbstractContextManager[None]:
    """While this is held nobody else replays."""
    Outbox(directory).make()
    return durable.alone(f"{directory}/var/webhook/replay.lock")


def again(
    ask: Ask, options: Options, since: float, endpoint: str, *, delivered: bool
) -> Iterator[Found]:
    """Webhooks that failed, or were delivered too; ``endpoint`` "" means all."""
    states = [("err", "failed", "retry_message")]
    if delivered:
        states.append(("done", "delivered", "clone_message"))
    for state, why, command in states:
        for item in _listed(ask, QUEUE, state, since):
            name = str(item.get("param3") or "")
            if (endpoint and name != endpoint) or (name and name not in options.endpoints):
                continue
            yield Found(
                name or str(item.get("param1")),
                str(item.get("param4")).partition(" ")[0],
                str(item.get("src")),
                why,
                partial(ask, QUEUE, command, {"msg_id": item["msg_id"]}),
            )


def missed(
    ask: Ask, directory: str, base_url: str, options: Options, queues: list[str], since: float,
    endpoint: str,
) -> Iterator[Found]:  # fmt: skip
    """Ends of messages that an endpoint wants to be told of, and was not."""
    outbox = Outbox(directory)
    entries = [entry for file in outbox.ready() if (entry := outbox.read(file)) is not None]
    waits = {
        (entry.queue, entry.msg_id, one.endpoint) for entry in entries for one in entry.webhooks
    }
    names = [name for name in options.endpoints if endpoint in ("", name)]
    for queue in queues:
        wanting = [n for n in names if any(
            events.wants(options.endpoints[n], event, queue) for event in events.EVENTS
        )]  # fmt: skip
        if queue == QUEUE or not wanting:
            continue
        for state in ("done", "err", "relayed"):
            for item in _listed(ask, queue, state, since):
                path = _path(directory, queue, state, str(item["msg_id"]))
                told = {str(one.get("endpoint")) for one in json_lines(f"{path}/{SENT_FILE}")}
                for name in wanting:
                    event = f"message.{state}"
                    if name in told or (queue, str(item["msg_id"]), name) in waits:
                        continue
                    if not events.wants(options.endpoints[name], event, queue):
                        continue
                    yield Found(
                        name, event, f"{base_url}q/{queue}/{item['msg_id']}", "was not queued",
                        _queues_it(outbox, base_url, options, queue, state, item, name),
                    )  # fmt: skip


def _queues_it(
    outbox: Outbox, base_url: str, options: Options, queue: str, state: str,
    item: Mapping[str, Any], name: str,
) -> Callable[[], None]:  # fmt: skip
    def act() -> None:
        import json  # noqa: PLC0415 - loaded by others already

        msg_id, at = str(item["msg_id"]), time()
        message = load_message(json.dumps(dict(item)).encode("ascii"), msg_id)
        status = str(item.get("status") or "").partition(" - ")[2]
        data = events.message_data(message, base_url, queue, state, status)
        endpoint, event = options.endpoints[name], f"message.{state}"
        webhook = Webhook(name, endpoint.url, event, events.body(endpoint, event, at, data))
        outbox.put(
            entry_of(at=at, queue=queue, msg_id=msg_id, webhooks=(webhook,), message=message),
            lasting=True,
        )

    return act


def _listed(ask: Ask, queue: str, state: str, since: float) -> Iterator[dict[str, Any]]:
    """The messages of a state that were made since then, newest first."""
    before, first = "", id_stamp(since)
    while True:
        args = {"state": state, "limit": _PAGE, "before": before}
        page = ask(queue, "list_messages", args)
        for item in page["items"]:
            if str(item["msg_id"]) < first:
                return
            if "dest" in item:  # else it is unreadable
                yield item
        before = page["next"]
        if not before:
            return


def _path(directory: str, queue: str, state: str, msg_id: str) -> str:
    from rqcore.stores.ids import hashed_path  # noqa: PLC0415 - only here

    root = f"{directory}/queue/{queue}/{state}"
    path = f"{root}/{msg_id}" if state == "err" else hashed_path(root, msg_id)
    return path if os.path.isdir(path) else ""
