"""What ``rq fsck`` can find, as data: one table of kinds, and one `Finding` for each place.

Pure.  A *fault* is something that loses a message, runs one twice, hides one, or tells a wrong number; a
*note* is something that an operator may want to know, and that harms nobody.  docs/fsck.md has the same
table for people, and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rqcore_cli.output import clean

Level = Literal["fault", "note"]
#: What ``--repair`` does: move it into lost+found, move it where it belongs, or nothing.
Action = Literal["aside", "file", ""]

#: Each kind: its level, and what it means.
KINDS: dict[str, tuple[Level, str]] = {
    "half-written": ("fault", "a message's directory without its file msg, and nothing has run in it"),
    "orphaned": ("fault", "a message's directory with a script's files in it, but without its file msg"),
    "unreadable": ("fault", "a message whose file msg cannot be understood"),
    "missing-attachment": ("fault", "digests.json tells of a file that attach/ does not have"),
    "changed-attachment": ("fault", "a file in attach/ is not what was attached"),
    "doubled": ("fault", "the same id in two states"),
    "misfiled": ("fault", "a finished message that does not lie in the directory of its own minute"),
    "misnamed": ("fault", "a directory where messages lie whose name is no message id"),
    "stray": ("fault", "a file, a link or something else that is no directory, where messages lie"),
    "alive": ("fault", "a process runs for a message that is not running"),
    "unknown": ("fault", "a message that its running queue does not know of"),
    "count": ("fault", "the running queue tells another number than the disk"),
    "no-config": ("fault", "a directory with messages in queue/ that has no config.json"),
    "unfinished": ("note", "it was running when its queue ended; it runs again at the next start"),
    "not-adopted": ("note", "being copied into prep or que by hand, or copied instead of moved"),
    "leftover": ("note", "a temporary file or directory that nobody uses any more"),
    "maybe-changed": ("note", "a file in attach/ was written to since; --deep reads it"),
    "bad-digests": ("note", "digests.json cannot be read; the queue takes the digests anew"),
    "bad-status": ("note", "the file status cannot be read; the status shows empty"),
    "stale-pid": ("note", "a file pid of a process that is no more, in a message that does not run"),
    "set-aside": ("note", "set aside in corrupt/ by the queue itself, with its reason"),
    "deleted-queue": ("note", "what a deleted queue has become, with all its messages"),
    "busy": ("note", "counts that change too quickly to be compared"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing at one place.

    ``path`` is absolute; ``text`` a sentence; ``remedy`` what to do, for what ``--repair`` leaves
    alone; ``target`` where a misfiled message belongs; ``done`` what a repair has done.
    """

    kind: str
    path: str
    text: str
    queue: str = ""
    state: str = ""
    msg_id: str = ""
    remedy: str = ""
    action: Action = ""
    target: str = ""
    done: str = ""

    @property
    def level(self) -> Level:
        """``fault`` or ``note``."""
        return KINDS[self.kind][0]

    @property
    def open_fault(self) -> bool:
        """Is it a fault that is still there?"""
        return self.level == "fault" and not self.done

    @property
    def same(self) -> tuple[str, str, str]:
        """What two looks at the same thing have in common."""
        return (self.kind, self.path, self.text)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "level": self.level, "kind": self.kind, "queue": self.queue or None,
            "state": self.state or None, "msg_id": self.msg_id or None, "path": self.path,
            "text": self.text, "remedy": self.remedy or None, "repair": self.action or None,
            "done": self.done or None,
        }  # fmt: skip

    def lines(self, root: str) -> list[str]:
        """For people; the path as it is below the instance."""
        shown = clean(self.path.removeprefix(f"{root}/"))
        first = f"{self.level} {self.kind}: {shown}: {clean(self.text)}"
        if self.done:
            return [first, f"  {clean(self.done)}"]
        if self.remedy:
            return [first, f"  {clean(self.remedy)}"]
        if self.action == "file":
            return [first, "  rq fsck --repair moves it to where it belongs"]
        if self.action == "aside":
            return [first, "  rq fsck --repair moves it into lost+found"]
        return [first]
