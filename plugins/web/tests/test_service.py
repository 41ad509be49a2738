"""The service: it is started, lost and found again with its manager, and harms nobody."""

from __future__ import annotations

import os
import signal
import socket
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic, sleep, time
from typing import TYPE_CHECKING

from rqcore.testing import PATIENCE

if TYPE_CHECKING:
    from tests.conftest import Web


def service(web: Web) -> dict[str, object]:
    children = web.rq.manager.ask("describe")["children"]
    found: dict[str, object] = next(c for c in children if c["kind"] == "service")
    return found


def test_it_serves_and_leaves_with_its_manager(web: Web) -> None:
    web.start()
    assert web.curl("nothing/here").status == 404
    assert service(web)["state"] == "running"
    web.rq.stop()


def test_it_is_started_again_when_it_is_killed_and_no_queue_minds(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=30)
        os.kill(web.pid(), signal.SIGKILL)
        states = []
        while "running" not in states:
            event = next(events)
            assert (event["kind"], event["name"]) == ("service", "web")
            states.append(event["state"])
    assert web.curl("nothing/here").status == 404
    web.rq.until("test", web.rq.send("test"), "done")
    assert service(web)["restarts"] == 1


def test_a_port_that_is_taken_is_told_and_tried_again(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    with socket.create_server(("127.0.0.1", web.port)):
        web.start()
        assert service(web)["state"] == "waiting"
        assert f"port {web.port}: Address already in use" in str(service(web)["problem"])
        web.rq.until("test", web.rq.send("test"), "done")
        with web.rq.manager as manager:
            events = manager.subscribe({}, timeout=30)
    with web.rq.manager as manager:
        events = manager.subscribe({}, timeout=30)
        while service(web)["state"] != "running":
            next(events)
    assert web.curl("nothing/here").status == 404


def test_options_that_are_wrong_are_told_and_only_the_site_is_missing(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.rq.configure(plugins={"web": {"authentification": "none"}})
    web.start()
    assert not [c for c in web.rq.manager.ask("describe")["children"] if c["kind"] == "service"]
    assert 'authentification" is no option of the web plugin; did you mean "authentication"?' in (
        web.rq.log_text()
    )
    web.rq.until("test", web.rq.send("test"), "done")


def slept(pid: int) -> int:
    """How often the process has gone to sleep by itself."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])


def test_it_sleeps_while_nobody_asks_and_nothing_happens(web: Web) -> None:
    web.rq.queue("test", web.HELLO)
    web.start()
    web.rq.until("test", web.rq.send("test"), "done")
    assert "date" in web.curl("q/test").headers
    pid = web.pid()
    began, before, quiet = monotonic(), slept(pid), 0.0
    # What the message was is still written some seconds later; then there is nothing more to do.
    while quiet < 3 and monotonic() - began < PATIENCE:
        sleep(0.5)
        now = slept(pid)
        quiet = quiet + 0.5 if now == before else 0.0
        before = now
    assert quiet >= 3, "it goes on waking up"


def test_every_answer_has_the_time_it_was_made(web: Web) -> None:
    web.start()
    dates: set[float] = set()
    while len(dates) < 2:  # a second passes
        made = parsedate_to_datetime(web.curl("livez").headers["date"]).timestamp()
        assert abs(made - time()) < 10
        dates.add(made)
