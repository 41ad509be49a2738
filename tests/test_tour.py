"""The README's tour works as it is written, and its runner notices where one does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.tour import Block, TourError, blocks, matches, run

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tour_of_the_readme(tmp_path: Path) -> None:
    run((ROOT / "README.md").read_text(), tmp_path, environment())


def page(commands: str, output: str | None = None, mark: str = "tour") -> str:
    text = f"Words.\n\n<!-- {mark} -->\n```sh\n{commands}\n```\n"
    return text if output is None else f"{text}\n```text\n{output}\n```\n\nMore words.\n"


def test_blocks_are_found_with_their_outputs() -> None:
    text = page("one\ntwo", "shown") + page("three", mark="tour exit=2") + "```sh\nnot this\n```\n"
    assert blocks(text) == [Block("one\ntwo\n", 0, "shown\n"), Block("three\n", 2, None)]


def test_a_mark_without_a_block_is_an_error() -> None:
    with pytest.raises(TourError):
        blocks("<!-- tour -->\n\nWords.\n```sh\nls\n```\n")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("ok", "ok \n", True),
        ("ok", "ok\nmore\n", False),
        ("ok ... it is", "ok 123 it is\n", True),
        ("ok ... it is", "ok 1\n23 it is\n", False),
        ("first\n...\nlast", "first\na\nb\nlast\n", True),
        ("first\n...\nlast", "first\nlast\n", True),
        ("first\n...\nlast", "first\na\n", False),
        ("a.c", "abc", False),
    ],
)
def test_outputs_are_compared_by_what_is_shown(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same


def test_blocks_share_one_shell_and_their_output_is_checked(tmp_path: Path) -> None:
    text = page("mkdir new; cd new\nname=value") + page("pwd; echo $name; cat", "...new\nvalue")
    assert run(text, tmp_path, environment()) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (page("false\necho on"), "status 1"),
        (page("true", mark="tour exit=3"), "status 0"),
        (page("echo this", "that"), "instead of"),
        # Known to be out of the shell's group, with which it would have ended.
        (
            page("setsid -f sh -c 'touch up; exec sleep 60'\nuntil [ -e up ]; do :; done"),
            "left processes behind: .*sleep 60",
        ),
        ("No tour.", "no tour"),
    ],
)
def test_a_tour_that_does_not_work_fails(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(TourError, match=complaint):
        run(text, tmp_path, environment())


def test_a_failure_that_is_announced_is_none(tmp_path: Path) -> None:
    assert run(page("echo no; false", "no", mark="tour exit=1") + page("true"), tmp_path, {}) == 2
