"""rqcore.stores.ids: order and counts, against a plain sorted list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore import durable
from rqcore.stores import ids
from rqcore.stores.ids import HashedIds, SortedIds, hashed_path, links_count_subdirectories

IDS = st.builds(
    "{:08d}.{:02d}{:02d}.{:02d}.{:03d}.{:06d}".format,
    st.sampled_from([20251231, 20260101, 20260102]), st.sampled_from([0, 9, 23]),
    st.sampled_from([0, 30, 59]), st.integers(0, 2), st.integers(0, 1), st.integers(0, 2),
)  # fmt: skip
BOUND = st.just("") | IDS | st.sampled_from(["0", "20260101", "99999999"])


def expected(ids: set[str], limit: int, before: str) -> list[str]:
    return sorted((one for one in ids if not before or one < before), reverse=True)[:limit]


@given(st.sets(IDS), st.lists(st.tuples(st.booleans(), IDS)), st.integers(1, 9), BOUND)
def test_sorted_ids(
    first: set[str], changes: list[tuple[bool, str]], limit: int, before: str
) -> None:
    held, model = SortedIds(first), set(first)
    for adding, one in changes:
        assert (one in held) == (one in model)
        if adding:
            assert held.add(one) == (one not in model)
            model.add(one)
        else:
            assert held.discard(one) == (one in model)
            model.discard(one)
        assert held.count() == len(model)
    assert held.newest(limit, before) == expected(model, limit, before)


def tree(root: Path, present: set[str]) -> HashedIds:
    for one in present:
        os.makedirs(hashed_path(str(root), one))
    return HashedIds(str(root))


@given(data=st.data(), present=st.sets(IDS, max_size=25), limit=st.integers(1, 9), before=BOUND)
def test_hashed_ids(
    tmp_path_factory: object, data: st.DataObject, present: set[str], limit: int, before: str
) -> None:
    root = tmp_path_factory.mktemp("done")  # type: ignore[attr-defined]
    found = tree(root, present)
    assert found.newest(limit, before) == expected(present, limit, before)
    assert sorted(found.all()) == sorted(present)
    assert found.count(trust_links=False) == len(present)
    if links_count_subdirectories(str(root.parent)):
        assert found.count(trust_links=True) == len(present)
    pages: list[str] = []
    while page := found.newest(limit, pages[-1] if pages else ""):
        pages += page
    assert pages == expected(present, len(present), "")


@pytest.fixture
def crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[HashedIds, Path, list[str]]:
    """A minute with many messages that were there long ago; its directory; and each reading of it."""
    found = tree(tmp_path, {f"20260101.1234.00.000.{number:06}" for number in range(600)})
    minute = tmp_path / "20260101/12/34"
    os.utime(minute, (0, 0))
    read: list[str] = []

    def listening(path: str) -> Iterator[str]:
        if path == str(minute):
            read.append(path)
        return durable.children(path)

    monkeypatch.setattr(ids, "children", listening)
    return found, minute, read


def test_a_crowded_minute_is_read_once_for_all_its_pages(
    crowd: tuple[HashedIds, Path, list[str]],
) -> None:
    found, _, read = crowd
    pages: list[str] = []
    while page := found.newest(50, pages[-1] if pages else ""):
        pages += page
    assert pages == sorted(set(pages), reverse=True)
    assert (len(pages), len(read)) == (600, 1)


def test_what_comes_into_or_leaves_a_crowded_minute_is_seen(
    crowd: tuple[HashedIds, Path, list[str]],
) -> None:
    found, minute, read = crowd
    newest = found.newest(1, "")
    (minute / newest[0]).rmdir()
    assert found.newest(1, "") != newest
    (minute / newest[0]).mkdir()
    assert found.newest(1, "") == newest
    (minute / "20260101.1234.59.000.000000").mkdir()
    assert found.newest(1, "") == ["20260101.1234.59.000.000000"]
    # It was changed just now: as long as its time may not tell of the next change, it is read anew.
    assert found.newest(1, "") == ["20260101.1234.59.000.000000"]
    assert len(read) == 5


def test_what_is_no_message_is_not_listed(tmp_path: Path) -> None:
    one = "20260101.1234.00.000.000001"
    found = tree(tmp_path, {one})
    for path in ("20260101/12/34/lost+found", "20260101/12/x", "20260101/note", "latest"):
        os.makedirs(tmp_path / path)
    (tmp_path / "20260102").touch()
    (tmp_path / "20260103").mkdir()
    assert found.newest(5, "") == list(found.all()) == [one]
    assert found.count(trust_links=False) == 1


def test_no_directory_at_all_holds_nothing(tmp_path: Path) -> None:
    found = HashedIds(str(tmp_path / "none"))
    assert found.newest(5, "") == list(found.all()) == []
    assert found.count(trust_links=True) == found.count(trust_links=False) == 0


def test_files_do_not_count_as_links(tmp_path: Path) -> None:
    before = links_count_subdirectories(str(tmp_path))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/tmp")
    (tmp_path / "dir").mkdir()
    assert links_count_subdirectories(str(tmp_path)) == before
