"""The file of a queue's counts: it survives, it stays small, and nothing that is wrong with it harms."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
from pathlib import Path

import pytest
from rqcore_metrics import book, exits, pushes
from rqcore_metrics.book import Book, read

from rqcore import durable

ID = "20261124.1200.00.000.1234567"


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "var" / "metrics" / "counts" / "test")


def test_what_was_counted_is_there_for_the_next_process(path: str) -> None:
    first = Book(path)
    for _ in range(3):
        first.count("finished", "done")
    first.observe("wait", 0.02)
    first.observe("wait", 7)
    first.observe("wait", 1e9)
    first.add("cpu", 1.5)
    first.note("last", 1_700_000_000.5, "done")
    first.save()
    first.close()
    second = Book(path)
    second.count("finished", "done")
    second.save()
    found = read(path)
    second.close()
    assert found.counts["finished", "done"] == 4
    assert found.counts["finished", "err"] == 0
    assert found.numbers["cpu", ""] == 1.5
    assert found.numbers["last", "done"] == 1_700_000_000.5
    values, total = found.histograms["wait"]
    assert total == pytest.approx(1e9 + 7.02)
    assert {book.TIMES[place]: count for place, count in enumerate(values) if count} == {
        0.05: 1, 10: 1, math.inf: 1,
    }  # fmt: skip


def test_a_bound_belongs_to_its_own_bucket(path: str) -> None:
    one = Book(path)
    one.observe("run", 10)
    one.observe("run", -3)  # a clock that was set back
    one.save()
    one.close()
    values, total = read(path).histograms["run"]
    assert (values[book.TIMES.index(10)], values[0], total) == (1, 1, 10)


def test_its_size_is_fixed(path: str) -> None:
    one = Book(path)
    before = os.path.getsize(path)
    for number in range(book.SLOTS + 5):
        one.intend(f"{ID}{number}", "done")
        one.count("started")
        one.save()
    one.close()
    assert os.path.getsize(path) == before == book.SIZE
    assert before < 10_000


def test_what_was_about_to_end_is_known_to_the_next_process(path: str) -> None:
    first = Book(path)
    slot = first.intend(ID, "relayed")
    assert slot is not None
    other = first.intend("20261124.1200.00.001.1", "err")
    assert other is not None
    first.settle(other)
    first.save()
    first.close()
    second = Book(path)
    second.close()
    assert second.left == [(ID, "relayed", slot)]


def test_slots_are_used_again_and_their_number_is_a_limit(path: str) -> None:
    one = Book(path)
    slots = [one.intend(f"{ID}{number}", "done") for number in range(book.SLOTS)]
    assert one.intend(ID, "done") is None
    assert slots[7] is not None
    one.settle(slots[7])
    assert one.intend(ID, "done") == slots[7]
    one.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"x" * book.SIZE, b"rqcore-metrics 1", b"\0" * (book.SIZE + 1)],
    ids=["empty", "short", "other", "cut", "long"],
)
def test_what_is_no_file_of_counts_is_set_aside(
    path: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).parent.mkdir(parents=True)
    Path(path).write_bytes(content)
    with pytest.raises(OSError, match=r"holds no counts|longer than"):
        read(path)
    one = Book(path)
    one.count("started")
    one.save()
    one.close()
    assert read(path).counts["started", ""] == 1
    (aside,) = Path(path).parent.glob("test.damaged-*")
    assert aside.read_bytes() == content
    assert "set aside" in caplog.text
    assert [name for name, _ in book.read_all(str(Path(path).parents[3]))] == ["test"]


@pytest.mark.parametrize("obstacle", ["directory", "link", "pipe"])
def test_what_cannot_be_opened_costs_the_file_and_nothing_else(
    path: str, obstacle: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(path).parent.mkdir(parents=True)
    if obstacle == "directory":
        Path(path).mkdir()
    elif obstacle == "link":
        Path(path).symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    one = Book(path)
    slot = one.intend(ID, "done")
    assert slot is not None
    one.settle(slot)
    one.count("finished", "done")
    one.save()
    one.close()
    assert "cannot be kept for now" in caplog.text or "set aside" in caplog.text


def test_a_disk_that_takes_nothing_is_told_once_and_caught_up_with(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Book(path)
    real = os.pwrite

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        for number in range(book.SLOTS):
            slot = one.intend(f"{ID}{number}", "done")
            if slot is not None and number:
                one.settle(slot)
            one.count("finished", "done")
            one.save()
    assert caplog.text.count("cannot be kept for now") == 1
    monkeypatch.setattr(os, "pwrite", real)
    one.count("finished", "done")
    one.save()
    one.close()
    assert read(path).counts["finished", "done"] == book.SLOTS + 1
    after = Book(path)
    after.close()
    assert [msg_id for msg_id, _, _ in after.left] == [f"{ID}0"]


def test_ids_that_are_noted_while_there_is_no_file_are_in_it_when_it_is_made(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace_unsynced", no_room)
        one = Book(path)
        noted = [f"{ID}{number}" for number in range(book.SLOTS)]
        assert None not in [one.intend(msg_id, "done") for msg_id in noted]
    for _ in range(600):
        one.save()
    one.close()
    after = Book(path)
    after.close()
    assert [msg_id for msg_id, _, _ in after.left] == noted


@pytest.mark.parametrize("slot", [0, book.SLOTS - 1])
@pytest.mark.parametrize("writes", range(4))
def test_a_slot_that_is_used_again_is_never_half_another(
    path: str, monkeypatch: pytest.MonkeyPatch, slot: int, writes: int
) -> None:
    """It lies in the page of the counts or behind it; the process is killed before any write."""
    one = Book(path)
    for number in range(book.SLOTS):
        one.intend(f"{ID}{number}", "done")
    one.settle(slot)
    one.count("finished", "done")
    real, left = os.pwrite, iter(range(writes))

    def write(fd: int, data: bytes, at: int) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(fd, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        with contextlib.suppress(KeyboardInterrupt):
            assert one.intend("20261124.1200.00.001.1", "err") == slot
    one.close()
    after = Book(path)
    after.close()
    found = [(msg_id, outcome) for msg_id, outcome, at in after.left if at == slot]
    if read(path).counts["finished", "done"]:
        assert found in ([], [("20261124.1200.00.001.1", "err")])
    else:
        assert found == [(f"{ID}{slot}", "done")]


def test_a_file_that_could_not_be_made_is_made_when_there_is_room(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace_unsynced", no_room)
        one = Book(path)
        for _ in range(600):
            one.count("started")
            one.save()
    assert caplog.text.count("cannot be kept for now") == 1
    assert not Path(path).exists()
    for _ in range(600):
        one.count("started")
        one.save()
    one.close()
    assert read(path).counts["started", ""] == 1200


def test_one_that_was_closed_is_not_made_again(path: str) -> None:
    one = Book(path)
    one.close()
    os.unlink(path)
    for _ in range(600):
        one.save()
    assert not Path(path).exists()


def test_a_queue_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    path = f"{book.folder(str(tmp_path))}/test"
    Book(path).close()
    assert [name for name, _ in book.read_all(str(tmp_path))] == ["test"]
    book.forget(str(tmp_path), "test")
    book.forget(str(tmp_path), "test")
    assert not list(book.read_all(str(tmp_path)))


@pytest.mark.parametrize("kind", ["directory", "link", "numbers"])
def test_what_is_no_file_of_ours_is_set_aside(path: str, kind: str) -> None:
    os.makedirs(os.path.dirname(path))
    if kind == "directory":
        os.mkdir(path)
    elif kind == "link":
        os.symlink("/etc/passwd", path)
    else:  # the next count would not fit
        Path(path).write_bytes(book._MAGIC.ljust(book.SIZE, b"\xff"))
    one = Book(path)
    one.count("started")
    one.save()
    one.close()
    assert read(path).counts["started", ""] == 1
    assert len(os.listdir(os.path.dirname(path))) == 2


def test_who_comes_back_every_few_seconds_complains_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(book.folder(str(tmp_path)))
    folder.mkdir(parents=True)
    (folder / "test").write_text("nonsense")
    for _ in range(3):
        assert list(book.read_all(str(tmp_path))) == []
    assert caplog.text.count("holds no counts") == 1


@pytest.mark.parametrize("file", ["exits.json", "pushes.json"])
def test_what_is_nested_without_end_counts_as_nothing(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "var" / "metrics"
    folder.mkdir(parents=True)
    (folder / file).write_text("[" * 100_000)
    assert exits.read(str(tmp_path)) == {}
    assert pushes.read(str(tmp_path)) == {}
