"""``rq`` itself: help, mistakes, plugins, completion, what an import costs, and its documentation."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from rqcore_cli.app import App
from rqcore_cli.exits import Exit
from rqcore_cli.group import CORE, Command, core_command
from rqcore_cli.main import make_group
from rqcore_cli.oldverbs import VERBS

from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
COSTLY = {"rich", "pluggy", "stevedore", "rqcore.plugins", "rqcore.hooks", "importlib.metadata"}


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path, obj=App())
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, f"{path} {name}")


def commands() -> dict[str, click.Command]:
    """This plugin's own; what others bring is documented by them."""
    others = {point.name for point in entry_points(group="rqcore")} - {"cli"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RQ_PLUGINS_DISABLED", ",".join(others))
        return dict(walk(make_group(), "rq"))


def visible(command: click.Command) -> list[click.Option]:
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def usage(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    options = ["[OPTIONS]"] if visible(command) else []
    return " ".join([path, *filter(None, arguments), *options])


def test_the_page_has_every_command_and_option_and_no_other() -> None:
    text = PAGE.read_text()
    sections = dict(re.findall(r"^### (rq .*)\n((?:(?!^##).*\n)*)", text, re.MULTILINE))
    found = commands()
    root = found.pop("rq")
    assert list(sections) == sorted(sections, key=list(found).index)
    assert sections.keys() == found.keys()
    for path, command in found.items():
        section = sections[path]
        assert f"`{usage(path, command)}`\n" in section, path
        assert options_of(section) == [name_of(option) for option in visible(command)], path
        assert inspect.cleandoc(command.help or "") in section, path
        for option in visible(command):
            assert f" | {(option.help or '').replace('|', chr(92) + '|')}" in section, path
    head = text.partition("## The instance")[0].partition("## Options of every command")[2]
    assert options_of(head) == [name_of(option) for option in visible(root)]


def options_of(section: str) -> list[str]:
    return re.findall(r"^\| (`-.*?) \| ", section, re.MULTILINE)


def name_of(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    return names if option.is_flag else f"{names} `{option.metavar}`"


def test_the_page_has_every_exit_status_and_old_verb() -> None:
    text = PAGE.read_text()
    section = text.partition("## Exit statuses")[2].partition("\n## ")[0]
    assert [int(n) for n in re.findall(r"^\| (\d+) ", section, re.MULTILINE)] == list(Exit)
    section = text.partition("## RQ's old verbs")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` ", section, re.MULTILINE) == [
        "sendmesg", "prepmesg", "single_que", "attachmesg", "commitmesg", "statusmesg", "state",
        "statuscountmesg", "attachstatusmesg", "clone",
    ] == list(VERBS)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "path", "line"),
    [(name, path, line) for part in CORE.values() for name, (path, line) in part.items()],
)
def test_the_list_says_of_a_command_what_it_says_itself(name: str, path: str, line: str) -> None:
    command = core_command(path)
    assert command.name == name
    assert command.short_help == line


def test_every_command_has_examples_that_call_it() -> None:
    for path, command in commands().items():
        if path != "rq":
            assert isinstance(command, Command)
            assert re.search(rf"\b{path}\b", command.examples), path


def test_help_begins_with_examples(rq: Rq) -> None:
    out = rq("--help").out
    assert out.index("Examples:") < out.index("Options:") < out.index("The instance:")
    assert re.search(r"^  plugins +Show the plugins", out, re.MULTILINE)
    for name in ("sendmesg", "attachstatusmesg"):
        assert name in out
    assert rq("-h").out == out
    assert rq("--version").out == "rq 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["sned"], "no such command: sned; did you mean send"),
        (["sendmsg"], "did you mean sendmesg"),
        (["queue", "creat"], "did you mean create"),
        (["xyz"], "see: rq --help"),
        (["--foo"], "--foo"),
        (["send"], "Missing argument 'QUEUE'"),
        (["ls", "--stat", "x"], "--state"),
    ],
)
def test_mistakes_are_met_with_a_suggestion(words: list[str], hint: str, rq: Rq) -> None:
    result = rq(*words, status=2)
    assert hint in result.err
    assert result.out == ""


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return set(done.stdout.split())


def test_import_budget() -> None:
    assert not loaded_by("import rqcore_cli.main") & {*COSTLY, "click"}
    assert not loaded_by("import rqcore_cli.plugin") & {"click", "rich", "rqcore_cli.app"}
    for name, (path, _) in ((n, p) for part in CORE.values() for n, p in part.items()):
        module = path.partition(":")[0]
        assert not loaded_by(f"import rqcore_cli.commands.{module}") & COSTLY, name


@pytest.mark.process
def test_plugins_add_commands_and_a_broken_one_costs_only_its_own(
    rq: Rq, running: RunningInstance
) -> None:
    head = "from rqcore.hookspecs import hookimpl\nimport click\n@hookimpl\n"
    running.plugin(
        "good",
        head + "def rq_register_commands(cli):\n"
        "    @cli.command('greet', help='Greet.')\n"
        "    def greet():\n"
        "        click.echo('good day')\n"
        "    @cli.command('status')\n"
        "    def status():\n"
        "        click.echo('stolen')\n",
    )
    running.plugin(
        "bad", head + "def rq_register_commands(cli):\n    raise ValueError('no luck')\n"
    )
    warning = "rq: plugin bad (PLACE/bad.py) failed in rq_register_commands: ValueError: no luck"
    greeted = rq("greet")
    assert greeted.out == "good day\n"
    lines = greeted.err.replace(f"{running.directory}/plugins", "PLACE").splitlines()
    assert [line for line in lines if "bad" in line] == [f"{warning} (bad.py:5)"]
    assert any("'status' is one of rqcore's own" in line for line in lines)
    # What is the core's never asks them.
    assert rq("status").err == ""
    assert "stolen" not in rq("status").out
    assert "greet" in rq("--help").out
    assert "no such command: greet" in rq("--no-plugins", "greet", status=2).err
    assert "did you mean greet" in rq("gret", status=2).err


@pytest.mark.process
def test_plugins_are_listed_with_what_they_did(rq: Rq, running: RunningInstance) -> None:
    running.plugin(
        "counted",
        "from rqcore.hookspecs import hookimpl\n@hookimpl\n"
        "def rq_message_done(message):\n    raise OSError('gone')\n",
    )
    running.plugin("odd", "nothing = 1\n")
    running.stop()
    running.start()
    rq("send", "work", "--param1", "done", "--wait")
    listed = rq("plugins")
    rows = {line.split()[0]: line.split(maxsplit=9) for line in listed.out.splitlines()}
    assert rows["counted"][2:6] == ["ok", "1", "1", "1"]
    assert rows["cli"][1:3] == ["0.1.0", "ok"]
    assert rows["odd"][2] == "failed"
    assert "hook" in rows["odd"][9]
    processes = [report["process"] for report in rq("plugins", "--json").json()]
    assert processes == ["rq", "manager", "queue work"]
    assert [r["process"] for r in rq("plugins", "--jsonl").json_lines()] == processes
    state = rq("status").out
    assert "odd" in state, "what a plugin should bring is missing: that is said"
    assert "counted" not in state, "it is called all the same"
    running.stop()
    alone = rq("plugins")
    assert "only the plugins of this command are shown" in alone.err
    assert "counted" in alone.out


def completions(rq: Rq, *words: str) -> list[str]:
    rq.environ |= {
        "_RQ_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("rq", *words)),
        "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    return [line.removeprefix("plain,") for line in rq().out.split()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, rq: Rq) -> None:
    assert "_RQ_COMPLETE" in rq("completion", shell).out


@pytest.mark.process
def test_queues_and_messages_are_completed(rq: Rq, running: RunningInstance) -> None:
    running.queue("world", "#!/bin/sh\necho done >&3\n")
    name = rq.send("work", "--param1", "done", "--wait")
    assert completions(rq, "send", "wo") == ["work", "world"]
    assert completions(rq, "show", "wo") == ["work/", "world/"]
    assert completions(rq, "show", "work/") == [name]
    assert completions(rq, "sta") == ["start", "status"]
    assert completions(rq, "send", "--par") == [f"--param{n}" for n in (1, 2, 3, 4)]
    assert completions(rq, "queue", "re") == ["restart", "resume"]
    running.stop()
    assert completions(rq, "send", "work") == ["work", "world"][:1]
    assert completions(rq, "show", "work/") == []
    rq.environ["RQ_DIR"] = "/nowhere"
    assert completions(rq, "send", "") == []
