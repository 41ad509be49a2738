"""The contract's URLs by which queues are operated, made and deleted; by real curl."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Answer, Web

SCRIPT = "queue[script]=/bin/true"
JSON = ("-d", "x_format=json")


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.configure(allow_new_queue=True)
    shared.rq.queue("test", shared.HELLO)
    shared.rq.queue("other", shared.HELLO)
    return shared.start()


@pytest.fixture
def maker(web: Web) -> Web:
    """An instance of its own, for queues that come and go."""
    web.rq.configure(allow_new_queue=True)
    web.rq.queue("other", web.HELLO)
    return web.start()


def told(answer: Answer) -> tuple[str, bool]:
    """The message that people are shown after this redirect, and whether it is a good one."""
    assert answer.status == 303
    cookie = re.match(r"rq_flash=([\w-]+)\.", answer.headers["set-cookie"])
    assert cookie is not None
    _, _, ok, text = json.loads(base64.urlsafe_b64decode(cookie[1] + "=="))
    return text, ok


def status(site: Web, name: str = "test") -> str:
    return site.curl(f"q/{name}.txt").text.splitlines()[0]


BUTTONS = [
    ("pause", "status: PAUSE", "Successfully paused queue test"),
    ("resume", "status: UP", "Successfully resumed queue test"),
    ("down", "status: DOWN", "Successfully took down queue test"),
    ("up", "status: UP", "Successfully took up queue test"),
]


@pytest.mark.parametrize(("button", "line", "text"), BUTTONS)
def test_the_operator_changes_the_state(site: Web, button: str, line: str, text: str) -> None:
    answer = site.curl("q/test/adminoper", "-d", f"{button}={button}", "-d", "back=/")
    assert answer.headers["location"] == "/"
    assert told(answer) == (text, True)
    assert status(site) == line
    files = sorted(path.name for path in (site.rq.directory / "config").glob("test.*"))
    assert files == {"pause": ["test.pause"], "down": ["test.down"]}.get(button, [])
    answer = site.curl("q/test/adminoper", "-d", button, *JSON)
    assert (answer.status, answer.text) == (200, '["ok","test"]')
    without = site.curl("q/test/adminoper", "-d", f"{button}=")
    assert without.headers["location"] == "/q/test"


@pytest.mark.parametrize(
    "fields", [(), ("-d", "x=1"), ("-d", "up=1&down=1"), ("-d", "pause&resume&down&up")]
)
def test_it_must_be_one_of_four(site: Web, fields: tuple[str, ...]) -> None:
    answer = site.curl("q/test/adminoper", "-X", "POST", *fields)
    assert answer.status == 400
    assert "say one of pause, resume, down, up" in answer.text
    assert status(site) == "status: UP"


def test_a_queue_is_restarted(maker: Web) -> None:
    def pid() -> Any:
        return maker.curl("q.json").json()["queues"][0]["pid"]

    before = pid()
    answer = maker.curl("q/other/restart", "-d", "back=/")
    assert (answer.headers["location"], *told(answer)) == (
        "/",
        "Successfully restarted queue other",
        True,
    )
    assert pid() != before
    answer = maker.curl("q/other/restart", "-X", "POST", *JSON)
    assert (answer.status, answer.text) == (200, '["ok","other"]')


def test_a_queue_with_a_bad_config_is_not_restarted_and_goes_on(maker: Web) -> None:
    file = maker.rq.directory / "queue" / "other" / "config.json"
    good = file.read_text()
    file.write_text("{")
    text, ok = told(maker.curl("q/other/restart", "-X", "POST"))
    assert not ok
    assert text.startswith("it goes on with its old configuration: ")
    fail, why = maker.curl("q/other/restart", *JSON).json()
    assert (fail, why) == ("fail", text)
    assert status(maker, "other") == "status: UP"
    file.write_text(good)


@pytest.mark.parametrize("path", ["adminoper", "restart"])
@pytest.mark.parametrize("name", ["none", "bad.name", "%2e%2e"])
def test_a_queue_that_is_not_there(site: Web, path: str, name: str) -> None:
    answer = site.curl(f"q/{name}/{path}", "-d", "up=up", "--path-as-is")
    assert answer.status in (400, 404)


# Making queues


def test_a_queue_is_made(maker: Web) -> None:
    answer = maker.curl(
        "new_queue", "-0", "-F", "queue[name]=made", "-F", SCRIPT, "-F", "queue[num_workers]=3",
        "-F", "queue[coalesce_params][]=1", "-F", "queue[coalesce_params][]=3",
        "-F", "queue[exec_prefix]=", "--form-string", "queue[schedule][][cron]=@hourly",
        "-F", "queue[schedule][][param1]=x", "-F", "queue[env_vars][A]=b", "-F", "queue[store]=",
    )  # fmt: skip
    assert answer.headers["location"] == "/q/made"
    assert told(answer) == ("queue created: made", True)
    raw = maker.curl("q/made/config.json").json()
    assert raw == {
        "name": "made", "script": "/bin/true", "num_workers": "3", "coalesce_params": ["1", "3"],
        "exec_prefix": "", "schedule": [{"cron": "@hourly", "param1": "x"}], "env_vars": {"A": "b"},
    }  # fmt: skip
    effective = maker.curl("q/made/config").json()
    assert (effective["num_workers"], effective["coalesce_params"]) == (3, [1, 3])
    assert status(maker, "made") == "status: UP"
    again = maker.curl("new_queue", "-F", "queue[name]=made", "-F", SCRIPT)
    assert (again.headers["location"], *told(again)) == ("/new_queue", "already created", False)


def test_a_queue_is_made_by_a_program(maker: Web) -> None:
    body = json.dumps({"queue": {"name": "made2", "script": "/bin/true", "num_workers": 2}})
    answer = maker.curl("new_queue", "-H", "Content-Type: application/json", "-d", body)
    assert (answer.status, answer.text) == (200, '["success","queue created - awesome"]')
    assert maker.curl("q/made2/config").json()["num_workers"] == 2


REFUSED = {
    "a space": (("queue[name]=bad que test", SCRIPT), "queue name has invalid characters"),
    "a dot": (("queue[name]=bad.que.test", SCRIPT), "queue name has invalid characters"),
    "a slash": (("queue[name]=bad/que/test", SCRIPT), "queue name has invalid characters"),
    "no name": ((SCRIPT,), "queue name must be 1 to 128 characters"),
    "no script": (("queue[name]=x", "queue[script]="), '"script" is missing'),
    "no number": (("queue[name]=x", SCRIPT, "queue[num_workers]=many"), '"num_workers"'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_queue_that_cannot_be_is_not_made_and_people_see_why(site: Web, case: str) -> None:
    fields, reason = REFUSED[case]
    options = [option for field in fields for option in ("-F", field)]
    answer = site.curl("new_queue", *options)
    text, ok = told(answer)
    assert (answer.headers["location"], ok) == ("/new_queue", False)
    assert reason in text
    assert not (site.rq.directory / "queue" / "x").exists()
    json_answer = site.curl("new_queue", *options, "-F", "x_format=json")
    assert (json_answer.status, json_answer.json()) == (200, ["fail", text])


@pytest.mark.parametrize("path", ["new_queue", "new_queue_link"])
def test_a_form_without_fields_harms_nobody(site: Web, path: str) -> None:
    answer = site.curl(path, "-X", "POST")
    assert answer.status == 400
    assert "missing" in answer.text


def test_a_queue_is_made_by_a_link(maker: Web) -> None:
    config = maker.rq.directory / "elsewhere.json"
    config.write_text(json.dumps({"name": "linked", "script": "/bin/true"}))
    answer = maker.curl("new_queue_link", "-F", "queue[json_path]=elsewhere.json")
    assert answer.headers["location"] == "/q/linked"
    assert told(answer) == ("queue created: linked", True)
    file = maker.rq.directory / "queue" / "linked" / "config.json"
    assert file.is_symlink()
    assert file.resolve() == config.resolve()
    again = maker.curl("new_queue_link", "-F", f"queue[json_path]={config}")
    assert told(again) == ("already created", False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ('{"script": "/bin/true"}', "queue name must be"),
    ],
)
def test_a_link_to_what_is_no_config(site: Web, content: str | None, reason: str) -> None:
    config = site.rq.directory / "wrong.json"
    config.unlink(missing_ok=True)
    if content is not None:
        config.write_text(content)
    text, ok = told(site.curl("new_queue_link", "-F", f"queue[json_path]={config}"))
    assert reason in text
    assert not ok


def test_a_queue_is_deleted(maker: Web) -> None:
    maker.curl("new_queue", "-F", "queue[name]=gone", "-F", SCRIPT)
    answer = maker.curl("delete_queue", "-d", "queue_name=gone")
    assert (answer.headers["location"], *told(answer)) == ("/", "Deleted queue gone", True)
    assert maker.curl("q/gone.txt").status == 404
    assert list((maker.rq.directory / "queue").glob("gone.deleted.*"))
    again = maker.curl("delete_queue", "-d", "queue_name=gone", *JSON)
    assert (again.status, again.json()) == (200, ["fail", "no such queue: gone"])


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_what_is_no_queue_is_not_deleted(site: Web, name: str) -> None:
    assert site.curl("delete_queue", "-d", f"queue_name={name}", *JSON).json()[0] == "fail"


@pytest.mark.parametrize("path", ["new_queue", "new_queue_link", "delete_queue"])
def test_none_of_it_is_allowed_unless_it_is_said(web: Web, path: str) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    options = ("-F", "queue[name]=x", "-F", SCRIPT, "-F", "queue_name=test")
    for more in ((), ("-F", "x_format=json")):
        answer = web.curl(path, *options, *more)
        assert answer.status == 403
        assert "Queue creation not allowed at this time." in answer.text
    assert web.curl("q.txt").text == "/q/test.txt\n"
