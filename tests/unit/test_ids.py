"""rqcore.stores.ids: order and counts, against a plain sorted list."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

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
    ids, model = SortedIds(first), set(first)
    for adding, one in changes:
        assert (one in ids) == (one in model)
        if adding:
            assert ids.add(one) == (one not in model)
            model.add(one)
        else:
            assert ids.discard(one) == (one in model)
            model.discard(one)
        assert ids.count() == len(model)
    assert ids.newest(limit, before) == expected(model, limit, before)


def tree(root: Path, ids: set[str]) -> HashedIds:
    for one in ids:
        os.makedirs(hashed_path(str(root), one))
    return HashedIds(str(root))


@given(data=st.data(), ids=st.sets(IDS, max_size=25), limit=st.integers(1, 9), before=BOUND)
def test_hashed_ids(
    tmp_path_factory: object, data: st.DataObject, ids: set[str], limit: int, before: str
) -> None:
    root = tmp_path_factory.mktemp("done")  # type: ignore[attr-defined]
    found = tree(root, ids)
    assert found.newest(limit, before) == expected(ids, limit, before)
    assert sorted(found.all()) == sorted(ids)
    assert found.count(trust_links=False) == len(ids)
    if links_count_subdirectories(str(root.parent)):
        assert found.count(trust_links=True) == len(ids)
    pages: list[str] = []
    while page := found.newest(limit, pages[-1] if pages else ""):
        pages += page
    assert pages == expected(ids, len(ids), "")


def test_what_is_no_message_is_not_listed(tmp_path: Path) -> None:
    one = "20260101.1234.00.000.000001"
    ids = tree(tmp_path, {one})
    for path in ("20260101/12/34/lost+found", "20260101/12/x", "20260101/note", "latest"):
        os.makedirs(tmp_path / path)
    (tmp_path / "20260102").touch()
    (tmp_path / "20260103").mkdir()
    assert ids.newest(5, "") == list(ids.all()) == [one]
    assert ids.count(trust_links=False) == 1


def test_no_directory_at_all_holds_nothing(tmp_path: Path) -> None:
    ids = HashedIds(str(tmp_path / "none"))
    assert ids.newest(5, "") == list(ids.all()) == []
    assert ids.count(trust_links=True) == ids.count(trust_links=False) == 0


def test_files_do_not_count_as_links(tmp_path: Path) -> None:
    before = links_count_subdirectories(str(tmp_path))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/tmp")
    (tmp_path / "dir").mkdir()
    assert links_count_subdirectories(str(tmp_path)) == before
