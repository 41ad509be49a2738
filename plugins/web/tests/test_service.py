"""The service: it is started, lost and found again with its manager, and harms nobody."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

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
    assert "authentification" in web.rq.log_text()
    web.rq.until("test", web.rq.send("test"), "done")
