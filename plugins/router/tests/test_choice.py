"""Where copies go: what a host makes of a destination, which host is taken, what a pattern finds."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_router.choice import candidates, chosen
from rqcore_router.hosts import base_of, destination, host_problem
from rqcore_router.reach import unreachable
from rqcore_router.rubyregex import UnlikeError, translated
from rqcore_router.rules import Host, Rule

from rqcore.errors import RefusedError
from rqcore.message import parse_dest

# --- hosts


@pytest.mark.parametrize(
    ("host", "dest", "there"),
    [
        ("mq2", "test", "http://mq2:3333/q/test"),
        ("mq2", "/q/test", "http://mq2:3333/q/test"),
        ("mq2", "http://mq1:4444/q/test", "http://mq2:3333/q/test"),
        ("mq2:5555", "http://mq1:4444/q/test", "http://mq2:5555/q/test"),
        ("mq2", "https://mq1/rq/q/test", "https://mq2:3333/rq/q/test"),
        ("[::1]", "http://mq1/q/test", "http://[::1]:3333/q/test"),
        ("[::1]:4444", "test", "http://[::1]:4444/q/test"),
        ("http://mq2:1/q/other", "http://mq1/q/test", "http://mq2:1/q/other"),
        ("http://mq2:1/q/other", "what is no destination", "http://mq2:1/q/other"),
        ("https://mq2/", "http://mq1/q/test", "https://mq2/q/test"),
        ("https://mq2:8/rq", "test", "https://mq2:8/rq/q/test"),
        ("/q/other", "http://mq1/q/test", "/q/other"),
    ],
)
def test_what_a_host_makes_of_a_destination(host: str, dest: str, there: str) -> None:
    assert host_problem(host) is None
    assert destination(host, dest) == there
    assert parse_dest(there) is not None


def test_a_destination_that_is_none_has_no_host_to_swap() -> None:
    with pytest.raises(RefusedError, match="what is this is no destination"):
        destination("mq2", "what is this")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("", "is no host"),
        ("a b", "is no host"),
        ("a/b", "is no host"),
        ("a:", "is no host"),
        ("a:0", "is no host"),
        ("a:65536", "is no host"),
        ("ftp://a/", "is no host"),
        ("a\n", "is no host"),
        ("/", "names no queue of this instance"),
        ("/q/a b", "names no queue of this instance"),
        ("/q/rq_router", "where the message comes from"),
        ("http://", "is no host"),
        ("http://a:x/", "is no URL"),
        ("http://a/?b", "is no URL"),
        ("http://a b/q/c", "is no URL"),
        ("http://a/q/b/20260101.0000.00.000.1", "is no URL"),
    ],
)
def test_what_is_no_host(host: str, words: str) -> None:
    problem = host_problem(host)
    assert problem is not None
    assert words in problem


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
    st.sampled_from(["test", "/q/test", "http://a:1/q/test", "https://a/r/q/test"]),
)
def test_a_host_without_a_problem_gives_a_destination(host: str, dest: str) -> None:
    if host_problem(host) is None:
        there = destination(host, dest)
        assert parse_dest(there) is not None
        assert there.startswith("/") or base_of(there) is not None


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("ftp://mq1/q/x", None),
        ("http://MQ1/q/x", "http://mq1:80/"),
        ("https://mq1/rq/q/x", "https://mq1:443/rq/"),
        ("http://[::1]:3333/", "http://[::1]:3333/"),
        ("http://u:p@mq1:1/q/x", "http://mq1:1/"),
        ("/q/x", None),
        ("http://[/", None),
    ],
)
def test_what_an_instance_is_called(url: str, base: str | None) -> None:
    assert base_of(url) == base


# --- which one is taken


def rule(*groups: str, action: str = "relay") -> Rule:
    """``"a*3|b"`` is a group of two, the first of which has weight 3."""
    route = []
    for group in groups:
        parts = [host.partition("*") for host in group.split("|")]
        route.append(tuple(Host(name, float(weight or 1)) for name, _, weight in parts))
    return Rule("r", 1, action, route=tuple(route))  # type: ignore[arg-type]


DOWN = frozenset({"http://b:3333/"})


def test_relay_sends_one_copy_to_every_host() -> None:
    assert chosen(rule("a", "b", "/q/c"), "t", DOWN, Random(1)) == [
        "http://a:3333/q/t", "http://b:3333/q/t", "/q/c",
    ]  # fmt: skip


def test_two_groups_that_pick_the_same_destination_make_one_copy() -> None:
    assert chosen(rule("a", "a", "http://a:3333/q/t"), "t", (), Random(1)) == ["http://a:3333/q/t"]


def test_one_of_each_list_is_taken_and_all_in_their_turn() -> None:
    dice = Random(7)
    found = {tuple(chosen(rule("a|c", "/q/x|/q/y"), "t", (), dice)) for _ in range(200)}
    hosts = ("http://a:3333/q/t", "http://c:3333/q/t")
    assert found == {(host, queue) for host in hosts for queue in ("/q/x", "/q/y")}


def test_weights() -> None:
    dice = Random(11)
    taken = Counter(chosen(rule("a*3|c"), "t", (), dice)[0] for _ in range(4000))
    assert 2800 < taken["http://a:3333/q/t"] < 3200


def test_the_unreachable_are_left_out_while_there_is_another() -> None:
    dice = Random(3)
    some = {chosen(rule("a|b|c"), "t", DOWN, dice)[0] for _ in range(200)}
    assert some == {"http://a:3333/q/t", "http://c:3333/q/t"}
    alone = {chosen(rule("b|b:3333"), "t", DOWN, dice)[0] for _ in range(50)}
    assert alone == {"http://b:3333/q/t"}


def test_candidates_are_told_with_what_is_known_of_them() -> None:
    ((here, there),) = candidates(rule("/q/x|b*2"), "t", DOWN)
    assert (here.local, here.reachable, here.weight) == (True, True, 1)
    assert (there.local, there.reachable, there.weight) == (False, False, 2)


# --- what rqcore-relay knows


def test_unreachable_is_what_relay_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert unreachable(tmp_path) == frozenset()
    file = tmp_path / "var" / "relay" / "peers.json"
    file.parent.mkdir(parents=True)
    peers = {"http://a:1/": {"reachable": False}, "http://b:1/": {"reachable": True},
             "http://c:1/": {"reachable": None}, "http://d:1/": {}}  # fmt: skip
    file.write_text(json.dumps({"peers": peers, "at": 1}))
    assert unreachable(tmp_path) == {"http://a:1/"}
    assert not caplog.messages
    for broken in ("", "[]", "{}", '{"peers": 1}', '{"peers": {"a": 1}}', "[" * 100_000):
        file.write_text(broken)
        assert unreachable(tmp_path) == frozenset()
        assert "every host counts as reachable" in caplog.messages[-1]


# --- Ruby's patterns


@pytest.mark.parametrize(
    ("source", "flags", "found", "missed"),
    [
        ("^b$", "", "a\nb\nc", "ab"),
        (r"\Aa\z", "", "a", "a\n"),
        (r"\Aa\Z", "", "a\n", "a\n\n"),
        (r"\h\h", "", "aF", "xg"),
        (r"[\h]x", "", "Fx", "gx"),
        (r"\Hx", "", "gx", "ax"),
        (r"^\d$", "", "7", "\u0667"),
        (r"^\w$", "", "a", "é"),
        (r"[\D]$", "", "\u0667", "7"),
        (r"^[\W]$", "", "é", "a"),
        (r"^[\s\S]$", "", "\n", "ab"),
        (r"é\b", "", "é-", "éa"),
        (r"\A\B\z", "", "", "a"),
        (r"\D^", "", "a\nb", "a\n"),
        ("^[[:alpha:]]$", "", "é", "1"),
        ("^[[:upper:]]$", "", "É", "é"),
        ("^[^[:word:]]$", "", "-", "é"),
        ("^[[:space:][:cntrl:]]$", "", "\x1f", "a"),
        ("^[[:graph:]]$", "", "é", " "),
        ("^[[:print:]]$", "", " ", "\x01"),
        ("^[[:blank:][:xdigit:]]$", "", "\t", "g"),
        ("^[[:lower:][:digit:]]$", "", "é", "A"),
        ("^[[:alnum:]]$", "", "1", "_"),
        ("a.b", "", "axb", "a\nb"),
        ("a.b", "m", "a\nb", "ab"),
        ("A b", "ix", "ab", "a b"),
        (r"q\/x", "", "q/x", "qx"),
        (r"(?<n>a|b)\k<n>", "", "bb", "ab"),
        (r"(a|b)\1", "", "aa", "ab"),
        (r"(a)\1{2}1", "", "aaa1", "aa1"),
        ("(?i:a)b", "", "Ab", "AB"),
        ("(?m-i:a.)b", "i", "a\nB", "A\nb"),
        ("(?>a+)b", "", "aab", "aac"),
        ("(?<=a)b(?!c)", "", "abd", "abc"),
        ("a++b", "", "aab", "b"),
        ("a{", "", "a{", "a"),
        ("a{,2}b", "", "aab", "c"),
        ("[[:alpha:]_]-", "", "_-", "1-"),
        ("[^[:digit:]]x", "", "ax", "1x"),
        ("[[:punct:]]", "", "a]", "ab"),
        (r"[\]\[]", "", "[", "x"),
        ("[a|~-]x", "", "-x", "&x"),
        ("[&-]x", "", "&x", "|x"),
        (r"\x41\u0042", "", "AB", "ab"),
        (r"[\x41]b", "", "Ab", "ab"),
        (r"a\-b\.", "", "a-b.", "a-bx"),
        (r"\eb", "", "\x1bb", "eb"),
        ("#x", "", "#x", "x"),
    ],
)
def test_ruby_patterns_find_what_they_always_found(
    source: str, flags: str, found: str, missed: str
) -> None:
    pattern = translated(source, flags)
    assert pattern.search(found)
    assert not pattern.search(missed)


@given(
    st.text("ab()[]{}|^$.*+?\\dwhzAZk<>:=!#&-,/1ix ", max_size=30), st.sampled_from(["", "i", "mx"])
)
def test_any_pattern_is_translated_or_refused(source: str, flags: str) -> None:
    try:
        found = translated(source, flags)
    except UnlikeError as error:
        refused = str(error)
    else:
        refused = ""
        assert isinstance(found, re.Pattern)
    assert "\n" not in refused
