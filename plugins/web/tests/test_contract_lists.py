"""The contract's URLs that show queues: ``q.txt``, ``q.json``, each queue's state, lists and config."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Web

STATES = ("prep", "que", "run", "done", "relayed", "err")


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    """Queues in several conditions; ``busy`` has messages in every state but ``relayed``."""
    rq = shared.rq
    rq.queue("busy", '#!/bin/sh\n[ "$RQ_PARAM1" = wait ] && exec sleep 600\necho "$RQ_PARAM1 x" >&3\n',
             num_workers=2)  # fmt: skip
    for name in ("webhook", "relay", "alpha", "down", "paused"):
        rq.queue(name, shared.HELLO)
    rq.queue("broken", rq.directory / "code" / "missing")
    for file in ("down.down", "paused.pause"):
        (rq.directory / "config" / file).touch()
    shared.start()
    for _ in range(12):
        rq.send("busy", param1="done")
    last = rq.send("busy", param1="done")
    wrong = rq.send("busy", param1="err")
    rq.until("busy", last, "done")
    rq.until("busy", wrong, "err")
    rq.until("busy", rq.send("busy", param1="wait"), "run")
    rq.until("busy", rq.send("busy", param1="wait"), "run")
    for _ in range(2):
        rq.send("busy", due=4_000_000_000)
    rq.ask("busy", "prep_message", {"dest": "busy"})
    rq.disconnect()
    return shared


def lines(web: Web, path: str, *options: str) -> list[str]:
    answer = web.curl(path, *options)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")
    return answer.text.splitlines()


def test_q_txt_has_a_line_for_each_queue(site: Web) -> None:
    names = ["alpha", "broken", "busy", "down", "paused", "relay", "webhook"]
    assert lines(site, "q.txt") == [f"/q/{name}.txt" for name in names]


def test_q_json_tells_of_the_manager_and_of_each_queue(site: Web) -> None:
    answer = site.curl("q.json")
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    manager = site.rq.process
    assert manager is not None
    assert (found["status"], found["ping"], found["pid"]) == ("OPERATIONAL", "pong", manager.pid)
    assert isinstance(found["uptime"], int)
    assert found["version"]
    assert datetime.strptime(found["time"], "%Y-%m-%d %H:%M:%S %z").tzinfo is not None
    names = [queue["name"] for queue in found["queues"]]
    assert names == ["alpha", "broken", "busy", "down", "paused", "relay", "webhook"]
    queues = {queue["name"]: queue for queue in found["queues"]}
    assert {name: queue["status"] for name, queue in queues.items()} == {
        "alpha": "UP", "broken": "SCRIPTERROR", "busy": "UP", "down": "DOWN", "paused": "PAUSE",
        "relay": "UP", "webhook": "UP",
    }  # fmt: skip
    busy = queues["busy"]
    pid = (site.rq.directory / "queue" / "busy" / "queue.pid").read_text().strip()
    assert (busy["ping"], busy["pid"]) == ("pong", int(pid))
    assert busy["counts"] == {"prep": 1, "que": 2, "run": 2, "done": 13, "relayed": 0, "err": 1}


@pytest.mark.parametrize("options", [(), ("-0",), ("-0", "-I", "-o", "/dev/null")])
@pytest.mark.parametrize("path", ["q/busy.txt", "/q/busy.txt", "///q///busy.txt"])
def test_a_queue_as_nagios_asks_for_it(site: Web, path: str, options: tuple[str, ...]) -> None:
    answer = site.curl(path, *options)
    assert answer.status == 200
    if "-I" in options:
        assert answer.body == b""
        return
    uptime = re.fullmatch(r"status: UP\nuptime: \d+\n(.*)", answer.text, re.DOTALL)
    assert uptime is not None
    assert uptime[1] == "prep: 1\nque: 2\nrun: 2\ndone: 13\nrelayed: 0\nerr: 1\n"


@pytest.mark.parametrize(
    ("name", "status"), [("down", "DOWN"), ("paused", "PAUSE"), ("broken", "SCRIPTERROR")]
)
def test_a_queue_that_is_not_up(site: Web, name: str, status: str) -> None:
    found = lines(site, f"q/{name}.txt")
    assert found[0] == f"status: {status}"
    state = site.curl(f"q/{name}.json").json()
    if name == "down":
        assert found == ["status: DOWN"]
        assert state == {"status": "DOWN"}
    else:
        assert len(found) == 8
        assert (state["status"], state["que_size"]) == (status, 0)


def test_a_queue_whose_process_is_gone_says_so(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    (web.rq.directory / "queue" / "test" / "config.json").write_text("{")
    web.start()
    assert lines(web, "q/test.txt") == ["status: ERROR"]
    assert web.curl("q/test.json").json() == {"status": "ERROR"}
    (entry,) = web.curl("q.json").json()["queues"]
    assert (entry["status"], entry["ping"], entry["counts"]) == ("ERROR", "", {})


def test_a_queue_as_json_has_counts_and_messages(site: Web) -> None:
    found = site.curl("q/busy.json").json()
    assert (found["status"], isinstance(found["uptime"], int)) == ("UP", True)
    sizes = {state: found[f"{state}_size"] for state in STATES}
    assert sizes == {"prep": 1, "que": 2, "run": 2, "done": 13, "relayed": 0, "err": 1}
    messages = found["messages"]
    assert {state: len(messages[state]) for state in STATES} == sizes
    assert {frozenset(item) for item in messages["done"]} == {frozenset({"msg_id"})}
    assert set(messages["que"][0]) == {"msg_id", "due", "dest"}
    assert set(messages["run"][0]) == {"msg_id", "status", "dest"}
    assert "more" not in found


def test_a_queue_as_json_is_bounded_and_says_where_the_rest_is(site: Web) -> None:
    found = site.curl("q/busy.json?limit=5").json()
    assert (found["done_size"], len(found["messages"]["done"])) == (13, 5)
    assert set(found["more"]) == {"done"}
    rest = site.curl(found["more"]["done"].lstrip("/")).json()
    first = [item["msg_id"] for item in found["messages"]["done"]]
    assert first + rest == site.curl("q/busy/done.json?limit=50").json()


@pytest.mark.parametrize("state", STATES)
def test_ids_of_each_state(site: Web, state: str) -> None:
    counts = {"prep": 1, "que": 2, "run": 2, "done": 10, "relayed": 0, "err": 1}
    answer = site.curl(f"q/busy/{state}.json")
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json()) == counts[state]
    assert answer.json() == sorted(answer.json(), reverse=True)


@pytest.mark.parametrize(
    ("limit", "count"), [("2", 2), ("0", 0), ("100", 13), ("99999999999999", 13)]
)
def test_as_many_ids_as_are_asked_for(site: Web, limit: str, count: int) -> None:
    assert len(site.curl(f"q/busy/done.json?limit={limit}").json()) == count


def test_pages_of_ids_lead_through_all(site: Web) -> None:
    path, found = "q/busy/done.json?limit=5", []
    while path:
        answer = site.curl(path)
        found += answer.json()
        link = re.fullmatch(r'</(.*)>; rel="next"', answer.headers.get("link", ""))
        path = link[1] if link else ""
    assert found == site.curl("q/busy/done.json?limit=50").json()
    assert len(set(found)) == 13


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "%C2%B2"])
def test_a_limit_that_is_none_is_refused(site: Web, limit: str) -> None:
    answer = site.curl(f"q/busy/done.json?limit={limit}")
    assert answer.status == 400
    assert "limit must be a whole number" in answer.text


def test_the_config_raw_and_effective(site: Web) -> None:
    file = site.rq.directory / "queue" / "busy" / "config.json"
    raw = site.curl("q/busy/config.json")
    assert (raw.body, raw.headers["content-type"]) == (file.read_bytes(), "application/json")
    effective = site.curl("q/busy/config").json()
    assert effective["name"] == "busy"
    assert effective["num_workers"] == 2
    assert effective["exec_prefix"] == "bash -lc "
    assert effective["fsync"] == "fsync"
    assert (effective["schedule"], effective["coalesce_params"]) == ([], [])


def test_the_config_that_is_a_link_elsewhere(
    web: Web, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "test.json"
    elsewhere.write_text(json.dumps({"name": "test", "script": "/bin/true", "exec_prefix": ""}))
    folder = web.rq.directory / "queue" / "test"
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to(elsewhere)
    web.start()
    assert web.curl("q/test/config.json").body == elsewhere.read_bytes()
    assert web.curl("q/test/config").json()["exec_prefix"] == ""
    elsewhere.unlink()
    gone = web.curl("q/test/config.json")
    assert gone.status == 404
    assert "the config of queue test cannot be read: No such file" in gone.text


@pytest.mark.parametrize(
    "path",
    ["none.txt", "none.json", "none/config", "none/config.json", "none/done.json", "none/x.json",
     "bad%20name.txt", "..%2f..%2fconfig.json", "busy/nostate.json"],
)  # fmt: skip
def test_what_is_not_there_is_404(site: Web, path: str) -> None:
    answer = site.curl(f"q/{path}")
    assert answer.status in (404, 400) if ".." in path else answer.status == 404
    assert answer.text.strip()
    assert "Traceback" not in answer.text


def test_everything_is_below_the_root(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.rq.configure(relative_root="/some/rq")
    web.root = "/some/rq/"
    web.start()
    assert lines(web, "q.txt") == ["/some/rq/q/test.txt"]
    assert lines(web, "/q/test.txt")[0] == "status: UP"
    made = web.curl("q/test/new_message", "-d", 'mesg={"dest": "test"}').json()[1]
    assert made.startswith(f"http://localhost:{web.port}/some/rq/q/test/")
    for back, location in (("", "/some/rq/q/test"), ("/some/rq/?x", "/some/rq/?x")):
        answer = web.curl("q/test/adminoper", "-d", "up=up", "--data-urlencode", f"back={back}")
        assert answer.headers["location"] == location
        assert "Path=/some/rq/;" in answer.headers["set-cookie"]
    web.root = "/"
    assert web.curl("q/test.txt").status == 404
