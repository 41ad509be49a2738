"""The queue webhook's process: who may post now, who waits for what, and how each target is.

`Desk` is made when the spool is ready (`rqcore_webhook.plugin`), in the process of the queue
``webhook`` alone.

- To each target go ``concurrency`` webhooks at a time; one until it took one, and once it failed three
  times running.  The others wait, whole, without a worker, and are called when there is room
  (`rqcore.bell`).
- Targets that fail take half of the workers at most, all together, so that many that hang hold up none
  of those that work.
- A target that asked for a pause (429, 502, 504, or ``Retry-After``) is left alone for it.
- What waits for a disabled endpoint waits until it is enabled.
- An endpoint is disabled by 410, and when it did nothing but fail for ``disable_after`` days, in ten
  attempts or more.  Hosts of bare URLs are never disabled: each message ends by its own number of
  tries.

Nothing here may raise, or the queue would go on without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from itertools import islice
from time import time
from typing import Any

from rqcore import durable
from rqcore.bell import Bell
from rqcore.hookspecs import Delay, Hold, QueueInfo
from rqcore.lifecycle import State
from rqcore.message import Message
from rqcore_webhook.care import Care
from rqcore_webhook.clerk import tell
from rqcore_webhook.health import Files, Health, target_of
from rqcore_webhook.options import Options
from rqcore_webhook.outbox import Outbox
from rqcore_webhook.verdict import RESULT_FILE, throttle_seconds

_log = logging.getLogger(__name__)
#: After so many failures running, one at a time tries.
_SHAKY = 3
#: So many failures it takes to be disabled for failing all the time.
_ENOUGH = 10
_DAY = 86_400.0
#: Who is called need not be asked; this is for when a call is lost.
_LONG, _VERY_LONG = 300.0, 3600.0
_MOST = 1 << 20


class Desk:
    """See the head of this module; ``options`` gives those that count now."""

    def __init__(self, queue: QueueInfo, options: Callable[[], Options]) -> None:
        self._queue = queue
        self._options = options
        directory = os.path.dirname(os.path.dirname(queue.path))
        self._files = Files(directory)
        self._outbox = Outbox(directory)
        self._bell = Bell(f"{queue.path}/queue.sock")
        self._known: dict[str, Health] = self._files.read()
        self._running: dict[str, set[str]] = {}
        #: Held because others of their target run, in the order in which they came.
        self._waiting: dict[str, dict[str, None]] = {}
        self._care = Care(_log, "webhook cannot note how its targets are")
        if self._known:
            self._save()

    # Who may start

    def ask(self, message: Message) -> Hold | Delay | None:
        """May this webhook be sent now?"""
        target = _target(message)
        health = self._health(target)
        gone = self._files.disabled(message.param3)
        if gone is not None:
            health.disabled = True
            return Hold(f"endpoint {target} is disabled: {gone['reason']}", _VERY_LONG)
        if health.disabled:
            self._enabled(target, health)
        if health.throttled_until is not None and health.throttled_until > time():
            return Delay(health.throttled_until + 0.001, f"{target} wants to be left alone")
        if self._room(target, message.param3) > 0:
            return None
        self._waiting.setdefault(target, {})[message.msg_id] = None
        return Hold(f"enough is being sent to {target}", _LONG)

    def starting(self, message: Message) -> None:
        """Its script is about to run."""
        # The former run's result must not be taken for this one's.
        with contextlib.suppress(OSError):
            durable.remove_quietly(f"{self._queue.path}/run/{message.msg_id}/job/{RESULT_FILE}")
        target = _target(message)
        self._running.setdefault(target, set()).add(message.msg_id)
        self._forget(target, message.msg_id)

    def moved(self, message: Message, old: State | None, new: State | None) -> None:
        """It changed its state."""
        target = _target(message)
        if old is State.RUN:
            self._running.get(target, set()).discard(message.msg_id)
            self._call(target, message.param3)
        elif old is State.QUE and new is not State.RUN:
            self._forget(target, message.msg_id)

    def _forget(self, target: str, msg_id: str) -> None:
        """It does not wait to be called any more."""
        waiting = self._waiting.get(target)
        if waiting is not None:
            waiting.pop(msg_id, None)
            if not waiting:
                del self._waiting[target]

    def _room(self, target: str, endpoint: str) -> int:
        options = self._options()
        known = options.endpoints.get(endpoint)
        limit = options.concurrency if known is None else known.concurrency
        health = self._health(target)
        if health.failures >= _SHAKY or health.last_success is None:
            limit = 1
        room = limit - len(self._running.get(target, ()))
        return min(room, self._room_of_failing()) if _fails(health) else room

    def _room_of_failing(self) -> int:
        """How many more may go to targets that fail."""
        busy = sum(len(runs) for name, runs in self._running.items() if _fails(self._health(name)))
        return max(1, self._workers() // 2) - busy

    def _workers(self) -> int:
        workers = self._queue.config.get("num_workers")
        return workers if isinstance(workers, int) else self._options().num_workers

    def _call(self, target: str, endpoint: str) -> None:
        if not self._running.get(target, True):
            del self._running[target]
        called = self._next_of_failing()
        if not _fails(self._health(target)):
            waiting = self._waiting.get(target, {})
            own = list(islice(waiting, max(0, self._room(target, endpoint))))
            for msg_id in own:
                del waiting[msg_id]
            if not waiting:
                self._waiting.pop(target, None)
            called = [*own, *called]
        self._bell.ring(called)

    def _next_of_failing(self) -> list[str]:
        """Those that may go now to targets that fail: one of each, in turn."""
        room = self._room_of_failing() if self._waiting else 0
        if room <= 0:
            return []
        failing = (name for name in self._waiting if _fails(self._health(name)))
        turn = list(islice((name for name in failing if not self._running.get(name)), room))
        called = []
        for name in turn:
            waiting = self._waiting.pop(name)
            called.append(next(iter(waiting)))
            del waiting[called[-1]]
            if waiting:
                self._waiting[name] = waiting  # behind the others
        return called

    # How they are

    def finishing(self, message: Message) -> None:
        """Its script has ended: what it says of its target counts from now on."""
        result = self._result(message.msg_id)
        if result is None:  # it was killed, or never came so far
            return
        target, now = _target(message), time()
        health = self._health(target)
        kind = str(result.get("result"))
        health.attempts[kind] = health.attempts.get(kind, 0) + 1
        status = result.get("status")
        health.last_status = status if isinstance(status, int) else None
        health.last_ms = _number(result, "ms")
        health.refused = kind == "refused"
        if kind == "success":
            self._succeeded(target, health, now)
        elif health.refused:  # that was not the target's doing
            health.last_failure, health.last_error = now, str(result.get("error") or "")
        else:
            self._failed(message, target, health, result, now)
        self._save(target)

    def _succeeded(self, target: str, health: Health, now: float) -> None:
        if health.failures >= _SHAKY:
            _log.info("webhook target %s works again", target)
        health.last_success = now
        health.failures, health.failing_since = 0, None
        health.throttled_until, health.throttles = None, 0

    def _failed(
        self, message: Message, target: str, health: Health, result: Mapping[str, Any], now: float
    ) -> None:
        health.failures += 1
        health.failing_since = health.failing_since or now
        health.last_failure, health.last_error = now, str(result.get("error") or "")
        if health.failures == _SHAKY:
            _log.warning("webhook target %s fails: %s", target, health.last_error)
        if result.get("result") == "throttled":
            health.throttles += 1
            pause = throttle_seconds(health.throttles, _number(result, "retry_after"))
            health.throttled_until = max(health.throttled_until or 0.0, now + pause)
        endpoint = self._options().endpoints.get(message.param3)
        if endpoint is None:
            return
        limit = endpoint.disable_after * _DAY
        failing = now - health.failing_since
        if result.get("gone") is True:
            self._disable(message.param3, health, "it answered 410 Gone")
        elif 0 < limit <= failing and health.failures >= _ENOUGH:
            reason = (
                f"nothing but {health.failures} failures in {failing / _DAY:.1f} days, the last: "
                f"{health.last_error}"
            )
            self._disable(message.param3, health, reason)

    def _disable(self, name: str, health: Health, reason: str) -> None:
        if self._files.disabled(name) is not None:
            return
        with self._care():
            self._files.disable(name, reason, "rqcore")
            health.disabled = True
            _log.error(
                "webhook endpoint %s is disabled: %s; when it is well again: rq webhook enable %s",
                name, reason, name,
            )  # fmt: skip
        tell(
            self._outbox, self._options(), "endpoint.disabled", self._queue.name,
            {"endpoint": name, "reason": reason}, self._care, but=name,
        )  # fmt: skip

    def _enabled(self, target: str, health: Health) -> None:
        """An operator enabled it: it begins anew."""
        health.disabled = False
        health.failures, health.failing_since = 0, None
        health.throttled_until, health.throttles = None, 0
        self._save(target)

    def _health(self, target: str) -> Health:
        return self._known.setdefault(target, Health())

    def _result(self, msg_id: str) -> dict[str, Any] | None:
        path = f"{self._queue.path}/run/{msg_id}/job/{RESULT_FILE}"
        try:
            return durable.read_object(path, _MOST)
        except (OSError, ValueError):
            return None

    def _save(self, *changed: str) -> None:
        with self._care():
            self._files.write(self._known, *changed)


def _fails(health: Health) -> bool:
    """Does it fail, and not just now and then?"""
    never = health.last_success is None
    return health.failures >= _SHAKY or (never and health.failures > 0)


def _target(message: Message) -> str:
    return target_of(message.param3, message.param1)


def _number(entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
