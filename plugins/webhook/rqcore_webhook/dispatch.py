"""The service ``webhook``: what is in the outbox becomes messages of the queue webhook.

It sleeps until a file comes into the outbox (`rqcore_webhook.outbox` has the rules), and at its start
takes up what was left.  Each webhook is handed over with a note of its own, so that a kill at any
moment neither loses nor doubles it; where nobody can tell any more (its prepared message was removed
by somebody), it is handed over again, for the receiver knows it by its id, and a lost one nobody would
know.

While the queue webhook is DOWN, does not run or refuses, everything stays in the outbox, and is tried
again after a growing pause, and at once when the queue's process says that it is up.  One that alone is
refused holds up no other.  An event for an
endpoint that is disabled is not kept: it is counted, and ``rq webhook replay`` finds it by its message.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from time import monotonic, time
from typing import Any

from rqcore import durable
from rqcore.errors import NotFoundError, RqError, UnreachableError
from rqcore.handover import File, UnknownOutcomeError, hand_over
from rqcore.hookspecs import ServiceContext
from rqcore.loop import Loop, Timer
from rqcore.stores.ids import hashed_path
from rqcore.watch import Change, watcher
from rqcore_webhook.health import Files
from rqcore_webhook.outbox import GO, POKE, Entry, Outbox, Webhook, webhook_id
from rqcore_webhook.script import PAYLOAD
from rqcore_webhook.stuck import Stuck
from rqcore_webhook.verdict import MAX_COUNT
from rqcore_webhook.words import without_secrets

_log = logging.getLogger(__name__)
QUEUE = "webhook"
#: In the directory of the message that is told of: what was queued, a line for each webhook.
SENT_FILE = "plugins/webhook/sent.jsonl"
#: A longer body is an attachment: a message has room for 8 MB of JSON, in which a body may grow.
_IN_PARAM = 1_000_000
_BATCH, _REFUSALS = 64, 20
_FIRST, _MOST = 1.0, 60.0


class Dispatch:
    """See the head of this module."""

    def __init__(self, loop: Loop, directory: str, base_url: str) -> None:
        self._loop = loop
        self._directory = directory
        self._base_url = base_url
        self.outbox = Outbox(directory)
        self._files = Files(directory)
        self._looks = False
        self._timer: Timer | None = None
        #: Nobody takes anything now: what comes waits for the timer, too.
        self._away = False
        self._pause = 0.0
        self._problem = ""
        #: What is to be handed over, the next last; taken from the outbox when it is empty.
        self._names: list[str] = []
        #: Files that were refused: when to try again, on the monotonic clock, and the pause before.
        self._refused: dict[str, tuple[float, float]] = {}

    def changed(self, change: Change) -> None:
        """Something came into the outbox, or left it."""
        if not change.arrived:
            return
        if change.name == POKE:
            self._pause, self._away = 0.0, False
            self._refused.clear()
            self.look_soon()
        elif change.name.endswith(GO) and not self._away:
            self.look_soon()

    def look_soon(self) -> None:
        """Look when what is ready now is done."""
        if not self._looks:
            self._looks = True
            self._loop.soon(self.look)

    def look(self) -> None:
        """Hand over what is there."""
        self._looks = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        problem = self.hand_over_all(_BATCH)
        if problem and problem != self._problem:
            _log.error("webhooks wait in %s: %s", self.outbox.folder, problem)
            self._problem = problem
        if self._away:
            self._pause = min(_MOST, self._pause * 2 or _FIRST)
            self._timer = self._loop.after(self._pause, self.look)
            return
        self._pause = 0.0
        if self._names:
            self.look_soon()
        elif self._refused:
            first = min(again for again, _ in self._refused.values())
            self._timer = self._loop.after(max(0.0, first - monotonic()) + 0.001, self.look)
        elif self._problem:
            _log.info("webhooks are queued again")
            self._problem = ""

    def hand_over_all(self, most: int) -> str:
        """Hand over ``most`` files at most; why some could not be, "" when all could.

        One that is refused waits by itself, and longer each time.  When some are refused and none is
        taken, or the queue is not there, all wait.
        """
        problem, done, refused = "", 0, 0
        self._away = False
        self._names = self._names or self._due()
        while self._names and done < most and refused < _REFUSALS:
            name = self._names.pop()
            try:
                self.hand_over(name)
            except (UnreachableError, NotFoundError) as error:
                self._names, self._away = [], True
                return str(error)
            except (RqError, OSError) as error:  # of this one, perhaps
                problem, refused = str(error), refused + 1
                pause = min(_MOST, self._refused.get(name, (0.0, 0.0))[1] * 2 or _FIRST)
                self._refused[name] = monotonic() + pause, pause
            else:
                done += 1
                self._refused.pop(name, None)
        self._away = refused == _REFUSALS and not done
        return problem

    def _due(self) -> list[str]:
        """What is in the outbox and may be tried, the next last: what was refused comes at the end."""
        names, now = self.outbox.ready(), monotonic()
        if self._refused:
            self._refused = {name: self._refused[name] for name in names if name in self._refused}
        again = [name for name in names if name in self._refused and self._refused[name][0] <= now]
        return [*reversed(again), *reversed([name for name in names if name not in self._refused])]

    def hand_over(self, name: str) -> None:
        """Hand over one file.  Raises `RqError` or `OSError`."""
        entry = self.outbox.read(name)
        if entry is None:
            _log.error("%s makes no sense, and is set aside as %s.bad", name, name)
            self.outbox.set_aside(name)
            return
        told = []
        for number, webhook in enumerate(entry.webhooks):
            if self._files.disabled(webhook.endpoint) is not None:
                self._files.miss(webhook.endpoint)
                continue
            full_id = self._one(name, number, entry)
            told.append({
                "at": round(time(), 3), "event": webhook.event, "endpoint": webhook.endpoint,
                "url": _shown(webhook), "full_id": full_id,
            })  # fmt: skip
        self._note_sent(entry, told)
        self.outbox.told(name, len(entry.webhooks))

    def _one(self, name: str, number: int, entry: Entry) -> str:
        webhook, note = entry.webhooks[number], self.outbox.note(name, number)
        about = f"{self._base_url}q/{entry.queue}"
        fields: dict[str, Any] = {
            "dest": QUEUE, "src": f"{about}/{entry.msg_id}" if entry.msg_id else about,
            "param1": _shown(webhook), "param2": webhook.body, "param3": webhook.endpoint,
            "param4": f"{webhook.event} {webhook_id(entry.key, number)}",
            "max_count": MAX_COUNT, **entry.trace,
        }  # fmt: skip
        files: list[File] = []
        if len(webhook.body) > _IN_PARAM:
            fields["param2"] = ""
            files.append((PAYLOAD, self.outbox.body_file(name, number, webhook.body), None))
        try:
            return hand_over(self._directory, QUEUE, fields, files, note)
        except UnknownOutcomeError as error:
            _log.warning("a webhook is queued again, perhaps a second time: %s", error)
            durable.remove_file(note)
            return hand_over(self._directory, QUEUE, fields, files, note)

    def _note_sent(self, entry: Entry, told: list[dict[str, Any]]) -> None:
        """Note at the message that ended which webhooks it has; for people, so it need not last."""
        if not told or not entry.msg_id:
            return
        folder = find_ended(self._directory, entry.queue, entry.msg_id)
        if folder is None:
            return
        with contextlib.suppress(OSError):  # it was moved or removed meanwhile
            durable.make_private_dir(f"{folder}/plugins")
            durable.make_private_dir(f"{folder}/plugins/webhook")
            fd = durable.append_log(f"{folder}/{SENT_FILE}")
            try:
                lines = "".join(f"{json.dumps(one)}\n" for one in told)
                os.write(fd, lines.encode("ascii"))
            finally:
                os.close(fd)


def _shown(webhook: Webhook) -> str:
    """The URL for the message: that of an endpoint has secrets, and the script knows it by name."""
    return without_secrets(webhook.url) if webhook.endpoint else webhook.url


def find_ended(directory: str, queue: str, msg_id: str) -> str | None:
    """The directory of a message that ended; None when there is none."""
    root = f"{directory}/queue/{queue}"
    for path in (
        hashed_path(f"{root}/done", msg_id), f"{root}/err/{msg_id}",
        hashed_path(f"{root}/relayed", msg_id),
    ):  # fmt: skip
        if os.path.isdir(path):
            return path
    return None


def serve(context: ServiceContext) -> int:
    """Run the service until it is to end."""
    loop = Loop()
    dispatch = Dispatch(loop, context.instance.directory, context.instance.base_url)
    dispatch.outbox.make()
    dispatch.outbox.tidy()

    def look_at_all() -> None:
        dispatch.look_soon()
        stuck.look_soon()

    watching = watcher(loop, look_at_all)
    watching.members(dispatch.outbox.folder, dispatch.changed)
    stuck = Stuck(loop, watching, context.instance.directory)
    loop.reader(context.stop_fd, loop.stop)
    dispatch.look_soon()
    context.ready()
    loop.run()
    return 0
