"""The contract's URLs about messages: made in every form, shown, and acted on; by real curl."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

LATER = 4_000_000_000
BROWSER = ("-H", "Accept: text/html,*/*")


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    rq = shared.rq
    rq.queue("test", shared.HELLO)
    rq.queue("single", shared.HELLO)
    rq.queue("fails", shared.FAILS)
    rq.queue("sleeps", '#!/bin/sh\necho "run asleep" >&3\nexec sleep 600\n')
    rq.queue("down", shared.HELLO)
    rq.queue("held", shared.HELLO)
    rq.queue("search", shared.HELLO)
    shared.start()
    rq.manager.ask("down_queue", "down")
    rq.manager.ask("pause_queue", "held")
    rq.disconnect()
    return shared


@pytest.fixture(autouse=True)
def disconnect(site: Web) -> Any:
    yield
    site.rq.disconnect()


def made(answer: Answer) -> str:
    """The short id of the message that was made."""
    assert answer.status == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.startswith('["ok","http://localhost:')
    ok, full = answer.json()
    assert ok == "ok"
    return str(full).rpartition("/")[2]


def create(site: Web, queue: str = "test", **fields: Any) -> str:
    body = json.dumps({"dest": queue, **fields})
    return made(site.curl(f"q/{queue}/new_message", "--data-urlencode", f"mesg={body}"))


def message(site: Web, queue: str, msg_id: str) -> dict[str, Any]:
    found: dict[str, Any] = site.curl(f"q/{queue}/{msg_id}.json").json()
    return found


FORMS = {
    "a JSON body": ("-H", "Content-Type: application/json", "-d", '{"dest": "test", "param1": "x y"}'),
    "mesg": ("--data-urlencode", 'mesg={"dest": "test", "param1": "x y"}'),
    "mesg and x_format": ("-d", "x_format=json", "-d", 'mesg={"dest": "test", "param1": "x y"}'),
    "in parts": ("-F", "x_format=json", "-F", 'mesg={"dest": "test", "param1": "x y"}'),
    "fields": ("-d", "mesg[dest]=test", "-d", "mesg[param1]=x+y"),
    "HTTP/1.0": ("-0", "-F", 'mesg={"dest": "test", "param1": "x y"}'),
    "chunked": (
        "-H", "Transfer-Encoding: chunked", "--data-urlencode", 'mesg={"dest": "test", "param1": "x y"}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_message_is_made_in_every_form(site: Web, form: str) -> None:
    msg_id = made(site.curl("q/test/new_message", *FORMS[form]))
    done = site.rq.until("test", msg_id, "done")
    assert (done["param1"], done["dest"], done["status"]) == ("x y", "test", "done - fine")


@pytest.mark.parametrize("form", FORMS)
def test_the_trace_of_the_request_is_the_messages(site: Web, form: str) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = ("-H", f"traceparent: {parent}", "-H", "tracestate: vendor=1")
    done = site.rq.until("test", made(site.curl("q/test/new_message", *FORMS[form], *headers)))
    assert (done["traceparent"], done["tracestate"]) == (parent, "vendor=1")
    page = site.curl(f"q/test/{done['msg_id']}", *BROWSER)
    assert parent in page.text


def test_what_the_message_says_of_its_trace_counts_more(site: Web) -> None:
    own, other = (f"00-{letter * 32}-{'b' * 16}-01" for letter in "ac")
    body = json.dumps({"dest": "test", "traceparent": own})
    answer = site.curl("q/test/new_message", "-d", f"mesg={body}", "-H", f"traceparent: {other}")
    done = site.rq.until("test", made(answer))
    assert done["traceparent"] == own


def test_a_message_from_a_page_leads_to_its_own_page(site: Web) -> None:
    fields = (
        "-d",
        "x_format=html",
        "-d",
        "mesg[dest]=test",
        "-d",
        "mesg[param1]=x",
        "-d",
        "mesg[due]=",
    )
    answer = site.curl("q/test/new_message", *fields)
    assert answer.status == 303
    page = re.fullmatch(r"/q/test/([\d.]+)", answer.headers["location"])
    assert page is not None
    assert site.rq.until("test", page[1], "done")["param1"] == "x"
    assert "rq_flash=" in answer.headers["set-cookie"]
    back = site.curl("q/test/new_message", *fields, "-d", "back=/q/test?state=que")
    assert (back.status, back.headers["location"]) == (303, "/q/test?state=que")


@pytest.mark.parametrize("method", ["prep", "commit", "single_que"])
def test_the_method_says_what_becomes_of_it(site: Web, method: str) -> None:
    first = create(site, "single", _method=method, due=LATER)
    state = "prep" if method == "prep" else "que"
    assert site.curl(f"q/single/{first}/state.json").json() == [state]
    second = create(site, "single", _method=method, due=LATER)
    assert (second == first) == (method == "single_que")
    for msg_id in {first, second}:
        answer = site.curl(f"q/single/{msg_id}", "-d", "_method=delete", "-d", "x_format=json")
        assert answer.text == '["ok","msg deleted"]'


def test_counts_become_numbers_and_unknown_keys_are_dropped(site: Web) -> None:
    msg_id = create(
        site,
        count="2",
        max_count="3",
        nonsense="x",
        msg_id="y",
        post_run_webhook="http://a http://b",
    )
    found = message(site, "test", msg_id)
    assert (found["count"], found["max_count"], found["msg_id"]) == (2, 3, msg_id)
    assert found["post_run_webhook"] == ["http://a", "http://b"]
    assert "nonsense" not in found


@pytest.mark.parametrize("dest", ["http://elsewhere.example:3333/q/other", "other", "/q/other"])
def test_the_queue_of_the_url_gets_it_whatever_its_dest(site: Web, dest: str) -> None:
    body = json.dumps({"dest": dest, "due": LATER})
    msg_id = made(site.curl("q/test/new_message", "--data-urlencode", f"mesg={body}"))
    assert message(site, "test", msg_id)["dest"] == dest


def test_text_may_hold_any_letters(site: Web) -> None:
    text = "ünï ☃ \n\t\\ \" ' <b>"
    msg_id = create(site, param1=text, due=LATER)
    answer = site.curl(f"q/test/{msg_id}.json")
    assert answer.json()["param1"] == text
    assert "☃".encode() in answer.body


def test_bytes_that_are_no_text_stay_as_they_are(site: Web) -> None:
    body = b'mesg={"dest": "test", "param1": "\xff"}'
    msg_id = made(site.curl("q/test/new_message", "--data-binary", "@-", stdin=body))
    done = site.rq.until("test", msg_id, "done")
    assert site.curl(f"q/test/{msg_id}/log/stdio.log").body == b"hello \xff\n"
    answer = site.curl(f"q/test/{msg_id}.json")
    assert rb'"param1": "\udcff"' in answer.body.replace(b'":"', b'": "')
    assert answer.json()["param1"] == done["param1"] == "\udcff"


JSON = ("-H", "Content-Type: application/json")
REFUSED = {
    "no body": ((), 400, "mesg is missing"),
    "no mesg": (("-d", "a=1"), 400, "mesg is missing"),
    "no JSON": (("-d", "mesg={"), 400, "mesg is not JSON"),
    "no object": (("-d", "mesg=[1]"), 400, "mesg must be a JSON object"),
    "mesg is a list": (("-d", "mesg[]=1"), 400, "mesg is missing"),
    "no JSON body": ((*JSON, "-d", "{"), 400, "the body is not JSON"),
    "an array": ((*JSON, "-d", "[]"), 400, "must be a JSON object"),
    "another method": (("-d", 'mesg={"dest": "test", "_method": "x"}'), 400, "invalid _method"),
    "a list as method": (("-d", 'mesg={"dest": "test", "_method": []}'), 400, "invalid _method"),
    "plain text": (("-H", "Content-Type: text/plain", "-d", "x"), 415, "send JSON or a form"),
    "no boundary": (("-H", "Content-Type: multipart/form-data", "-d", "x"), 400, "no boundary"),
    "contradicting": (("-d", "mesg=1", "-d", "mesg[dest]=2"), 400, "nested at another"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_words(site: Web, case: str) -> None:
    options, status, reason = REFUSED[case]
    answer = site.curl("q/test/new_message", "-X", "POST", *options)
    assert answer.status == status
    fail, why = answer.json()
    assert fail == "fail"
    assert reason in why


FAILS: dict[str, tuple[dict[str, Any], str]] = {
    "no dest": ({"dest": ""}, 'input missing required "dest" parameter'),
    "dest is no text": ({"dest": 1}, 'field "dest" must be text'),
    "a param that is an object": ({"param1": {}}, 'field "param1" must be text'),
    "a count that is none": ({"count": "x"}, 'field "count" must be a whole number'),
    "a due that is none": ({"due": "soon"}, 'field "due" must be unix time'),
}


@pytest.mark.parametrize("case", FAILS)
def test_what_the_queue_refuses_is_a_fail_and_a_200(site: Web, case: str) -> None:
    fields, reason = FAILS[case]
    body = json.dumps({"dest": "test", **fields})
    answer = site.curl("q/test/new_message", *JSON, "-d", body)
    assert answer.status == 200
    assert answer.json()[0] == "fail"
    assert reason in answer.json()[1]


def test_what_the_queue_refuses_is_told_to_people(site: Web) -> None:
    options = ("-d", "x_format=html", "-d", "mesg[dest]=")
    answer = site.curl("q/test/new_message", *options)
    assert (answer.status, answer.headers["location"]) == (303, "/q/test/new_message")
    assert "rq_flash=" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "path", ["none/new_message", "none/x", "none/x/clone", "none/x/attach/new"]
)
def test_a_queue_that_is_not_there_is_404(site: Web, path: str) -> None:
    answer = site.curl(
        f"q/{path}", "-d", 'mesg={"dest": "x"}', "-d", "_method=delete", "-d", "x_format=json"
    )
    assert answer.status == 404
    assert answer.json() == ["fail", "no such queue: none"]


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (("-d", 'mesg={"dest": "down"}'), '["fail","status: DOWN"]'),
        ((*JSON, "-d", '{"dest": "down"}'), '["fail","status: DOWN"]'),
        (("-d", "x_format=html", "-d", "mesg[dest]=down"), "status: DOWN\n"),
    ],
)
def test_a_queue_that_is_down_answers_503(site: Web, options: tuple[str, ...], body: str) -> None:
    answer = site.curl("q/down/new_message", *options)
    assert (answer.status, answer.text) == (503, body)
    upload = site.curl("q/down/20260101.0000.00.000.1/attach/new", "-F", "filedata=@-", stdin=b"x")
    assert (upload.status, upload.json()) == (503, ["fail", "status: DOWN"])


def test_people_are_told_that_it_is_down_where_they_are(site: Web) -> None:
    options = ("-d", "x_format=html", "-d", "mesg[dest]=down", "-d", "back=/q/down", *BROWSER)
    answer = site.curl("q/down/new_message", *options)
    assert (answer.status, answer.headers["location"]) == (303, "/q/down")


def test_a_queue_that_does_not_run_answers_503(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    (web.rq.directory / "queue" / "test" / "config.json").write_text("{")
    web.start()
    answer = web.curl("q/test/new_message", "-d", 'mesg={"dest": "test"}')
    assert (answer.status, answer.json()) == (503, ["fail", "queue test does not run"])
    assert answer.headers["retry-after"] == "2"
    assert web.curl("q/test/20260101.0000.00.000.1.json").status == 503


# One message


def test_a_message_is_shown_with_all_it_has(site: Web) -> None:
    msg_id = create(site, param1="one", src="me")
    site.rq.until("test", msg_id, "done")
    found = message(site, "test", msg_id)
    expected = {
        "msg_id": msg_id, "dest": "test", "src": "me", "param1": "one", "count": 0, "max_count": 15,
        "state": "done", "status": "done - fine", "_attachments": {},
    }  # fmt: skip
    assert expected.items() <= found.items()
    assert found["orig_msg_id"].endswith(f"/q/test/{msg_id}")
    assert site.curl(f"q/test/{msg_id}/state.json").text == '["done"]'


@pytest.mark.parametrize("suffix", [".json", "/state.json", "/log/stdio.log", "/attach/x"])
@pytest.mark.parametrize("msg_id", ["20260101.0000.00.000.1", "x", "20260101", ".."])
def test_a_message_that_is_not_there_is_404(site: Web, msg_id: str, suffix: str) -> None:
    answer = site.curl(f"q/test/{quote(msg_id)}{suffix}", "--path-as-is")
    assert answer.status == (400 if (msg_id, suffix[0]) == ("..", "/") else 404)


@pytest.mark.parametrize(
    "form", ["{base}q/test/{id}", "/q/test/{id}", "http://other.example/deep/root/q/test/{id}"]
)
def test_an_id_may_be_given_in_full(site: Web, form: str) -> None:
    msg_id = create(site, due=LATER)
    full = quote(form.format(base=site.url, id=msg_id), safe="")
    for path in (full, form.format(base=site.url, id=msg_id)):
        assert site.curl(f"q/test/{path}/state.json").json() == ["que"]
        assert site.curl(f"q/test/{path}.json").json()["msg_id"] == msg_id
    answer = site.curl(f"q/test/{full}", "-d", "_method=delete", "-d", "x_format=json")
    assert answer.text == '["ok","msg deleted"]'


def state_for(site: Web, method: str) -> tuple[str, str]:
    """A message to which this can be done."""
    if method == "destroy":
        msg_id = create(site, "sleeps")
        site.rq.until("sleeps", msg_id, "run")
        return "sleeps", msg_id
    if method == "clone":
        msg_id = create(site)
        site.rq.until("test", msg_id, "done")
        return "test", msg_id
    return "test", create(site, due=LATER, _method="prep" if method == "commit" else "commit")


ACTIONS = {
    "commit": (r'\["ok","msg commited"\]', "/q/test/ID"),
    "delete": (r'\["ok","msg deleted"\]', "/q/test"),
    "destroy": (r'\["ok","msg destroyed"\]', "/q/sleeps"),
    "run_now": (r'\["ok","msg sent to front of run queue"\]', "/q/test/ID"),
    "clone": (r'\["ok","http://localhost:\d+/q/test/[\d.]+"\]', "/q/test"),
}


@pytest.mark.parametrize("method", ACTIONS)
@pytest.mark.parametrize("way", ["field", "query", "JSON", "own URL"])
def test_what_is_done_with_a_message(site: Web, method: str, way: str) -> None:
    own = method in ("clone", "run_now")
    if (way == "own URL") > own or (method == "clone" and way != "own URL"):
        return
    text, page = ACTIONS[method]
    queue, msg_id = state_for(site, method)
    path = f"q/{queue}/{msg_id}"
    ways = {
        "field": (
            path,
            ("-d", f"_method={method}", "-d", "x_format=json", "-d", f"msg_id={msg_id}"),
        ),
        "query": (f"{path}?_method={method}&x_format=json", ("-X", "POST")),
        "JSON": (path, (*JSON, "-d", json.dumps({"_method": method}))),
        "own URL": (f"{path}/{method}", ("-d", "x_format=json")),
    }
    url, options = ways[way]
    answer = site.curl(url, *options)
    assert answer.status == 200
    assert re.fullmatch(text, answer.text)
    queue, msg_id = state_for(site, method)
    path = f"q/{queue}/{msg_id}"
    url, options = (
        (f"{path}/{method}", ("-X", "POST")) if own else (path, ("-d", f"_method={method}"))
    )
    answer = site.curl(url, *options)
    assert (answer.status, answer.headers["location"]) == (303, page.replace("ID", msg_id))
    assert "rq_flash=" in answer.headers["set-cookie"]


def test_a_destroyed_message_goes_to_err(site: Web) -> None:
    queue, msg_id = state_for(site, "destroy")
    site.curl(f"q/{queue}/{msg_id}", "-d", "_method=destroy")
    site.rq.until(queue, msg_id, "err")


def test_a_clone_has_everything_but_the_count(site: Web) -> None:
    _, msg_id = state_for(site, "clone")
    full = site.curl(f"q/test/{msg_id}/clone", "-d", "x_format=json").json()[1]
    found = message(site, "test", full.rpartition("/")[2])
    assert (found["cloned_from"], found["count"]) == (msg_id, 0)


@pytest.mark.parametrize(
    ("method", "state", "why"),
    [
        ("commit", "que", "cannot find message"),
        ("run_now", "prep", "msg not in runnable state"),
        ("destroy", "que", "message is in que, nothing runs; delete it instead"),
        ("clone", "prep", "cannot clone message in prep state"),
        ("delete", "gone", "msg not found"),
        ("commit", "gone", "cannot find message"),
        ("clone", "gone", "msg not found"),
    ],
)
def test_what_cannot_be_done_is_told(site: Web, method: str, state: str, why: str) -> None:
    msg_id = create(site, due=LATER, _method="prep" if state == "prep" else "commit")
    if state == "gone":
        msg_id = "20260101.0000.00.000.1"
    path = f"q/test/{msg_id}" + ("/clone" if method == "clone" else "")
    answer = site.curl(path, "-d", f"_method={method}", "-d", "x_format=json")
    assert (answer.status, answer.json()) == (200, ["fail", why])
    answer = site.curl(path, "-d", f"_method={method}")
    page = "/q/test" if state == "gone" else f"/q/test/{msg_id}"
    assert (answer.status, answer.headers["location"]) == (303, page)


@pytest.mark.parametrize("method", ["", "x", "clone", "put", "prep"])
def test_another_method_is_400(site: Web, method: str) -> None:
    answer = site.curl(
        "q/test/20260101.0000.00.000.1", "-d", f"_method={method}", "-d", "x_format=json"
    )
    assert (answer.status, answer.json()[0]) == (400, "fail")
    assert "commit, delete, destroy, run_now" in answer.json()[1]


def test_people_can_clear_up_a_queue_that_is_down(site: Web) -> None:
    msg_id = create(site, "held")
    site.rq.manager.ask("down_queue", "held")
    assert site.curl(f"q/held/{msg_id}.json").json()["state"] == "que"
    options = ("-d", "_method=delete")
    answer = site.curl(f"q/held/{msg_id}", *options, "-d", "x_format=json")
    assert (answer.status, answer.json()) == (503, ["fail", "status: DOWN"])
    assert site.curl(f"q/held/{msg_id}", *options).headers["location"] == "/q/held"
    site.rq.manager.ask("up_queue", "held")
    assert site.curl(f"q/held/{msg_id}.json").status == 404


# Redirects


ELSEWHERE = [
    "http://evil.example/", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil",
    "javascript:alert(1)", "evil", "/ok\r\nX: y", "/ok\tx", "%09//evil", "",
]  # fmt: skip


@pytest.mark.parametrize("back", ELSEWHERE)
def test_no_way_back_leads_to_another_site(site: Web, back: str) -> None:
    answer = site.curl("q/test/adminoper", "-d", "up=up", "--data-urlencode", f"back={back}")
    assert (answer.status, answer.headers["location"]) == (303, "/q/test")


@pytest.mark.parametrize(
    ("back", "location"),
    [
        ("/", "/"),
        ("/q/test?a=b&c#d", "/q/test?a=b&c#d"),
        ("/ü x", "/%C3%BC%20x"),
        ("/a//b", "/a//b"),
    ],
)
def test_a_way_back_on_this_site_is_taken(site: Web, back: str, location: str) -> None:
    answer = site.curl("q/test/adminoper", "-d", "up=up", "--data-urlencode", f"back={back}")
    assert (answer.status, answer.headers["location"]) == (303, location)


# Search


@pytest.fixture(scope="module")
def searched(site: Web) -> Web:
    for param in ("ear", "hello:pear", "search", "html", "html"):
        fields = {"dest": "search", "param1": param, "_method": "prep", "count": 2}
        hooks = ["http://a", "http://b"] if param == "ear" else []
        body = json.dumps({**fields, "post_run_webhook": hooks})
        site.curl("q/search/new_message", "--data-urlencode", f"mesg={body}")
    return site


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 5),
        ("&query[param1]=ear", 3),
        ("&query[param1]=ear&exact=1", 1),
        ("&query[param1]=ear&exact=true", 1),
        ("&query[param1]=ear&exact=0", 3),
        ("&query[param1]=EAR", 0),
        ("&query[param1]=html&query[count]=2", 2),
        ("&query[param1]=html&query[count]=3", 0),
        ("&query[fakestuff]=x", 0),
        ("&query[cloned_from]=", 0),
        ("&query[param2]=", 5),
        ("&query[state]=prep", 5),
        ("&query[]=ear", 5),
        ("&query[post_run_webhook]=//a", 1),
        ("&query[post_run_webhook]=http://a&exact=1", 1),
        ("&query[post_run_webhook]=a&exact=1", 0),
    ],
)
def test_search(searched: Web, query: str, count: int) -> None:
    answer = searched.curl(f"search?name=search{query}", "--globoff")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert len(answer.json()) == count
    assert all({"msg_id", "_attachments", "state"} <= set(found) for found in answer.json())


def test_search_looks_into_every_state(site: Web) -> None:
    done = create(site, param4="everywhere")
    site.rq.until("test", done, "done")
    wanted = {
        done,
        create(site, param4="everywhere", due=LATER),
        create(site, param4="everywhere", _method="prep"),
    }
    found = site.curl("search?name=test&query[param4]=everywhere", "--globoff").json()
    assert {item["msg_id"] for item in found} == wanted


@pytest.mark.parametrize("name", ["none", "", "..", "a/b"])
def test_search_of_a_queue_that_is_not_there_is_404(site: Web, name: str) -> None:
    assert site.curl(f"search?name={quote(name)}").status == 404


def test_search_names_that_contradict_are_400(site: Web) -> None:
    assert site.curl("search?name=test&query=1&query[a]=2", "--globoff").status == 400


# What was changed is noted


def test_changes_are_in_the_audit_log(site: Web) -> None:
    msg_id = create(site, due=LATER)
    site.curl(f"q/test/{msg_id}", "-d", "_method=run_now")
    site.curl(f"q/test/{msg_id}", "-d", "_method=commit")
    log = (site.rq.directory / "log" / "audit.jsonl").read_text().splitlines()
    seen = [json.loads(line) for line in log]
    noted = [
        (line["action"], line["queue"], line["outcome"])
        for line in seen
        if line["subject"] == msg_id
    ]
    assert noted == [
        ("commit", "test", "ok"), ("run_now", "test", "ok"), ("commit", "test", "cannot find message"),
    ]  # fmt: skip
