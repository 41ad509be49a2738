"""rqcore_relay.verdict: when a transfer is tried again, when it is given up, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_relay.verdict import Patience, TroubleError, delay, one_line, verdict

from rqcore import pipe
from rqcore.lifecycle import State

RANDOM = st.floats(0, 1)
FULL_ID = "http://far:3333/q/test/20260101.0000.00.000.7"


def patience(**more: float) -> Patience:
    given = {"count": 0, "max_tries": 15, "max_count": 15, "age": 0.0, "give_up_after": 0.0, **more}
    return Patience(**given)  # type: ignore[arg-type]


@given(st.integers(0, 15), RANDOM)
def test_the_pause_is_the_square_of_the_count_times_ten(count: int, random: float) -> None:
    found = delay(count, None, lambda: random)
    assert 9 * count**2 <= found <= 11 * count**2 + 1
    assert delay(0, None, lambda: random) == 0


@given(st.integers(0, 15), st.floats(0, 1e6), RANDOM)
def test_a_peer_is_left_alone_as_long_as_it_wants(count: int, wanted: float, random: float) -> None:
    found = delay(count, wanted, lambda: random)
    assert found >= wanted
    assert found == max(delay(count, None, lambda: random), delay(0, wanted, lambda: random))


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ({"count": 14, "max_count": 100}, ""),
        ({"count": 15, "max_count": 100}, "16 tries (max_tries is 15)"),
        ({"max_tries": 1}, ""),
        ({"count": 1, "max_tries": 1}, "2 tries (max_tries is 1)"),
        ({"count": 13}, ""),
        ({"count": 14}, "15 tries (max_count of the message is 15)"),
        ({"max_count": 1}, "1 try (max_count of the message is 1)"),
        ({"age": 99, "give_up_after": 100}, ""),
        ({"age": 101, "give_up_after": 100}, "1 try in more than 100 s (give_up_after)"),
        ({"age": 1e9}, ""),
    ],
)
def test_the_end_of_patience(given_: dict[str, float], why: str) -> None:
    assert patience(**given_).end() == why


def test_the_last_word_and_where_a_copy_may_lie() -> None:
    trouble = TroubleError("http://far:3333/ answers: no\nroom", 7)
    assert (
        verdict(trouble, patience(), "relay/7", FULL_ID, lambda: 0.5)
        == "resend 7-http://far:3333/ answers: no room"
    )
    end = patience(count=15, max_count=99)
    given_up = verdict(trouble, end, "relay/7", FULL_ID, lambda: 0.5)
    assert given_up == (
        "fail given up after 16 tries (max_tries is 15): http://far:3333/ answers: no room; "
        f"a prepared copy may lie at {FULL_ID}; to take it up again: rq retry relay/7"
    )
    assert "copy" not in verdict(trouble, end, "relay/7", "", lambda: 0.5)


ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT, st.integers(0, 13), st.floats(0, 1e5), RANDOM)
def test_rq_understands_every_line(text: str, count: int, wanted: float, random: float) -> None:
    """Whatever the peer said, it is one line, and the queue takes it for what it is."""
    line = verdict(TroubleError(text, wanted), patience(count=count), "relay/7", "", lambda: random)
    conclusion = pipe.Conclusion()
    for event in pipe.PipeDecoder().feed(f"{line}\n".encode()):
        conclusion.observe(event)
    outcome = conclusion.conclude(0, None, count, 15)
    assert (outcome.state, outcome.count) == (State.QUE, count + 1)
    assert outcome.delay >= wanted


@given(ANY_TEXT)
def test_a_line_is_short_and_one(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 500
    assert line.encode().decode().split() == line.split()
    assert line.isprintable() or not line.isascii()
