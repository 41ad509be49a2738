"""The pipe protocol: every line has one meaning, no line does harm, and what a run amounts to."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore.lifecycle import State
from rqcore.pipe import (
    HIT_MAX,
    MAX_ANSWER,
    MAX_DELAY,
    MAX_LINE,
    Conclusion,
    Dup,
    Event,
    Garbage,
    Kind,
    PipeDecoder,
    Status,
    Unfinished,
    Verdict,
    answer_fail,
    answer_ok,
)

TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
LINES = st.one_of(
    st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
    st.tuples(
        st.sampled_from(
            [b"run", b"done", b"err", b"fail", b"fails", b"resend", b"relayed", b"dup", b"RUN", b""]
        ),
        st.sampled_from([b" ", b"", b"  ", b"\t"]),
        st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))
        | st.sampled_from([b"5", b"5-why", b"0-X-test", b"1e400-x", b"-3-X-q", b"nan-X-q"]),
    ).map(b"".join),
)


def events(data: bytes) -> list[Event]:
    return PipeDecoder().feed(data)


def one(line: bytes) -> Event:
    (event,) = events(line + b"\n")
    return event


@given(lines=st.lists(LINES, max_size=6), tail=LINES, cuts=st.lists(st.integers(0, 400)))
def test_the_same_bytes_give_the_same_events_however_they_are_cut(
    lines: list[bytes], tail: bytes, cuts: list[int]
) -> None:
    data = b"".join(line + b"\n" for line in lines) + tail
    whole = PipeDecoder()
    expected = whole.feed(data)
    assert len(expected) == len(lines)
    end = whole.close()
    assert bool(end) == bool(tail)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for parts in (
        [data[a:b] for a, b in pairwise(edges)],
        [data[i : i + 1] for i in range(len(data))],
    ):
        decoder = PipeDecoder()
        assert [event for part in parts for event in decoder.feed(part)] == expected
        assert decoder.close() == end


@given(st.binary(max_size=60))
def test_a_status_keeps_every_byte(text: bytes) -> None:
    text = text.replace(b"\n", b"").removesuffix(b"\r")
    event = one(b"run " + text)
    assert isinstance(event, Status)
    assert event.text.encode("utf-8", "surrogateescape") == text


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"run Processed 5 of 15 log files.", Status("Processed 5 of 15 log files.")),
        (b"run", Status("")),
        (b"run ", Status("")),
        (b"done done", Verdict("done", "done")),
        (b"done done\r", Verdict("done", "done")),
        (b"done", Verdict("done", "")),
        (b"err broken", Verdict("err", "broken", reason="broken")),
        (b"fail broken", Verdict("err", "broken", reason="broken")),
        (b"fails broken", Verdict("err", "broken", reason="broken")),
        (
            b"resend 300-Memcached a-b not responding.",
            Verdict(
                "resend",
                "300-Memcached a-b not responding.",
                300.0,
                "Memcached a-b not responding.",
            ),
        ),
        (b"resend 2", Verdict("resend", "2", 2.0)),
        (b"resend 0", Verdict("resend", "0", 0.0)),
        (b"resend 2.5-x", Verdict("resend", "2.5-x", 2.5, "x")),
        (b"resend 1e-05-x", Verdict("resend", "1e-05-x", 1e-05, "x")),
        (b"resend 2 busy", Verdict("resend", "2 busy", 2.0, "busy")),
        (b"resend -5-late", Verdict("resend", "-5-late", 0.0, "late")),
        (b"resend 9e999-x", Verdict("resend", "9e999-x", MAX_DELAY, "x")),
        (
            b"relayed http://h:3333/q/a/1",
            Verdict("relayed", "http://h:3333/q/a/1", full_id="http://h:3333/q/a/1"),
        ),
        (b"relayed Sent as http://h/q/a/1", Verdict("relayed", "Sent as http://h/q/a/1",
                                                    full_id="http://h/q/a/1")),
        (b"relayed", Verdict("relayed", "")),
        (b"dup 0-X-http://a-b.example.com:3333/q/c-d",
         Dup(0.0, "http://a-b.example.com:3333/q/c-d", "0-X-http://a-b.example.com:3333/q/c-d")),
        (b"dup 30-X-test", Dup(30.0, "test", "30-X-test")),
        (b"dup -1-X-test", Dup(0.0, "test", "-1-X-test")),
    ],
)  # fmt: skip
def test_lines_that_are_understood(line: bytes, event: Event) -> None:
    assert one(line) == event


@pytest.mark.parametrize(
    "delay", ["soon", "", "-", "-reason", "nan-x", "inf-x", "5s-x", "\u0665-x"]
)
def test_a_resend_that_says_no_time_is_an_error_and_never_a_hot_loop(delay: str) -> None:
    event = one(f"resend {delay}".encode())
    assert isinstance(event, Verdict)
    assert event.kind == "err"
    assert "resend SECONDS-REASON" in event.text
    assert event.reason == event.text


@pytest.mark.parametrize(
    "text",
    ["", "test", "0-test", "0-Y-test", "0-X-", "0-X-  ", "soon-X-test", "nan-X-test", "0-X-a\tb"],
)
def test_a_malformed_dup_is_garbage_that_wants_an_answer(text: str) -> None:
    event = one(f"dup {text}".encode())
    assert isinstance(event, Garbage)
    assert event.answer
    assert "write dup SECONDS-X-DEST" in event.reason


@pytest.mark.parametrize("line", [b"", b"hello world", b"DONE ok", b" done ok", b"done\tok", b"\0"])
def test_what_is_not_understood_is_garbage_that_wants_no_answer(line: bytes) -> None:
    event = one(line)
    assert isinstance(event, Garbage)
    assert not event.answer
    assert "known are run, done" in event.reason


def test_a_last_line_without_its_newline_is_no_command() -> None:
    decoder = PipeDecoder()
    assert decoder.feed(b"run a\ndone ok") == [Status("a")]
    assert decoder.close() == [Unfinished("done ok")]
    assert decoder.close() == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_as_long_as_the_limit_is_whole(end: bytes) -> None:
    text = "x" * (MAX_LINE - len("run "))
    assert events(b"run " + text.encode() + end) == [Status(text)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_longer_line_keeps_its_beginning(end: bytes) -> None:
    text = "x" * (MAX_LINE - len("run "))
    assert events(b"run " + text.encode() + b"yz" + end) == [Status(text + "…")]
    assert events(b"run " + text.encode() + b"y" + end) == [Status(text + "…")]


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("shift", range(5))
def test_a_line_is_not_cut_within_a_character(character: str, shift: int) -> None:
    (event,) = events(b"run " + b"x" * shift + character.encode() * MAX_LINE + b"\n")
    assert isinstance(event, Status)
    kept = event.text.removeprefix("x" * shift).removesuffix("…")
    assert set(kept) == {character}
    size = len(b"run ") + shift + len(kept.encode())
    assert MAX_LINE - len(character.encode()) < size <= MAX_LINE


def test_a_cut_address_is_never_used() -> None:
    long = b"x" * MAX_LINE
    (dup,) = events(b"dup 0-X-" + long + b"\n")
    assert isinstance(dup, Garbage)
    assert dup.answer
    (relayed,) = events(b"relayed http://" + long + b"\n")
    assert isinstance(relayed, Verdict)
    assert (relayed.kind, relayed.full_id) == ("relayed", "")


def test_an_endless_line_costs_no_memory() -> None:
    decoder = PipeDecoder()
    piece = b"x" * 65_536
    decoder.feed(b"run ")
    tracemalloc.start()
    for _ in range(1000):
        assert decoder.feed(piece) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAX_LINE
    (event, after) = decoder.feed(b"\ndone ok\n")
    assert isinstance(event, Status)
    assert len(event.text) < MAX_LINE
    assert after == Verdict("done", "ok")


@pytest.mark.parametrize("line", ["resend " + "9" * 65_000 + "x", "resend " + " " * 65_000 + "x",
                                  "resend 5" + " " * 65_000, "dup " + "9" * 65_000,
                                  "dup 9." + "9" * 65_000 + "-X"])  # fmt: skip
def test_a_hostile_line_is_read_in_one_go(line: str) -> None:
    # Quadratic matching would take minutes here, and run into the time limit of the suite.
    for _ in range(20):
        one(line.encode())


def conclude(
    *lines: bytes,
    exit_status: int | None = 0,
    signal: int | None = None,
    count: int = 0,
    max_count: int = 15,
) -> tuple[State, str, float, str, int]:
    conclusion = Conclusion()
    for event in events(b"".join(line + b"\n" for line in lines)):
        conclusion.observe(event)
    end = conclusion.conclude(exit_status, signal, count, max_count)
    return end.state, end.status, end.delay, end.new_full_id, end.count


IMPROPER = "PROCESS EXITED IMPROPERLY - MOVING TO ERR - Completion was {} but exit status was {}"


@pytest.mark.parametrize(
    ("kind", "line"),
    [("done", b"done x"), ("resend", b"resend 5-x"), ("relayed", b"relayed x"), ("none", b"run x")],
)
@pytest.mark.parametrize(
    ("exit_status", "signal", "words"),
    [(1, None, "1"), (255, None, "255"), (None, 9, "signal 9 (SIGKILL)"),
     (None, 15, "signal 15 (SIGTERM)"), (None, 63, "signal 63"), (None, None, "unknown")],
)  # fmt: skip
def test_an_improper_exit_beats_every_verdict_but_err(
    kind: str, line: bytes, exit_status: int | None, signal: int | None, words: str
) -> None:
    found = conclude(line, exit_status=exit_status, signal=signal, count=3)
    assert found == (State.ERR, IMPROPER.format(kind, words), 0.0, "", 3)
    found = conclude(b"err broken", line, b"run bye", exit_status=exit_status, signal=signal)
    assert found == (State.ERR, "bye", 0.0, "", 0)


def test_a_clean_exit_without_a_verdict_is_improper() -> None:
    assert conclude()[:2] == (State.ERR, IMPROPER.format("none", "0"))


def test_the_first_verdict_wins_and_the_last_text_is_the_status() -> None:
    assert conclude(b"done first", b"err second")[:2] == (State.DONE, "second")
    assert conclude(b"err first", b"done second", b"run third")[:2] == (State.ERR, "third")
    assert conclude(b"resend 5-first", b"done second") == (State.QUE, "second", 5.0, "", 1)
    assert conclude(b"done ok", b"dup 0-X-test")[:2] == (State.DONE, "0-X-test")
    assert conclude(b"done ok", b"what is this", b"dup x")[:2] == (State.DONE, "ok")
    assert conclude(b"run half", b"done")[:2] == (State.DONE, "")


def test_where_a_relayed_message_went() -> None:
    found = conclude(b"run sending", b"relayed http://h:1/q/a/2", b"run sent", count=4)
    assert found == (State.RELAYED, "sent", 0.0, "http://h:1/q/a/2", 4)


def test_a_last_line_without_its_newline_counts_for_nothing() -> None:
    conclusion = Conclusion()
    conclusion.observe(Status("working"))
    conclusion.observe(Unfinished("done ok"))
    assert conclusion.verdict is None
    assert conclusion.status == "working"


@given(count=st.integers(0, 40), max_count=st.integers(0, 20))
def test_a_resend_counts_up_to_the_maximum(count: int, max_count: int) -> None:
    state, status, delay, _, new_count = conclude(b"resend 7-x", count=count, max_count=max_count)
    assert new_count == count + 1
    if new_count >= max_count:
        assert (state, status, delay) == (State.ERR, HIT_MAX, 0.0)
    else:
        assert (state, status, delay) == (State.QUE, "7-x", 7.0)


def test_a_message_runs_as_often_as_its_maximum() -> None:
    runs, count, state = 0, 0, State.QUE
    while state is State.QUE:
        runs += 1
        state, _, _, _, count = conclude(b"resend 0-x", count=count)
    assert (runs, state) == (15, State.ERR)


@given(lines=st.lists(LINES, max_size=8), exit_status=st.none() | st.integers(0, 255),
       signal=st.none() | st.integers(1, 64), count=st.integers(0, 20))  # fmt: skip
def test_any_run_has_an_outcome(
    lines: list[bytes], exit_status: int | None, signal: int | None, count: int
) -> None:
    state, _, delay, _, new_count = conclude(
        *lines, exit_status=exit_status, signal=signal, count=count
    )
    assert state in {State.QUE, State.DONE, State.RELAYED, State.ERR}
    assert 0 <= delay <= MAX_DELAY
    assert math.isfinite(delay)
    assert new_count in {count, count + 1}
    if state is not State.ERR:
        assert (exit_status, signal) == (0, None)
        assert new_count == count + (state is State.QUE)


def test_only_the_first_verdict_is_kept() -> None:
    conclusion = Conclusion()
    kinds: tuple[Kind, ...] = ("relayed", "done", "err", "resend")
    for kind in kinds:
        conclusion.observe(Verdict(kind, kind))
    assert conclusion.verdict == Verdict("relayed", "relayed")


@given(TEXT | st.text(st.sampled_from("a€\udc80\ud800\n\r\0"), min_size=3000, max_size=5000))
def test_an_answer_is_one_short_line_whatever_is_in_it(text: str) -> None:
    for word, data in (("ok", answer_ok(text)), ("fail", answer_fail(text))):
        assert data.startswith(f"{word} ".encode())
        assert data.endswith(b"\n")
        assert not set(data[:-1]) & {*range(32), 127}
        assert len(data) <= MAX_ANSWER


def test_answers_of_the_contract() -> None:
    assert answer_ok("http://h:3333/q/test/1") == b"ok http://h:3333/q/test/1\n"
    assert answer_fail("no queue\nof that name") == b"fail no queue of that name\n"
    assert answer_fail("é" * 5000).decode() == "fail " + "é" * 2045 + "\n"
