"""Where plugins are found: in installed distributions and in the instance's directory.

`load_plugins` returns the `Hooks` of this process.  It never fails because of a plugin: one that
cannot be loaded stands in ``hooks.plugins()`` with the reason.

The order is always the same: the entry points of the group ``rqcore`` sorted by name, then the
files ``plugins/*.py`` of the instance sorted by name.  A file whose name begins with ``_`` or ``.``
is no plugin (it may be a plugin's helper: ``from . import _helper``).

Named in ``RQ_PLUGINS_DISABLED=a,b``, a plugin is listed but not imported.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import invalidate_caches
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from rqcore.hooks import Hooks
from rqcore.isolation import log
from rqcore.registration import Candidate

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "rqcore"
PACKAGE = "rqcore_instance_plugins"

_NO_NAME = "a distribution without METADATA"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.py")


def load_plugins(
    directory: Path | None,
    options: Mapping[str, Mapping[str, Any]],
    *,
    disabled: Collection[str] = (),
    external: bool = True,
) -> Hooks:
    """Load all plugins that the instance in ``directory`` (None: no instance) can use.

    ``options`` is the main config's ``"plugins": {NAME: {...}}``, kept for `Hooks.configure`;
    ``disabled`` names plugins that are not wanted; ``external=False`` (``--no-plugins``) lists all
    and loads none.
    """
    from_environment = os.environ.get("RQ_PLUGINS_DISABLED", "").split(",")
    unwanted = {name.strip(): "named in RQ_PLUGINS_DISABLED" for name in from_environment}
    unwanted |= dict.fromkeys(disabled, "switched off by the config")
    if not external:
        log.info("started with --no-plugins: no plugin is loaded")

    def why_not(name: str) -> str:
        return unwanted.get(name, "") if external else "started with --no-plugins"

    hooks = Hooks(options)
    hooks.register_all([*_from_distributions(why_not), *_from_directory(directory, why_not)])
    return hooks


def _from_distributions(why_not: Callable[[str], str]) -> list[Candidate]:
    found = []
    for distribution in _distributions():
        try:
            entry_points = distribution.entry_points.select(group=GROUP)
        except Exception as error:  # noqa: BLE001 - damaged metadata fails in many ways
            found.append(_unreadable(_name(distribution), _name(distribution), error))
            continue
        found += [_from_entry_point(distribution, one, why_not) for one in entry_points]
    return sorted(found, key=lambda candidate: (candidate.name, candidate.source))


def _distributions() -> Iterator[Distribution]:
    """Installed distributions that mention our group, each once; the first on the path counts."""
    # It imports the email package, which costs more than all of rqcore.
    from importlib.metadata import distributions  # noqa: PLC0415

    seen = set()
    for distribution in distributions():
        if _mentions_group(distribution):
            name = _name(distribution)
            if name == _NO_NAME or name not in seen:
                seen.add(name)
                yield distribution


def _mentions_group(distribution: Distribution) -> bool:
    try:
        return f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
    except Exception:  # noqa: BLE001 - half installed: no METADATA
        return True


def _name(distribution: Distribution) -> str:
    try:
        return str(distribution.metadata["Name"] or _NO_NAME)
    except Exception:  # noqa: BLE001 - half installed: no METADATA
        return _NO_NAME


def _version(distribution: Distribution) -> str:
    try:
        return str(distribution.version or "")
    except Exception:  # noqa: BLE001 - half installed: no METADATA
        return ""


def _from_entry_point(
    distribution: Distribution, entry_point: EntryPoint, why_not: Callable[[str], str]
) -> Candidate:
    return Candidate(
        entry_point.name,
        _version(distribution),
        _name(distribution),
        entry_point.load,
        why_not(entry_point.name),
    )


def _from_directory(directory: Path | None, why_not: Callable[[str], str]) -> list[Candidate]:
    if directory is None:
        return []
    folder = directory / "plugins"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        return [_unreadable("plugins", str(folder), error)]
    _make_package(folder)
    return [
        Candidate(
            name.removesuffix(".py"),
            "",
            str(folder / name),
            lambda path=folder / name: _load_file(path),  # type: ignore[misc]
            why_not(name.removesuffix(".py")),
        )
        for name in names
        if name.endswith(".py") and not name.startswith(("_", "."))
    ]


def _unreadable(name: str, source: str, error: Exception) -> Candidate:
    def load() -> object:
        raise error

    return Candidate(name, "", source, load)


def _make_package(folder: Path) -> None:
    """A package of its own for an instance's plugins; another instance's is forgotten."""
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{PACKAGE}.")]:
        del sys.modules[name]
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    invalidate_caches()


class _FileLoader(SourceFileLoader):
    """Always compiles: a cache would be a directory of ours among the operator's files."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the file as it is now."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _load_file(path: Path) -> ModuleType:
    if _FILE_NAME.fullmatch(path.name) is None:
        raise ValueError("the file's name must be letters, digits, - and _, then .py; rename it")
    name = f"{PACKAGE}.{path.stem}"
    spec = spec_from_file_location(name, path, loader=_FileLoader(name, str(path)))
    assert isinstance(spec, ModuleSpec)
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
