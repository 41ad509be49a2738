"""Names of form fields, and what they stand for: ``mesg[dest]=x`` is ``{"mesg": {"dest": "x"}}``.

As Rack does it: ``queue[coalesce_params][]=1`` repeats for a list; ``a[][x]=1&a[][y]=2`` makes a list
of objects, a new one whenever a key comes again.  Brackets that do not match are part of the name.  Of
a name that comes twice, the last value counts.  Text may hold any byte (`surrogateescape`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_to_bytes

from rqcore.errors import RefusedError

#: A form has so many fields at most, and their names are so deep.
MAX_FIELDS = 1000
_MAX_DEPTH = 8


class BodyError(RefusedError):
    """A body that is not taken; ``status`` is HTTP's number for the reason."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


def query_fields(query: bytes) -> list[tuple[str, str]]:
    """The names and values of ``a=1&b=2``, in order.  Raises `BodyError`."""
    if query.count(b"&") >= MAX_FIELDS:
        raise BodyError(f"too many fields: at most {MAX_FIELDS} are taken", 413)
    pieces = (piece.partition(b"=") for piece in query.split(b"&") if piece)
    return [(_plain(name), _plain(value)) for name, _, value in pieces]


def _plain(quoted: bytes) -> str:
    return unquote_to_bytes(quoted.replace(b"+", b" ")).decode("utf-8", "surrogateescape")


def nest(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The fields that these names and values stand for.  Raises `BodyError` where names contradict."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        steps = list(_steps(name))
        if len(steps) > _MAX_DEPTH:
            raise BodyError(f"field {name[:80]!r} is nested too deeply")
        _put(fields, steps, value, name)
    return fields


def _steps(name: str) -> Iterator[str]:
    """``a[b][]`` is ``a``, ``b``, ``""``; brackets that do not match are part of the name."""
    head, bracket, rest = name.partition("[")
    parts = rest[:-1].split("][") if bracket and rest.endswith("]") else []
    odd = any("[" in part or "]" in part for part in parts) or ("", "") in pairwise(parts)
    if not head or not parts or odd:
        yield name
        return
    yield head
    yield from parts


def _put(fields: dict[str, Any], steps: list[str], value: str, name: str) -> None:
    place, key = fields, steps[0]
    rest = steps[1:]
    while rest and rest != [""]:
        if rest[0] == "":
            items = _inner(place, key, list, name)
            rest = rest[1:]
            if not items or not isinstance(items[-1], dict) or _taken(items[-1], rest):
                items.append({})
            place = items[-1]
        else:
            place = _inner(place, key, dict, name)
        key, rest = rest[0], rest[1:]
    if rest:
        _inner(place, key, list, name).append(value)
    elif isinstance(place.get(key), dict | list):
        raise _contradiction(name)
    else:
        place[key] = value


def _inner(place: dict[str, Any], key: str, kind: type, name: str) -> Any:
    found = place.setdefault(key, kind())
    if not isinstance(found, kind):
        raise _contradiction(name)
    return found


def _taken(item: dict[str, Any], steps: list[str]) -> bool:
    """Has this object of a list got that key already, so that the next one begins?"""
    if steps[0] not in item or steps[1:] == [""]:
        return False
    inner = item[steps[0]]
    if len(steps) == 1:
        return True
    return _taken(inner, steps[1:]) if isinstance(inner, dict) and steps[1] else False


def _contradiction(name: str) -> BodyError:
    return BodyError(f"field {name[:80]!r} is text at one place and nested at another")
