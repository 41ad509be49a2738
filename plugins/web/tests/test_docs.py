"""docs/web.md says what the site is: every option, every hook to the letter, the example as it is."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rqcore_web import hookspecs
from rqcore_web.api.table import OPERATIONS
from rqcore_web.hookspecs import WEB_HOOKS
from rqcore_web.options import Options, parse_options
from rqcore_web.ringfile import Form, Ring
from rqcore_web.tally import Tally

from rqcore.config import parse_instance

if TYPE_CHECKING:
    from tests.conftest import Web

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "web.md").read_text()
EXAMPLE = ROOT / "examples" / "plugins" / "runbook.py"
FIELDS = ("Called", "Process", "Args", "Returns", "If it raises", "Since")


def section(title: str) -> str:
    """The text under a heading of the second level."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


# --- options


def test_every_option_has_a_row_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", section("Options"), re.MULTILINE)
    assert [name for name, _, _ in rows] == [option.name for option in fields(Options)]


DEFAULTS: dict[str, tuple[str, object]] = {
    "authentication": ('`"required"`', "required"),
    "trusted_proxies": ("`[]`", ()),
    "roles": ("`{}`", {}),
    "max_upload": ("2⁵⁰", 1 << 50),
    "keep_free": ("64 MiB", 64 << 20),
    "max_body": ("10 MiB", 10 << 20),
    "max_connections": ("1000", 1000),
    "client_timeout": ("60", 60.0),
    "history_days": ("28", 28),
    "access_log": ("`true`", True),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_what_they_are(name: str) -> None:
    shown, value = DEFAULTS[name]
    assert re.search(rf"^\| `{name}` \| \w+ \| {re.escape(shown)} \|", PAGE, re.MULTILINE)
    assert getattr(Options(), name) == value


def test_the_examples_of_the_config_can_be_used() -> None:
    blocks = re.findall(r"^```json instance\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        config, warnings = parse_instance(json.loads(block), "config.json")
        assert not warnings
        parse_options(config.plugins["web"], "config.json")


def test_what_is_said_of_the_history_is_so() -> None:
    days = Options().history_days
    rings = (Ring(60, 2880), Ring(600, days * 144), Ring(3600, 366 * 24))
    size = Form(b"queue", rings, Tally.SIZE).size
    assert f"{size / 1e6:.1f} MB for each queue" in PAGE


# --- URLs


def test_every_path_of_the_api_that_is_shown_is_there() -> None:
    known = {re.sub(r"\{\w+\}", "X", operation.path) for operation in OPERATIONS}
    shown = set(re.findall(r"(/api/v1(?:/[\w.:-]+)*)", PAGE))
    for path in shown:
        plain = re.sub(r"/(queues|messages|logs)/[\w.-]+", r"/\1/X", path)
        assert plain in known, path


# --- hooks


def spec(hook: str) -> Callable[..., object]:
    function: Callable[..., object] = getattr(hookspecs, hook)
    return function


def signature(hook: str) -> str:
    return f"{hook}{inspect.signature(spec(hook))}".replace("'", "")


def plain(text: str) -> str:
    """The words alone: docstrings and Markdown write code and breaks in their own ways."""
    return " ".join(re.sub(r"[`*]", "", text).split())


def hook_sections() -> dict[str, str]:
    found = re.split(r"^### `(rq_web_.*)`$", section("Add to it"), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def test_all_hooks_are_in_the_list() -> None:
    made = [name for name in vars(hookspecs) if name.startswith("rq_")]
    assert tuple(made) == WEB_HOOKS


def test_hooks_are_documented_with_their_exact_signatures_in_their_order() -> None:
    assert list(hook_sections()) == [signature(hook) for hook in WEB_HOOKS]


@pytest.mark.parametrize("hook", WEB_HOOKS)
def test_a_hooks_section_says_what_its_docstring_says(hook: str) -> None:
    text = plain(hook_sections()[signature(hook)])
    docstring = inspect.cleandoc(spec(hook).__doc__ or "")
    assert re.findall(rf"^({'|'.join(FIELDS)}):", docstring, re.MULTILINE) == list(FIELDS)
    words, *said = re.split(rf"^(?:{'|'.join(FIELDS)}):", docstring, flags=re.MULTILINE)
    assert plain(words) in text
    for name, meaning in zip(FIELDS, said, strict=True):
        if name != "Args":
            assert plain(f"{name}: {meaning}") in text
    for argument, meaning in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", said[2], re.MULTILINE):
        assert plain(f"- {argument}: {meaning}") in text
    assert list(inspect.signature(spec(hook)).parameters) == re.findall(
        r"^    (\w+):", said[2], re.MULTILINE
    )


def test_the_page_shows_the_example_as_it_is() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert EXAMPLE.read_text() in blocks
    for hook in WEB_HOOKS:
        assert f"def {hook}(" in EXAMPLE.read_text()


# --- each hook, by the example


@pytest.fixture(scope="module")
def example(shared: Web) -> Web:
    shared.rq.queue("fails", shared.FAILS)
    shutil.copy(EXAMPLE, shared.rq.directory / "plugins")
    (shared.rq.directory / "runbook").mkdir()
    (shared.rq.directory / "runbook" / "fails.txt").write_text("call Ann & Bob")
    return shared.start()


def html(web: Web, path: str) -> str:
    answer = web.curl(path, "-H", "Accept: text/html")
    assert answer.status == 200
    return answer.text


def test_hook_web_routes(example: Web) -> None:
    assert "call Ann &amp; Bob" in html(example, "-/runbook/")


def test_hook_web_root_routes(example: Web) -> None:
    assert example.curl("runbook").json() == {"fails": "call Ann & Bob"}


def test_hook_web_nav_items(example: Web) -> None:
    assert re.search(r'<a href="/-/runbook/"[^>]*>Runbook</a>', html(example, ""))


def test_hook_web_overview_panels(example: Web) -> None:
    assert "1 of 1 queues have a text" in html(example, "")


def test_hook_web_queue_panels(example: Web) -> None:
    assert "call Ann &amp; Bob" in html(example, "q/fails")


def test_hook_web_message_panels(example: Web) -> None:
    msg_id = example.rq.send("fails")
    example.rq.until("fails", msg_id, "err")
    assert "call Ann &amp; Bob" in html(example, f"q/fails/{msg_id}")


@pytest.mark.parametrize("hook", WEB_HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    name = f"def test_hook_{hook.removeprefix('rq_')}("
    files = Path(__file__).parent.glob("test_*.py")
    assert any(name in file.read_text() for file in files)


# --- the map


def test_architecture_names_every_room_of_the_site() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    package = Path(hookspecs.__file__).parent
    missing = [room.name for room in package.glob("*.py") if f"`{room.name}`" not in page]
    assert missing == ["__init__.py"]
    for room in package.iterdir():
        if (room / "__init__.py").exists():
            assert f"`{room.name}/" in page
