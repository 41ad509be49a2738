"""Builds every distribution and tries it as a stranger would, outside this tree.

The wheels are built from the source distributions, so a file that one of the two lacks is missed
here. They are installed with pip into a new environment; there, in a new home, the command answers,
every entry point loads, and the README's tour works. Exits 1, with the reason, where that fails.

Run it with a Python that has `build` (``make wheels``).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]

_LOADS = """
import importlib.metadata, sys
for distribution in importlib.metadata.distributions():
    if distribution.name.startswith("rqcore"):
        for entry in distribution.entry_points:
            if entry.group != "pytest11":  # pytest is not installed here
                print(f"  {entry.group}: {entry.name} = {entry.load()}")
import rqcore
sys.exit(f"rqcore comes from {rqcore.__file__}" if sys.prefix not in rqcore.__file__ else 0)
"""


def main() -> None:
    """Build, look, install, try."""
    with tempfile.TemporaryDirectory(prefix="rq-wheels-") as name:
        work = Path(name)
        wheels = [_build(project, work / "dist") for project in (ROOT, *_plugins())]
        bin_dir = _install(wheels, work)
        _try_out(bin_dir, work)
    print("All wheels work outside the tree.")


def _plugins() -> list[Path]:
    return sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))


def _build(project: Path, into: Path) -> Path:
    before = set(into.glob("*.whl"))
    _run([sys.executable, "-m", "build", "--outdir", str(into), str(project)], cwd=into.parent)
    (wheel,) = set(into.glob("*.whl")) - before
    names = zipfile.ZipFile(wheel).namelist()
    package = wheel.name.split("-")[0]
    strangers = {
        name
        for name in names
        if PurePosixPath(name).parts[0]
        not in (package, wheel.name.rpartition("-py3")[0] + ".dist-info")
    }
    if strangers:
        sys.exit(f"{wheel.name} holds what is not its own: {sorted(strangers)}")
    if f"{package}/py.typed" not in names:
        sys.exit(f"{wheel.name} has no py.typed: its types would not count")
    return wheel


def _install(wheels: list[Path], work: Path) -> Path:
    """The directory of the commands of a new environment with these wheels."""
    venv.create(work / "venv", with_pip=True)
    bin_dir = work / "venv" / "bin"
    pip = [str(bin_dir / "python"), "-m", "pip", "--disable-pip-version-check"]
    # The extra finds its plugins among the files that are named beside it, not in any index.
    kernel, *plugins = map(str, wheels)
    _run([*pip, "install", "--quiet", f"{kernel}[all]", *plugins], cwd=work)
    _run([*pip, "check"], cwd=work)
    return bin_dir


def _try_out(bin_dir: Path, work: Path) -> None:
    home = work / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": f"{bin_dir}:/usr/local/bin:/usr/bin:/bin"}
    python = str(bin_dir / "python")
    _run([python, "-c", _LOADS], cwd=home, env=environment)
    _run([str(bin_dir / "rq"), "--version"], cwd=home, env=environment)
    tour = [python, str(ROOT / "tests" / "tour.py"), str(ROOT / "README.md")]
    _run(tour, cwd=home, env=environment)


def _run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
    print("$", " ".join("..." if "\n" in part else part for part in command), flush=True)
    cwd.mkdir(exist_ok=True)
    status = subprocess.run(command, cwd=cwd, env=env or dict(os.environ), check=False).returncode
    if status != 0:
        sys.exit(f"That ended with status {status}.")


if __name__ == "__main__":
    main()
