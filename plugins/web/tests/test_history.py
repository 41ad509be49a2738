"""rqcore_web.history: what is remembered of each queue, by any clock, and after any end."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rqcore_web import history, ringfile, watched
from rqcore_web.events import Hub
from rqcore_web.history import History, Point, as_json, total
from rqcore_web.spool import Spool
from rqcore_web.tally import Tally

from rqcore.instance import Instance

if TYPE_CHECKING:
    from tests.conftest import Web

MINUTE, HOUR, DAY = 60, 3600, 86_400
#: A round moment: all buckets and steps begin here.
NOON = 20_000 * DAY + 12 * HOUR


class Clock:
    """The time that everybody reads; the one that is never set goes on with `pass_by` only."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = float(NOON)
        self.steady = 0.0
        for module in (history, watched, ringfile):
            patch.setattr(module, "time", lambda: self.now)
        patch.setattr(watched, "monotonic", lambda: self.steady)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds


class Site:
    """A site with one queue, as far as the history needs one."""

    def __init__(self, folder: Path, days: int = 28) -> None:
        self.folder = folder
        self.days = days
        queue = folder / "queue" / "test"
        queue.mkdir(parents=True)
        (queue / "config.json").write_text("{}")
        self._loop = asyncio.new_event_loop()
        self._ids = itertools.count()
        self.open()

    def open(self) -> None:
        """The service starts."""
        self.hub = Hub(Spool(Instance(self.folder)))
        self.history = History(self.hub._spool, self.hub, self.folder, self.days)

    def tell(self, kind: str, data: dict[str, Any], queue: str = "test") -> None:
        async def run() -> None:
            self.hub.tell(kind, queue, data)
            await asyncio.sleep(0)

        self._loop.run_until_complete(run())

    def done(self, at: float) -> None:
        """A message came in, ran, and is done, all at that time."""
        msg_id = f"message {next(self._ids)}"
        for step, new in (("create", "que"), ("start", "run"), ("finish", "done")):
            self.tell("state", {"msg_id": msg_id, "step": step, "new": new, "at": at, "due": at})

    def close(self) -> None:
        self.history.close()

    def end(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def site(clock: Clock, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.tell("reset", {"queue": "test"})
    yield made
    made.end()


def dones(points: list[Point]) -> list[int | None]:
    return [None if point.gap else point.done for point in points]


# --- counting and remembering


def test_the_latest_minutes(site: Site, clock: Clock) -> None:
    for minute in range(5):
        for _ in range(minute):
            site.done(clock.now)
        clock.pass_by(MINUTE)
    points = site.history.recent("test", 7)
    assert [point.start for point in points] == [NOON + (n - 1) * MINUTE for n in range(7)]
    assert dones(points) == [None, 0, 1, 2, 3, 4, 0]
    assert [point.created for point in points[1:]] == [0, 1, 2, 3, 4, 0]
    assert points[3].wait.count == points[3].run.count == points[3].started == 2
    site.history.write()
    assert dones(site.history.recent("test", 7)) == [None, 0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("how", ["stopped", "killed after it was written"])
def test_a_site_that_comes_back_remembers(site: Site, clock: Clock, how: str) -> None:
    site.done(clock.now)
    clock.pass_by(10)
    if how == "stopped":
        site.close()
    else:
        site.history.write()
    clock.pass_by(10)
    site.open()
    site.done(clock.now)
    assert dones(site.history.recent("test", 1)) == [2]
    site.history.write()
    assert dones(site.history.recent("test", 1)) == [2]


def test_a_time_when_the_site_was_not_there_is_a_gap(site: Site, clock: Clock) -> None:
    site.done(clock.now)
    clock.pass_by(2.5 * MINUTE)
    site.close()
    clock.pass_by(3 * MINUTE)
    site.open()
    clock.pass_by(1.5 * MINUTE)
    points = site.history.recent("test", 8)
    assert dones(points) == [1, 0, 0, None, None, 0, 0, 0]
    assert [round(point.covered, 2) for point in points] == [1, 1, 0.5, 0, 0, 0.5, 1, 1]


def test_before_the_queue_was_known_is_a_gap(site: Site, clock: Clock) -> None:
    site.history.write()
    clock.pass_by(HOUR)
    config = site.folder / "queue/late/config.json"
    config.parent.mkdir()
    config.write_text("{}")
    site.tell("reset", {}, "late")
    site.history.write()
    clock.pass_by(HOUR)
    with_gap = [point.gap for point in site.history.series("late", 3 * HOUR, 3)]
    assert len(with_gap) == 3
    assert with_gap[-1] is False
    assert [point.gap for point in site.history.series("test", 2 * HOUR, 2)] == [False, False]


def test_a_day_of_nothing_is_zeros_without_anybody_waking_up(site: Site, clock: Clock) -> None:
    site.history.write()
    assert site.history._timer is None
    clock.pass_by(DAY)
    assert dones(site.history.series("test", DAY, 24)) == [0] * 24
    site.close()
    clock.pass_by(HOUR)
    site.open()
    assert dones(site.history.series("test", DAY, 24))[-2:] == [None, 0]
    assert dones(site.history.series("test", DAY, 24))[:-2] == [0] * 22


def test_a_machine_that_slept_has_a_gap(site: Site, clock: Clock) -> None:
    site.history.write()
    clock.now += HOUR  # the clock that is never set stood still
    clock.pass_by(MINUTE)
    assert dones(site.history.recent("test", 30)) == [None] * 28 + [0, 0]


def test_what_happens_is_written_by_itself_and_then_nothing_wakes_up(
    site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.history.write()
    monkeypatch.setattr(history, "_WRITE_EVERY", 0.0)
    site.done(clock.now)
    site._loop.run_until_complete(asyncio.sleep(0.01))
    assert site.history._timer is None
    site.open()
    assert dones(site.history.recent("test", 1)) == [1]


# --- series


@pytest.mark.parametrize(
    ("span", "points", "step", "count"),
    [
        (HOUR, 60, MINUTE, 60), (HOUR, 100, MINUTE, 60), (DAY, 100, 1200, 72), (DAY, 24, HOUR, 24),
        (7 * DAY, 100, 7200, 84), (28 * DAY, 100, 43_200, 56), (28 * DAY, 28, DAY, 28),
        (366 * DAY, 100, 4 * DAY, 92), (10, 5, MINUTE, 1), (3 * DAY, 4000, 600, 432),
        (5000 * DAY, 10, 500 * DAY, 10),
    ],
)  # fmt: skip
def test_steps_are_round_and_points_as_many_as_asked(
    site: Site, clock: Clock, span: int, points: int, step: int, count: int
) -> None:
    site.done(clock.now)
    series = site.history.series("test", span, points)
    assert (series[0].seconds, len(series)) == (step, count)
    assert [point.start for point in series] == [series[0].start + n * step for n in range(count)]
    assert series[-1].start <= clock.now < series[-1].start + step
    assert all(point.start % step == 0 for point in series)
    assert total(series).done == 1


@given(
    st.lists(st.tuples(st.floats(0, 2 * DAY - HOUR), st.integers(1, 3)), max_size=12),
    st.sampled_from([(HOUR, 60), (6 * HOUR, 40), (DAY, 100), (3 * DAY, 100), (20 * DAY, 50)]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_happened_within_the_span_is_in_it_once(
    passed: list[tuple[float, int]], asked: tuple[int, int], restarts: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        clock = Clock(patch)
        site = Site(Path(folder))
        happened = []
        began = clock.now
        for at, often in sorted(passed):
            clock.pass_by(began + at - clock.now)
            for _ in range(often):
                site.done(clock.now)
                happened.append(clock.now)
            if restarts:
                site.close()
                site.open()
        series = site.history.series("test", *asked)
        for point in series:
            inside = [at for at in happened if point.start <= at < point.start + point.seconds]
            assert point.done == point.created == point.run.count == len(inside)
        if asked[0] > 2 * DAY:
            assert total(series).done == len(happened)
        site.end()


ACTS = st.one_of(
    st.tuples(st.just("done"), st.just(0)),
    st.tuples(st.just("pass"), st.integers(0, 5 * DAY)),
    st.tuples(st.just("set"), st.integers(-40 * DAY, 40 * DAY)),
    st.tuples(st.sampled_from(["write", "stop", "kill"]), st.just(0)),
)


@given(st.lists(ACTS, max_size=40))
@settings(max_examples=80, deadline=None)
def test_no_clock_and_no_kill_makes_more_of_it_than_there_was(acts: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        clock = Clock(patch)
        site = Site(Path(folder), days=2)
        size = -1
        happened: list[float] = []
        for act, amount in acts:
            if act == "done":
                site.done(clock.now)
                happened.append(clock.now)
            elif act == "pass":
                clock.pass_by(amount)
            elif act == "set":
                clock.now += amount
            elif act == "write":
                site.history.write()
            elif act == "stop":
                site.close()
                site.open()
            else:
                site.open()
            for span, count in ((HOUR, 60), (DAY, 100), (30 * DAY, 60)):
                for point in site.history.series("test", span, count):
                    inside = [a for a in happened if point.start <= a < point.start + point.seconds]
                    assert point.done <= len(inside)
                    assert 0 <= point.covered <= 1
            file = Path(folder) / "history/test"
            if file.exists():
                size = file.stat().st_size if size < 0 else size
                assert file.stat().st_size == size, "the file grows"
        site.end()


# --- files


def test_a_spoiled_file_costs_its_past_only(
    site: Site, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    site.done(clock.now)
    site.history.write()
    (site.folder / "history/test").write_text("garbage")
    (site.folder / "watched").write_text("garbage")
    clock.pass_by(MINUTE)
    site.done(clock.now)
    site.history.write()
    assert dones(site.history.recent("test", 2))[-1] == 1
    assert caplog.text.count("it is set aside as") == 2


def test_a_disk_that_takes_nothing_is_told_once_and_written_to_when_it_does(
    site: Site, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    site.history.write()
    folder = site.folder / "history"
    folder.rename(site.folder / "away")
    folder.write_text("not a directory")
    for _ in range(3):
        site.done(clock.now)
        site.history.write()
    assert caplog.text.count("the history of test cannot be kept for now") == 1
    assert dones(site.history.recent("test", 1)) in ([3], [0], [None])
    folder.unlink()
    (site.folder / "away").rename(folder)
    site.history.write()
    assert dones(site.history.recent("test", 1)) == [3]
    site.open()
    assert dones(site.history.recent("test", 1)) == [3]


def test_only_so_much_is_kept_while_the_disk_takes_nothing(site: Site, clock: Clock) -> None:
    site.history.write()
    folder = site.folder / "history"
    folder.rename(site.folder / "away")
    folder.write_text("not a directory")
    for _ in range(1000):
        site.done(clock.now)
        clock.pass_by(MINUTE)
        site.history.write()
    assert len(site.history._queues["test"].unwritten) <= 600


def test_files_of_queues_that_are_gone_for_a_week_are_removed(site: Site, clock: Clock) -> None:
    folder = site.folder / "history"
    site.history.write()
    for name, days in (("gone", 8), ("lately", 5), ("test.damaged-1", 9)):
        (folder / name).write_text("x")
        os.utime(folder / name, (clock.now - days * DAY,) * 2)
    os.utime(folder / "test", (clock.now - 90 * DAY,) * 2)
    clock.pass_by(DAY + 1)
    site.done(clock.now)
    site.history.write()
    assert sorted(os.listdir(folder)) == ["lately", "test"]


def test_other_options_keep_the_past(site: Site, clock: Clock) -> None:
    site.done(clock.now)
    site.close()
    size = (site.folder / "history/test").stat().st_size
    for days in (300, 400, 3):
        site.days = days
        site.open()
        assert total(site.history.series("test", 20 * DAY, 50)).done == 1
        assert dones(site.history.recent("test", 1)) == [1]
    assert (site.folder / "history/test").stat().st_size < size
    assert size < 5 << 20


def test_no_name_leads_out_of_the_directory(site: Site) -> None:
    (site.folder / "secret").write_text("x")
    for name in ("../secret", "", ".", "nosuch", "/etc/passwd"):
        assert all(point.gap for point in site.history.recent(name, 5))
    assert (site.folder / "secret").read_text() == "x"


# --- for programs


def test_as_json(site: Site, clock: Clock) -> None:
    clock.pass_by(-MINUTE)
    site.tell(
        "state",
        {"msg_id": "m", "step": "start", "new": "run", "at": clock.now, "due": clock.now - 3},
    )
    site.tell(
        "state", {"msg_id": "m", "step": "finish", "new": "err", "at": clock.now + 2, "due": 0}
    )
    clock.pass_by(MINUTE + 30)
    gap, busy, idle = as_json(site.history.recent("test", 3))
    nothing = dict.fromkeys((*Tally.COUNTS, "wait", "run"))
    assert gap == {"start": NOON - 2 * MINUTE, "seconds": 60, "covered": 0.0, **nothing}
    assert {name: idle[name] for name in Tally.COUNTS} == dict.fromkeys(Tally.COUNTS, 0)
    assert (busy["started"], busy["err"], busy["done"]) == (1, 1, 0)
    assert busy["wait"] == {"count": 1, "mean": 3, "median": 3, "p95": 3, "longest": 3}
    assert busy["run"]["longest"] == 2
    json.dumps([gap, busy, idle])


# --- a real instance


def service_counts(web: Web) -> Tally:
    """What the files say, read as a site that comes later would."""
    instance = Instance(web.rq.directory)
    spool = Spool(instance)
    later = History(spool, Hub(spool), instance.directory / "var" / "web", 28)
    return total(later.series("test", HOUR, 60))


def send_until_counted(web: Web) -> int:
    """Send messages until the site, which has just begun to follow, counts; returns how many."""
    for sent in itertools.count(1):
        web.rq.until("test", web.rq.send("test"), "done")
        if re.search(r"Messages that ended: [1-9]", web.curl("q/test").text):
            return sent
    raise AssertionError


def test_what_a_real_queue_does_is_there_after_the_end(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    began = time()
    sent = send_until_counted(web)
    for _ in range(5):
        web.rq.until("test", web.rq.send("test"), "done")
    web.rq.stop()
    tally = service_counts(web)
    for count in (tally.created, tally.started, tally.done, tally.run.count, tally.wait.count):
        assert 5 <= count <= 5 + sent
    assert (tally.err, tally.resent) == (0, 0)
    assert 0 < tally.run.longest < time() - began
    assert 0 <= tally.wait.longest < time() - began


def test_the_history_over_http(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    url = "api/v1/queues/test/history"
    told: dict[str, Any] = {}
    ended: list[Any] = []
    while not ended:  # a run counts when its begin was seen, too
        send_until_counted(web)
        told = web.curl(f"{url}?span=3600&points=60").json()
        ended = [point for point in told["points"] if point["run"]]
    assert (told["seconds"], len(told["points"])) == (60, 60)
    gap, now = told["points"][0], told["points"][-1]
    assert (gap["covered"], gap["done"], gap["run"]) == (0, None, None)
    assert now["covered"] > 0
    assert sum(point["done"] for point in ended) >= 1
    assert ended[-1]["run"]["count"] >= 1
    assert len(web.curl(url).json()["points"]) == 72
    for query in ("span=59", "span=x", "points=0", "points=1001"):
        assert web.curl(f"{url}?{query}").status == 422
    assert web.curl("api/v1/queues/nosuch/history").status == 404


def test_a_service_that_is_killed_loses_seconds_and_counts_on(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    for _ in range(3):
        web.rq.until("test", web.rq.send("test"), "done")
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=30)
        os.kill(web.pid(), signal.SIGKILL)
        while next(events)["state"] != "running":
            pass
    before = service_counts(web).done
    assert before <= 3
    for _ in range(4):
        web.rq.until("test", web.rq.send("test"), "done")
    web.rq.stop()
    assert before <= service_counts(web).done <= before + 4
