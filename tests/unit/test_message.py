"""Messages and their ids: unique, growing, whole after every journey; refusals that help."""

from __future__ import annotations

import json
import math
import re
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore.errors import RefusedError
from rqcore.message import (
    MAX_MESSAGE_BYTES,
    PARAM_NAMES,
    Address,
    IdClock,
    Message,
    attachment_name_problem,
    full_id,
    is_msg_id,
    load_message,
    parse_dest,
    parse_full_id,
    parse_message,
    queue_name_problem,
    truth,
)

# Any text that can come in: characters, NUL, bytes that are not UTF-8, and halves of surrogate
# pairs, which JSON can write.  Two halves side by side are one character after the next reading.
TEXT = st.text(st.characters(exclude_categories=())).filter(
    lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text)
)
LINE = TEXT.map(lambda text: re.sub(r"[\x00-\x1f\x7f]", "", text))
WALL = st.floats(0, 4e9)
UNIQUE = st.integers(1, 2**64 - 1)


def parse(**fields: object) -> Message:
    return parse_message({"dest": "test", **fields}, now=1000.5)


@given(times=st.lists(WALL, min_size=1, max_size=30), unique=UNIQUE)
def test_ids_grow_under_any_clock(times: list[float], unique: int) -> None:
    wall = iter(times)
    clock = IdClock(unique, lambda: next(wall))
    ids = [clock.new() for _ in times]
    assert ids == sorted(set(ids))
    assert all(is_msg_id(msg_id) for msg_id in ids)


def test_ids_grow_beyond_what_one_millisecond_holds() -> None:
    clock = IdClock(7, lambda: 1e9)
    ids = [clock.new() for _ in range(100_010)]
    assert ids == sorted(set(ids))


@given(first=st.lists(WALL, min_size=1, max_size=5), back=WALL, unique=UNIQUE)
def test_ids_grow_over_a_restart_with_another_clock(
    first: list[float], back: float, unique: int
) -> None:
    wall = iter(first)
    clock = IdClock(unique, lambda: next(wall))
    seen = [clock.new() for _ in first]
    later = IdClock(unique, lambda: back)
    for msg_id in seen:
        later.saw(msg_id)
    assert later.new() > max(seen)


@given(second=st.integers(0, 2_000_000_000), ms=st.integers(0, 999), back=WALL, unique=UNIQUE,
       number=st.none() | st.integers(0, 2**64 - 1))  # fmt: skip
def test_ids_grow_beyond_those_that_another_release_made(
    second: int, ms: int, back: float, unique: int, number: int | None
) -> None:
    foreign = IdClock(1, lambda: second + ms / 1000 + 1e-5).new()
    msg_id = foreign.rpartition(".")[0] + ("" if number is None else f".{number}")
    assert is_msg_id(msg_id)
    clock = IdClock(unique, lambda: back)
    clock.saw(msg_id)
    assert clock.new() > msg_id


def test_ids_are_unique_over_threads() -> None:
    clock = IdClock(42, lambda: 1e9)
    made: list[list[str]] = []

    def work() -> None:
        mine = [clock.new() for _ in range(2000)]
        made.append(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({msg_id for ids in made for msg_id in ids}) == 16_000
    assert all(ids == sorted(ids) for ids in made)


def test_ids_differ_between_queues_and_are_in_utc() -> None:
    one, two = (IdClock(unique, lambda: 1_700_000_000.25).new() for unique in (5, 6))
    assert one != two
    assert one == "20231114.2213.20.250.000005"


@pytest.mark.parametrize(
    "text",
    ["", "x", "20231114.2213.20.250.", "20231114.2213.20.250.1x", "20231114.2213.20.250.1\n",
     "../20231114.2213.20.250.1", "20231114.2213.20.25.1", "2023111.42213.20.250.1"],
)  # fmt: skip
def test_what_is_no_id(text: str) -> None:
    assert not is_msg_id(text)
    assert parse_full_id(f"/q/test/{text}") is None


def test_digits_of_other_scripts_make_no_id() -> None:
    assert not is_msg_id("20231114.2213.20.250.1".replace("2", "\N{ARABIC-INDIC DIGIT TWO}"))


FIELDS = st.fixed_dictionaries(
    {"dest": LINE.filter(bool)},
    optional={
        **dict.fromkeys(("src", *PARAM_NAMES), TEXT),
        "orig_msg_id": LINE,
        "due": st.floats(0, 9e10) | st.integers(0, 10**10) | st.just(""),
        "count": st.integers(0, 2**31 - 1) | st.integers(0, 99).map(str),
        "max_count": st.integers(0, 2**31 - 1),
        "post_run_webhook": st.lists(TEXT) | TEXT,
        "force_remote": st.sampled_from([True, "true", "yes", "1", 1, False, "no", 0, None]),
        "unknown": TEXT,
    },
)


@given(fields=FIELDS, cloned_from=TEXT, dups=st.lists(TEXT))
def test_a_message_is_whole_after_the_spool(
    fields: dict[str, object], cloned_from: str, dups: list[str]
) -> None:
    draft = parse_message(fields, now=5)
    msg_id = IdClock(1, lambda: 1e9).new()
    message = replace(draft, msg_id=msg_id, cloned_from=cloned_from, dups=tuple(dups))
    data = message.to_json()
    assert data.isascii()
    assert load_message(data, msg_id) == message
    assert load_message(data, msg_id).to_json() == data
    assert parse_message(json.loads(data), now=7) == draft


@pytest.mark.parametrize("field", ["dest", "orig_msg_id"])
@pytest.mark.parametrize("bad", ["\0", "a\nb", "http://h/q/x\x7f"])
def test_what_becomes_a_variable_holds_no_control_characters(field: str, bad: str) -> None:
    with pytest.raises(RefusedError, match=f'field "{field}" must not hold control characters'):
        parse(**{field: bad})


@given(st.binary(max_size=60))
def test_any_file_is_a_message_or_no_message_with_a_reason(data: bytes) -> None:
    reason = "fine"
    try:
        load_message(data, "x")
    except ValueError as error:
        reason = str(error)
    assert reason


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 400).map(lambda i: 10**i)
    | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
NAMES = ("dest", "src", *PARAM_NAMES, "due", "count", "max_count", "orig_msg_id",
         "post_run_webhook", "force_remote", "cloned_from", "dups")  # fmt: skip


@given(name=st.sampled_from(NAMES[:-2]), value=VALUES)
def test_any_value_is_taken_or_refused_by_the_fields_name(name: str, value: object) -> None:
    refused = name
    try:
        parse(**{name: value})
    except RefusedError as error:
        refused = str(error)
    assert name in refused


@given(name=st.sampled_from(NAMES), value=VALUES)
def test_any_value_in_a_file_is_taken_or_a_value_error(name: str, value: object) -> None:
    data = json.dumps({"dest": "test", name: value}).encode()
    reason = name
    try:
        load_message(data, "x")
    except ValueError as error:
        reason = str(error)
    assert name in reason


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dest": None}, 'missing required "dest" parameter'),
        ({"dest": ""}, 'missing required "dest" parameter'),
        ({"dest": 5}, '"dest" must be text'),
        ({"param2": {"a": 1}}, '"param2" must be text, not an object'),
        ({"src": []}, '"src" must be text, not a list'),
        ({"due": "soon"}, '"due" must be unix time'),
        ({"due": True}, '"due" must be unix time'),
        ({"due": -1}, '"due" must be unix time'),
        ({"due": math.nan}, '"due" must be unix time'),
        ({"due": 1e12}, '"due" must be unix time'),
        ({"due": 10**400}, '"due" must be unix time'),
        ({"count": -1}, '"count" must be a whole number'),
        ({"count": 1.5}, '"count" must be a whole number'),
        ({"count": "x"}, '"count" must be a whole number'),
        ({"max_count": math.inf}, '"max_count" must be a whole number'),
        ({"max_count": 2**31}, '"max_count" must be a whole number'),
        ({"post_run_webhook": {"a": 1}}, '"post_run_webhook" must be a list'),
        ({"post_run_webhook": [1]}, '"post_run_webhook" must be a list'),
    ],
)
def test_refusals_name_the_field_and_the_reason(fields: dict[str, object], words: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(words)):
        parse(**fields)


def test_defaults_and_spellings() -> None:
    message = parse(post_run_webhook="http://a  http://b", count="3", param1=7, param2=True)
    assert message.due == 1000
    assert isinstance(message.due, int)
    assert (message.count, message.max_count) == (3, 15)
    assert message.post_run_webhook == ("http://a", "http://b")
    assert message.params == ("7", "true", "", "")
    assert parse(due=1.5).due == 1.5
    assert all(map(truth, (True, "true", "yes", "1", 1)))
    assert not any(map(truth, (False, None, "no", "TRUE", 0, 2, [], ())))


def test_a_message_too_large_to_send_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"message too large: .* attachment"):
        parse(param1="x" * MAX_MESSAGE_BYTES)


def test_a_message_that_was_accepted_can_be_read_whatever_became_of_it() -> None:
    room = MAX_MESSAGE_BYTES - len(parse(param1="").to_json())
    message = parse(param1="x" * room)
    resent = replace(message, count=10, due=1_700_000_000.25, orig_msg_id="http://h/q/test/1")
    assert load_message(resent.to_json(), "") == resent


@pytest.mark.parametrize("name", ["test", "a-b_c", "ünïcode", "x" * 128])
def test_names_of_queues(name: str) -> None:
    assert queue_name_problem(name) is None
    assert parse_dest(name) == Address("", name)


NOT_QUEUES = ["", "x" * 129, "a b", "a/b", "..", "a.b", "a\n", "a\0", None, 5, "\udc80", "\ud800"]


@pytest.mark.parametrize("name", [*NOT_QUEUES, *"/. ,;:@\"(){}\\+='^`#~?[]%|$&<>"])
def test_no_names_of_queues(name: object) -> None:
    assert "queue name" in str(queue_name_problem(name))


@given(TEXT)
def test_any_text_has_a_verdict_as_a_name(name: str) -> None:
    assert queue_name_problem(name) is None or "name" in str(queue_name_problem(name))
    assert attachment_name_problem(name) is None or "ttachment" in str(
        attachment_name_problem(name)
    )


@pytest.mark.parametrize("name", ["a.txt", "a b", "ü", "\udc80", "x" * 255])
def test_names_of_attachments(name: str) -> None:
    assert attachment_name_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", None, ".", "..", ".a", "a/b", "a\nb", "a\0", "x" * 256, "a|b", "\ud800"]
)
def test_no_names_of_attachments(name: object) -> None:
    assert "ttachment name" in str(attachment_name_problem(name))


QUEUES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
BASES = st.sampled_from(
    ["http://h:3333/", "https://h/", "http://a.b:1/root/", "http://h/a/b/", "http://h/q/"]
)


@given(base=BASES, queue=QUEUES, wall=WALL, unique=st.integers(1, 10**12))
def test_addresses_come_apart_as_they_were_put_together(
    base: str, queue: str, wall: float, unique: int
) -> None:
    msg_id = IdClock(unique, lambda: wall).new()
    address = Address(base, queue, msg_id)
    assert parse_full_id(full_id(base, queue, msg_id)) == address
    assert parse_dest(f"{base}q/{queue}") == Address(base, queue)
    assert parse_dest(f"{base}q/{queue}/") == Address(base, queue)
    for local in ("", "/"):
        assert parse_full_id(f"{local}q/{queue}/{msg_id}") == Address("", queue, msg_id)
        assert parse_dest(f"{local}q/{queue}") == Address("", queue)


@given(TEXT)
def test_any_text_is_an_address_or_none(text: str) -> None:
    for address in (parse_dest(text), parse_full_id(text)):
        assert address is None or address.queue in text


@pytest.mark.parametrize("queue", ["..", ".", "a b", "a\n", "a\0b", "%2e%2e"])
def test_an_address_never_names_what_cannot_be_a_queue(queue: str) -> None:
    msg_id = "20231114.2213.20.250.1"
    assert parse_dest(f"/q/{queue}") is None
    assert parse_full_id(f"/q/{queue}/{msg_id}") is None
    assert parse_full_id(f"http://h:3333/q/{queue}/{msg_id}") is None


def test_an_id_of_an_impossible_date_in_the_spool_does_no_harm() -> None:
    clock = IdClock(7, lambda: 1_700_000_000.25)
    clock.saw("20231399.9999.99.999.1")
    assert clock.new() == "20231114.2213.20.250.000007"
