"""The wire protocol: frames survive any cutting, and what is none is noticed at once."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore.errors import RefusedError, WireError
from rqcore.wire import MAX_FRAME, Decoder, encode, parse_args, split_request


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def receive(parts: list[bytes], max_frame: int = MAX_FRAME) -> tuple[list[bytes], str]:
    """All payloads, and the error at the end ("" for none)."""
    decoder = Decoder(max_frame)
    payloads: list[bytes] = []
    try:
        for part in parts:
            payloads += decoder.feed(part)
        decoder.close()
    except WireError as error:
        return payloads, str(error)
    return payloads, ""


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(payloads=st.lists(st.binary(max_size=60), max_size=6), cuts=CUTS)
def test_frames_arrive_whole_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(encode(payload) for payload in payloads)
    assert receive(pieces(data, cuts)) == (payloads, "")
    assert receive([data[i : i + 1] for i in range(len(data))]) == (payloads, "")


@given(
    good=st.lists(st.binary(max_size=9), max_size=3),
    tail=st.binary(max_size=30)
    | st.tuples(
        st.sampled_from([b"rq1 ", b"rq2 ", b"rq1  "]),
        st.sampled_from([b"00000003", b"99999999", b"0000000x", b"-0000001"]),
        st.sampled_from([b" ", b"\n", b""]),
        st.binary(max_size=6),
    ).map(b"".join),
    cuts=CUTS,
)
def test_the_same_bytes_give_the_same_result_however_they_are_cut(
    good: list[bytes], tail: bytes, cuts: list[int]
) -> None:
    data = b"".join(encode(payload) for payload in good) + tail
    one_by_one = [data[i : i + 1] for i in range(len(data))]
    payloads, error = receive([data])
    assert payloads[: len(good)] == good
    for parts in (pieces(data, cuts), one_by_one):
        assert receive(parts) == (payloads, error)


def test_the_frame_is_what_the_contract_says() -> None:
    assert encode(b"ping") == b"rq1 00000004 ping"
    assert encode(b"") == b"rq1 00000000 "


def test_a_payload_that_eight_digits_cannot_say_is_refused() -> None:
    with pytest.raises(WireError, match="99999999"):
        encode(bytes(100_000_000))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"G", "not the rq1 protocol"),
        (b"rq2", "not the rq1 protocol"),
        (b"rq1\t", "not the rq1 protocol"),
        (b"rq1 0x", "decimal digits"),
        (b"rq1 00000010\n", "followed by a space"),
        (b"rq1 \xb2", "decimal digits"),
        (b"rq1 00000011", "limit is 10 bytes"),
    ],
)
def test_the_first_wrong_byte_is_an_error(data: bytes, words: str) -> None:
    decoder = Decoder(max_frame=10)
    assert decoder.feed(data[:-1]) == []
    with pytest.raises(WireError, match=words):
        decoder.feed(data[-1:])
    with pytest.raises(WireError, match=words):
        decoder.feed(encode(b"ping"))
    with pytest.raises(WireError, match=words):
        decoder.close()


def test_whole_frames_before_a_wrong_byte_are_handed_over() -> None:
    decoder = Decoder()
    assert decoder.fault is None
    assert decoder.feed(encode(b"ping") + b"GET / HTTP/1.0") == [b"ping"]
    assert "not the rq1 protocol" in str(decoder.fault)
    with pytest.raises(WireError, match="not the rq1 protocol"):
        decoder.feed(b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"rq1 0000", "8 of the 13 bytes of a header"), (b"rq1 00000004 pi", "2 of the 4 bytes")],
)
def test_an_end_inside_a_frame_is_an_error(data: bytes, words: str) -> None:
    decoder = Decoder()
    decoder.feed(data)
    with pytest.raises(WireError, match=words):
        decoder.close()
    with pytest.raises(WireError, match=words):
        decoder.feed(b"ng")


def test_a_large_frame_in_many_pieces_is_not_copied_again_for_each() -> None:
    payload = bytes(range(256)) * 4096
    data = encode(payload)
    decoder = Decoder()
    tracemalloc.start()
    received: list[bytes] = []
    for at in range(0, len(data), 100):
        received += decoder.feed(data[at : at + 100])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert received == [payload]
    # The buffer and the payload made from it, and what the buffer grows ahead.
    assert peak < 2.5 * len(payload)


def test_an_announced_length_reserves_nothing() -> None:
    decoder = Decoder()
    tracemalloc.start()
    decoder.feed(b"rq1 16777216 x")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 10_000


@given(st.binary(max_size=80))
def test_any_request_splits_and_keeps_its_bytes(payload: bytes) -> None:
    command, rest = split_request(payload)
    assert " " not in command
    whole = f"{command} {rest}" if b" " in payload else command
    assert whole.encode("utf-8", "surrogateescape") == payload


def test_requests_of_the_contract() -> None:
    assert split_request(b"ping") == ("ping", "")
    assert split_request(b'create_message {"a": "b c"}') == ("create_message", '{"a": "b c"}')
    assert parse_args("test") == "test"
    assert parse_args("") == ""
    assert parse_args(' {"msg_id": "x"}\n') == {"msg_id": "x"}
    assert parse_args("[1]") == [1]
    assert parse_args('"text"') == "text"
    assert parse_args("null") == "null"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON))
def test_arguments_come_back_as_they_were_written(args: dict[str, object]) -> None:
    text = json.dumps(args)
    _, rest = split_request(b"x " + text.encode("utf-8", "surrogateescape"))
    assert parse_args(rest) == json.loads(text)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_taken_or_refused_in_words(rest: str) -> None:
    refused = ""
    parsed = None
    try:
        parsed = parse_args(rest)
    except RefusedError as error:
        refused = str(error)
    assert "not usable JSON" in refused or parsed == rest or isinstance(parsed, dict | list | str)


@pytest.mark.parametrize(
    "rest",
    [
        "{",
        '{"a": }',
        '{"a": 1} x',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"due": ' + "9" * 5000 + "}",
        '{"due": NaN}',
        '{"due": -Infinity}',
        '"\x00"',
        "[\udc80]",
    ],
)
def test_unusable_json_is_refused(rest: str) -> None:
    with pytest.raises(RefusedError, match="arguments are not usable JSON"):
        parse_args(rest)


def test_the_last_of_two_equal_keys_counts() -> None:
    assert parse_args('{"a": 1, "a": 2}') == {"a": 2}
