"""form.json: RQ's old files mean what they meant, new ones say more, and nothing is taken amiss."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_web.pages.formspec import Field, Spec, parse


def spec_of(value: object) -> Spec:
    return parse(json.dumps(value).encode(), "form.json")


def field(spec: Spec, name: str) -> Field:
    return next(one for one in spec.fields if one.name == name)


def test_without_a_file_everything_is_there() -> None:
    spec = parse(None, "form.json")
    assert [one.name for one in spec.fields][:5] == [
        "param1",
        "param2",
        "param3",
        "param4",
        "attach",
    ]
    assert not any(one.hidden or one.named for one in spec.fields)
    assert not spec.warnings


def test_rqs_own_example() -> None:
    spec = spec_of({
        "default": "hidden",
        "mesg_param3": {"label": "Branch", "help": "Branch to push to this cluster"},
        "mesg_param1": {"label": "Cluster ID", "help": "The unique cluster identifier"},
    })  # fmt: skip
    assert [one.name for one in spec.fields if not one.hidden] == ["param3", "param1"]
    assert field(spec, "param1").label == "Cluster ID"
    assert field(spec, "param3").help == "Branch to push to this cluster"
    assert not spec.warnings


def test_more_can_be_said() -> None:
    spec = spec_of({
        "param1": {"choices": ["a", 2, True], "value": "a", "required": "yes"},
        "param2": {"choices": {"eu": "Europe", "us": ""}, "rows": 3, "placeholder": "where"},
        "param3": "Reason",
        "param4": False,
        "attachments": True,
        "relay_ok": {"label": "an old field that means nothing"},
    })  # fmt: skip
    one, two = field(spec, "param1"), field(spec, "param2")
    assert one.choices == [("a", "a"), ("2", "2"), ("true", "true")]
    assert (one.value, one.required) == ("a", True)
    assert two.choices == [("eu", "Europe"), ("us", "us")]
    assert (two.rows, two.placeholder) == (3, "where")
    assert field(spec, "param3").label == "Reason"
    assert field(spec, "param4").hidden
    assert field(spec, "attach").named
    assert not spec.warnings


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"{nonsense", "not JSON"),
        (b"[1]", "must hold an object"),
        (b'{"mesg_colour": {}}', '"mesg_colour" is no field'),
        (b'{"param1": 7}', 'of "param1" an object'),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_what_is_wrong_is_told_and_the_form_works(data: bytes, told: str) -> None:
    spec = parse(data, "form.json")
    assert told in spec.warnings[0]
    assert len(spec.fields) == 11


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["label", "choices", "rows", "value", "x"]), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["default", "mesg_param1", "param2", "attach", "odd"]), _ANY)
)
def test_nothing_in_the_file_stops_the_form(value: dict[str, object]) -> None:
    spec = spec_of(value)
    assert sorted({one.name for one in spec.fields}) == sorted(
        {one.name for one in parse(None, "").fields}
    )
