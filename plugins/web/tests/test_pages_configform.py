"""A configuration as a form: what is not touched stays, what is changed means what its field says."""

from __future__ import annotations

from typing import Any

import pytest
from rqcore_web.pages import configform

OLD: dict[str, Any] = {
    "_comment": "by hand",
    "name": "q",
    "script": "bin/q",
    "num_workers": "4",
    "env_vars": {"A": "1", "B": 2},
    "coalesce": "yes",
    "coalesce_param2": 1,
    "schedule": [{"cron": "0 * * * *", "param1": "x"}],
}


def sent(fields: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """What a browser sends of the form, with some of it changed."""
    form = {
        **fields,
        "coalesce_params": [str(n) for n in fields["coalesce_params"]],
        "blocking_params": [str(n) for n in fields["blocking_params"]],
        "schedule": [*fields["schedule"], {"cron": "", "tz": "", "param1": "", "catchup": "last"}],
    }
    if not form.pop("fsync"):
        changed = {"fsync": "", **changed}
    return {"fsync": "yes", **form, **changed}


@pytest.mark.parametrize(
    "raw", [OLD, {"script": "x"}, {"script": "x", "exec_prefix": "", "fsync": "no-fsync"}]
)
def test_a_form_that_is_not_touched_changes_nothing(raw: dict[str, Any]) -> None:
    wanted, problems = configform.configured(raw, sent(configform.fields_of(raw)))
    assert list(wanted.items()) == list(raw.items())
    assert not problems


@pytest.mark.parametrize(
    ("changed", "key", "value"),
    [
        ({"num_workers": " 8 "}, "num_workers", 8),
        ({"num_workers": "many"}, "num_workers", "many"),
        ({"script": "bin/r"}, "script", "bin/r"),
        ({"prefix_is": "none"}, "exec_prefix", ""),
        ({"prefix_is": "own", "exec_prefix": "nice "}, "exec_prefix", "nice "),
        ({"env_vars": "A=1\r\nC=x=y\r\n"}, "env_vars", {"A": "1", "C": "x=y"}),
        ({"blocking_params": ["3", "1"]}, "blocking_params", [1, 3]),
        ({"fsync": ""}, "fsync", "no-fsync"),
        ({"timeout": "90"}, "timeout", 90),
        ({"timeout": " 0.5 "}, "timeout", "0.5"),
        (
            {"schedule": [{"cron": "5 4 * * *", "tz": "UTC", "catchup": "none"}]},
            "schedule",
            [{"cron": "5 4 * * *", "tz": "UTC", "catchup": "none"}],
        ),
    ],
)
def test_one_field_changes_one_key(changed: dict[str, Any], key: str, value: object) -> None:
    wanted, problems = configform.configured(OLD, sent(configform.fields_of(OLD), **changed))
    assert wanted[key] == value
    assert not problems
    assert {k: v for k, v in wanted.items() if k != key} == {
        k: v for k, v in OLD.items() if k != key
    }


def test_the_older_keys_of_coalescing_give_way() -> None:
    form = sent(configform.fields_of(OLD), coalesce_params=["1", "2"])
    wanted, _ = configform.configured(OLD, form)
    assert wanted["coalesce_params"] == [1, 2]
    assert "coalesce" not in wanted
    assert "coalesce_param2" not in wanted


def test_what_is_emptied_is_not_written_any_more() -> None:
    form = sent(configform.fields_of(OLD), env_vars="", schedule=[])
    wanted, _ = configform.configured(OLD, form)
    assert "env_vars" not in wanted
    assert "schedule" not in wanted


def test_a_line_that_is_no_variable_is_told() -> None:
    _, problems = configform.configured(OLD, sent(configform.fields_of(OLD), env_vars="A=1\nB"))
    assert [(p.key, p.text) for p in problems] == [("env_vars", "line 2 must be NAME=value")]


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"script": "x", "num_workers": 0}, "num_workers"),
        ({"num_workers": 1}, "script"),
        ({"script": "x", "timeout": "soon"}, "timeout"),
        ({"script": "x", "timeout": "nan"}, "timeout"),
        ({"script": "x", "schedule": [{"cron": "61 * * * *"}]}, "schedule[0].cron"),
        ({"script": "x", "blocking_params": [9]}, "blocking_params"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(raw: dict[str, Any], key: str) -> None:
    wrong, _ = configform.check(raw, "f", "q")
    assert [problem.key for problem in wrong] == [key]


def test_what_is_only_odd_forbids_nothing() -> None:
    wrong, odd = configform.check({"script": "x", "num_worker": 2}, "f", "q")
    assert not wrong
    assert [problem.key for problem in odd] == ["num_worker"]


@pytest.mark.parametrize(
    ("text", "told"), [("{", "not JSON"), ("[1]", "one JSON object"), ("", "is empty")]
)
def test_text_that_is_no_configuration(text: str, told: str) -> None:
    raw, problems = configform.from_json(text, "f")
    assert raw is None
    assert told in problems[0].text


@pytest.mark.parametrize(
    "raw",
    [
        {"env_vars": {"A": "two\nlines"}},
        {"env_vars": ["A"]},
        {"schedule": [{"cron": "* * * * *", "comment": "by hand"}]},
        {"schedule": ["* * * * *"]},
    ],
)
def test_what_no_field_can_say_is_left_to_the_text(raw: dict[str, Any]) -> None:
    assert not configform.fits_a_form(raw)
