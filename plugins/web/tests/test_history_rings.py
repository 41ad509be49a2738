"""rqcore_web.ringfile, .spread and .tally: what the history is kept in."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from rqcore_web.ringfile import Form, Ring, RingFile
from rqcore_web.spread import BINS, Spread
from rqcore_web.tally import Counter, Tally, made

from rqcore.lifecycle import TRANSITIONS

RINGS = (Ring(60, 7), Ring(600, 4))
FORM = Form(b"test", RINGS, 8)


def record(number: int) -> bytes:
    return number.to_bytes(8, "little")


# --- the file


class Remembered(RuleBasedStateMachine):
    """A file beside a dictionary of what its places hold, through everything that may happen to it."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=os.environ["PYTEST_RINGS"]))
        self.path = self.folder / "file"
        self.form = FORM
        self.file = RingFile(self.path, self.form)
        #: By ring and place: the number that lies there, and its record.
        self.places: dict[tuple[int, int], tuple[int, bytes]] = {}

    @rule(ring=st.integers(0, 1), number=st.integers(-3, 40), value=st.integers(0, 255))
    def write(self, ring: int, number: int, value: int) -> None:
        self.file.write([(ring, number, record(value))])
        if number > 0:
            place = ring, number % self.form.rings[ring].length
            self.places[place] = number, record(value)

    @rule(lengths=st.tuples(st.integers(1, 12), st.integers(1, 6)))
    def take_another_form(self, lengths: tuple[int, int]) -> None:
        rings = tuple(Ring(r.width, n) for r, n in zip(RINGS, lengths, strict=True))
        self.form = Form(b"test", rings, 8)
        self.file = RingFile(self.path, self.form)
        if not self.path.exists():
            return
        self.file.since()
        kept: dict[tuple[int, int], tuple[int, bytes]] = {}
        for at, ring in enumerate(rings):
            latest = sorted(found for (r, _), found in self.places.items() if r == at)
            for number, value in latest[-ring.length :]:
                kept[at, number % ring.length] = number, value
        self.places = kept

    @rule(ring=st.integers(0, 1), number=st.integers(1, 40), kept=st.integers(0, 15))
    def tear_a_record(self, ring: int, number: int, kept: int) -> None:
        """As a power cut may: the rest of it is of something else."""
        if not self.path.exists():
            return
        place = ring, number % self.form.rings[ring].length
        at = self.form.place(ring, number)
        with self.path.open("r+b") as file:
            file.seek(at + kept)
            before = file.read(self.form.bucket - kept)
            torn = bytes((byte + 1) % 256 for byte in before)  # twice torn is not whole again
            file.seek(at + kept)
            file.write(torn)
        self.places.pop(place, None)

    @invariant()
    def the_file_holds_what_was_written(self) -> None:
        for ring in range(2):
            expected = {n: value for (r, _), (n, value) in self.places.items() if r == ring}
            length = self.form.rings[ring].length
            for last in (40, 23, 5):
                found = self.file.read(ring, last - length + 1, last)
                assert found == {n: v for n, v in expected.items() if last - length < n <= last}
        if self.path.exists():
            assert self.path.stat().st_size == self.form.size
        assert set(os.listdir(self.folder)) <= {"file"}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_RINGS", str(tmp_path))


TestRemembered = Remembered.TestCase
TestRemembered.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_file_that_is_not_there_remembers_nothing_and_is_not_made_by_looking(
    tmp_path: Path,
) -> None:
    file = RingFile(tmp_path / "file", FORM)
    assert (file.read(0, 1, 10), file.since()) == ({}, None)
    assert os.listdir(tmp_path) == []
    file.write(())
    since = file.since()
    assert since is not None
    assert abs(since - time()) < 60
    assert (tmp_path / "file").stat().st_size == FORM.size
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(FORM.size))


def text(path: Path) -> None:
    path.write_text("notes of somebody\n")


def shorter(path: Path) -> None:
    os.truncate(path, FORM.size - 1)


def longer(path: Path) -> None:
    os.truncate(path, FORM.size + 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def damaged_head(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def another_kind(path: Path) -> None:
    path.unlink()
    RingFile(path, Form(b"other", RINGS, 8)).write([(0, 1, record(1))])


def another_record(path: Path) -> None:
    path.unlink()
    RingFile(path, Form(b"test", RINGS, 9)).write([(0, 1, b"123456789")])


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("look_first", [True, False])
@pytest.mark.parametrize("spoil", [
    garbage, text, shorter, longer, empty, damaged_head, another_kind, another_record, link, directory,
    pipe,
])  # fmt: skip
def test_what_is_no_such_file_is_set_aside_with_a_word(
    tmp_path: Path,
    spoil: Callable[[Path], None],
    look_first: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = RingFile(tmp_path / "file", FORM)
    file.write([(0, 3, record(7))])
    spoil(tmp_path / "file")
    if look_first:
        assert file.read(0, 1, 10) == {}
    file.write([(0, 4, record(8))])
    assert file.read(0, 1, 10) == {4: record(8)}
    assert "it is set aside as file.damaged-" in caplog.text
    assert len([name for name in os.listdir(tmp_path) if name.startswith("file.damaged-")]) == 1


def test_what_the_system_lacks_for_a_moment_sets_nothing_aside(tmp_path: Path) -> None:
    file = RingFile(tmp_path / "file", FORM)
    file.write([(0, 3, record(7))])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            file.write([(0, 4, record(8))])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert file.read(0, 1, 7) == {3: record(7)}


def test_a_full_disk_leaves_no_half_made_file(tmp_path: Path) -> None:
    file = RingFile(tmp_path / "file", FORM)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FORM.size - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.write([(0, 4, record(8))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_another_form_keeps_when_the_file_was_begun(tmp_path: Path) -> None:
    file = RingFile(tmp_path / "file", FORM)
    file.write([(0, 3, record(7)), (1, 3, record(9))])
    since = file.since()
    other = RingFile(tmp_path / "file", Form(b"test", (Ring(60, 20), Ring(3600, 5)), 8))
    assert other.since() == since
    assert (other.read(0, 1, 10), other.read(1, 1, 5)) == ({3: record(7)}, {})


# --- times


TIMES = st.lists(st.floats(0, 200_000, allow_nan=False), max_size=60)


@given(TIMES, st.floats(0, 1))
def test_a_quantile_lies_in_the_bin_of_the_true_one(times: list[float], share: float) -> None:
    spread = Spread()
    for seconds in times:
        spread.add(seconds)
    assert spread.count == len(times)
    found = spread.quantile(share)
    if not times:
        assert found is spread.mean is None
        return
    assert spread.longest == max(times)
    assert spread.mean == pytest.approx(sum(times) / len(times))
    ordered = sorted(times)
    true = ordered[max(0, min(len(times) - 1, -int(-share * len(times) // 1) - 1))]
    assert found is not None
    assert bin_of(found) in (bin_of(true), bin_of(true) + 1) or found <= true <= found * 2 + 0.001


def bin_of(seconds: float) -> int:
    return min(int(seconds * 1000).bit_length(), BINS - 1)


@given(TIMES)
def test_quantiles_rise_and_never_exceed_the_longest(times: list[float]) -> None:
    spread = Spread()
    for seconds in times:
        spread.add(seconds)
    found = [spread.quantile(n / 20) or 0.0 for n in range(21)]
    assert found == sorted(found)
    assert found[-1] <= spread.longest
    assert Spread.unpack(spread.pack()) == spread


@given(TIMES, TIMES)
def test_two_together_are_as_if_all_had_come_to_one(
    first: list[float], second: list[float]
) -> None:
    one, other, both = Spread(), Spread(), Spread()
    for spread, times in ((one, first), (other, second), (both, first + second)):
        for seconds in times:
            spread.add(seconds)
    one.merge(other)
    assert (one.bins, one.longest) == (both.bins, both.longest)
    assert one.total == pytest.approx(both.total)


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 1e300, float("inf")])
def test_a_time_that_a_broken_clock_made_harms_nothing(seconds: float) -> None:
    spread = Spread()
    spread.add(seconds)
    assert spread.count == 1
    assert 0 <= (spread.quantile(0.5) or 0.0) <= 1e9
    assert len(spread.pack()) == Spread.SIZE


# --- counting


@given(st.lists(st.integers(0, 1 << 40), min_size=6, max_size=6), TIMES)
def test_a_tally_is_always_as_long_and_the_same_again(
    counts: list[int], times: list[float]
) -> None:
    tally = Tally()
    for name, count in zip(Tally.COUNTS, counts, strict=True):
        setattr(tally, name, count)
    for seconds in times:
        tally.wait.add(seconds)
        tally.run.add(seconds / 2)
    data = tally.pack()
    assert len(data) == Tally.SIZE
    again = Tally.unpack(data)
    assert [getattr(again, name) for name in Tally.COUNTS] == [
        min(n, (1 << 32) - 1) for n in counts
    ]
    assert (again.wait, again.run) == (tally.wait, tally.run)


def event(
    step: str, new: str | None, at: float, msg_id: str = "m", due: float = 0.0
) -> dict[str, object]:
    return {"msg_id": msg_id, "old": None, "new": new, "step": step, "at": at, "due": due}


def counted(*events: dict[str, object]) -> Tally:
    counter = Counter()
    for one in events:
        counter.hear(one)
    whole = Tally()
    for tally in counter.take().values():
        whole.merge(tally)
    assert counter.take() == {}
    return whole


@pytest.mark.parametrize(
    ("step", "new", "name"),
    [
        ("create", "que", "created"), ("commit", "que", "created"), ("adopt", "que", "created"),
        ("prepare", "prep", ""), ("adopt", "prep", ""), ("start", "run", "started"),
        ("finish", "done", "done"), ("finish", "err", "err"), ("finish", "relayed", "relayed"),
        ("duplicate", "done", "done"), ("duplicate", "relayed", "relayed"),
        ("resend", "que", "resent"), ("retry", "que", "resent"), ("recover", "que", ""),
        ("unstart", "que", ""), ("delete", None, ""), ("quarantine", None, ""),
    ],
)  # fmt: skip
def test_each_step_counts_for_what_it_means(step: str, new: str | None, name: str) -> None:
    tally = counted(event(step, new, 1000.0))
    assert {n: getattr(tally, n) for n in Tally.COUNTS if getattr(tally, n)} == (
        {name: 1} if name else {}
    )


def test_every_step_of_the_kernel_is_known_here() -> None:
    for row in TRANSITIONS:
        counted(event(str(row.step), None if row.new is None else str(row.new), 1000.0))


ID = "20260301.0800.10.250.000017"


def test_times_are_taken_from_when_a_message_could_have_begun() -> None:
    there = made(ID)
    assert there == 1772352010.25
    tally = counted(
        event("start", "run", there + 1.5, ID, due=there - 100), event("resend", "que", there + 3.5, ID),
        event("start", "run", there + 10, ID, due=there + 9), event("finish", "err", there + 11, ID),
        event("retry", "que", there + 500, ID), event("start", "run", there + 502, ID, due=there),
        event("finish", "done", there + 502.25, ID),
    )  # fmt: skip
    assert (tally.wait.total, tally.wait.count) == (1.5 + 1 + 2, 3)
    assert (tally.run.total, tally.run.longest) == (2 + 1 + 0.25, 2)
    early = counted(
        event("start", "run", there + 1, ID, due=there + 1000)
    )  # an operator could not wait
    assert (early.wait.total, early.wait.count) == (0, 1)


def test_a_run_that_began_before_we_listened_is_measured_when_the_queue_says_so() -> None:
    counter = Counter()
    counter.runs([{"msg_id": ID, "started_at": 900.0}])
    counter.hear(event("finish", "done", 1000.0, ID))
    counter.hear(event("finish", "done", 1001.0, "unknown"))
    (tally,) = counter.take().values()
    assert (tally.done, tally.run.count, tally.run.total) == (2, 1, 100.0)
    counter.hear(event("start", "run", 1000.0, ID))
    counter.lost()
    counter.hear(event("finish", "done", 5000.0, ID))
    assert sum(tally.run.count for tally in counter.take().values()) == 0


@pytest.mark.parametrize("msg_id", ["", "x", "1.2.3.4.5", "20261399.0000.00.000.1", "a.b.c.d.e"])
def test_an_id_that_does_not_say_when_it_was_made(msg_id: str) -> None:
    assert made(msg_id) == 0.0
