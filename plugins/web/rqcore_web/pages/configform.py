"""A queue's configuration as a form: what its fields show, and the configuration that they mean.

Pure.  A form changes the keys that it has fields for and no other: what somebody wrote by hand, keys of
plugins too, stays as it is, in its order.  A field that shows the default of a key that is not written
leaves it unwritten.  What is wrong is told beside its field (`Problem.key`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rqcore.config import OLD_COALESCE_KEYS, SCHEDULE_KEYS, ConfigError, parse_queue
from rqcore.message import PARAM_NAMES, truth
from rqcore.schema import Problem as KernelProblem
from rqcore.schema import decode_json, kind

_FIELDS = (
    "script", "num_workers", "exec_prefix", "env_vars", "coalesce_params", "blocking_params",
    "fsync", "timeout", "schedule",
)  # fmt: skip

#: What a line of the schedule means that says nothing of it.
_CATCHUP = {"catchup": "last"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, or odd, with a key of the configuration; "" for all of it."""

    key: str
    text: str


def fields_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields show of a configuration, by their names; nothing is refused."""
    prefix = raw.get("exec_prefix")
    variables = raw.get("env_vars")
    variables = variables if isinstance(variables, Mapping) else {}
    entries = raw.get("schedule")
    return {
        "script": _text(raw.get("script")),
        "num_workers": _text(raw.get("num_workers", 1)),
        "prefix_is": "none" if prefix == "" else "default" if prefix is None else "own",
        "exec_prefix": _text(prefix),
        "env_vars": "\n".join(f"{name}={_text(value)}" for name, value in variables.items()),
        "coalesce_params": _numbers(raw.get("coalesce_params")) or _old_coalesce(raw),
        "blocking_params": _numbers(raw.get("blocking_params")),
        "timeout": _text(raw.get("timeout", 0)),
        "fsync": raw.get("fsync") is None or raw["fsync"] == "fsync" or truth(raw["fsync"]),
        "schedule": [
            _entry(entry)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, Mapping)
        ],
    }


def fits_a_form(raw: Mapping[str, Any]) -> bool:
    """Can the fields say all of it?  A variable of several lines, for one, they cannot."""
    variables = raw.get("env_vars") or {}
    schedule = raw.get("schedule") or []
    return (
        isinstance(variables, Mapping)
        and all(
            "\n" not in f"{name}{value}" and "=" not in name for name, value in variables.items()
        )
        and isinstance(schedule, list)
        and all(
            isinstance(entry, Mapping) and set(entry) <= set(SCHEDULE_KEYS) for entry in schedule
        )
    )


def shown_again(form: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they were sent, to be shown again beside what is wrong with them."""
    return {
        "script": _text(form.get("script")),
        "num_workers": _text(form.get("num_workers")),
        "prefix_is": _text(form.get("prefix_is")) or "default",
        "exec_prefix": _text(form.get("exec_prefix")),
        "env_vars": _text(form.get("env_vars")),
        "coalesce_params": _numbers(form.get("coalesce_params")),
        "blocking_params": _numbers(form.get("blocking_params")),
        "timeout": _text(form.get("timeout", "0")),
        "fsync": form.get("fsync") == "yes",
        "schedule": [_entry(entry) for entry in _entries(form)],
    }


def configured(
    old: Mapping[str, Any], form: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """The configuration that a form means, and what of the form itself cannot be understood."""
    wanted = shown_again(form)
    variables, problems = _variables(wanted["env_vars"])
    prefixes = {"default": None, "none": "", "own": wanted["exec_prefix"]}
    values: dict[str, Any] = {
        "script": wanted["script"].strip() or None,
        "num_workers": _whole(wanted["num_workers"]),
        "exec_prefix": prefixes.get(wanted["prefix_is"]),
        "env_vars": variables,
        "coalesce_params": wanted["coalesce_params"],
        "blocking_params": wanted["blocking_params"],
        "timeout": _whole(wanted["timeout"]),
        "fsync": "fsync" if wanted["fsync"] else "no-fsync",
        "schedule": [
            {key: value for key, value in entry.items() if value not in ("", _CATCHUP.get(key))}
            for entry in wanted["schedule"]
        ],
    }
    before = fields_of(old)
    config = {key: value for key, value in old.items() if key not in OLD_COALESCE_KEYS}
    if before["coalesce_params"] == wanted["coalesce_params"]:
        config = dict(old)
    for key in _FIELDS:
        same = wanted[key] == before[key] and (key != "exec_prefix" or (
            wanted["prefix_is"] == before["prefix_is"]
        ))  # fmt: skip
        if same:
            continue
        if values[key] in (None, [], {}) and key != "script":
            config.pop(key, None)
        else:
            config[key] = values[key]
    return config, problems


def from_json(text: str, file: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    """The configuration that is written there, and what is wrong with it as JSON."""
    try:
        raw, odd = decode_json(text.encode("utf-8", "surrogateescape"), file)
    except ConfigError as error:
        return None, problems_of(error.problems)
    if not isinstance(raw, dict):
        return None, [Problem("", f"must hold one JSON object, not {kind(raw)}")]
    return raw, problems_of(odd)


def check(raw: Mapping[str, Any], file: str, name: str) -> tuple[list[Problem], list[Problem]]:
    """What forbids this configuration, and what is only odd.

    An entry of the schedule that would be skipped forbids it: whoever saves it would have it run.
    """
    problems: Iterable[KernelProblem] = ()
    warnings: Iterable[KernelProblem] = ()
    try:
        _, warnings = parse_queue(raw, file, name)
    except ConfigError as error:
        problems, warnings = error.problems, error.warnings
    odd = problems_of(warnings)
    skipped = [problem for problem in odd if problem.key.startswith("schedule")]
    return [*problems_of(problems), *skipped], [one for one in odd if one not in skipped]


def problems_of(found: Iterable[KernelProblem]) -> list[Problem]:
    """The kernel's problems, without the file's name: who reads them looks at it."""
    return [
        Problem(
            problem.key, f"{problem.reason}; {problem.remedy}".removesuffix(
                "; until then the entry is skipped"
            ),
        )
        for problem in found
    ]  # fmt: skip


def as_json(raw: Mapping[str, Any]) -> str:
    """A configuration as it is written to its file."""
    return json.dumps(dict(raw), indent=2, ensure_ascii=False)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _numbers(value: object) -> list[int]:
    items = value if isinstance(value, list) else []
    texts = {str(item) for item in items}
    return [number for number in range(1, len(PARAM_NAMES) + 1) if str(number) in texts]


def _old_coalesce(raw: Mapping[str, Any]) -> list[int]:
    if not truth(raw.get("coalesce")):
        return []
    return [n for n, name in enumerate(PARAM_NAMES, 1) if truth(raw.get(f"coalesce_{name}"))]


def _entry(entry: Mapping[str, Any]) -> dict[str, str]:
    return {key: _text(entry.get(key)) or _CATCHUP.get(key, "") for key in SCHEDULE_KEYS}


def _whole(text: str) -> int | str | None:
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdecimal() else stripped or None


def _entries(form: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of the schedule in which something stands."""
    rows = form.get("schedule")
    return [
        row
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, Mapping)
        and any(_text(value) for key, value in row.items() if key != "catchup")
    ]


def _variables(text: str) -> tuple[dict[str, str], list[Problem]]:
    found, problems = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals or not name.strip():
            problems.append(Problem("env_vars", f"line {number} must be NAME=value"))
            continue
        found[name.strip()] = value
    return found, problems
