"""How the disk and the cleaner are: for ``rq doctor`` and ``rq check``, and as metrics.

Called in whatever process asks; reads a few small files, and never waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import time

from rqcore.faces import Family
from rqcore.hookspecs import Check
from rqcore.instance import Instance
from rqcore.words import span_in_words
from rqcore_cleaner import disk, totals
from rqcore_cleaner.disk import Level
from rqcore_cleaner.engine import unknown_queues
from rqcore_cleaner.leftovers import leftovers
from rqcore_cleaner.options import Options
from rqcore_cleaner.rules import DAY

#: A daily cleaning that is two days late is none.
_LATE = 3 * DAY


def checks(instance: Instance, options: Options) -> Iterator[Check]:
    """The disk, the last cleaning, what deleted queues left."""
    yield _disk(instance, options)
    at = totals.read(str(instance.directory))["at"]
    if at is None:
        yield Check("cleaner", "ok", "nothing was cleaned yet")
    elif time() - at > _LATE:
        yield Check(
            "cleaner", "warning", f"the last cleaning was {span_in_words(time() - at)} ago",
            "see the schedule in queue/cleaner/config.json, and rq ls cleaner; clean now: rq clean",
        )  # fmt: skip
    else:
        yield Check("cleaner", "ok", f"last cleaning {span_in_words(time() - at)} ago")
    for problem in unknown_queues(options.retention, instance.queue_names()):
        yield Check("retention", "warning", problem, "correct it under plugins.cleaner.retention")
    left = [item.queue for item in leftovers(instance)]
    if left:
        names = ", ".join(dict.fromkeys(left))
        yield Check("deleted queues", "ok", f"{len(left)} still on the disk: {names}")


def _disk(instance: Instance, options: Options) -> Check:
    level, worst, found = disk.state(str(instance.directory), options.disk)
    free = ", ".join(part.words(part.free) for part in found)
    remedy = (
        "remove old messages (rq clean --dry-run shows what would go), or give the disk more room"
    )
    if level is Level.REFUSE:
        text = f"new messages are refused, {worst.words(worst.free)} free"
        return Check("disk", "critical", text, remedy)
    if level is Level.WARNING:
        text = f"{worst.words(worst.free)} free, refuses below {worst.words(worst.refuse)}"
        return Check("disk", "warning", text, remedy)
    return Check("disk", "ok", f"{free} free")


def metrics(instance: Instance, options: Options) -> Iterator[Family]:
    """What is free, whether messages are refused, what was removed."""
    directory = str(instance.directory)
    level, _, found = disk.state(directory, options.disk)
    free = {part.name: part.free for part in found}
    yield Family(
        "rqcore_spool_free_bytes", "gauge", "Bytes free on the spool's file system.",
        [({}, free["bytes"])],
    )  # fmt: skip
    if "inodes" in free:
        yield Family(
            "rqcore_spool_free_inodes", "gauge", "Inodes free on the spool's file system.",
            [({}, free["inodes"])],
        )  # fmt: skip
    yield Family(
        "rqcore_spool_refusing", "gauge", "1 while new messages are refused for want of space.",
        [({}, float(level is Level.REFUSE))],
    )  # fmt: skip
    known = totals.read(directory)
    for key, words in (("messages", "Messages"), ("bytes", "Bytes of messages")):
        yield Family(
            f"rqcore_cleaner_removed_{key}_total", "counter", f"{words} that were removed.",
            [({"queue": queue}, entry[key]) for queue, entry in sorted(known["removed"].items())],
        )  # fmt: skip
    if known["at"] is not None:
        yield Family(
            "rqcore_cleaner_last_run_timestamp_seconds", "gauge", "When the last cleaning ended.",
            [({}, known["at"])],
        )  # fmt: skip
