"""Finding text in a log: every place is found, in pieces of any size, from either side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_web import logsearch
from rqcore_web.logsearch import Match, Query, line_start, search

from rqcore.errors import RefusedError


@contextmanager
def reading(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def all_found(fd: int, query: Query, start: int, *, forward: bool, limit: int = 3) -> list[Match]:
    """Everything there is, asked for as a browser does: again and again from where it says."""
    found: list[Match] = []
    place: int | None = start
    while place is not None:
        piece = search(fd, query, place, forward=forward, limit=limit)
        found += piece.matches
        assert piece.next is None or (piece.next > place if forward else piece.next <= place)
        if not forward and piece.next == place:
            assert not piece.matches or piece.matches[-1].offset == place
        place = piece.next
    return found


def naive(data: bytes, text: str, *, ignore_case: bool) -> list[int]:
    needle = text.encode()
    if ignore_case:
        data, needle = data.lower(), needle.lower()
    return [at for at in range(len(data)) if data.startswith(needle, at)]


LOGS = st.lists(
    st.sampled_from([b"ab", b"A", b"b", b"\n", b"\r", b"x" * 40, b"\xff", "é".encode()])
)


@given(LOGS, st.sampled_from(["a", "ab", "B", "aba", "xx", "é", "b\r"]), st.booleans(), st.data())
def test_every_place_is_found_from_both_sides_in_chunks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], text: str, ignore: bool,
    data: st.DataObject,
) -> None:  # fmt: skip
    log = b"".join(parts)
    path = tmp_path_factory.getbasetemp() / "log"
    path.write_bytes(log)
    query = Query(text, ignore_case=ignore)
    start = data.draw(st.integers(0, len(log) + 1))
    expected = naive(log, text, ignore_case=ignore)
    with reading(path) as fd, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logsearch, "_CHUNK", data.draw(st.integers(1, 64)))
        patch.setattr(logsearch, "MOST_BYTES", data.draw(st.integers(1, 200)))
        after = all_found(fd, query, start, forward=True)
        before = all_found(fd, query, start, forward=False)
    assert [match.offset for match in after] == [at for at in expected if at >= start]
    assert [match.offset for match in reversed(before)] == [at for at in expected if at < start]
    for match in after + before:
        assert match.line_offset == log.rfind(b"\n", 0, match.offset) + 1


@pytest.mark.parametrize(
    ("log", "text", "ignore", "at"),
    [
        (b"\x1b[31merror:\x1b[0m disk full", "error: disk", False, [5]),
        (b"\x1b[1;31mE\x1b[32mr\x1b[33mr\x1b[0mor", "error", True, [7]),
        (b"\x1b[31m31m\x1b[31m", "31m", False, [5]),
        (b"\x1b[31m31m\x1b[31m", "1", False, [6]),
        (b"\x1b[38:2::1:2:3mx;\x1b[0m1", ";1", False, [15]),
        ("\x1b[1mÉTÉ".encode(), "été", True, [4]),
        ("ÉTÉ".encode(), "été", True, [0]),
        ("ÉTÉ".encode(), "été", False, []),
        ("straße STRASSE".encode(), "ß", True, [4]),
        (b"a.c abc [a] (a", "a.c", False, [0]),
        (b"a.c abc [a] (a", "(a", True, [12]),
        (b"\x1b[0m\\d+\x1b[0m", "\\d+", True, [4]),
        (b"Kelvin \xe2\x84\xaa k", "k", True, [0, 11]),
    ],
)
def test_text_is_found_as_it_is_seen(
    tmp_path: Path, log: bytes, text: str, ignore: bool, at: list[int]
) -> None:
    (tmp_path / "log").write_bytes(log)
    with reading(tmp_path / "log") as fd:
        found = search(fd, Query(text, ignore_case=ignore), 0, forward=True, limit=100)
    assert [match.offset for match in found.matches] == at
    assert found.next is None


def test_a_text_across_chunks_and_its_colours_is_found(tmp_path: Path) -> None:
    size = logsearch._CHUNK
    log = b"x" * (size - 3) + b"nee\x1b[0m\x1b[31mdle\n" + b"y" * size
    (tmp_path / "log").write_bytes(log)
    with reading(tmp_path / "log") as fd:
        query = Query("needle", ignore_case=True)
        assert all_found(fd, query, 0, forward=True) == [Match(size - 3, 0)]
        assert all_found(fd, query, len(log), forward=False) == [Match(size - 3, 0)]


def test_one_request_does_bounded_work_and_says_where_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(logsearch.MOST_BYTES + 5)
        file.write(b"needle")
    with reading(path) as fd:
        query = Query("needle", ignore_case=False)
        began, place, pieces = thread_time(), 0, 0
        while not (found := search(fd, query, place, forward=True)).matches:
            assert found.next is not None
            assert 0 < found.next - place <= logsearch.MOST_BYTES
            place, pieces = found.next, pieces + 1
        assert found.matches == [Match(logsearch.MOST_BYTES + 5, logsearch.MOST_BYTES + 5)]
        assert pieces >= 1
        assert (thread_time() - began) / (pieces + 1) < 20 * logsearch.MOST_SECONDS
        back = search(fd, query, 1 << 40, forward=False)
        assert back.next is not None
        assert (1 << 40) - logsearch.MOST_BYTES <= back.next < 1 << 40


def test_the_limit_is_kept_and_the_next_search_goes_on_behind_it(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a\na\na\n")
    with reading(tmp_path / "log") as fd:
        query = Query("a", ignore_case=False)
        first = search(fd, query, 0, forward=True, limit=2)
        assert (first.matches, first.next) == ([Match(0, 0), Match(2, 2)], 3)
        rest = search(fd, query, 3, forward=True, limit=2)
        assert (rest.matches, rest.next) == ([Match(4, 4)], None)


def test_the_start_of_a_line_too_long_to_tell_is_the_place_itself(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n" + b"x" * (logsearch.LINE_LOOK_BACK + 10) + b"end")
    with reading(path) as fd:
        assert line_start(fd, logsearch.LINE_LOOK_BACK, 7) == 1
        assert line_start(fd, logsearch.LINE_LOOK_BACK + 10, 7) == 7
        assert line_start(fd, 0, 7) == 0


@pytest.mark.parametrize("text", ["", "a\nb", "x" * (logsearch.LONGEST_QUERY + 1)])
def test_what_cannot_be_looked_for_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="1 to 1000 characters of one line"):
        Query(text, ignore_case=True)


def test_a_search_beyond_the_end_of_a_file_that_was_cut_short_ends(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"abc")
    with reading(tmp_path / "log") as fd:
        query = Query("c", ignore_case=False)
        assert search(fd, query, 99, forward=True).next is None
        assert search(fd, query, 99, forward=False).matches == [Match(2, 0)]
