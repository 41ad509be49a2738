"""What is printed: aligned, and harmless to a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_cli.output import clean, fields, table


@given(st.text(st.characters(codec=None)))
def test_clean_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"])).filter(str.isprintable))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_what_could_command_a_terminal_is_shown_instead() -> None:
    assert clean("a\x1b[31m\n\udcff\x9b") == r"a\x1b[31m\n\xff\x9b"


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    table(
        ("NAME", "N", ""), [("a", 1, "x"), ("日本", 100, ""), ("long name", 20, "y\n")], right={"N"}
    )
    assert capsys.readouterr().out == (
        "NAME         N\n"
        "a            1  x\n"
        "日本       100\n"
        "long name   20  y\\n\n"
    )  # fmt: skip


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    fields([("a", "1"), ("empty", ""), ("none", None), ("longer", 0)])
    assert capsys.readouterr().out == "a       1\nlonger  0\n"


def test_a_terminal_gets_colours_for_states_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    table(("STATE", "PARAMS"), [("err", "err"), ("done", "[bold]x")])
    shown = capsys.readouterr().out
    assert re.search(r"\x1b\[1;31merr", shown)
    assert shown.count("\x1b[1;31m") == 1
    assert "[bold]x" in shown
