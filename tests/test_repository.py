"""Facts about the tree that a reader relies on and no other tool checks.

Style, types and import layers are `make check`'s. Here: who may write, how long a room may be, that
pages name what exists, that versions agree, and what an import costs.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import rqcore
from scripts import lifecycle_table

ROOT = Path(__file__).parents[1]
KERNEL = sorted((ROOT / "rqcore").rglob("*.py"))
PLUGINS = sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))
PACKAGES = [ROOT / "rqcore", *(d / f"rqcore_{d.name.replace('-', '_')}" for d in PLUGINS)]

#: Kernel modules that change the file system, each with the reason why it may.
WRITERS = {
    "durable": "the one room that writes in the spool",
    "unix": "fsync, as each system does it",
    "address": "a short name in /tmp for a socket whose path is too long for the system",
    "conformance": "makes the files that a store is to take",
    "testing": "makes the instances that tests run, with everything in them",
    "stores.memory": "a temporary directory for what scripts need as files; nothing of it lasts",
}

#: Modules of more than 450 lines, each with the reason why it is still one job.
LONG = {
    "rqcore.durable": "everything that writes in the spool, on one page by intent",
    "rqcore.schedule": "one data structure, and what keeps its parts in step",
    "rqcore.hookspecs": "every hook with its whole contract, on one page by intent",
}

#: Modules for tests, which pytest or a test file loads, and nothing else does.
FOR_PYTEST = {"conformance", "testing"}

#: Parts of the standard library that are too slow to load in every command.
COSTLY = {"asyncio", "concurrent.futures", "http.client", "multiprocessing", "ssl", "xml"}


def project(directory: Path) -> dict[str, object]:
    metadata: dict[str, object] = tomllib.loads((directory / "pyproject.toml").read_text())[
        "project"
    ]
    return metadata


def tools() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "tool"
    ]
    return found


def dotted(module: Path) -> str:
    """The module's name below rqcore: ``queue``, ``stores.directory``."""
    return ".".join(module.relative_to(ROOT / "rqcore").with_suffix("").parts)


# --- who may write


WRITING = {
    "os": {
        "chmod", "chown", "copy_file_range", "fdatasync", "fsync", "ftruncate", "link", "makedirs",
        "mkdir", "mkfifo", "mknod", "pwrite", "remove", "removedirs", "rename", "renames",
        "replace", "rmdir", "symlink", "sync", "truncate", "unlink", "utime",
    },
    "shutil": {
        "chown", "copy", "copy2", "copyfile", "copyfileobj", "copymode", "copystat", "copytree",
        "make_archive", "move", "rmtree", "unpack_archive",
    },
    "tempfile": {
        "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "mkdtemp", "mkstemp",
    },
}  # fmt: skip
#: Methods of paths; `replace` is left out, for text has it too.
PATH_METHODS = {
    "hardlink_to", "mkdir", "rename", "rmdir", "symlink_to", "touch", "unlink", "write_bytes",
    "write_text",
}  # fmt: skip
OPEN_FOR_WRITING = {"O_APPEND", "O_CREAT", "O_RDWR", "O_TRUNC", "O_WRONLY"}


def writes(source: str) -> Iterator[str]:
    """Each call, or import, by which this source changes the file system."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in WRITING:
            for alias in node.names:
                if alias.name in WRITING[node.module]:
                    yield f"line {node.lineno}: from {node.module} import {alias.name}"
        elif isinstance(node, ast.Call) and _is_writing(node):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _is_writing(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="open"):
            return _mode_writes(call, position=1)
        case ast.Attribute(value=ast.Name(id="os"), attr="open"):
            return "os.devnull" not in ast.unparse(call) and any(
                isinstance(part, ast.Attribute) and part.attr in OPEN_FOR_WRITING
                for argument in call.args
                for part in ast.walk(argument)
            )
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in WRITING:
            return name in WRITING[module]
        case ast.Attribute(attr="open"):
            return _mode_writes(call, position=0)
        case ast.Attribute(attr=name):
            return name in PATH_METHODS and not _of_durable(call.func)
        case _:
            return False


def _mode_writes(call: ast.Call, position: int) -> bool:
    modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[position:][:1]
    return any(
        isinstance(mode, ast.Constant)
        and isinstance(mode.value, str)
        and set(mode.value) & set("wax+")
        for mode in modes
    )


def _of_durable(function: ast.expr) -> bool:
    """Is this a function of `durable`, or a method of a `Sync` under one of its usual names?"""
    assert isinstance(function, ast.Attribute)
    owner = ast.unparse(function.value).rpartition(".")[2]
    return owner.strip("_") in {"durable", "sync"}


@pytest.mark.parametrize("module", KERNEL, ids=dotted)
def test_only_durable_writes(module: Path) -> None:
    found = list(writes(module.read_text()))
    if dotted(module) in WRITERS:
        assert found, "writes nothing, so needs no exception in WRITERS"
    else:
        assert not found


@pytest.mark.parametrize(
    "source",
    [
        "os.rename(a, b)",
        "shutil.rmtree(a)",
        "from os import unlink",
        "open(a, 'w')",
        "open(a, mode='rb+')",
        "path.open('a')",
        "path.write_text(b)",
        "self.path.unlink()",
        "os.open(a, os.O_RDWR | os.O_CLOEXEC)",
        "tempfile.mkstemp()",
    ],
)
def test_writing_is_noticed(source: str) -> None:
    assert list(writes(source))


@pytest.mark.parametrize(
    "source",
    [
        "open(a)",
        "open(a, 'rb')",
        "path.read_text()",
        "os.open(a, os.O_RDONLY)",
        "text.replace(a, b)",
        "durable.touch(a)",
        "self._sync.rename(a, b)",
        "os.write(fd, b)",
    ],
)
def test_reading_is_no_writing(source: str) -> None:
    assert not list(writes(source))


# --- rooms


@pytest.mark.parametrize("module", KERNEL, ids=dotted)
def test_the_kernel_imports_only_what_it_depends_on(module: Path) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    allowed = {re.split(r"[^\w]", dependency)[0] for dependency in dependencies} | {"rqcore"}
    if dotted(module) in FOR_PYTEST:
        allowed.add("pytest")
    imported = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            imported.add(str(node.module).partition(".")[0])
    assert imported - sys.stdlib_module_names <= allowed


def test_the_import_contract_places_only_rooms_that_exist() -> None:
    contracts = tools()["importlinter"]["contracts"]
    assert isinstance(contracts, list)
    placed = set(contracts[0]["layers"])
    assert placed == {
        module.relative_to(ROOT / "rqcore").parts[0].removesuffix(".py") for module in KERNEL
    } - {"__init__"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_rooms_are_short(package: Path) -> None:
    lengths = {
        f"{package.name}.{'.'.join(module.relative_to(package).with_suffix('').parts)}": lines
        for module in package.rglob("*.py")
        if (lines := module.read_text().count("\n")) > 450
    }
    listed = {name for name in LONG if name.partition(".")[0] == package.name}
    assert set(lengths) == listed, lengths


def test_all_is_the_whole_public_list() -> None:
    for name in rqcore.__all__:
        assert hasattr(rqcore, name)
    assert list(rqcore.__all__) == sorted(set(rqcore.__all__))
    public = {
        name
        for name, value in vars(rqcore).items()
        if not name.startswith("_") and name != "annotations" and type(value) is not type(ast)
    }
    assert public <= set(rqcore.__all__)


# --- pages


def test_architecture_names_every_room_and_no_other() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = {str(module.relative_to(ROOT / "rqcore")) for module in KERNEL}
    rooms = {room for room in rooms if not room.endswith("__init__.py")}
    # In its tables a room is written `queue.py` or `stores/directory.py`, or `rqcore/…` of either.
    named = {name.removeprefix("rqcore/") for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page)}
    assert rooms - named == set(), "rooms that ARCHITECTURE.md does not name"
    elsewhere = {
        name for name in named if (ROOT / name).exists() or list(ROOT.glob(f"*/*/*/{name}"))
    }
    assert named - rooms - elsewhere == set(), "names in ARCHITECTURE.md without a room"


def test_architecture_shows_the_transitions_as_they_are() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert page.count(lifecycle_table.BEGIN) == page.count(lifecycle_table.END) == 1
    shown = page.partition(lifecycle_table.BEGIN)[2].partition(lifecycle_table.END)[0]
    assert shown.strip() == lifecycle_table.table().strip()


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_pages_and_tools_know_every_plugin(plugin: Path) -> None:
    name = f"rqcore-{plugin.name}"
    package = f"rqcore_{plugin.name.replace('-', '_')}"
    for page in ("README.md", "ARCHITECTURE.md"):
        assert name in (ROOT / page).read_text()
    assert (plugin / "README.md").is_file()
    assert (plugin / package / "py.typed").is_file()
    contracts = tools()["importlinter"]["contracts"]
    assert isinstance(contracts, list)
    _, forbidden, independent, *_ = contracts
    assert package in forbidden["forbidden_modules"]
    assert package in independent["modules"]
    assert package in str(tools()["importlinter"]["root_packages"])
    assert package in str(tools()["coverage"]["run"])
    extras = project(ROOT)["optional-dependencies"]
    assert isinstance(extras, dict)
    assert extras[plugin.name][0] in extras["all"]


@pytest.mark.parametrize(
    "page",
    sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")),
    ids=lambda page: page.name,
)
def test_pages_name_only_targets_that_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", page.read_text())) <= targets


def test_no_page_links_to_a_file_that_is_missing() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


# --- distributions


def test_versions_agree() -> None:
    version = project(ROOT)["version"]
    assert rqcore.__version__ == version
    assert {project(plugin)["version"] for plugin in PLUGINS} == {version}
    headings = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_plugin_asks_for_this_series_of_the_kernel(plugin: Path) -> None:
    major, minor, _ = str(project(ROOT)["version"]).split(".")
    assert f"rqcore>={major}.{minor},<{major}.{int(minor) + 1}" in str(
        project(plugin)["dependencies"]
    )


def tracked_text() -> Iterator[tuple[Path, str]]:
    """Every file that belongs to the tree, as text."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            yield Path(name), (ROOT / name).read_text(errors="replace")


def test_nothing_of_one_machine_is_in_the_tree() -> None:
    here = {str(ROOT), str(Path.home()), sys.base_prefix, str(Path(sys.prefix))}
    paths = {path for path in here if len(Path(path).parts) > 2 and not path.startswith("/usr")}
    settings = ("index" + "-url", "find" + "-links", "trusted" + "-host")
    homes = re.compile("/home/" + r"[a-z]+/|/Users/" + r"\w+/|/root/" + r"\.")
    for name, text in tracked_text():
        for hint in (*paths, *settings):
            assert hint not in text, f"{name} holds {hint}"
        if name != Path(__file__).relative_to(ROOT):
            assert not homes.search(text), f"{name} holds a path in somebody's home"


@pytest.mark.parametrize(
    "name", [".ci/run", *(f"scripts/{n}" for n in ("venv", "test", "check", "run"))]
)
def test_commands_can_be_executed(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


# --- what an import costs


def modules_after(statement: str) -> set[str]:
    """Every module that a new interpreter has loaded after this statement."""
    # Measuring coverage would load modules of its own.
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    command = [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["rqcore", "rqcore.client"])
def test_import_budget(module: str) -> None:
    loaded = modules_after(f"import {module}") - modules_after("pass")
    packages = {name.partition(".")[0] for name in loaded}
    assert packages - sys.stdlib_module_names == {"rqcore"}
    assert not loaded & COSTLY
