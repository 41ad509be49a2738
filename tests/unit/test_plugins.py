"""How plugins are found and taken in, and what is wrong with those that are not."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rqcore.hooks import Hooks
from rqcore.hookspecs import HOOKS, InstanceInfo, QueueInfo, Reject, Service, hook_kind, hookimpl
from rqcore.isolation import PluginInfo
from rqcore.lifecycle import State, Step
from rqcore.message import Message
from rqcore.plugins import load_plugins

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "data" / "fake-dist"
EXAMPLES = ROOT / "examples" / "plugins"
MESSAGE = Message(msg_id="20260101.1200.00.000.000001", dest="test")
QUEUE = QueueInfo("test", "/spool/queue/test", {})

HEAD = "from rqcore.hookspecs import Reject, hookimpl\n"
GOOD = HEAD + "@hookimpl\ndef rq_message_done(): {body}\n"


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


def files(directory: Path, **plugins: str) -> Path:
    folder = directory / "plugins"
    folder.mkdir(exist_ok=True)
    for name, text in plugins.items():
        (folder / f"{name}.py").write_text(text)
    return directory


def distribution(site: Path, name: str, entry_points: str, **modules: str) -> None:
    """Put a distribution into a directory, as pip would."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


def found(hooks: Hooks) -> dict[str, PluginInfo]:
    return {info.name: info for info in hooks.plugins()}


def statuses(hooks: Hooks) -> dict[str, str]:
    return {info.name: info.status for info in hooks.plugins()}


# --- installed distributions ----------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Hooks:
    monkeypatch.syspath_prepend(str(FAKE))
    return load_plugins(None, {})


def test_entry_points_name_modules_and_objects(fake: Hooks) -> None:
    plugins = found(fake)
    assert plugins["fake"] == PluginInfo(
        "fake", "1.2.3", "rqcore-fake", "ok", "", ("rq_check_message",)
    )
    assert plugins["fake_counter"].hooks == ("rq_message_done",)
    refused = fake.check_message(Message(dest="test", param1="nobody"), QUEUE)
    assert refused == Reject("nobody (plugin fake)")
    fake.message_done(MESSAGE, QUEUE, "")
    counter = importlib.import_module("rqcore_fake").counter
    assert counter.done == 1


def test_a_half_installed_plugin_costs_only_itself(fake: Hooks) -> None:
    absent = found(fake)["fake_absent"]
    assert (absent.status, absent.version, absent.source) == ("failed", "1.2.3", "rqcore-fake")
    assert absent.error == "ModuleNotFoundError: No module named 'rqcore_fake_absent'"


def test_the_order_is_that_of_the_names(fake: Hooks) -> None:
    names = [info.name for info in fake.plugins() if info.source == "rqcore-fake"]
    assert names == ["fake", "fake_absent", "fake_counter"]


def test_two_distributions_with_one_name_are_both_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "one", "[rqcore]\nsame = one_mod\n", one_mod=GOOD)
    distribution(tmp_path, "two", "[rqcore]\nsame = two_mod\n", two_mod=GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    hooks = load_plugins(files(tmp_path, fine=GOOD.format(body="pass")), {})
    same = [info for info in hooks.plugins() if info.name == "same"]
    assert [info.status for info in same] == ["failed", "failed"]
    for info in same:
        assert "plugin same 1.0 (one) and plugin same 1.0 (two) have the same name" in info.error
    assert "one_mod" not in sys.modules
    assert found(hooks)["fine"].status == "ok"


def test_a_distribution_is_shadowed_by_its_namesake_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("later", "earlier"):
        text = GOOD.format(body="pass")
        distribution(tmp_path / place, "one", "[rqcore]\nsame = one_mod\n", one_mod=text)
        monkeypatch.syspath_prepend(str(tmp_path / place))
    hooks = load_plugins(None, {})
    assert [info.status for info in hooks.plugins() if info.name == "same"] == ["ok"]


@pytest.mark.parametrize("damage", ["[rqcore]\nno equals sign\n", b"[rqcore]\nx = \xff\xfe\n"])
def test_damaged_metadata_cost_only_their_distribution(
    damage: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "damaged-1.0.dist-info"
    info.mkdir()
    if isinstance(damage, bytes):
        (info / "entry_points.txt").write_bytes(damage)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 1\n")
    else:
        (info / "entry_points.txt").write_text(damage)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(FAKE))
    hooks = load_plugins(None, {})
    assert found(hooks)["fake"].status == "ok"
    (damaged,) = [i for i in hooks.plugins() if i.status == "failed" and i.name != "fake_absent"]
    assert damaged.name in ("damaged", "a distribution without METADATA")


def test_a_plugin_without_readable_metadata_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD.format(body="pass")
    distribution(tmp_path, "one", "[rqcore]\nunnamed = one_mod\n", one_mod=text)
    (tmp_path / "one-1.0.dist-info" / "METADATA").write_bytes(b"Name: \xff")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = found(load_plugins(None, {}))["unnamed"]
    assert (plugin.status, plugin.version) == ("ok", "")
    assert plugin.source == "a distribution without METADATA"


# --- the instance's own files ---------------------------------------------------------------------


def test_single_files_are_loaded_in_order(tmp_path: Path) -> None:
    good = GOOD.format(body="pass")
    files(tmp_path, b=good, a=f"__version__ = '7'\n{good}", _helper="raise SystemExit", c_d=good)
    (tmp_path / "plugins" / ".hidden.py").write_text("raise SystemExit")
    (tmp_path / "plugins" / "notes.txt").write_text("no plugin")
    hooks = load_plugins(tmp_path, {})
    mine = [info for info in hooks.plugins() if str(tmp_path) in info.source]
    assert [info.name for info in mine] == ["a", "b", "c_d"]
    assert mine[0].version == "7"
    assert mine[0].source == str(tmp_path / "plugins" / "a.py")
    assert "rqcore_instance_plugins.a" in sys.modules
    assert sorted(os.listdir(tmp_path / "plugins")) == [
        ".hidden.py", "_helper.py", "a.py", "b.py", "c_d.py", "notes.txt",
    ]  # fmt: skip


def test_a_plugin_may_have_helpers_and_they_are_those_of_its_instance(tmp_path: Path) -> None:
    text = (
        "from . import _words\nfrom rqcore.hookspecs import Reject, hookimpl\n"
        "@hookimpl\ndef rq_check_message(): return Reject(_words.reason)\n"
    )
    for name in ("first", "second"):
        instance = tmp_path / name
        instance.mkdir()
        files(instance, says=text, _words=f"reason = 'this is the {name}'")
        refused = load_plugins(instance, {}).check_message(MESSAGE, QUEUE)
        assert refused == Reject(f"this is the {name} (plugin says)")


def test_an_edited_file_is_what_it_is_now(tmp_path: Path) -> None:
    text = HEAD + "@hookimpl\ndef rq_check_message(): return Reject('{}')\n"
    for word in ("one", "two"):  # of one length, and within one tick of the file system's clock
        files(tmp_path, guard=text.format(word))
        refused = load_plugins(tmp_path, {}).check_message(MESSAGE, QUEUE)
        assert refused == Reject(f"{word} (plugin guard)")


def test_no_directory_no_files(tmp_path: Path) -> None:
    assert [i for i in load_plugins(tmp_path, {}).plugins() if str(tmp_path) in i.source] == []


def test_a_directory_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "plugins").write_text("a file")
    plugin = found(load_plugins(tmp_path, {}))["plugins"]
    assert plugin.status == "failed"
    assert plugin.error.startswith("NotADirectoryError: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def rq_message_done(:\n", "SyntaxError: invalid syntax (bad.py, line 1)"),
        ("import not_there_at_all\n", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("x = 1\n\nraise SystemExit(3)\n", "SystemExit: 3 (bad.py:3)"),
        ("", "it has no hook; write @hookimpl before its hook functions"),
        ("def rq_message_done(): pass\n", "rq_message_done is not marked: write @hookimpl"),
        (
            HEAD + "@hookimpl\ndef rq_mesage_done(): pass\n",
            "unknown hook rq_mesage_done: did you mean rq_message_done?",
        ),
        (
            HEAD + "@hookimpl\ndef rq_quite_new_thing(): pass\n",
            "unknown hook rq_quite_new_thing: this version of rqcore has no such hook",
        ),
        (
            HEAD + "@hookimpl\ndef rq_message_done(mesage): pass\n",
            "Plugin 'bad' for hook 'rq_message_done' hookimpl definition: rq_message_done(mesage) ",
        ),
        (
            HEAD + "@hookimpl(wrapper=True)\ndef rq_message_done(): return (yield)\n",
            "rq_message_done is a wrapper; hooks of rqcore are plain functions",
        ),
        (
            HEAD + "@hookimpl(hookwrapper=True)\ndef rq_message_done(): yield\n",
            "rq_message_done is a wrapper; hooks of rqcore are plain functions",
        ),
        (
            HEAD + "@hookimpl\nasync def rq_message_done(): pass\n",
            "rq_message_done is async; hooks of rqcore are plain functions",
        ),
        (
            HEAD + "@hookimpl\nasync def rq_message_done(): yield\n",
            "rq_message_done is async; hooks of rqcore are plain functions",
        ),
        (
            HEAD + "@hookimpl\ndef rq_message_done(): yield\n",
            "rq_message_done has a yield, so it would never run; use return",
        ),
        (
            HEAD + "@hookimpl\ndef rq_message_done(message, *, queue): pass\n",
            "rq_message_done has queue after a *; put it before",
        ),
        (
            HEAD + "@hookimpl\ndef rq_add_hookspecs(pluginmanager): pluginmanager.set_blocked()\n",
            "TypeError: PluginManager.set_blocked() missing 1 required positional argument",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_told_and_costs_only_it(
    text: str, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = load_plugins(files(tmp_path, bad=text, good=GOOD.format(body="pass")), {})
    bad, good = found(hooks)["bad"], found(hooks)["good"]
    assert good.status == "ok"
    assert bad.status == "failed"
    assert bad.error.startswith(why)
    assert "\n" not in bad.error
    assert "(bad.py" in bad.error or "Error" not in why[:20]
    assert bad.hooks == ()
    assert f"plugin bad ({tmp_path}/plugins/bad.py) is not used: {why}" in caplog.text
    hooks.message_done(MESSAGE, QUEUE, "")
    assert [(stat.plugin, stat.calls) for stat in hooks.stats() if stat.calls] == [("good", 1)]


def test_options_that_are_wrong_are_one_line_that_names_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "from rqcore.hookspecs import hookimpl\nfrom rqcore.schema import Report\n"
        "@hookimpl\ndef rq_configure(options):\n    report = Report('c.json')\n"
        "    for key in options: report.refuse(key, None, 'is odd', 'remove it')\n"
        "    report.finish()\n"
    )
    hooks = load_plugins(files(tmp_path, picky=text), {})
    hooks.configure(InstanceInfo(str(tmp_path), "", {}), {"picky": {"a": 1, "b": 2}})
    why = 'its options: c.json: "a" is odd; remove it; also: c.json: "b" is odd; remove it'
    assert found(hooks)["picky"].error == why
    assert [record.getMessage() for record in caplog.records] == [
        f"plugin picky ({tmp_path}/plugins/picky.py) is not used: {why}"
    ]


def test_a_hook_of_a_later_version_may_be_optional(tmp_path: Path) -> None:
    text = (
        "from rqcore.hookspecs import hookimpl\n"
        "@hookimpl(optionalhook=True)\ndef rq_quite_new_thing(): pass\n"
    )
    hooks = load_plugins(files(tmp_path, new=text + GOOD.format(body="pass")), {})
    assert found(hooks)["new"].status == "ok"
    assert found(hooks)["new"].hooks == ("rq_message_done",)


def test_a_file_must_have_a_name_for_a_plugin(tmp_path: Path) -> None:
    hooks = load_plugins(files(tmp_path, **{"a.b": GOOD, "a-b": GOOD.format(body="pass")}), {})
    assert "rename it" in found(hooks)["a.b"].error
    assert found(hooks)["a-b"].status == "ok"


def test_a_file_and_a_distribution_with_one_name_are_both_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    hooks = load_plugins(files(tmp_path, fake=GOOD.format(body="pass")), {})
    refused = [info for info in hooks.plugins() if info.name == "fake"]
    assert [info.status for info in refused] == ["failed", "failed"]
    for info in refused:
        assert "(rqcore-fake)" in info.error
        assert str(tmp_path / "plugins" / "fake.py") in info.error


# --- switches -------------------------------------------------------------------------------------


def test_plugins_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQ_PLUGINS_DISABLED", "loud, other")
    files(tmp_path, loud="raise SystemExit", quiet="raise SystemExit", on=GOOD.format(body="pass"))
    hooks = load_plugins(tmp_path, {}, disabled=["quiet"])
    plugins = found(hooks)
    assert (plugins["loud"].status, plugins["loud"].error) == (
        "disabled", "named in RQ_PLUGINS_DISABLED",
    )  # fmt: skip
    assert (plugins["quiet"].status, plugins["quiet"].error) == (
        "disabled", "switched off by the config",
    )  # fmt: skip
    assert plugins["on"].status == "ok"


def test_a_switched_off_namesake_is_out_of_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setenv("RQ_PLUGINS_DISABLED", "fake")
    hooks = load_plugins(files(tmp_path, fake="raise SystemExit"), {})
    assert [info.status for info in hooks.plugins() if info.name == "fake"] == ["disabled"] * 2


def test_without_plugins_all_are_named_and_none_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    with caplog.at_level(logging.INFO):
        hooks = load_plugins(files(tmp_path, guard="raise SystemExit"), {}, external=False)
    assert {info.status for info in hooks.plugins()} == {"disabled"}
    assert {info.error for info in hooks.plugins()} == {"started with --no-plugins"}
    assert {"fake", "guard"} <= statuses(hooks).keys()
    assert "rqcore_fake" not in sys.modules
    assert not any(hooks.has(name) for name in HOOKS)
    assert "started with --no-plugins" in caplog.text


# --- registering by hand --------------------------------------------------------------------------


def given(**functions: Callable[..., Any]) -> ModuleType:
    module = ModuleType("given")
    for name, function in functions.items():
        setattr(module, name, hookimpl(function))
    return module


def test_a_class_is_no_plugin() -> None:
    class Plugin:
        @hookimpl
        def rq_message_done(self) -> None: ...

    assert "is no plugin; give a module or an instance" in Hooks().register(Plugin, "a").error
    assert "None is no plugin" in Hooks().register(None, "a").error
    assert Hooks().register(Plugin(), "a").status == "ok"


def test_an_object_that_resists_being_looked_at_costs_only_itself() -> None:
    class Rude:
        def __dir__(self) -> list[str]:
            raise RuntimeError("nothing to see")

    hooks = Hooks()
    assert hooks.register(Rude(), "rude").error.startswith("RuntimeError: nothing to see")
    assert hooks.register(given(rq_message_done=lambda: None), "a").status == "ok"


def test_a_namesake_that_comes_later_costs_both() -> None:
    hooks = Hooks()
    assert hooks.register(given(rq_message_done=lambda: None), "a").status == "ok"
    late = hooks.register(given(rq_message_done=lambda: None), "a", version="2")
    assert late.status == "failed"
    assert [info.status for info in hooks.plugins()] == ["failed", "failed"]
    assert not hooks.has("rq_message_done")


def test_one_object_is_one_plugin() -> None:
    hooks = Hooks()
    module = given(rq_message_done=lambda: None)
    assert hooks.register(module, "a").status == "ok"
    assert hooks.register(module, "b").error.startswith("ValueError: Plugin already registered")
    assert statuses(hooks) == {"a": "ok", "b": "failed"}


def test_a_conflict_ends_with_its_cause() -> None:
    names = iter(["web", "other"])
    service = given(rq_register_services=lambda: [Service("web", lambda context: None)])
    changing = given(rq_register_services=lambda: [Service(next(names), lambda context: None)])
    hooks = Hooks()
    hooks.register(service, "a")
    hooks.register(changing, "b")
    instance = InstanceInfo("/spool", "http://localhost/", {})
    assert hooks.register_services(instance) == []
    assert all(info.error for info in hooks.plugins())
    assert [s.name for s in hooks.register_services(instance)] == ["web", "other"]
    assert not any(info.error for info in hooks.plugins())


# --- what it costs to import ----------------------------------------------------------------------


def test_what_the_hooks_import() -> None:
    program = (
        "import sys; import rqcore.plugins; "
        "print(*sorted({'importlib.metadata', 'email', 'difflib', 'asyncio', 'stevedore'} "
        "& sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


# --- the examples ---------------------------------------------------------------------------------


def test_the_guard_of_ten_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (EXAMPLES / "guard.py").read_text()
    code = [line for line in source.split('"""')[2].splitlines() if line.strip()]
    assert len(code) == 10
    hooks = load_plugins(files(tmp_path, guard=source), {})
    assert found(hooks)["guard"].status == "ok"
    assert hooks.check_message(MESSAGE, QUEUE) == Reject(
        "param1 is empty: say what to do (plugin guard)"
    )
    wanted = Message(msg_id=MESSAGE.msg_id, dest="test", param1="later", due=10_000_000_000)
    assert hooks.check_message(wanted, QUEUE) is None
    vote = hooks.check_start(wanted, QUEUE)
    assert vote is not None
    assert getattr(vote, "until", None) == wanted.due + 2
    hooks.message_done(wanted, QUEUE, "all good")
    assert capsys.readouterr().out == f"guard: test/{MESSAGE.msg_id} is done: all good\n"


def test_the_journal_notes_every_fact(tmp_path: Path) -> None:
    import json

    (tmp_path / "log").mkdir()
    hooks = load_plugins(
        files(tmp_path, journal=(EXAMPLES / "journal.py").read_text()), {"journal": {}},
        disabled=[plugin.name for plugin in entry_points(group="rqcore")],
    )  # fmt: skip
    facts = {name for name in HOOKS if hook_kind(name) == "fact"}
    assert set(found(hooks)["journal"].hooks) == facts | {"rq_configure"}
    hooks.configure(InstanceInfo(str(tmp_path), "http://localhost:3333/", {}))
    hooks.message_moved(MESSAGE, QUEUE, State.QUE, State.RUN, Step.START)
    hooks.message_done(MESSAGE, QUEUE, "caf\udce9")
    lines = (tmp_path / "log" / "journal.jsonl").read_bytes().splitlines()
    moved, done = map(json.loads, lines)
    assert (moved["hook"], moved["old"], moved["new"]) == ("rq_message_moved", "que", "run")
    assert (done["hook"], done["msg_id"], done["status"]) == (
        "rq_message_done", MESSAGE.msg_id, "caf\udce9",
    )  # fmt: skip
    assert done["pid"] == os.getpid()


def test_the_journal_refuses_options_that_it_does_not_know(tmp_path: Path) -> None:
    hooks = load_plugins(
        files(tmp_path, journal=(EXAMPLES / "journal.py").read_text()), {"journal": {"fiel": "x"}}
    )
    hooks.configure(InstanceInfo(str(tmp_path), "http://localhost:3333/", {}))
    journal = found(hooks)["journal"]
    assert journal.status == "failed"
    assert "unknown: fiel; known is: file" in journal.error
