"""``queue/NAME/form.json``: how the form for a queue's new messages is labelled, ordered, pared down.

An object; its keys are fields, in the order in which they are to stand, each with what is to be said:

    {
      "default": "hidden",
      "mesg_param1": {"label": "Cluster", "help": "its name in the inventory"},
      "mesg_param2": {"label": "Action", "choices": ["check", "repair"], "value": "check"},
      "mesg_param3": "Reason"
    }

Fields are ``mesg_dest``, ``mesg_src``, ``mesg_param1`` to ``mesg_param4``, ``mesg_due``,
``mesg_max_count``, ``mesg_post_run_webhook``, ``mesg_status`` (queue it, or prepare it only), and
``mesg_attach``; ``mesg_`` may be left out.  With ``"default": "hidden"`` what is not named is not shown,
else it follows those that are.  Of a field may be said:

    label, help     text
    value           what stands in it at first
    choices         a list of values, or an object of values and what they are called
    required        true: the form is not sent without it
    hidden          true: not shown; its ``value`` is sent all the same
    placeholder     shown while it is empty
    rows            how many lines it is high

A text in place of the object is its label, ``true`` nothing special, ``false`` or ``"hidden"`` hides it.
RQ's older files (``default``, ``label``, ``help``) mean what they meant.  Nothing else is taken amiss:
an unknown field or a wrong value is a warning on the page, and the rest of the form works.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rqcore.message import truth

#: The fields in the order they have unless told; label, help.
_FIELDS = {
    "param1": ("param1", ""),
    "param2": ("param2", ""),
    "param3": ("param3", ""),
    "param4": ("param4", ""),
    "attach": ("Attachments", "Files that go along, of any size."),
    "src": ("From", "Who sends it; free text."),
    "dest": ("To", "A queue here, or the URL of one elsewhere."),
    "due": (
        "Due",
        "Not before: 10m or 2h (from now), 2026-03-01T08:00 (RQ's time zone), unix time; empty for now.",
    ),
    "max_count": ("Attempts at most", "How often it may be sent back to run again."),
    "post_run_webhook": ("Webhook", "A URL that is told when it has ended."),
    "status": ("When", ""),
}
_ALIASES = {"attachments": "attach", "method": "status", "_method": "status"}
_IGNORED = ("relay_ok",)
_MAX_ROWS = 40


@dataclass(slots=True)
class Field:
    """One field of the form."""

    name: str
    label: str
    help: str = ""
    value: str = ""
    choices: list[tuple[str, str]] = field(default_factory=list)
    required: bool = False
    hidden: bool = False
    placeholder: str = ""
    rows: int = 0
    named: bool = False


@dataclass(slots=True)
class Spec:
    """A form: its fields in order, and what is odd in the file."""

    fields: list[Field]
    warnings: list[str] = field(default_factory=list)


def parse(data: bytes | None, file: str) -> Spec:
    """The form that a file means; None for no file.  Nothing is refused."""
    warnings: list[str] = []
    given = _object(data, file, warnings) if data is not None else {}
    hide_rest = given.get("default") == "hidden"
    fields = [made for key, value in given.items() for made in _field(key, value, warnings)]
    named = {made.name for made in fields}
    for name, (label, text) in _FIELDS.items():
        if name not in named:
            fields.append(Field(name, label, text, hidden=hide_rest))
    return Spec(fields, warnings)


def _object(data: bytes, file: str, warnings: list[str]) -> Mapping[str, object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        warnings.append(f"{file} is not JSON ({error}); the usual form is shown")
        return {}
    if isinstance(found, dict):
        return found
    warnings.append(f"{file} must hold an object; the usual form is shown")
    return {}


def _field(key: str, said: object, warnings: list[str]) -> Iterator[Field]:
    if key == "default":
        return
    short = key.removeprefix("mesg_")
    name = _ALIASES.get(short, short)
    if name in _IGNORED:
        return
    if name not in _FIELDS:
        warnings.append(f'form.json: "{key}" is no field; known are {", ".join(_FIELDS)}')
        return
    label, text = _FIELDS[name]
    made = Field(name, label, text, named=True)
    if isinstance(said, str) and said != "hidden":
        made.label = said
    elif said is False or said == "hidden":
        made.hidden = True
    elif isinstance(said, Mapping):
        _describe(made, said)
    elif said is not True and said is not None:
        warnings.append(f'form.json: of "{key}" an object is to be said')
    yield made


def _describe(made: Field, said: Mapping[str, object]) -> None:
    made.label = _text(said.get("label")) or made.label
    made.help = _text(said.get("help")) or made.help
    made.value = _text(said.get("value", said.get("default")))
    made.placeholder = _text(said.get("placeholder"))
    made.required = truth(said.get("required"))
    made.hidden = truth(said.get("hidden")) or said.get("visible") is False
    rows = said.get("rows")
    made.rows = min(_MAX_ROWS, rows) if isinstance(rows, int) and rows > 0 else 0
    choices = said.get("choices", said.get("options"))
    if isinstance(choices, Mapping):
        made.choices = [
            (str(value), _text(words) or str(value)) for value, words in choices.items()
        ]
    elif isinstance(choices, list):
        made.choices = [(_text(value), _text(value)) for value in choices]


def _text(value: object) -> str:
    if value is None or isinstance(value, dict | list):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
