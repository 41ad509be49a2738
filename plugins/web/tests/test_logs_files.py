"""Which files of a message can be read, and what their end looks like as text."""

from __future__ import annotations

import os
from pathlib import Path
from time import thread_time

import pytest
from rqcore_web import logfiles, logtext
from rqcore_web.logfiles import Part


@pytest.fixture
def message(tmp_path: Path) -> Path:
    """A message's directory with one good file, and with everything that must not be read."""
    folder = tmp_path / "message"
    job = folder / "job"
    job.mkdir(parents=True)
    (folder / "attach").mkdir()
    (folder / "msg").write_text("secret of the message")
    (tmp_path / "outside").write_text("secret of the machine")
    (job / "stdio.log").write_text("hello\n")
    (job / "odd name % é?").write_text("odd\n")
    (job / ".hidden").write_text("hidden")
    (job / "link").symlink_to(tmp_path / "outside")
    (job / "inside").symlink_to("stdio.log")
    (job / "folder").mkdir()
    (job / "folder" / "file").write_text("deeper")
    os.mkfifo(job / "fifo")
    return folder


def read(folder: Path, name: str, part: Part = Part.JOB) -> bytes:
    with logfiles.opened(str(folder), part, name) as fd:
        return os.read(fd, 1000)


def test_a_regular_file_is_seen_listed_and_read(message: Path) -> None:
    assert read(message, "stdio.log") == b"hello\n"
    assert read(message, "odd name % é?") == b"odd\n"
    assert [sight.name for sight in logfiles.listing(str(message), Part.JOB)] == [
        "odd name % é?", "stdio.log",
    ]  # fmt: skip
    assert logfiles.listing(str(message), Part.ATTACH) == []
    sight = logfiles.look(str(message), Part.JOB, "stdio.log")
    assert sight is not None
    assert sight.size == 6
    assert sight.modified == (message / "job/stdio.log").stat().st_mtime


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../msg", "../../outside", "/etc/passwd", ".hidden", "link", "inside",
        "folder", "folder/file", "fifo", "stdio.log/", "stdio.log\0", "x" * 256, "\udcff", "none",
    ],
)  # fmt: skip
def test_nothing_else_is(message: Path, name: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system has for it
        read(message, name)
    assert logfiles.look(str(message), Part.JOB, name) is None


@pytest.mark.parametrize("part", [Part.JOB, Part.ATTACH])
def test_no_link_is_followed_on_the_way(tmp_path: Path, message: Path, part: Part) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / part).symlink_to(message / "job")
    assert logfiles.look(str(other), part, "stdio.log") is None
    assert logfiles.listing(str(other), part) == []
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system has for it
        read(other, "stdio.log", part)
    assert logfiles.look(str(tmp_path / "nowhere"), part, "stdio.log") is None


def test_another_file_of_the_same_name_is_told_from_the_first(message: Path) -> None:
    first = logfiles.look(str(message), Part.JOB, "stdio.log")
    (message / "job/new").write_text("hello\n")
    (message / "job/new").rename(message / "job/stdio.log")
    second = logfiles.look(str(message), Part.JOB, "stdio.log")
    assert first is not None
    assert second is not None
    assert first.identity != second.identity


def test_a_file_that_becomes_a_pipe_between_look_and_open_keeps_nobody_waiting(
    message: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = logfiles.look(str(message), Part.JOB, "stdio.log")
    monkeypatch.setattr(logfiles, "_sight", lambda *_: seen)
    with pytest.raises(FileNotFoundError):
        read(message, "fifo")


def test_so_many_files_are_listed(message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "MOST_LISTED", 1)
    assert [sight.name for sight in logfiles.listing(str(message), Part.JOB)] == ["odd name % é?"]


# --- text


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"plain\ttext", "plain\ttext"),
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"abc\rX", "Xbc"),
        (b"10%\r100%\rdone", "done"),
        (b"\x1b[1;31mred\x1b[0m\tx", "red\tx"),
        (b"10%\r\x1b[K20%\x1b[2K\r\x1b[1Gz", "z  "),
        (b"abcdef\x1b[3D\x1b[K!", "abc!"),
        (b"abcdef\x1b[2G\x1b[1K", "  cdef"),
        (b"a\x1b[3Cb", "a   b"),
        (b"a\x1b[99999999Cb", "a" + " " * 511 + "b"),
        (b"|\b/\b-\bok", "ok"),
        (b"a\tb\rX", "X       b"),
        (b"\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x1b\\!", "link!"),
        (b"\x1b]0;title \xc2\x9cshown", "shown"),
        (b"\x1b]0;never ends", "0;never ends"),
        (b"\x1b]0;given up\x1b[1mbold", "bold"),
        (b"\x1bP1$r0m\x1b\\\x1b_hidden\x1b\\\x1b^x\x1b\\\x1bXy\x1b\\z", "z"),
        (b"\x1b(B\x1b7\x1b=\x1b[?25l\x1b[>c\x1b[10;20Hok\x1b", "ok"),
        (b"\x1b[31", ""),
        (b"\x1b[31\xc3\xa9", "é"),
        (b"\xc2\x9b31mred\xc2\x85\xc2\x9d;x\xc2\x9c.", "red."),
        (b"a\x00b\x9b\x7f\x07\x0e\xff\xfe", "a␀b�␡��"),
        ("日本\rX".encode(), "X本"),
        (b"<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_the_text_is_what_a_terminal_shows(printed: bytes, shown: str) -> None:
    assert logtext.visible(printed) == shown


@pytest.mark.parametrize(
    "unit", [b"\x1b]", b"\xc2\x9d", b"\x1b[", b"\x1bP\r", b"a\r", b"\x1b[999999C\x1b[1K", b"\x1b ("]
)
def test_no_garbage_takes_long(unit: bytes) -> None:
    began = thread_time()
    logtext.visible(unit * (logtext.TAIL_BYTES // len(unit)))
    assert thread_time() - began < 5


@pytest.mark.parametrize(
    ("log", "most", "shown"),
    [
        (b"one\ntwo\nthree\n", 100, ("one\ntwo\nthree\n", 0)),
        (b"one\ntwo\nthree\n", 8, ("three\n", 8)),
        (b"one\ntwo\nthree", 8, ("three", 8)),
        (b"x" * 20, 8, ("x" * 8, 12)),
        (b"x" * 20 + b"\n", 8, ("x" * 7 + "\n", 13)),
        (b"", 8, ("", 0)),
    ],
)
def test_a_tail_is_made_of_whole_lines(
    tmp_path: Path, log: bytes, most: int, shown: tuple[str, int]
) -> None:
    (tmp_path / "log").write_bytes(log)
    fd = os.open(tmp_path / "log", os.O_RDONLY)
    try:
        assert logtext.tail(fd, most) == shown
    finally:
        os.close(fd)
