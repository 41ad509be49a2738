"""Who may do what over the contract's URLs: users with roles, tokens for some queues, and nobody."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from rqcore_web.security.tokens import TOKENS_FILE, make_token, write_tokens

if TYPE_CHECKING:
    from tests.conftest import Web

ROLES = ("read", "enqueue", "operate", "admin")
#: What is asked, and the least role that may.
NEEDS = {
    "look at the queues": ("read", "q.txt", ()),
    "look at them as JSON": ("read", "q.json", ()),
    "look at one": ("read", "q/test.txt", ()),
    "look at it as JSON": ("read", "q/test.json", ()),
    "look at its config": ("read", "q/test/config.json", ()),
    "look at its effective config": ("read", "q/test/config", ()),
    "list": ("read", "q/test/done.json", ()),
    "search": ("read", "search?name=test", ()),
    "look at a message": ("read", "q/test/ID.json", ()),
    "look at its state": ("read", "q/test/ID/state.json", ()),
    "read a log": ("read", "q/test/ID/log/x", ()),
    "fetch a file": ("read", "q/test/ID/attach/x", ()),
    "send": ("enqueue", "q/test/new_message", ("-d", 'mesg={"dest": "test"}')),
    "attach": ("enqueue", "q/test/ID/attach/new", ("-F", "filedata=@-;filename=y")),
    "detach": ("enqueue", "q/test/ID/attach/x", ("-d", "_method=delete")),
    "commit": ("enqueue", "q/test/ID", ("-d", "_method=commit")),
    "run now": ("operate", "q/test/ID", ("-d", "_method=run_now")),
    "run now by URL": ("operate", "q/test/ID/run_now", ("-X", "POST")),
    "clone": ("operate", "q/test/ID/clone", ("-X", "POST")),
    "delete": ("operate", "q/test/ID", ("-d", "_method=delete")),
    "destroy": ("operate", "q/test/ID", ("-d", "_method=destroy")),
    "operate": ("operate", "q/test/adminoper", ("-d", "up=up")),
    "restart": ("operate", "q/none/restart", ("-X", "POST")),
    "make a queue": ("admin", "new_queue", ("-d", "queue[name]=bad.name")),
    "make one by link": ("admin", "new_queue_link", ("-d", "queue[json_path]=/none")),
    "delete a queue": ("admin", "delete_queue", ("-d", "queue_name=none")),
}


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.queue("test", shared.HELLO)
    shared.rq.queue("other", shared.HELLO)
    shared.rq.configure(
        allow_new_queue=True,
        basic_auth={"realm": "RQ", "users": dict.fromkeys(ROLES, "secret")},
        plugins={"web": {"roles": {role: role for role in ROLES}}},
    )
    token, text = make_token("few", "operate", ["test"], None, datetime.now(UTC))
    write_tokens(shared.rq.directory / "config" / TOKENS_FILE, [token])
    shared.auth = text
    return shared.start()


@pytest.fixture(scope="module")
def msg_id(site: Web) -> str:
    body = json.dumps({"dest": "test", "_method": "prep"})
    answer = site.curl(
        "q/test/new_message", "-u", "admin:secret", "--data-urlencode", f"mesg={body}"
    )
    return str(answer.json()[1]).rpartition("/")[2]


@pytest.mark.parametrize("what", NEEDS)
@pytest.mark.parametrize("role", ["", *ROLES])
def test_who_may_do_what(site: Web, msg_id: str, role: str, what: str) -> None:
    least, path, options = NEEDS[what]
    auth = ("-u", f"{role}:secret") if role else ()
    path = path.replace("ID", msg_id if least == "read" else "20260101.0000.00.000.1")
    answer = site.curl(path, *auth, *options, stdin=b"x")
    if not role:
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith('Basic realm="RQ"')
    elif ROLES.index(role) < ROLES.index(least):
        assert answer.status == 403
        assert f"{role} may not do this: it needs the scope " in answer.text
    else:
        assert answer.status in (200, 303, 404)
        assert answer.status != 404 or what in ("read a log", "fetch a file", "restart")


def test_whose_queues_are_named_sees_no_others(site: Web) -> None:
    auth = ("-H", f"Authorization: Bearer {site.auth}")
    assert site.curl("q.txt", *auth).text == "/q/test.txt\n"
    assert [queue["name"] for queue in site.curl("q.json", *auth).json()["queues"]] == ["test"]
    assert site.curl("q/test.txt", *auth).status == 200
    for path in (
        "q/other.txt",
        "q/other.json",
        "q/other/config",
        "q/other/que.json",
        "search?name=other",
    ):
        answer = site.curl(path, *auth)
        assert (answer.status, answer.text) == (404, "no such queue: other\n")
    for path in ("q/other/new_message", "q/other/adminoper", "q/other/x/clone"):
        answer = site.curl(path, *auth, "-d", 'mesg={"dest": "other"}', "-d", "up=up")
        assert answer.status == 404
        assert "no such queue: other" in answer.text
