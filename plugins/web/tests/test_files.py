"""Serving files: ranges, conditions, names, types, and what must not be reached."""

from __future__ import annotations

import asyncio
import hashlib
import os
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_web import files
from rqcore_web.files import disposition, file_response, message_file, parse_range, safe_type
from starlette.requests import Request
from starlette.responses import Response

from rqcore.errors import NotFoundError

CONTENT = bytes(range(256)) * 10


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "data.bin"
    file.write_bytes(CONTENT)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    return str(file)


def request_for(method: str = "GET", query: str = "", **headers: str) -> Request:
    pairs = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return Request({
        "type": "http", "method": method, "path": "/x", "raw_path": b"/x",
        "query_string": query.encode(), "headers": pairs,
    })  # fmt: skip


def sent(answer: Response, method: str = "GET", *, leave_after: int = 0) -> tuple[bytes, int]:
    """The body that is sent, and in how many pieces; the client leaves after so many of them."""
    pieces: list[bytes] = []

    async def run() -> None:
        left = asyncio.Event()

        async def receive() -> Any:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                pieces.append(message.get("body", b""))
                if len(pieces) == leave_after:
                    left.set()

        await answer({"type": "http", "method": method}, receive, send)

    asyncio.run(run())
    return b"".join(pieces), len(pieces)


def test_a_whole_file(path: str) -> None:
    answer = file_response(request_for(), path, filename="data.bin")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert sent(answer)[0] == CONTENT


def test_head_has_no_body(path: str) -> None:
    answer = file_response(request_for("HEAD", range="bytes=0-1"), path, filename="data.bin")
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(CONTENT)))
    assert sent(answer, "HEAD")[0] == b""


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("0-0", 0, 0), ("0-", 0, 2559), ("5-9", 5, 9), ("-3", 2557, 2559), ("-99999", 0, 2559),
     ("2559-", 2559, 2559), ("10-99999999999999999999999", 10, 2559), (" 1 - 2 ", 1, 2),
     ("-99999999999999999999999", 0, 2559)],
)  # fmt: skip
def test_a_range(path: str, wanted: str, first: int, last: int) -> None:
    answer = file_response(request_for(range=f"bytes={wanted}"), path, filename="data.bin")
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{last}/2560"
    assert sent(answer)[0] == CONTENT[first : last + 1]


@pytest.mark.parametrize("wanted", ["2560-", "9999-99999", "-0", "99999999999999999999999-"])
def test_a_range_that_the_file_has_not(path: str, wanted: str) -> None:
    answer = file_response(request_for(range=f"bytes={wanted}"), path, filename="data.bin")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */2560")


@pytest.mark.parametrize(
    "wanted", ["bytes=", "bytes=-", "bytes=5-3", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b"]
)
def test_what_is_no_single_range_is_the_whole(path: str, wanted: str) -> None:
    answer = file_response(request_for(range=wanted), path, filename="data.bin")
    assert answer.status_code == 200
    assert sent(answer)[0] == CONTENT


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    answer = file_response(request_for(), str(tmp_path / "empty"), filename="empty")
    assert (answer.status_code, sent(answer)[0]) == (200, b"")
    answer = file_response(request_for(range="bytes=-5"), str(tmp_path / "empty"), filename="empty")
    assert answer.status_code == 416


@given(
    st.integers(0, 30),
    st.one_of(st.none(), st.integers(0, 40)),
    st.one_of(st.none(), st.integers(0, 40)),
)
def test_ranges_are_those_of_a_slice(size: int, first: int | None, last: int | None) -> None:
    data = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    span = parse_range(header, size)
    if first is None:
        expected = None if last is None else data[max(0, size - last) :]
    elif last is None:
        expected = data[first:]
    else:
        expected = None if last < first else data[first : last + 1]
    assert (None if span is None else data[span[0] : span[0] + span[1]]) == expected


@given(st.text("bytes=-0123456789, ", max_size=30))
def test_any_range_header_is_understood_or_ignored(header: str) -> None:
    span = parse_range(header, 100)
    assert span is None or span == (0, 0) or (span[1] > 0 and 0 <= span[0] <= 100 - span[1])


def test_conditions(path: str) -> None:
    etag = file_response(request_for(), path, filename="data.bin").headers["etag"]
    old, same, new = (formatdate(1_700_000_000 + n, usegmt=True) for n in (-1, 0, 1))

    def status(**headers: str) -> int:
        return file_response(request_for(**headers), path, filename="data.bin").status_code

    assert status(if_none_match=etag) == 304
    assert status(if_none_match=f'"x", W/{etag}') == 304
    assert status(if_none_match="*") == 304
    assert status(if_none_match='"x"', if_modified_since=new) == 200
    assert [status(if_modified_since=date) for date in (old, same, new, "x")] == [
        200,
        304,
        304,
        200,
    ]
    ranged = [status(range="bytes=0-1", if_range=tag) for tag in (etag, same, '"x"', old)]
    assert ranged == [206, 206, 200, 200]


def test_an_answer_that_is_not_modified_has_no_body_and_leaves_no_descriptor(path: str) -> None:
    etag = file_response(request_for(), path, filename="data.bin").headers["etag"]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        answer = file_response(request_for(if_none_match=etag), path, filename="data.bin")
        assert sent(answer)[0] == b""
        file_response(request_for(), path, filename="data.bin")
    assert len(os.listdir("/proc/self/fd")) == before


def test_known_digests_are_told_and_name_the_content(path: str) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    digests = {"md5": "x", "sha256": sha256, "size": len(CONTENT)}
    answer = file_response(request_for(), path, filename="data.bin", digests=digests)
    # The value that `openssl dgst -sha256 -binary | base64` prints.
    assert answer.headers["repr-digest"] == "sha-256=:45I3j4SdZ7uxp7vshPEJiuP6p1EEnACahQEwzmBz2Ro=:"
    assert answer.headers["etag"] == f'"{sha256[:32]}"'
    stale = {**digests, "size": 5}
    answer = file_response(request_for(), path, filename="data.bin", digests=stale)
    assert "repr-digest" not in answer.headers


def test_a_growing_file_is_served_to_the_size_that_it_had(path: str) -> None:
    answer = file_response(request_for(), path, filename="data.bin")
    with open(path, "ab") as file:
        file.write(b"more")
    assert sent(answer)[0] == CONTENT


def test_a_file_that_shrinks_ends_the_answer_early(path: str) -> None:
    answer = file_response(request_for(), path, filename="data.bin")
    os.truncate(path, 100)
    assert sent(answer)[0] == CONTENT[:100]


def test_a_large_file_comes_in_pieces_and_is_read_no_further_than_somebody_reads(
    tmp_path: Path,
) -> None:
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(1 << 40)
    answer = file_response(request_for(), str(file), filename="large")
    body, pieces = sent(answer, leave_after=3)
    assert (len(body), pieces) == (3 * 256 * 1024, 3)
    answer = file_response(request_for(range="bytes=-600000"), str(file), filename="large")
    body, pieces = sent(answer)
    assert (len(body), pieces) == (600_000, 3)


TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
SHOWN = {
    TEXT: [
        "a.txt", "a.log", "a.html", "a.svg", "a.js", "a.css", "a.csv", "a.xml", "a.sh", "a.py",
        "data:text/html,x",
    ],
    "application/json": ["a.json"], "image/png": ["a.png", "A.PNG"], "image/webp": ["a.webp"],
    "video/mp4": ["a.mp4"],
}  # fmt: skip
SAVED = {
    "application/pdf": ["a.pdf"], "application/zip": ["a.zip"],
    "application/gzip": ["a.tar.gz", "a.html.gz", "a.svgz"], BYTES: ["a.exe", "a", "a.swf", ""],
}  # fmt: skip
TYPES = [(name, kind, "inline") for kind, names in SHOWN.items() for name in names]
TYPES += [(name, kind, "attachment") for kind, names in SAVED.items() for name in names]


@pytest.mark.parametrize(("filename", "kind", "disposition_"), TYPES)
def test_nothing_is_served_as_what_a_browser_would_run(
    tmp_path: Path, filename: str, kind: str, disposition_: str
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    answer = file_response(request_for(), str(tmp_path / "x"), filename=filename)
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"].partition(";")[0] == disposition_
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("query", "inline"), [("download=1", True), ("download=yes", True), ("", False)]
)
def test_a_file_can_be_asked_for_to_be_saved(path: str, query: str, inline: bool) -> None:
    answer = file_response(request_for(query=query), path, filename="a.txt", inline=inline)
    assert answer.headers["content-disposition"] == 'attachment; filename="a.txt"'
    shown = file_response(request_for(query="download=0"), path, filename="a.txt")
    assert shown.headers["content-disposition"] == 'inline; filename="a.txt"'


@pytest.mark.parametrize(
    ("filename", "value"),
    [
        ("a b.txt", 'filename="a b.txt"'),
        ('a"b\\c', "filename=\"a_b_c\"; filename*=UTF-8''a%22b%5Cc"),
        ("ü☃", "filename=\"__\"; filename*=UTF-8''%C3%BC%E2%98%83"),
        ("a\r\nb", "filename=\"a__b\"; filename*=UTF-8''a%0D%0Ab"),
        ("\udcff", "filename=\"_\"; filename*=UTF-8''%FF"),
    ],
)
def test_names_in_any_letters(filename: str, value: str) -> None:
    assert disposition(filename, "inline") == f"inline; {value}"


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_name_makes_a_header_of_one_line(filename: str) -> None:
    value = disposition(filename, "inline")
    assert value.isascii()
    assert value.isprintable()
    assert safe_type(filename).isascii()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\0b", "a\nb", "~x", "a%2Fb"]
)
def test_a_name_that_is_none_leads_nowhere(name: str) -> None:
    with pytest.raises(NotFoundError):
        message_file({"path": "/spool/x"}, "attach", name)
    assert message_file({"path": "/spool/x"}, "attach", "a b") == "/spool/x/attach/a b"


@pytest.mark.parametrize(
    "kind", ["missing", "directory", "link", "link above", "pipe", "socket", "long"]
)
def test_only_regular_files_are_served_and_links_are_not_followed(
    tmp_path: Path, kind: str
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").write_text("secret")
    path = tmp_path / "x"
    match kind:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(real / "file")
        case "link above":
            path.symlink_to(real)
            path /= "file"
        case "pipe":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, 0o140600)
        case "long":
            path = tmp_path / ("x" * 300)
        case _:
            assert kind == "missing"
    with pytest.raises(NotFoundError, match="not found: "):
        file_response(request_for(), str(path), filename="x")


def test_the_name_in_a_path_keeps_every_byte() -> None:
    request = Request(
        {"type": "http", "raw_path": b"/q/test/1/attach/a%20b%ff%C3%BC", "headers": []}
    )
    assert files.raw_name(request) == "a b\udcffü"
