"""The options of plugins: read strictly, every mistake named at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from rqcore.options import given_options, option_names, strict_section
from rqcore.schema import ConfigError, Report


@dataclass(frozen=True)
class Options:
    workers: int = 4
    host: str = ""


def config(tmp_path: Path, text: str) -> str:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text(text)
    return str(tmp_path)


def test_the_object_of_the_plugin_is_found(tmp_path: Path) -> None:
    directory = config(tmp_path, json.dumps({"plugins": {"mine": {"workers": 2}}}))
    assert given_options(directory, "mine") == ({"workers": 2}, f"{directory}/config/config.json")
    assert given_options(directory, "other")[0] == {}


@pytest.mark.parametrize("text", ["[]", "{}", '{"plugins": 5}', '{"plugins": {"mine": null}}'])
def test_where_nothing_is_given_there_are_none(tmp_path: Path, text: str) -> None:
    assert given_options(config(tmp_path, text), "mine")[0] == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"plugins": {"mine": 5}}', r'config.json: "plugins.mine" must be an object; write { }'),
        ("{", "is not JSON"),
    ],
)
def test_what_cannot_be_options_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        given_options(config(tmp_path, text), "mine")


def test_a_config_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        given_options(str(tmp_path), "mine")


def test_what_is_unknown_is_a_mistake() -> None:
    report = Report("config.json")
    given = {"worker": 3, "zzz": 1, "host": "h"}
    section = strict_section(report, given, option_names(Options), "plugins.mine.part")
    assert section.text("host", "") == "h"
    with pytest.raises(ConfigError) as caught:
        report.finish()
    workers, other = str(caught.value).splitlines()
    assert workers.startswith(
        'config.json: "plugins.mine.part.worker" is no option of the mine plugin'
    )
    assert workers.endswith('; did you mean "workers"?')
    assert other.endswith('zzz" is no option of the mine plugin; known are workers, host')


def test_a_flag_is_what_its_plugin_says_where_it_is_not_given() -> None:
    report = Report("config.json")
    given = {"on": True, "off": "no", "null": None, "odd": {}}
    section = strict_section(report, given, [*given, "none"], "plugins.mine")
    assert [section.flag(key, default=True) for key in ("on", "off", "null", "none")] == [
        True, False, True, True,
    ]  # fmt: skip
    assert [section.flag(key) for key in ("on", "off", "null", "none")] == [
        True, False, False, False,
    ]  # fmt: skip
    assert not report.problems
    section.flag("odd", default=True)
    assert "must be true or false" in str(report.problems[0])
