"""The options of a plugin, which stand in the main config under ``"plugins": {NAME: {...}}``.

A plugin checks them in `hookspecs.rq_configure`, which is given the object; a script, which loads no
plugins, and a command read it from the file (`given_options`).  Both go through a `strict_section`: a
`rqcore.schema.Section` in which what is unknown is a mistake, for a misspelt limit would hold nothing
back.

    def parse_options(given, file):
        report = Report(file)
        section = strict_section(report, given, option_names(Options), "plugins.mine")
        options = Options(workers=section.whole("workers", 4, 1, 128))
        report.finish()  # raises a ConfigError that names every mistake at once
        return options
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import cast

from rqcore.schema import ConfigError, Problem, Report, Section, decode_json, did_you_mean


def given_options(directory: str, plugin: str) -> tuple[Mapping[str, object], str]:
    """What the instance's main config gives this plugin, and the path of that file.

    Raises `ConfigError` when the file cannot be read, or holds no object there.
    """
    file = f"{directory}/config/config.json"
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise ConfigError([Problem(file, "", None, reason, "restore the file")]) from error
    config, _ = decode_json(data, file)
    plugins = config.get("plugins") if isinstance(config, Mapping) else None
    given = plugins.get(plugin) if isinstance(plugins, Mapping) else None
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        place = f"plugins.{plugin}"
        raise ConfigError([Problem(file, place, None, "must be an object", "write { }")])
    return cast("Mapping[str, object]", given), file


def option_names(options: type) -> list[str]:
    """The fields of a dataclass: what may be set."""
    return [option.name for option in fields(options)]


def strict_section(
    report: Report, given: Mapping[str, object], known: Iterable[str], place: str
) -> Section:
    """The object at ``place`` (``plugins.NAME…``), in which whatever is not ``known`` is refused."""
    names = list(known)
    section = Section(report, given, [*names, *given], place)
    plugin = place.split(".")[1]
    for key in given:
        if key not in names:
            remedy = did_you_mean(key, names) or f"known are {', '.join(names)}"
            section.refuse(key, f"is no option of the {plugin} plugin", remedy, show=False)
    return section


def instance_path(section: Section, key: str, directory: str) -> str:
    """A path, which begins at the instance's ``directory`` where it is relative; empty for none."""
    text = section.text(key, "")
    return os.path.join(directory, text) if text else ""
