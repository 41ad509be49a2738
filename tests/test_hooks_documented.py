"""Every hook is described for plugin authors, in full, and is tried by a test.

`docs/hooks.md` has a section per hook, in the order of `rqcore/hookspecs.py`: its heading is the
hook's exact signature, and it says all that the docstring says; examples and advice come on top.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rqcore import hookspecs
from rqcore.hookspecs import FAIL_CLOSED, HOOK_API, HOOKS, hook_kind

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FIELDS = ("Called", "Process", "Args", "Returns", "If it raises", "Since")


def spec(hook: str) -> Callable[..., object]:
    function: Callable[..., object] = getattr(hookspecs, hook)
    return function


def signature(hook: str) -> str:
    return f"{hook}{inspect.signature(spec(hook))}".replace("'", "")


def plain(text: str) -> str:
    """The words alone: docstrings and Markdown write code and breaks in their own ways."""
    return " ".join(re.sub(r"[`*]", "", text).split())


def fields(hook: str) -> dict[str, str]:
    """What the docstring says, by field; what comes before the first field is under ""."""
    found: dict[str, str] = {}
    field = ""
    for line in inspect.cleandoc(spec(hook).__doc__ or "").splitlines():
        name, colon, rest = line.partition(":")
        if colon and name in FIELDS:
            field, line = name, rest  # noqa: PLW2901 - the rest of it belongs to the field
        found[field] = f"{found.get(field, '')}\n{line}"
    return found


def arguments(hook: str) -> dict[str, str]:
    """The field Args, by argument."""
    found: dict[str, str] = {}
    name = ""
    for line in fields(hook)["Args"].splitlines():
        start = re.fullmatch(r"    (\w+): (.*)", line)
        if start:
            name, line = start[1], start[2]  # noqa: PLW2901 - as above
        if name:
            found[name] = f"{found.get(name, '')}\n{line}"
    return found


def sections() -> dict[str, str]:
    """The text under each heading of the third level that is a hook's signature."""
    text = (DOCS / "hooks.md").read_text()
    found = re.split(r"^### `(rq_.*)`$", text, flags=re.MULTILINE)[1:]
    return {
        heading: re.split(r"^##? ", body, flags=re.MULTILINE)[0]
        for heading, body in zip(found[::2], found[1::2], strict=True)
    }


def test_there_are_hooks() -> None:
    assert len(HOOKS) > 35
    assert FAIL_CLOSED.issubset(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hooks_docstring_has_all_fields(hook: str) -> None:
    said = fields(hook)
    assert tuple(said)[1:] == FIELDS
    for name, text in said.items():
        assert text.strip(), f"{hook}: {name or 'its first line'} is empty"
    assert list(arguments(hook)) == list(inspect.signature(spec(hook)).parameters)
    assert re.fullmatch(r"\d+\.\d+", said["Since"].strip())
    assert said["Since"].strip() <= HOOK_API


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hooks_docstring_fits_its_kind(hook: str) -> None:
    said = fields(hook)
    fails_closed = said["If it raises"].strip().startswith("fails closed")
    assert fails_closed == (hook in FAIL_CLOSED)
    if hook_kind(hook) in ("fact", "prepare"):
        assert said["Returns"].strip() == "nothing."
        assert inspect.signature(spec(hook)).return_annotation == "None"


def test_hooks_are_documented_with_their_exact_signatures_in_their_order() -> None:
    assert list(sections()) == [signature(hook) for hook in HOOKS]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hooks_section_says_what_its_docstring_says(hook: str) -> None:
    text = plain(sections()[signature(hook)])
    for name, said in fields(hook).items():
        if name == "Args":
            for argument, meaning in arguments(hook).items():
                assert plain(f"- {argument}: {meaning}") in text
        else:
            assert plain(f"{name}: {said}" if name else said) in text


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    name = re.compile(rf"def test_hook_{hook.removeprefix('rq_')}(_\w+)?\(")
    files = [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/**/test_*.py")]
    assert any(name.search(file.read_text()) for file in files)


def code_blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL
    )


def test_the_guide_shows_the_example_as_it_is() -> None:
    guard = (ROOT / "examples" / "plugins" / "guard.py").read_text()
    assert guard in code_blocks("writing-plugins.md", "python")


def test_the_guides_test_of_a_plugin_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [b for b in code_blocks("writing-plugins.md", "python") if "def test_" in b]
    guard = ROOT / "examples" / "plugins" / "guard.py"
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "guard.py").write_text(guard.read_text())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Callable[[], None]] = {}
    exec(example, names)
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) >= 2
    for name in tests:
        names[name]()


def test_every_example_of_the_reference_is_python() -> None:
    examples = code_blocks("hooks.md", "python")
    assert examples
    for example in examples:
        compile(example, "docs/hooks.md", "exec")
