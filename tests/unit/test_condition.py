"""rqcore.condition: what happens between a look and a watch is not missed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rqcore.condition import Condition
from rqcore.hooks import Hooks
from rqcore.hookspecs import QueueInfo
from rqcore.instance import init_instance
from rqcore.watch import Callback, Change, Watcher


class Slow(Watcher):
    """Before it watches a directory for the first time, ``meanwhile`` has happened there."""

    def __init__(self, meanwhile: Callable[[Path], None]) -> None:
        self._meanwhile = meanwhile
        self.watched: dict[str, Callback] = {}

    def members(self, path: str, callback: Callback) -> int:
        return 0

    def entries(self, path: str, callback: Callback) -> int:
        if path not in self.watched:
            self._meanwhile(Path(path))
        self.watched[path] = callback
        return len(self.watched)

    def forget(self, handle: int) -> None:
        pass


def test_a_part_of_the_way_that_comes_just_before_the_watch_is_watched_too(
    tmp_path: Path, rq_hooks: Callable[..., Hooks]
) -> None:
    instance, _ = init_instance(tmp_path / "rq", host="localhost")
    code = instance.directory / "code"

    def meanwhile(folder: Path) -> None:
        if folder == instance.directory:
            (code / "a").mkdir(parents=True)
        elif folder == code / "a":
            (code / "a/b").mkdir()
            (code / "a/b/run").write_text("#!/bin/sh\n")

    files = Slow(meanwhile)
    queue = QueueInfo("test", str(instance.queue_dir("test")), {"script": "code/a/b/run"})
    condition = Condition(instance, queue, rq_hooks(), files, lambda: None)
    assert condition.check_script() is None
    assert condition.shown() == "SCRIPTERROR"
    (code / "a/b/run").chmod(0o755)
    files.watched[f"{code}/a/b"](Change("run", arrived=False, is_dir=False))
    assert condition.shown() == "UP"
