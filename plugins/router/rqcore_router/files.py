"""The rules file of an instance: found, read, and what stands in when it is bad.

    standing = Reader(directory).look()      # cheap as long as no file changed

The file is ``config/rq_router_rules.toml`` or ``config/rq_router_rules.rb``.  The last good one is
kept by `rqcore_router.keeper` under ``var/router/`` with the same name; it stands in for a bad one.
Nothing is written here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from rqcore import durable
from rqcore_router.problems import Problem, RulesError, decoded
from rqcore_router.rules import Rules

#: How the name of every rules file begins; a file so named means that messages are routed.
STEM = "rq_router_rules."
_NAMES = ("rq_router_rules.toml", "rq_router_rules.rb")
#: A rules file may be so long, in bytes.
MOST = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Standing:
    """How the rules stand.

    ``file`` is the rules file ("" when messages are not routed at all); ``problems`` say what is wrong
    with it; ``rules`` are in force, None when there are none; ``stand_in`` is the last good file when
    that is where they come from.  ``data`` is what the file held when it was good.
    """

    file: str = ""
    problems: tuple[str, ...] = ()
    rules: Rules | None = None
    stand_in: str = ""
    data: bytes = b""

    @property
    def reason(self) -> str:
        """What is wrong, in one line; "" when nothing is."""
        if not self.problems:
            return ""
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return f"bad rules in {self.file}: {self.problems[0]}{more}"


def is_present(directory: str | os.PathLike[str]) -> bool:
    """Are messages routed here: is there a file ``config/rq_router_rules.*``?"""
    return bool(_present(f"{os.fspath(directory)}/config"))


def _present(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith(STEM))
    except FileNotFoundError:
        return []


def last_good(directory: str) -> list[str]:
    """The paths that the last good rules may have, the newest first."""
    found = []
    for name in _NAMES:
        path = f"{directory}/var/router/{name}"
        with contextlib.suppress(OSError):  # what cannot be looked at cannot stand in
            found.append((os.stat(path).st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def read_rules(path: str) -> tuple[Rules, bytes]:
    """The rules in a file of any of the formats, and its bytes.

    Raises `RulesError` when they are bad, `OSError` when there is none to read.
    """
    reader = _reader(os.path.splitext(path)[1])
    data = durable.read_file(path, MOST)
    return reader(decoded(data)), data


def _reader(suffix: str) -> Callable[[str], Rules]:
    # Loaded when it is needed: each message's script needs one of them.
    match suffix:
        case ".toml":
            from rqcore_router.tomlfile import read_toml  # noqa: PLC0415 - see above

            return read_toml
        case ".rb":
            from rqcore_router.rubyfile import read_ruby  # noqa: PLC0415 - see above

            return read_ruby
        case _:
            text = "is no rules file by its name; it must end in .toml or .rb"
            raise RulesError([Problem(1, text)])


class Reader:
    """The rules of one instance; reads files again only when they are others than last time."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.fspath(directory)
        self._seen: object = None
        self._standing = Standing()

    def look(self) -> Standing:
        """How the rules stand now."""
        return self.changed() or self._standing

    def changed(self) -> Standing | None:
        """How the rules stand, if a file is another than when this was last asked; else None."""
        folder = f"{self.directory}/config"
        names = _present(folder)
        paths = [f"{folder}/{name}" for name in names]
        seen = [(path, _looks(path)) for path in (*paths, *last_good(self.directory))]
        if seen == self._seen:
            return None
        self._standing = self._read(folder, names)
        self._seen = seen
        return self._standing

    def _read(self, folder: str, names: list[str]) -> Standing:
        if not names:
            return Standing()
        usable = [name for name in names if name in _NAMES]
        file = f"config/{(usable or names)[0]}"
        if len(usable) > 1:
            problems: tuple[str, ...] = (f"there is config/{usable[1]} too; remove one of them",)
        elif not usable:
            problems = (f"nobody reads such a file; name it {' or '.join(_NAMES)}",)
        else:
            try:
                rules, data = read_rules(f"{folder}/{usable[0]}")
            except RulesError as error:
                problems = tuple(map(str, error.problems))
            except OSError as error:
                problems = (f"cannot be read: {error.strerror}",)
            else:
                return Standing(file, rules=rules, data=data)
        return self._stood_in(file, problems)

    def _stood_in(self, file: str, problems: tuple[str, ...]) -> Standing:
        for path in last_good(self.directory):
            try:
                rules, _ = read_rules(path)
            except (RulesError, OSError):  # somebody wrote there: then it is none that stands in
                continue
            return Standing(file, problems, rules, os.path.relpath(path, self.directory))
        return Standing(file, problems)


def _looks(path: str) -> object:
    """What tells whether a file has changed; None when it is not there."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
