"""The table of operations and the document that is made of it: valid, complete, held to each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator import validate as validate_document
from rqcore_web import problems
from rqcore_web.api import checking, schemas
from rqcore_web.api.document import document
from rqcore_web.api.operations import Operation
from rqcore_web.api.table import OPERATIONS
from rqcore_web.options import SCOPES

if TYPE_CHECKING:
    from tests.conftest import Web

DOCUMENT = document(OPERATIONS, "")
BY_ID = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)


def test_it_is_valid() -> None:
    validate_document(DOCUMENT, cls=OpenAPIV31SpecValidator)
    json.dumps(DOCUMENT)


def test_ids_and_places_are_unique() -> None:
    ids = [operation.id for operation in OPERATIONS]
    places = [(operation.method, operation.path) for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert len(set(places)) == len(places)


@BY_ID
def test_every_operation_says_what_it_needs(operation: Operation) -> None:
    """Only health is for everybody; whatever changes something needs more than to read."""
    if operation.tag == "health":
        assert operation.scope == ""
        return
    assert operation.scope in SCOPES
    assert (operation.method == "GET") == (operation.scope == "read")


@BY_ID
def test_every_operation_is_described(operation: Operation) -> None:
    assert operation.tag in {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation.summary
    assert operation.answers
    assert (operation.body is not None) <= (operation.method in ("POST", "PUT", "PATCH"))
    names = set(re.findall(r"\{(\w+)\}", operation.path))
    shown = DOCUMENT["paths"][operation.path][operation.method.lower()]
    assert {one["name"] for one in shown.get("parameters", ()) if one["in"] == "path"} == names
    keyed = any(one.name == "Idempotency-Key" for one in operation.parameters)
    assert keyed == bool(operation.key)


def used_schemas() -> Iterator[Any]:
    yield from schemas.SCHEMAS.values()
    for operation in OPERATIONS:
        yield from (one.schema for one in operation.parameters)
        if operation.body is not None and operation.body.schema is not None:
            yield operation.body.schema
        for answer in operation.answers.values():
            yield from (schema for schema in answer.media.values() if schema is not None)


def nested(schema: Any) -> Iterator[Any]:
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from nested(inner)
    if "items" in schema:
        yield from nested(schema["items"])


def test_schemas_keep_to_what_is_checked() -> None:
    for schema in used_schemas():
        for one in nested(schema):
            assert set(one) <= checking.KEYWORDS
            for upper, lower in (
                ("maxItems", "minItems"), ("maxLength", "minLength"), ("maximum", "minimum"),
                ("required", "properties"), ("additionalProperties", "properties"),
            ):  # fmt: skip
                assert upper not in one or lower in one, one
            assert re.fullmatch(r"\^.*\$", one.get("pattern", "^$"))
            if "$ref" in one:
                assert set(one) == {"$ref"}
                assert one["$ref"].rpartition("/")[2] in schemas.SCHEMAS


def test_every_schema_is_used() -> None:
    told = json.dumps([*used_schemas(), DOCUMENT["paths"]])
    unused = {name for name in schemas.SCHEMAS if f'schemas/{name}"' not in told}
    # Those that stand for an object whose fields are not known, or are checked one by one.
    assert unused == {"BatchMessage", "Check"}


# --- checking

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**33) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "commit", "prep", "que", "test", "x" * 130]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["dest", "src", "due", "count", "mode", "messages", "action", "filter", "ids",
                         "dry_run", "post_run_webhook", "name", "script", "num_workers", "other"]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


def judged(name: str, value: Any) -> bool:
    whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas.SCHEMAS}}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(value))


@pytest.mark.parametrize(
    "name", ["NewMessage", "SentMessage", "BatchMessage", "Batch", "BulkRequest", "QueueConfig"]
)
@given(st.data())
def test_our_verdict_is_that_of_the_library(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES)
    assert (checking.check(schemas.ref(name), value) == []) == judged(name, value), value


@pytest.mark.parametrize(
    ("name", "value", "mistakes"),
    [
        ("NewMessage", [], [("", "must be an object, not a list")]),
        ("NewMessage", {"param1": 3}, [("param1", "must be text, not a number")]),
        ("NewMessage", {"dst": "x"}, [("dst", 'is not known here; did you mean "dest"?')]),
        ("NewMessage", {"due": -1}, [("due", "must be from 0 to 99999999999")]),
        ("NewMessage", {"mode": "x"}, [("mode", "must be one of commit, prep, single_que")]),
        ("NewMessage", {"dest": ""}, [("dest", "must have at least 1 characters, has 0")]),
        ("SentMessage", {}, [("dest", "is missing")]),
        ("Batch", {"messages": []}, [("messages", "must have 1 to 1000 items, has 0")]),
        ("Batch", {"messages": [{}, 1]}, [("messages[1]", "must be an object, not a number")]),
        (
            "NewMessage",
            {"post_run_webhook": ["a", 1], "count": 1.5},
            [("post_run_webhook[1]", "must be text, not a number"),
             ("count", "must be a whole number, not a number")],
        ),
    ],
)  # fmt: skip
def test_mistakes_in_words(name: str, value: Any, mistakes: list[tuple[str, str]]) -> None:
    assert checking.check(schemas.ref(name), value) == mistakes


# --- problems


def test_kinds_of_problems_are_named_as_they_are_used() -> None:
    for name, (status, title) in problems.KINDS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert 400 <= status < 600
        assert title


# --- served


def test_the_document_is_served(web: Web) -> None:
    web.start()
    answer = web.curl("api/v1/openapi.json")
    assert answer.status == 200
    assert answer.json()["openapi"] == "3.1.1"
    assert answer.json()["paths"].keys() == DOCUMENT["paths"].keys()
    again = web.curl("api/v1/openapi.json", "-H", f"If-None-Match: {answer.headers['etag']}")
    assert (again.status, again.body) == (304, b"")
    page = web.curl("api/v1/docs")
    assert page.headers["content-type"].startswith("text/html")
    for operation in OPERATIONS:
        assert f'id="{operation.id}"' in page.text
    for name in schemas.SCHEMAS:
        assert f'id="schema-{name}"' in page.text


def test_under_a_root_the_document_names_it(web: Web) -> None:
    web.rq.configure(relative_root="/rq/")
    web.root = "/rq/"
    web.start()
    found = web.curl("api/v1/openapi.json").json()
    assert found["servers"] == [{"url": "/rq"}]
    missing = web.curl("api/v1/queues/none").json()
    assert (missing["status"], missing["instance"]) == (404, "/rq/api/v1/queues/none")


@BY_ID
def test_what_other_rooms_answer_is_where_the_document_says(operation: Operation) -> None:
    """Rows without a handler are routes of `rqcore_web.logs`."""
    from rqcore_web import logs
    from starlette.routing import Match

    if operation.handler is None:
        site: Any = None
        path = re.sub(r"\{\w+\}", "x", operation.path)
        scope = {"type": "http", "method": operation.method, "path": path}
        matches = [route.matches(scope)[0] for route in logs.routes(site)]
        assert Match.FULL in matches
