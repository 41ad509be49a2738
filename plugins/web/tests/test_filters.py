"""The filter language: what it means, how it is written again, and what it says of mistakes."""

from __future__ import annotations

import asyncio
import json
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_web import filters, finding
from rqcore_web.filters import FIELDS, Filter, Number, Text, parse
from rqcore_web.spool import STATES, Spool

from rqcore.errors import RefusedError

if TYPE_CHECKING:
    from tests.conftest import Web

NOW = 1_772_352_000.0  # 2026-03-01 08:00:00 UTC


def item(age: float = 0, **fields: Any) -> dict[str, Any]:
    when = NOW - age
    stamp = strftime("%Y%m%d.%H%M.%S", gmtime(when)) + f".{int(when % 1 * 1000):03d}.00000123"
    return {
        "msg_id": stamp, "state": "err", "status": "err - No space left on device",
        "dest": "test", "src": "cron", "param1": "Foobar", "param2": "", "param3": "a b",
        "param4": 'say "hi"', "count": 3, "max_count": 15, **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("", 0),
        ("state:err", 0),
        ("state:QUE,err", 0),
        ("state:que state:err", 0),
        ("-state:que", 0),
        ("ENOENT -foo", None),
        ("space", 0),
        ('"no SPACE"', 0),
        ("text:left", 0),
        ("no*device", 0),
        ("device*no", None),
        ("param1:oob", 0),
        ("param1:foo*", 0),
        ("param1:oo*", None),
        ("param1:f*o*r", 0),
        ("param1:foobar*r", None),
        ("param1:=foobar", 0),
        ("param1:=foo", None),
        ('param2:=""', 0),
        ('-param1:=""', 0),
        ("param:bar", 0),
        ('param:"a b"', 0),
        ('param4:"\\"hi\\""', 0),
        ('param4:"*"', None),
        ("-param:bar", None),
        ("src:cron param1:foo", 0),
        ("src:cron param1:zoo", None),
        ("-src:cron", None),
        ('status:="no space left on device"', 0),
        ("status:err", None),
        ("cloned_from:x", None),
        ("count:3", 0),
        ("count:>2", 0),
        ("count:>3", None),
        ("count:>=3", 0),
        ("count:<3", None),
        ("count:<=3 -count:4", 0),
        ("max_count:=15", 0),
        ("age:>1h", 3601),
        ("age:>1h", None),
        ("age:<1h", 3599),
        ("age:>1h age:<2d", 7200),
        ("age:>1h30m", 5401),
        ("-age:>1h", 60),
        ("age:<=1h", 3600),
    ],
)
def test_what_it_means(text: str, age: float | None) -> None:
    """Fits a message of this age; none at all (of age 0) where the age is None."""
    assert parse(text).matches(item(age or 0), NOW) is (age is not None)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("  ", ""),
        ("state:err   foo", "state:err foo"),
        ("foo state:run,que", "state:que,run foo"),
        ("-state:prep", "state:que,run,done,relayed,err"),
        ('text:"two words"', '"two words"'),
        ("param1:http://x/y", 'param1:"http://x/y"'),
        ("param1:f**o", "param1:f*o"),
        ("param1:=f*", "param1:f*"),
        ("-age:>90m", "-age:>90m"),
        ("age:>1h30m", "age:>90m"),
        ("age:<0s", "age:<0s"),
        ("count:=4", "count:4"),
        ('param2:=""', 'param2:=""'),
    ],
)
def test_how_it_is_written_again(text: str, written: str) -> None:
    assert str(parse(text)) == written


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("foo stat:err", 5, ['"stat" is no field', "state, text", '"stat:err"']),
        ("http://x", 1, ['"http" is no field', '"http://x"']),
        ("state:done,bad", 12, ['"bad" is no state', "prep, que, run"]),
        ("state:", 7, ['"" is no state']),
        ('state:"err"', 7, ["no quotes"]),
        ("param1:", 8, ["some text"]),
        ("- foo", 1, ["some text"]),
        ('a ""', 3, ["some text"]),
        ("param1:*", 8, ["some text"]),
        ('status:"open', 8, ["not closed"]),
        ('"a\\n"', 3, ["backslash"]),
        ('"a\\', 3, ["backslash"]),
        ("age:1h", 5, ['"1h" is no age', "age:>1h"]),
        ("age:>1.5h", 5, ["is no age"]),
        ("age:>1y", 5, ["s, m, h, d and w"]),
        ("count:>x", 7, ['">x" is no number', "count:>3"]),
        ("count:1234567890", 7, ["is no number"]),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, position: int, words: list[str]) -> None:
    with pytest.raises(RefusedError) as error:
        parse(text)
    assert str(error.value).startswith(f"filter, position {position}: ")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["state:err -state:err", "x" * 4001])
def test_what_no_message_can_fit_or_nobody_can_mean(text: str) -> None:
    with pytest.raises(RefusedError):
        parse(text)


@given(st.text())
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        found = parse(text)
    except RefusedError:
        return
    assert parse(str(found)) == found
    found.matches(item(), NOW)


PIECES = st.sampled_from(
    [*(f"{field}:" for field in FIELDS), *STATES, '"', "\\", "*", "-", "=", "<", ">", "1h", "3",
     ",", " ", " ", "a", "\u2003", "Ä"]
)  # fmt: skip


@given(st.lists(PIECES).map("".join))
def test_no_text_of_its_own_pieces_raises_anything_else(text: str) -> None:
    test_no_text_raises_anything_else.hypothesis.inner_test(text)  # type: ignore[attr-defined]


PARTS = st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple)
TEXTS = st.builds(Text, st.sampled_from(("text", "param1", "status")), PARTS, negated=st.booleans())
EXACT = st.builds(
    lambda value, negated: Text("src", (value,), exact=True, negated=negated),
    st.text(), st.booleans(),
)  # fmt: skip
SIGNS = st.sampled_from(("<", "<=", ">", ">="))
NUMBERS = st.builds(Number, st.just("count"), SIGNS | st.just("="), st.integers(0, 999_999_999))
AGES = st.builds(Number, st.just("age"), SIGNS, st.integers(0, 10**9 - 1), st.booleans())
SUBSETS = st.none() | st.sets(st.sampled_from(STATES), min_size=1).map(
    lambda states: tuple(state for state in STATES if state in states)
)


@given(st.builds(Filter, SUBSETS, st.lists(TEXTS | EXACT | NUMBERS | AGES, max_size=5).map(tuple)))
def test_it_is_read_as_it_was_written(wanted: Filter) -> None:
    assert parse(str(wanted)) == wanted


@given(st.builds(Filter, SUBSETS, st.lists(TEXTS | AGES | NUMBERS, max_size=3).map(tuple)),
       st.integers(0, 10_000_000))  # fmt: skip
def test_what_is_asked_of_the_queue_loses_nothing(wanted: Filter, age: int) -> None:
    """Whatever fits holds the literal, and lies in the window of ids."""
    message = item(age, param1="".join(t.parts[0] for t in wanted.terms if isinstance(t, Text)))
    if wanted.matches(message, NOW):
        assert any(wanted.literal.lower() in str(value).lower() for value in message.values())
        before, since = wanted.window(NOW)
        assert not before or message["msg_id"] < before
        assert message["msg_id"] >= since


@pytest.mark.parametrize(
    ("msg_id", "when"),
    [
        ("20260301.0800.00.500.00000123", NOW + 0.5),
        ("nothing", None),
        ("20261301.0800.00.500.1", None),
    ],
)
def test_the_time_in_an_id(msg_id: str, when: float | None) -> None:
    assert filters.id_time(msg_id) == when


# --- pages


def put(web: Web, state: str, msg_id: str, **fields: Any) -> None:
    """A message as it lies in the directory of a queue that does not run yet."""
    hashed = f"{msg_id[:8]}/{msg_id[9:11]}/{msg_id[11:13]}" if state in ("done", "relayed") else ""
    folder = web.rq.directory / "queue/test" / state / hashed / msg_id
    folder.mkdir(parents=True)
    (folder / "msg").write_text(json.dumps({"dest": "test", **fields}))


def collected(web: Web, state: str, text: str, limit: int) -> tuple[list[str], int]:
    """All ids that fit, page by page, and how many pages it took."""

    async def collect() -> tuple[list[str], int]:
        spool = Spool(web.rq.instance)
        found, before, pages = [], "", 0
        while True:
            items, following = await filters.page(spool, "test", state, parse(text), limit, before)
            assert len(items) <= limit
            found += [one["msg_id"] for one in items]
            pages += 1
            if following is None:
                spool.close()
                return found, pages
            before = following

    return asyncio.run(collect())


def test_pages_over_several_states(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    (web.rq.directory / "config/test.pause").touch()
    ids = {}
    for number in range(60):
        state = ("prep", "que", "err", "done")[number % 4]
        msg_id = f"20260301.0800.{number:02}.000.00000123"
        ids[msg_id] = state
        put(web, state, msg_id, param1=f"p{number % 7}", count=number % 5)
    web.start()
    newest = sorted(ids, reverse=True)
    for limit in (1, 7, 60, 100):
        found, pages = collected(web, "", "", limit)
        assert found == newest
        assert pages == -(-60 // limit), "the last page knows that it is the last"
    for text, state in [("state:err", ""), ("", "err"), ("state:err,que", "err")]:
        assert collected(web, state, text, 4)[0] == [one for one in newest if ids[one] == "err"]
    wanted = [one for one in newest if int(one[14:16]) % 7 == 3 and ids[one] != "que"]
    assert collected(web, "", "param1:=p3 -state:que", 4)[0] == wanted
    assert collected(web, "que", "state:err", 4) == ([], 1)
    assert collected(web, "", "age:>1h count:4", 5)[0] == [
        one for one in newest if int(one[14:16]) % 5 == 4
    ]
    assert collected(web, "", "age:<1m", 5) == ([], 1)


def test_a_page_ends_when_much_was_looked_at_in_vain(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "_LOOKED_AT", 500)
    web.rq.queue("test", web.HELLO)
    for number in range(1100):
        put(
            web,
            "err",
            f"20260301.08{number // 60:02}.{number % 60:02}.000.00000123",
            src=f"n{number}",
        )
    web.start()
    found, pages = collected(web, "", 'state:err src:="n5"', 10)
    assert found == ["20260301.0800.05.000.00000123"]
    assert pages == 4
