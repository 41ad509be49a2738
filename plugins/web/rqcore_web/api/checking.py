"""Checking a value against a JSON Schema: the part of it that our own document uses, explained in words.

What is sent is checked against the very schemas that are published (`rqcore_web.api.schemas`).  The
library that could do it knows all of the standard and says little of mistakes; this knows `KEYWORDS`
and says where and what.  Tests hold it to the library's verdict, and the schemas to the keywords.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rqcore.schema import did_you_mean, kind
from rqcore_web.api.schemas import SCHEMAS

Schema = Mapping[str, Any]
#: Where, and what is wrong there: ``("messages[3].due", "must be a number, not text")``.
Mistake = tuple[str, str]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_WORDS = {
    "null": "null", "boolean": "true or false", "integer": "a whole number", "number": "a number",
    "string": "text", "array": "a list", "object": "an object",
}  # fmt: skip
_SHOWN = 10


def check(schema: Schema, value: object) -> list[Mistake]:
    """What is wrong with the value; nothing when it is as the schema says."""
    return list(_check(schema, value, ""))


def _check(schema: Schema, value: Any, place: str) -> Iterator[Mistake]:
    schema = resolved(schema)
    types = schema.get("type", ())
    types = (types,) if isinstance(types, str) else types
    if types and not any(_TYPES[name](value) for name in types):
        yield place, f"must be {' or '.join(_WORDS[name] for name in types)}, not {kind(value)}"
        return
    for keyword, look in _LOOKS.items():
        if keyword in schema:
            yield from look(schema, value, place)


def resolved(schema: Schema) -> Schema:
    """The schema that a reference stands for, or itself."""
    while "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    return schema


def _enum(schema: Schema, value: Any, place: str) -> Iterator[Mistake]:
    if value not in schema["enum"]:
        yield place, f"must be one of {', '.join(map(str, schema['enum']))}"


def _properties(schema: Schema, value: Any, place: str) -> Iterator[Mistake]:
    if not isinstance(value, dict):
        return
    known = schema["properties"]
    for name in schema.get("required", ()):
        if name not in value:
            yield _at(place, name), "is missing"
    for name, item in value.items():
        if name in known:
            yield from _check(known[name], item, _at(place, name))
        elif schema.get("additionalProperties") is False:
            meant = did_you_mean(name, list(known)) or f"known are {', '.join(known)}"
            yield _at(place, name), f"is not known here; {meant}"


def _items(schema: Schema, value: Any, place: str) -> Iterator[Mistake]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check(schema["items"], item, f"{place}[{index}]")


def _amount(low: str, high: str, of: type, unit: str) -> Callable[..., Iterator[Mistake]]:
    def look(schema: Schema, value: Any, place: str) -> Iterator[Mistake]:
        if isinstance(value, of):
            least, most = schema.get(low, 0), schema.get(high, math.inf)
            if not least <= len(value) <= most:  # type: ignore[arg-type]  # text or a list
                limits = f"{least} to {most}" if most < math.inf else f"at least {least}"
                yield place, f"must have {limits} {unit}, has {len(value)}"  # type: ignore[arg-type]

    return look


def _bounds(schema: Schema, value: Any, place: str) -> Iterator[Mistake]:
    if _is_number(value):
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not least <= value <= most:
            if most == math.inf:
                yield place, f"must be at least {least}"
            else:
                yield place, f"must be from {least} to {most}"


def _pattern(schema: Schema, value: Any, place: str) -> Iterator[Mistake]:
    # Our patterns are anchored; Python's own ``$`` would let a newline pass behind it.
    pattern = schema["pattern"].removeprefix("^").removesuffix("$")
    if isinstance(value, str) and re.fullmatch(pattern, value) is None:
        yield place, f"has not the form {schema['pattern']}"


#: The keywords that are looked at, each once: ``required`` and the like go with their first.
_LOOKS: Mapping[str, Callable[[Schema, Any, str], Iterator[Mistake]]] = {
    "enum": _enum,
    "properties": _properties,
    "items": _items,
    "minItems": _amount("minItems", "maxItems", list, "items"),
    "minLength": _amount("minLength", "maxLength", str, "characters"),
    "minimum": _bounds,
    "pattern": _pattern,
}
#: All that schemas may hold: what is checked, and what is for people.  A schema that has ``maxItems``,
#: ``maxLength`` or ``maximum`` has the lower bound too; one that has ``required``, ``properties``.
KEYWORDS = frozenset(
    {"$ref", "type", "required", "additionalProperties", "maxItems", "maxLength", "maximum",
     "description", "examples", "default", "format", "title", *_LOOKS}
)  # fmt: skip


def _at(place: str, name: str) -> str:
    shown = name if len(name) <= _SHOWN * 6 else f"{name[: _SHOWN * 6]}..."
    return f"{place}.{shown}" if place else shown
