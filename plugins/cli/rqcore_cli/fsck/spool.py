"""One queue's directory, walked: every entry is looked at, and nothing is believed at once.

`Walk.look` goes through the states and gives what it finds; `Walk.again` looks at the same places once
more and keeps what is still so, for a queue that runs may have been in the midst of a step.  The number
of messages in each state is counted on the way.  Memory does not grow with the finished messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import time

from rqcore.lifecycle import State
from rqcore.message import is_msg_id
from rqcore.stores.ids import hashed_path
from rqcore_cli.fsck.finding import Finding
from rqcore_cli.fsck.message import Place, examine

HASHED = (State.DONE, State.RELAYED)
#: Where a message stays that lies in two states; what lies in a later one of these is moved aside.
_RANK = (State.RUN, State.DONE, State.RELAYED, State.ERR, State.QUE, State.PREP)
_LEVELS = (8, 2, 2)
#: Seconds after which nobody is still in the midst of writing something by a temporary name.
_OLD = 3600
LOST = "lost+found"
_TMP = "tmp"


@dataclass(slots=True)
class Walk:
    """See the head of this module; ``tell`` is called now and then with the number of entries."""

    queue: str
    path: str
    running: bool
    deep: bool
    tell: Callable[[int], None] = lambda _: None
    counts: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    looked_at: int = 0

    def look(self) -> Iterator[Finding]:
        """Everything that seems wrong.  Raises `OSError` for what cannot be read."""
        for state in State:
            for path, level in self._entries(state):
                self.looked_at += 1
                if not self.looked_at % 500:
                    self.tell(self.looked_at)
                yield from self._entry(state, path, level, count=True)
        yield from self._beside()

    def again(self, findings: list[Finding]) -> list[Finding]:
        """Those that are still so."""
        kept: list[Finding] = []
        seen: dict[tuple[str, str], list[Finding]] = {}
        beside: list[Finding] | None = None
        for finding in findings:
            if finding.state:
                place = (finding.state, self._top(finding))
                if place not in seen:
                    seen[place] = self._entry_at(State(finding.state), place[1])
                now = seen[place]
            else:
                beside = list(self._beside()) if beside is None else beside
                now = beside
            kept += [one for one in now if one.same == finding.same]
        return kept

    def _top(self, finding: Finding) -> str:
        """The entry that a finding is about, or lies in."""
        root = f"{self.path}/{finding.state}"
        parts = finding.path.removeprefix(f"{root}/").split("/")
        if State(finding.state) not in HASHED:
            return f"{root}/{parts[0]}"
        for depth, size in enumerate(_LEVELS):
            if depth >= len(parts) or not _is_part(parts[depth], size):
                return "/".join([root, *parts[: depth + 1]])
        return "/".join([root, *parts[: len(_LEVELS) + 1]])

    def _entry_at(self, state: State, path: str) -> list[Finding]:
        level = path.removeprefix(f"{self.path}/{state}/").count("/")
        return list(self._entry(state, path, level, count=False))

    # What lies in a state

    def _entries(self, state: State) -> Iterator[tuple[str, int]]:
        """Paths where messages may lie, or where something lies that should not; with its depth."""
        root = f"{self.path}/{state}"
        if state in HASHED:
            yield from self._below(root, 0)
        else:
            yield from ((f"{root}/{name}", 0) for name in _names(root))

    def _below(self, root: str, depth: int) -> Iterator[tuple[str, int]]:
        for name in _names(root):
            path = f"{root}/{name}"
            if depth < len(_LEVELS) and _is_part(name, _LEVELS[depth]) and _is_dir(path):
                yield from self._below(path, depth + 1)
            else:
                yield path, depth

    def _entry(self, state: State, path: str, level: int, *, count: bool) -> Iterator[Finding]:
        name = os.path.basename(path)
        place = Place(self.queue, state, name, path, self.running, self.deep)
        deepest = state not in HASHED or level == len(_LEVELS)
        if is_msg_id(name) and _is_dir(path):
            if count and deepest:
                self.counts[state] += 1
            yield from self._message(place)
        elif os.path.lexists(path):
            yield from self._other(place)

    def _message(self, place: Place) -> Iterator[Finding]:
        if place.state in HASHED:
            right = hashed_path(f"{self.path}/{place.state}", place.msg_id)
            if place.path != right:
                yield self._misfiled(place, right)
                return
        other = self._twin(place)
        if other:
            yield place.finding(
                "doubled", f"the same id lies in {other} too", action=place.aside,
                remedy="" if place.aside else "it runs; look again when it has ended",
            )  # fmt: skip
            return
        yield from examine(place)

    def _misfiled(self, place: Place, right: str) -> Finding:
        below = right.removeprefix(f"{self.path}/")
        if os.path.lexists(right):
            return place.finding("doubled", f"the same id lies in {below} too", action="aside")
        return place.finding(
            "misfiled", f"it belongs to {below}, and is not found here", action="file", target=right
        )

    def _twin(self, place: Place) -> str:
        """Where else it lies, if that is where it stays; told apart from one that just moves."""
        for state in _RANK[: _RANK.index(place.state)]:
            root = f"{self.path}/{state}"
            other = hashed_path(root, place.msg_id) if state in HASHED else f"{root}/{place.msg_id}"
            number = _inode(other)
            if number and _inode(place.path) not in (0, number):
                return other.removeprefix(f"{self.path}/")
        return ""

    def _other(self, place: Place) -> Iterator[Finding]:
        """Something that is no message, by its name or by what it is."""
        if place.msg_id.startswith("."):
            if _quiet(place.path) > _OLD:
                yield place.finding(
                    "leftover", "a directory or file with a dot, which nobody writes to any more",
                    action="aside",
                )  # fmt: skip
        elif not _is_dir(place.path):
            if is_msg_id(place.msg_id) and os.path.islink(place.path):
                text = "a link, and no message: a message's directory must lie here itself"
            else:
                text = "neither a message nor a directory"
            yield place.finding("stray", text, action="aside")
        elif place.state in (State.PREP, State.QUE):
            again = f"when it is whole, move it out and in again, or: rq queue restart {self.queue}"
            yield place.finding(
                "not-adopted", "not taken up yet, for it was not moved here in one step",
                remedy=again if self.running else "it is taken up at the next start",
            )  # fmt: skip
        else:
            yield place.finding(
                "misnamed", "its name is no message id, so nobody finds it", action=place.aside,
            )  # fmt: skip

    # What lies beside the states

    def _beside(self) -> Iterator[Finding]:
        for name in _names(self.path):
            if name.startswith(".") and name.endswith(".tmp"):
                path = f"{self.path}/{name}"
                if not self.running or _age(path) > _OLD:
                    yield Finding("leftover", path, "what a write that was cut off has left",
                                  self.queue, action="aside")  # fmt: skip
        for name in _names(f"{self.path}/{_TMP}"):
            path = f"{self.path}/{_TMP}/{name}"
            if not self.running:
                yield Finding(
                    "leftover", path, "was never promised to anybody", self.queue, action="aside",
                    remedy="the next start of the queue removes it; rq fsck --repair keeps it",
                )  # fmt: skip
            elif _age(path) > _OLD:
                yield Finding(
                    "leftover", path, "older than an hour: a file being attached takes so long, or it "
                    "could not be removed", self.queue,
                    remedy=f"rq queue restart {self.queue} removes it",
                )  # fmt: skip
        for name in _names(f"{self.path}/corrupt"):
            if not name.endswith(".reason"):
                yield self._set_aside(name)

    def _set_aside(self, name: str) -> Finding:
        path = f"{self.path}/corrupt/{name}"
        reason = ""
        try:
            with open(f"{path}.reason", encoding="utf-8", errors="replace") as file:
                reason = file.read(500).strip()
        except OSError:
            reason = "its reason is not there any more"
        return Finding(
            "set-aside", path, reason, self.queue,
            remedy=f"mend it and move it into {self.queue}/que/, or remove it",
        )  # fmt: skip


def _is_part(name: str, size: int) -> bool:
    return len(name) == size and name.isascii() and name.isdigit()


def _names(path: str) -> list[str]:
    """The entries of a directory; none where there is no directory (any more)."""
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_dir(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _quiet(path: str) -> float:
    """Seconds since anything in this directory changed, however deep: it may be a long copy."""
    newest = _age(path)
    for folder, _, names in os.walk(path):
        newest = min([newest, _age(folder), *(_age(f"{folder}/{name}") for name in names)])
    return newest


def _age(path: str) -> float:
    """Seconds since anything about this entry changed, its own names included."""
    try:
        return time() - os.lstat(path).st_ctime
    except FileNotFoundError:
        return 0.0
