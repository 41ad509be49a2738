"""A disk that fills: judged with hysteresis, told once, and never in the way of who makes room."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_cleaner import disk, health, pages, plugin, totals
from rqcore_cleaner.disk import Guard, Level, Marks, Part, judge
from rqcore_cleaner.options import Amount, DiskOptions, Options
from rqcore_cleaner.rules import Rule

from rqcore.hooks import Hooks
from rqcore.hookspecs import Attachment, Hold, InstanceInfo, QueueInfo
from rqcore.instance import Instance
from rqcore.lifecycle import State
from rqcore.message import Message

OPTIONS = DiskOptions(Amount(2000), Amount(1000), Amount(20), Amount(10))


class Disk:
    """A file system as full as a test wants it."""

    def __init__(self) -> None:
        self.free, self.inodes, self.asked = 100_000, 1000, 0

    def statvfs(self, _: object) -> Any:
        self.asked += 1
        return os.statvfs_result(
            (1, 1, 200_000, self.free, self.free, 5000, self.inodes, self.inodes, 0, 255)
        )


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test tells the plugin's module is forgotten after it."""
    monkeypatch.setattr(plugin, "_options", Options())
    monkeypatch.setattr(plugin, "_guard", None)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    return made


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "queue" / "test").mkdir(parents=True)
    return tmp_path


def guard(spool: Path) -> Guard:
    return Guard(str(spool), f"{spool}/queue/test")


@given(st.integers(0, 10_000), st.integers(0, 100), st.sampled_from(Level))
def test_the_worse_part_decides_and_levels_hold_a_while(
    free: int, inodes: int, former: Level
) -> None:
    found = [Part("bytes", free, 10_000, 2000, 1000), Part("inodes", inodes, 100, 20, 10)]
    level, worst = judge(found, former)
    fresh = judge(found, Level.OK)[0]
    assert level >= fresh
    assert level is worst.level(former)
    if free < 1000 or inodes < 10:
        assert level is Level.REFUSE
    elif former is Level.OK:
        assert level is (Level.WARNING if free < 2000 or inodes < 20 else Level.OK)
    if free >= 2500 and inodes >= 25:
        assert level is Level.OK
    if former is Level.REFUSE:
        assert (level is Level.REFUSE) is (free < 1250 or inodes < 12)


def test_a_file_system_without_inodes_goes_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    result = os.statvfs_result((512, 512, 100, 50, 50, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: result)
    [part] = disk.parts("/", DiskOptions())
    assert part == Part("bytes", 25_600, 51_200, 5120, 2560)


def test_messages_are_refused_in_words_and_taken_again(
    spool: Path, fake: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    here, other = guard(spool), guard(spool)

    def problems() -> list[str | None]:
        return [one.problem(OPTIONS, reserved=False) for one in (here, other)]

    fake.free = 3000
    assert problems() == [None, None]
    assert caplog.messages == []
    fake.free = 1500
    assert problems() == [None, None]
    fake.free = 999
    [first, second] = problems()
    assert first == second == (
        "the disk is too full for new messages: 999 B free; they are taken again from 1.2 kB on. "
        "Remove old messages (rq clean), or make room"
    )  # fmt: skip
    fake.free = 1100
    assert None not in problems()
    fake.free = 1300
    assert problems() == [None, None]
    fake.free = 3000
    assert problems() == [None, None]
    said = [
        "the disk fills: 1.5 kB",
        "the disk is full but",
        "the disk has room again",
        "the disk has enough",
    ]
    assert len(caplog.messages) == len(said), "each is told once, not by each process"
    for text, start in zip(caplog.messages, said, strict=True):
        assert text.startswith(start)


def test_inodes_count_as_bytes_do(spool: Path, fake: Disk) -> None:
    fake.inodes = 9
    problem = guard(spool).problem(OPTIONS, reserved=False)
    assert problem is not None
    assert "9 inodes free; they are taken again from 12 inodes on" in problem


def test_what_is_reserved_has_half_of_what_is_kept_free(spool: Path, fake: Disk) -> None:
    here = guard(spool)
    fake.free = 500
    assert here.problem(OPTIONS, reserved=False) is not None
    assert here.problem(OPTIONS, reserved=True) is None
    fake.free = 499
    assert here.problem(OPTIONS, reserved=True) is not None


def test_the_last_of_the_disk_is_for_what_runs(spool: Path, fake: Disk) -> None:
    here = guard(spool)
    fake.free = 500
    assert here.hold(OPTIONS) is None
    fake.inodes = 4
    waits = []
    for _ in range(1000):
        held = here.hold(OPTIONS)
        assert held is not None
        assert held[0] == "the disk is full, 4 inodes free"
        waits.append(held[1])
    assert 2 <= waits[0] < waits[500] < waits[999]
    assert waits[999] > 6, "a thousand that wait do not all ask again at once"
    fake.inodes = 5
    assert here.hold(OPTIONS) is None


def test_a_disk_with_room_is_asked_once_in_a_while_and_a_full_one_each_time(
    spool: Path, fake: Disk
) -> None:
    here = guard(spool)
    fake.free, fake.inodes = 10**10, 10**6
    for _ in range(20):
        here.problem(OPTIONS, reserved=False)
    assert fake.asked < 20
    here, fake.asked, fake.free = guard(spool), 0, 10**9
    for _ in range(100):
        here.problem(OPTIONS, reserved=False)
    assert fake.asked == 100


def test_where_nothing_can_be_written_each_process_remembers_by_itself(
    spool: Path, fake: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: str) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(totals, "make_folder", full)
    here = guard(spool)
    fake.free = 999
    assert here.problem(OPTIONS, reserved=False)
    fake.free = 1100
    assert here.problem(OPTIONS, reserved=False), "it holds"
    fake.free = 5000
    assert here.problem(OPTIONS, reserved=False) is None
    said = ["the disk is full but", "the disk has room again", "the disk has enough room"]
    assert len(caplog.messages) == len(said)
    assert all(map(str.startswith, caplog.messages, said))
    assert not (spool / "var").exists()


def test_the_cleaner_is_refused_nothing(
    spool: Path, fake: Disk, rq_hooks: Callable[..., Hooks]
) -> None:
    fake.free = 0
    hooks = rq_hooks(cleaner=plugin)
    hooks.configure(InstanceInfo(str(spool), "http://a:1/", {}), {"cleaner": {}})
    queues = [QueueInfo(name, f"{spool}/queue/{name}", {}) for name in ("test", "cleaner")]
    hooks.spool_ready(queues[0])
    refused = hooks.check_message(Message(dest="test"), queues[0])
    assert refused is not None
    assert refused.reason.endswith("(plugin cleaner)")
    assert hooks.check_message(Message(dest="cleaner"), queues[1]) is None
    file = Attachment("a", 5, "", "", "/a")
    assert hooks.check_attachment(Message(dest="test"), file, queues[0]) is not None
    assert hooks.check_attachment(Message(dest="cleaner"), file, queues[1]) is None
    held = hooks.check_start(Message(dest="test"), queues[0])
    assert isinstance(held, Hold)
    assert hooks.check_start(Message(dest="cleaner"), queues[1]) is None
    webhook = QueueInfo("webhook", f"{spool}/queue/webhook", {})
    assert hooks.check_start(Message(dest="webhook"), webhook) is None
    fake.free = 10**6
    assert hooks.check_message(Message(dest="test"), queues[0]) is None
    assert hooks.check_start(Message(dest="test"), queues[0]) is None


# --- what people and programs see


def states(spool: Path, fake: Disk, free: int) -> tuple[Instance, Options]:
    fake.free = free
    return Instance(spool), Options(disk=OPTIONS)


def test_checks_say_how_it_is_and_what_to_do(spool: Path, fake: Disk) -> None:
    found = list(health.checks(*states(spool, fake, 100_000)))
    assert [(check.name, check.level) for check in found] == [("disk", "ok"), ("cleaner", "ok")]
    assert found[0].text == "100 kB, 1,000 inodes free"
    warned = next(health.checks(*states(spool, fake, 1999)))
    assert (warned.level, warned.text) == ("warning", "2.0 kB free, refuses below 1.0 kB")
    refused = next(health.checks(*states(spool, fake, 9)))
    assert (refused.level, refused.text) == ("critical", "new messages are refused, 9 B free")
    assert "rq clean" in refused.remedy
    totals.add(str(spool), {"test": (3, 4000)})
    (spool / "queue" / "x.deleted.1").mkdir()
    found = list(health.checks(*states(spool, fake, 100_000)))
    assert [check.text for check in found[1:]] == [
        "last cleaning 0 s ago",
        "1 still on the disk: x",
    ]
    file = spool / "var" / "cleaner" / "totals.json"
    file.write_text('{"at": 5, "removed": {}}')
    late = list(health.checks(*states(spool, fake, 100_000)))[1]
    assert (late.level, "the last cleaning was" in late.text) == ("warning", True)


def test_a_rule_for_a_queue_that_is_not_there_is_told(spool: Path) -> None:
    (spool / "queue" / "test" / "config.json").write_text("{}")
    rules = {"tset": {State.DONE: Rule()}, "test": {}, "*": {}}
    found = [
        c for c in health.checks(Instance(spool), Options(retention=rules)) if c.name == "retention"
    ]
    assert [(check.level, check.text) for check in found] == [
        ("warning", 'a rule names tset, and there is no such queue; did you mean "test"?')
    ]


def test_the_plugin_gives_checks_and_metrics(
    spool: Path, fake: Disk, rq_hooks: Callable[..., Hooks]
) -> None:
    hooks, info = rq_hooks(cleaner=plugin), InstanceInfo(str(spool), "http://a:1/", {})
    hooks.configure(info, {"cleaner": {"disk": {"refuse": "1kB", "warning": "2kB"}}})
    fake.free = 999
    found = hooks.collect_checks(info)
    assert [(name, check.name, check.level) for name, check in found] == [
        ("cleaner", "disk", "critical"), ("cleaner", "cleaner", "ok"),
    ]  # fmt: skip
    names = [family.name for family in plugin.rq_collect_metrics(info)]
    assert "rqcore_spool_refusing" in names
    site = FakeSite(spool)
    assert [panel.title for panel in plugin.rq_web_overview_panels(site)] == ["The disk"]
    assert len(plugin.rq_web_queue_panels(site, {"name": "cleaner"})) == 2


def test_metrics_have_the_names_of_the_field(spool: Path, fake: Disk) -> None:
    totals.add(str(spool), {"test": (3, 4000)})
    totals.add(str(spool), {"test": (1, 5), "b": (1, 1)})
    found = {family.name: family for family in health.metrics(*states(spool, fake, 9))}
    assert found["rqcore_spool_free_bytes"].samples == [({}, 9)]
    assert found["rqcore_spool_free_inodes"].samples == [({}, 1000)]
    assert found["rqcore_spool_refusing"].samples == [({}, 1.0)]
    removed = found["rqcore_cleaner_removed_messages_total"]
    assert removed.kind == "counter"
    assert removed.samples == [({"queue": "b"}, 1), ({"queue": "test"}, 4)]
    taken = found["rqcore_cleaner_removed_bytes_total"].samples
    assert taken == [({"queue": "b"}, 1), ({"queue": "test"}, 4005)]
    assert found["rqcore_cleaner_last_run_timestamp_seconds"].kind == "gauge"


@pytest.mark.parametrize("text", ["", "[]", '{"at": 1}', '{"at": 1, "removed": {"a": 2}}', "\0"])
def test_totals_that_make_no_sense_count_as_none(spool: Path, text: str) -> None:
    totals.make_folder(str(spool))
    (spool / "var" / "cleaner" / "totals.json").write_text(text)
    assert totals.read(str(spool)) == {"at": None, "removed": {}}
    totals.add(str(spool), {"test": (1, 2)})
    assert totals.read(str(spool))["removed"] == {"test": {"messages": 1, "bytes": 2}}


class FakeSite:
    settings: Any = None
    hooks: Any = None

    def __init__(self, directory: Path) -> None:
        self.instance = Instance(directory)

    def url(self, path: str = "") -> str:
        return f"/root/{path}"

    def page(self, request: Any, title: str, content: object, status: int = 200) -> Any:
        raise NotImplementedError


def test_the_first_page_speaks_of_the_disk_only_while_it_fills(spool: Path, fake: Disk) -> None:
    site = FakeSite(spool)
    options = states(spool, fake, 100_000)[1]
    assert pages.overview(site, options) == []
    fake.free = 1500
    [panel] = pages.overview(site, options)
    assert "1.5 kB free. New messages are refused below 1.0 kB." in panel.content
    fake.free = 9
    [panel] = pages.overview(site, options)
    assert "New messages are refused: 9 B free." in panel.content


def test_the_page_of_the_queue_tells_what_was_removed(spool: Path, fake: Disk) -> None:
    site = FakeSite(spool)
    options = states(spool, fake, 100_000)[1]
    assert pages.queue(site, {"name": "test"}, options) == []
    first, second = pages.queue(site, {"name": "cleaner"}, options)
    assert "100 kB of 200 kB free" in first.content
    assert "Nothing was removed yet" in second.content
    totals.add(str(spool), {"<b>": (1234, 5_000_000)})
    (spool / "queue" / "x.deleted.1").mkdir()
    second = pages.queue(site, {"name": "cleaner"}, options)[1]
    assert "&lt;b&gt;" in second.content
    assert "<b>" not in second.content
    assert "1,234 messages, 5.0 MB" in second.content
    assert "1 deleted queue is still on the disk" in second.content


def test_marks_of_another_file_system_are_another_matter(spool: Path) -> None:
    list(Marks(str(spool), str(spool)).note(Level.REFUSE))
    assert Marks(str(spool), str(spool)).read() is Level.REFUSE
    assert Marks(str(spool), "/proc").read() is Level.OK
