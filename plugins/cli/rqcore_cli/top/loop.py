"""``rq top`` at work: what comes from sockets and keys, and when it is drawn.

No queue is polled: each tells what happens in it.  A queue in which something happened describes itself
again at most every few seconds, for its counts to be right; while nothing happens nothing is asked, and
only the clock on the screen moves.  What went away is tried again once a second while it is away.
"""

from __future__ import annotations

import selectors
from time import monotonic, time
from typing import Any

from rqcore.errors import RqError, UnreachableError
from rqcore.instance import Instance
from rqcore_cli.top.draw import SORTS, View, chosen_queues, frame
from rqcore_cli.top.feed import Feed, description
from rqcore_cli.top.model import Model
from rqcore_cli.top.screen import Screen

_DRAW_EVERY = 0.1
_CLOCK = 1.0
_AGAIN = 1.0
_FRESH = 3.0
_HALF_KEY = 0.05
_PAGE = 10
_MANAGER = ""


class Top:
    """See the head of this module."""

    def __init__(self, instance: Instance, screen: Screen) -> None:
        self._instance = instance
        self._screen = screen
        self._model = Model()
        self._view = View()
        self._feeds: dict[str, Feed] = {}
        self._selector = selectors.DefaultSelector()
        self._again: dict[str, float] = {_MANAGER: 0.0}
        self._ended = False
        self._dirty = True
        self._drawn = 0.0

    def run(self) -> None:
        """Until the user has seen enough."""
        self._selector.register(self._screen.wakeup, selectors.EVENT_READ, "signal")
        if self._screen.keyboard is not None:
            self._selector.register(self._screen.keyboard, selectors.EVENT_READ, "keys")
        try:
            while not self._ended:
                self._connect()
                self._refresh()
                self._draw()
                self._wait()
        finally:
            for feed in self._feeds.values():
                feed.close()
            self._selector.close()

    def _wait(self) -> None:
        now = monotonic()
        wakes = list(self._again.values())
        if not (self._view.paused and self._drawn):
            wakes.append(self._drawn + (_DRAW_EVERY if self._dirty else _CLOCK))
        if self._screen.half_a_key:
            wakes.append(now + _HALF_KEY)
        ready = self._selector.select(max(0.0, min(wakes) - now) if wakes else None)
        keys_came = False
        for key, _ in ready:
            if key.data == "signal":
                self._dirty = bool(list(self._screen.signals())) or self._dirty
                self._drawn = 0.0
            elif key.data == "keys":
                keys_came = True
                self._read_keys()
            else:
                self._hear(str(key.data[1]))
        if self._screen.half_a_key and not keys_came:
            self._pressed(self._screen.settle())

    # What happens in RQ

    def _connect(self) -> None:
        for name, at in list(self._again.items()):
            if at > monotonic():
                continue
            path = self._instance.queue_socket(name) if name else self._instance.manager_socket
            try:
                feed = Feed(str(path))
            except UnreachableError:
                self._again[name] = monotonic() + _AGAIN
                self._gone(name)
                continue
            del self._again[name]
            self._feeds[name] = feed
            self._selector.register(feed, selectors.EVENT_READ, ("feed", name))

    def _gone(self, name: str) -> None:
        self._dirty = True
        if name == _MANAGER:
            self._model.on_manager_gone()
        else:
            self._model.on_queue_gone(name)

    def _drop(self, name: str) -> None:
        """What was followed went away; it is tried again, a queue only while its manager lives."""
        feed = self._feeds.pop(name)
        self._selector.unregister(feed)
        feed.close()
        self._gone(name)
        self._again[name] = monotonic() + _AGAIN
        if name != _MANAGER:
            self._ask(_MANAGER)

    def _ask(self, name: str) -> None:
        if name in self._feeds:
            try:
                self._feeds[name].describe()
            except UnreachableError:
                self._drop(name)

    def _hear(self, name: str) -> None:
        feed = self._feeds.get(name)
        if feed is None:
            return
        try:
            heard = feed.read()
        except UnreachableError:
            self._drop(name)
            return
        for item in heard:
            self._heard(name, item)
            self._dirty = True

    def _heard(self, name: str, item: Any) -> None:
        about = description(item)
        if name == _MANAGER:
            if about is not None:
                self._managed(about)
            elif isinstance(item, dict):  # one of its children is another now
                self._ask(_MANAGER)
        elif about is not None:
            self._model.on_described(name, about)
        elif isinstance(item, dict) and self._model.on_event(name, item, time()):
            self._ask(name)

    def _managed(self, about: dict[str, Any]) -> None:
        try:
            names = self._instance.queue_names()
        except RqError:
            names = []
        self._model.on_manager(about, names)
        living = {
            child["name"]
            for child in about["children"]
            if child["kind"] == "queue" and child["state"] == "running"
        }
        for name in living - self._feeds.keys() - self._again.keys():
            self._again[name] = 0.0
        for name in self._again.keys() - living - {_MANAGER}:
            del self._again[name]

    def _refresh(self) -> None:
        """Counts that go on by events are asked for now and then, while there are events."""
        now = time()
        for name, queue in self._model.queues.items():
            if queue.doubtful is not None and now - queue.doubtful > _FRESH:
                queue.doubtful = now
                self._ask(name)
                return  # it may have changed the dictionary; the next turn goes on

    # What the user wants

    def _read_keys(self) -> None:
        try:
            keys = self._screen.keys()
        except (EOFError, OSError):  # the terminal is gone
            self._ended = True
            return
        self._pressed(keys)

    def _pressed(self, keys: list[str]) -> None:
        for key in keys:
            if self._view.editing:
                self._edit(key)
            else:
                self._command(key)
        self._dirty = True
        self._drawn = 0.0

    def _edit(self, key: str) -> None:
        view = self._view
        if key in ("enter", "escape"):
            view.editing = False
            if key == "escape":
                view.filter = ""
        elif key == "backspace":
            view.filter = view.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            view.filter += key

    def _command(self, key: str) -> None:
        view = self._view
        match key:
            case "q" | "Q":
                self._ended = True
            case "p" | " ":
                view.paused = not view.paused
            case "/":
                view.editing, view.filter = True, ""
            case "escape":
                view.filter = view.chosen = ""
            case "left" | "right":
                step = 1 if key == "right" else -1
                view.sort = SORTS[(SORTS.index(view.sort) + step) % len(SORTS)]
            case "up" | "down" | "page up" | "page down" | "home" | "end":
                self._choose(key)
            case _:
                pass

    def _choose(self, key: str) -> None:
        names = [queue.name for queue in chosen_queues(self._model, self._view, time())]
        if not names:
            return
        place = names.index(self._view.chosen) if self._view.chosen in names else -1
        steps = {"up": -1, "down": 1, "page up": -_PAGE, "page down": _PAGE,
                 "home": -len(names), "end": len(names)}  # fmt: skip
        self._view.chosen = names[max(0, min(len(names) - 1, place + steps[key]))]

    def _draw(self) -> None:
        now = monotonic()
        # A paused picture stands still, but for what the user himself does.
        if self._drawn and self._view.paused:
            return
        if self._drawn and now - self._drawn < (_DRAW_EVERY if self._dirty else _CLOCK):
            return
        width, height = self._screen.size()
        self._screen.draw(frame(self._model, self._view, width, height, time()))
        self._drawn, self._dirty = now, False
