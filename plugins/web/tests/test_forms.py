"""Bodies of requests: nesting names, JSON, forms in parts cut anywhere, limits, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_web import forms
from rqcore_web.formnames import nest, query_fields
from rqcore_web.forms import MAX_FIELDS, BodyError, Form
from starlette.requests import ClientDisconnect, Request

BOUNDARY = "xxBOUNDARYxx"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
FORM = "application/x-www-form-urlencoded"


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.data += data


def body_of(
    *parts: tuple[str, bytes] | tuple[str, bytes, str], last: bytes = b"--\r\n", head: str = ""
) -> bytes:
    """A body in parts: (name, value), or (name, value, filename)."""
    body = b""
    for name, value, *filename in parts:
        file = f'; filename="{filename[0]}"' if filename else ""
        body += f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=".encode()
        body += f'"{name}"{file}\r\n{head}\r\n'.encode() + value + b"\r\n"
    return body + f"--{BOUNDARY}".encode() + last


def read(
    body: bytes | Iterable[bytes], kind: str = FORM, *, query: str = "", most: int = 100_000,
    sink: Kept | None = None, cut_off: bool = False, headers: dict[str, str] | None = None,
) -> Form:  # fmt: skip
    """The form that a request with this body, or with a body in these pieces, brings."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    end = {"type": "http.request", "body": b"", "more_body": False}
    messages.append({"type": "http.disconnect"} if cut_off else end)

    async def receive() -> Any:
        return messages.pop(0)

    given_headers = {"content-type": kind, **(headers or {})}
    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in given_headers.items() if v],
    }  # fmt: skip
    return asyncio.run(forms.read(Request(scope, receive), most, sink))


# Names with brackets


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("a=1&b=&c", {"a": "1", "b": "", "c": ""}),
        ("a=1&a=2", {"a": "2"}),
        ("a+b=c+d%2B%26", {"a b": "c d+&"}),
        ("mesg[dest]=test&mesg[param1]=x%3Dy", {"mesg": {"dest": "test", "param1": "x=y"}}),
        ("q[list][]=1&q[list][]=3", {"q": {"list": ["1", "3"]}}),
        ("l[]=1&l[]=", {"l": ["1", ""]}),
        (
            "s[][cron]=a&s[][param1]=b&s[][cron]=c",
            {"s": [{"cron": "a", "param1": "b"}, {"cron": "c"}]},
        ),
        ("s[][l][]=1&s[][l][]=2&s[][k]=3", {"s": [{"l": ["1", "2"], "k": "3"}]}),
        ("s[][a][b]=1&s[][a][c]=2&s[][a][b]=3",
         {"s": [{"a": {"b": "1", "c": "2"}}, {"a": {"b": "3"}}]}),
        ("a[b=1&c]=2&[d]=3&e[f]g=4&h[[i]]=5&j[][]=6",
         {"a[b": "1", "c]": "2", "[d]": "3", "e[f]g": "4", "h[[i]]": "5", "j[][]": "6"}),
        ("raw=%ff%00", {"raw": "\udcff\0"}),
    ],
)  # fmt: skip
def test_names_nest(query: str, fields: dict[str, Any]) -> None:
    assert nest(query_fields(query.encode())) == fields
    assert read(query.encode()).fields == fields


@pytest.mark.parametrize(
    "query",
    ["a=1&a[b]=2", "a[b]=1&a=2", "a[]=1&a[b]=2", "a[b]=1&a[]=2", "a[][b]=1&a[c]=2", "a[]=1&a=2"],
)
def test_names_that_contradict_are_refused(query: str) -> None:
    with pytest.raises(BodyError, match="text at one place and nested at another"):
        read(query.encode())


def test_names_are_not_nested_without_end() -> None:
    with pytest.raises(BodyError, match="nested too deeply"):
        nest([("a" + "[b]" * 1000, "1")])


TREES = st.recursive(
    st.text(max_size=5),
    lambda inner: st.one_of(
        st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, min_size=1, max_size=3),
        st.lists(st.text(max_size=3), min_size=1, max_size=3),
    ),
    max_leaves=8,
)


def flat(tree: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(tree, dict):
        return [pair for key, value in tree.items() for pair in flat(value, f"{name}[{key}]")]
    if isinstance(tree, list):
        return [(f"{name}[]", value) for value in tree]
    return [(name, tree)]


def depth(tree: Any) -> int:
    return 1 + max(map(depth, tree.values()), default=0) if isinstance(tree, dict) else 1


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), TREES, max_size=3))
def test_what_is_written_flat_is_read_nested(tree: dict[str, Any]) -> None:
    if depth(tree) > 7:
        return
    pairs = [pair for key, value in tree.items() for pair in flat(value, key)]
    assert nest(pairs) == tree
    assert nest(query_fields(urlencode(pairs).encode())) == tree


@given(st.lists(st.tuples(st.text("ab[]", max_size=9), st.text(max_size=2)), max_size=6))
def test_any_names_are_fields_or_are_refused(pairs: list[tuple[str, str]]) -> None:
    with contextlib.suppress(BodyError):
        nest(pairs)


# Bodies that are no forms in parts


def test_a_json_object_is_fields_and_a_document() -> None:
    form = read(
        b'{"dest": "test", "n": 1, "b": true}', "application/json; charset=utf-8", query="x=1"
    )
    assert form.document == {"dest": "test", "n": 1, "b": True}
    assert form.fields == {"x": "1", "dest": "test", "n": 1, "b": True}
    assert [form.text(name) for name in ("dest", "n", "b", "missing")] == ["test", "1", "true", ""]
    assert form.mapping("dest") is None


def test_the_query_counts_and_the_body_wins() -> None:
    assert read(b"a=2", query="a=1&b=3").fields == {"a": "2", "b": "3"}
    assert read(b"", "", query="_method=delete").fields == {"_method": "delete"}
    assert read(body_of(("a", b"2")), MULTIPART, query="a=1&b=3").fields == {"a": "2", "b": "3"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "the body is not JSON: Expecting property name"),
        (b"[1]", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not JSON: Exceeds the limit"),
        (b"\xff", "is not JSON: Expecting value"),
    ],
)
def test_json_that_is_no_object_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(BodyError, match=reason) as caught:
        read(body, "application/json")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "application/xml", "multipart/mixed; boundary=x"]
)
def test_other_kinds_of_bodies_are_refused(kind: str) -> None:
    with pytest.raises(BodyError, match="send JSON or a form") as caught:
        read(b"x", kind)
    assert caught.value.status == 415


@pytest.mark.parametrize("kind", [FORM, "application/json", MULTIPART])
@pytest.mark.parametrize("told", [True, False])
def test_a_body_that_is_too_large_is_refused(kind: str, told: bool) -> None:
    body = body_of(("a", b"x" * 500)) if kind == MULTIPART else b'{"a": 1}' + b" " * 500
    headers = {"content-length": str(len(body))} if told else {}
    with pytest.raises(BodyError, match=r"at most 300 bytes are taken here \(max_body\)") as caught:
        read([body[:250], body[250:]], kind, most=300, headers=headers)
    assert caught.value.status == 413


def test_too_many_fields_are_refused() -> None:
    assert len(read("&".join(f"{n}=" for n in range(MAX_FIELDS)).encode()).fields) == MAX_FIELDS
    with pytest.raises(BodyError, match="at most 1000") as caught:
        read(b"a&" * MAX_FIELDS + b"a")
    assert caught.value.status == 413
    many = [(str(n), b"") for n in range(MAX_FIELDS + 1)]
    with pytest.raises(BodyError, match="at most 1000"):
        read(body_of(*many), MULTIPART, most=1 << 20)


@pytest.mark.parametrize("kind", [FORM, "application/json", MULTIPART])
def test_a_client_that_goes_away_is_told_apart(kind: str) -> None:
    with pytest.raises(ClientDisconnect):
        read(body_of(("a", b"1"))[:20], kind, cut_off=True)


# Forms in parts


def test_a_form_in_parts_has_fields_and_a_file() -> None:
    sink = Kept()
    body = body_of(
        ("filedata", b"\r\n--xxBOUNDARY\r\n\0\xff", "a b.bin"), ("pathname", b"x"),
        ("q[l][]", b"1"), ("q[l][]", "ü".encode()), head="Content-Type: image/png\r\n",
    )  # fmt: skip
    form = read(body, MULTIPART, sink=sink)
    assert form.fields == {"pathname": "x", "q": {"l": ["1", "ü"]}}
    assert form.file == forms.FilePart("filedata", "a b.bin", "image/png")
    assert sink.data == b"\r\n--xxBOUNDARY\r\n\0\xff"


NEARLY = [b"\r", b"\n", b"\r\n", b"-", b"--", BOUNDARY.encode(), BOUNDARY[:5].encode(), b"x"]


def no_boundary(value: bytes) -> bool:
    return f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + value


VALUES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from(NEARLY), max_size=12).map(b"".join).filter(no_boundary),
)


@given(
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), VALUES), max_size=4),
    VALUES,
    st.integers(0, 4),
    st.lists(st.integers(0, 2000), max_size=30),
)
def test_however_it_is_cut_the_same_fields_come_out(
    fields: list[tuple[str, bytes]], content: bytes, place: int, cuts: list[int]
) -> None:
    parts: list[Any] = list(fields)
    parts.insert(place, ("filedata", content, "f"))
    body = body_of(*parts)
    at = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    sink = Kept()
    form = read([body[i:j] for i, j in pairwise(at)], MULTIPART, sink=sink)
    assert sink.data == content
    assert form.file is not None
    expected = {name: value.decode("utf-8", "surrogateescape") for name, value in fields}
    assert form.fields == expected


def test_cut_at_every_byte() -> None:
    content = b"\r\n--xxBOUNDARYx\r\n\r\n--xxBOUNDARYxy--\r\n-"
    body = body_of(("a", b"1"), ("filedata", content, "f"), ("b", b"2"))
    sink = Kept()
    form = read([bytes([byte]) for byte in body], MULTIPART, sink=sink)
    assert (form.fields, sink.data) == ({"a": "1", "b": "2"}, content)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_form_or_are_refused(body: bytes, begun: bool) -> None:
    start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="'.encode() if begun else b""
    with contextlib.suppress(BodyError):
        read(start + body, MULTIPART, sink=Kept())


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("ü.txt", "ü.txt"), ("a%22b", 'a"b'), (r"a\"b", 'a"b'), ("100%41", "100%41"),
        (r"C:\dir\x.txt", "x.txt"), ("../x", "../x"), ("a%0D%0Ab", "a\r\nb"),
    ],
)  # fmt: skip
def test_names_of_files_are_what_clients_mean(filename: str, name: str) -> None:
    form = read(body_of(("filedata", b"x", filename)), MULTIPART, sink=Kept())
    assert form.file is not None
    assert form.file.filename == name


def test_an_empty_file_is_a_file() -> None:
    form = read(body_of(("filedata", b"", "empty")), MULTIPART, sink=Kept())
    assert form.file is not None


def test_a_field_that_no_file_was_chosen_for_is_not_there() -> None:
    form = read(body_of(("filedata", b"", ""), ("a", b"1")), MULTIPART)
    assert (form.fields, form.file) == ({"a": "1"}, None)


def test_bytes_without_a_name_are_a_file_without_a_name() -> None:
    sink = Kept()
    form = read(body_of(("filedata", b"some", "")), MULTIPART, sink=sink)
    assert form.file is not None
    assert (form.file.filename, sink.data) == ("", b"")


LONG = "x" * 2000
ONE = ("a", b"1")
BASE64 = "Content-Transfer-Encoding: base64\r\n"
HEAD = "".join(f"X-{n}: {LONG}\r\n" for n in range(5))
IN_PARTS = {
    "empty": (b"", "ends before its last boundary"),
    "not parts": (b"a=1", "the form cannot be read"),
    "another boundary": (b"--other\r\n", "the form cannot be read"),
    "cut off": (body_of(ONE)[:-4], "ends before its last boundary"),
    "cut off in a head": (body_of(ONE)[:40], "ends before its last boundary"),
    "only line ends": (b"\r\n" * 50_000, "ends before its last boundary"),
    "no name": (body_of(ONE).replace(b' name="a"', b""), "has no name"),
    "a name of kilobytes": (body_of((LONG, b"")), "too long"),
    "a head of kilobytes": (body_of(ONE, head=HEAD), "head is longer"),
    "a line of kilobytes": (body_of(ONE, head=f"X: {LONG * 5}\r\n"), "header size|head is longer"),
    "many lines": (body_of(ONE, head="X: y\r\n" * 100), "header count"),
    "NUL in a head": (body_of(ONE, head="X\0: y\r\n"), "invalid character"),
    "an encoding": (body_of(("f", b"YWJj", "f"), head=BASE64), "as they are"),
    "two files": (body_of(("f", b"1", "f"), ("g", b"2", "g")), "one file at a time"),
    "one is nameless": (body_of(("f", b"1", "f"), ("g", b"2", "")), "one file at a time"),
}
REFUSED = {name: (body, MULTIPART, reason) for name, (body, reason) in IN_PARTS.items()} | {
    "no boundary": (b"", "multipart/form-data", "has no boundary"),
    "a long boundary": (
        b"",
        f"multipart/form-data; boundary={LONG}",
        "a boundary that is too long",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_forms_are_refused_in_words(case: str) -> None:
    body, kind, reason = REFUSED[case]
    with pytest.raises(BodyError, match=reason) as caught:
        read(body, kind, sink=Kept(), most=1 << 20)
    assert caught.value.status in (400, 413)


def test_no_file_is_taken_where_none_is_wanted() -> None:
    with pytest.raises(BodyError, match="no file is taken here: filedata"):
        read(body_of(("filedata", b"x", "f")), MULTIPART)


@pytest.mark.parametrize("where", ["before", "after", "field"])
def test_what_is_not_the_file_is_limited_whatever_its_place(where: str) -> None:
    parts = body_of(("f", b"x" * 5000, "f"), ("a", b"y" * (2000 if where == "field" else 1)))
    body = b"\r\n" * 1000 + parts if where == "before" else parts + b"z" * 2000
    with pytest.raises(BodyError, match="max_body"):
        read(
            [body[i : i + 100] for i in range(0, len(body), 100)], MULTIPART, sink=Kept(), most=1500
        )
    form = read(body_of(("f", b"x" * 5000, "f")), MULTIPART, sink=Kept(), most=1500)
    assert form.file is not None


def test_the_last_boundary_may_have_anything_behind_it() -> None:
    assert read(body_of(("a", b"1"), last=b"--\r\n\r\n"), MULTIPART).fields == {"a": "1"}
    assert read(body_of(("a", b"1"), last=b"--"), MULTIPART).fields == {"a": "1"}


def test_text_may_hold_any_byte() -> None:
    assert read(body_of(("a", b"\xff\0")), MULTIPART).fields == {"a": "\udcff\0"}
    assert read(quote_plus(b"\xff").join(["a=", ""]).encode()).fields == {"a": "\udcff"}
    assert json.dumps(read(b'{"a": "\xff"}', "application/json").fields) == r'{"a": "\udcff"}'
