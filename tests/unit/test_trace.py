"""Trace context: what is passed on, what is dropped, and that a message keeps it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore.message import Message, load_message, parse_message
from rqcore.trace import carried, trace_context

TRACE, STEP = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{STEP}-01"


@pytest.mark.parametrize("parent", [
    PARENT, f"00-{TRACE}-{STEP}-00", f"cc-{TRACE}-{STEP}-01", f"cc-{TRACE}-{STEP}-01-what.comes",
])  # fmt: skip
def test_what_has_the_form_is_passed_on(parent: str) -> None:
    assert trace_context(f" {parent} ", "a=1") == (parent, "a=1")


@pytest.mark.parametrize("parent", [
    "", None, 5, "x", f"00-{TRACE}-{STEP}", f"00-{TRACE}-{STEP}-01-more", f"ff-{TRACE}-{STEP}-01",
    f"00-{'0' * 32}-{STEP}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{STEP}-01",
    f"00-{TRACE}-{STEP}-01\n00", f"00-{TRACE[1:]}-{STEP}-01", f"0-{TRACE}-{STEP}-01",
    f"cc-{TRACE}-{STEP}-01.more",
])  # fmt: skip
def test_what_has_not_is_dropped_with_its_state(parent: object) -> None:
    assert trace_context(parent, "a=1") == ("", "")
    message = parse_message(
        {"dest": "q", "traceparent": parent, "tracestate": "a=1"}, now=0
    )  # never refused
    assert (message.traceparent, message.tracestate) == ("", "")


@pytest.mark.parametrize(("state", "kept"), [
    ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
    (" a=1 ,\t b=2 ,, ", "a=1,b=2"), ("fw529a3039@dt=FfAl3", "fw529a3039@dt=FfAl3"),
    ("a=with spaces inside", "a=with spaces inside"), ("", ""),
    ("A=1", ""), ("a", ""), ("a=1=2", ""), ("a=1\x01", ""), ("a=ä", ""), ("a=1,b", ""),
    (",".join(f"k{i}=1" for i in range(33)), ""), (f"a={'x' * 300}", ""), (None, ""), ([1], ""),
])  # fmt: skip
def test_the_state(state: object, kept: str) -> None:
    assert trace_context(PARENT, state) == (PARENT, kept)


def test_headers_and_environments() -> None:
    given = {"traceparent": PARENT, "tracestate": "a=1"}
    assert carried({**given, "other": "x"}) == given
    assert carried({"TRACEPARENT": PARENT}, environment=True) == {"traceparent": PARENT}
    assert carried({"TRACEPARENT": PARENT}) == {}
    assert carried({"tracestate": "a=1"}) == {}


@given(st.text(), st.text())
def test_a_message_keeps_what_it_took(parent: str, state: str) -> None:
    for given_parent in (parent, PARENT):
        fields = {"dest": "q", "traceparent": given_parent, "tracestate": state}
        draft = parse_message(fields, now=0)
        assert load_message(draft.to_json(), "") == draft
        again = trace_context(draft.traceparent, draft.tracestate)
        assert again == (draft.traceparent, draft.tracestate)


def test_what_has_none_says_nothing_of_it() -> None:
    assert not {"traceparent", "tracestate"} & set(Message(dest="q").to_fields())
