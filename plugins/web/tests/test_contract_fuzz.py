"""Whatever is sent to the contract's URLs is answered in words, and never with a 500."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.conftest import Web

QUEUE, MESSAGE = "/q/{name}", "/q/{name}/{id}"
PATHS = [
    "/q.txt", "/q.json", "/search", "/new_queue_link", "/delete_queue", f"{QUEUE}.txt", f"{QUEUE}.json",
    f"{QUEUE}/config", f"{QUEUE}/config.json", f"{QUEUE}/done.json", f"{QUEUE}/new_message",
    f"{QUEUE}/adminoper", MESSAGE, f"{MESSAGE}.json", f"{MESSAGE}/state.json",
    f"{MESSAGE}/clone", f"{MESSAGE}/run_now", f"{MESSAGE}/attach/new",
    f"{MESSAGE}/attach/{{file}}", f"{MESSAGE}/log/{{file}}",
]  # fmt: skip
KNOWN = [
    "mesg", "mesg[dest]", "mesg[due]", "mesg[]", "_method", "x_format", "back", "queue[name]", "queue",
    "queue[json_path]", "queue[]", "queue_name", "pause", "up", "limit", "before", "name", "filedata",
    "query[param1]", "query[]", "exact", "msg_id", "download",
]  # fmt: skip
USUAL = ["json", "html", "commit", "delete", "prep", "{}", '{"dest": 1}', "-1"]
KINDS = [
    "", "application/json", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=B", "text/html", "a/b; c=\xff",
]  # fmt: skip
JSONS = [b"{}", b"[]", b"null", b'{"dest": {}}', b'{"_method": 1}', b"--B\r\n\r\n\r\n--B--"]
PART = '--B\r\nContent-Disposition: form-data; name="{}"; filename="{}"\r\n\r\nx\r\n--B--'

ODD = st.one_of(
    st.sampled_from(
        ["", ".", "..", "test", "x y", "a%b", "\0", "ü", "'", '"', "{}", "[", "/", "\\"]
    ),
    st.text(max_size=8),
    st.binary(max_size=6).map(lambda raw: raw.decode("latin-1")),
)
VALUES = st.one_of(st.sampled_from(USUAL), ODD)
FIELDS = st.lists(st.tuples(st.sampled_from(KNOWN), VALUES), max_size=4).map(
    lambda pairs: "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
)
BODIES = st.one_of(
    FIELDS.map(str.encode),
    st.binary(max_size=100),
    st.tuples(ODD, ODD).map(lambda names: PART.format(*names).encode()),
    st.sampled_from(JSONS),
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """A method, a URL, a body and headers."""
    names = {
        "name": draw(st.one_of(st.just("test"), ODD)),
        "id": draw(st.one_of(st.just("20260101.0000.00.000.1"), ODD)),
        "file": draw(ODD),
    }
    path = draw(st.sampled_from(PATHS))
    path = path.format(**{key: quote(value, safe="") for key, value in names.items()})
    headers = {"Accept": draw(st.sampled_from(["*/*", "text/html"]))}
    kind = draw(st.sampled_from(KINDS))
    if kind:
        headers["Content-Type"] = kind
    method = draw(st.sampled_from(["GET", "POST", "POST", "POST", "HEAD", "PUT"]))
    return method, f"{path}?{draw(FIELDS)}", draw(BODIES), headers


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.configure(allow_new_queue=True)
    shared.rq.queue("test", shared.HELLO)
    return shared.start()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=requests())
def test_nothing_breaks_it(site: Web, request: tuple[str, str, bytes, dict[str, str]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        connection.request(*request)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    assert answer.status in {200, 303, 307, 400, 403, 404, 405, 413, 415, 416}, text
    assert b"Traceback" not in text
    assert "Traceback" not in site.rq.log_text()
