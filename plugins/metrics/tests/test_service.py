"""The service: it pushes to real listeners, and one that cannot be reached harms nobody, and is said."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rqcore_metrics import pushes
from rqcore_metrics.checks import checks
from rqcore_metrics.service import Pusher

from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, ServiceContext
from rqcore.loop import Loop
from rqcore.testing import PATIENCE, free_port
from rqcore.unix import Inotify

if TYPE_CHECKING:
    from tests.conftest import Counted, Lines

pytestmark = pytest.mark.process


@pytest.fixture
def told(rq: Counted) -> Callable[[Callable[[dict[str, Any]], object]], dict[str, Any]]:
    """Waits until the service says of its pushes what is wanted; returns it."""

    def until(fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        path = Path(pushes.path(str(rq.directory)))
        inotify = Inotify()
        try:
            inotify.add(str(path.parent), Inotify.MOVED_TO)
            while True:
                found = pushes.read(str(rq.directory))
                if fits(found):
                    return found
                ready, _, _ = select.select([inotify.fd], [], [], PATIENCE)
                assert ready, f"{found}\n{rq.log_text()}"
                inotify.read()
        finally:
            inotify.close()

    return until


Until = Callable[[Callable[[dict[str, Any]], object]], dict[str, Any]]


def configured(rq: Counted, **options: object) -> None:
    rq.configure(plugins={"metrics": options})


def test_all_three_get_what_was_counted(
    rq: Counted, graphite: Lines, udp: socket.socket, told: Until
) -> None:
    prom = rq.directory / "rqcore.prom"
    configured(
        rq, graphite={"host": "127.0.0.1", "port": graphite.port, "interval": 1},
        statsd={"host": "127.0.0.1", "port": udp.getsockname()[1], "interval": 1, "tags": True},
        textfile={"path": str(prom), "interval": 1},
    )  # fmt: skip
    rq.start()
    base = "rqcore.mq1_example_com."
    graphite.until(lambda lines: any(f"{base}up 1 " in line for line in lines))
    while b"rqcore.up:1|g|#host:mq1.example.com" not in udp.recv(65536):
        pass
    for msg_id in [rq.send("test") for _ in range(3)]:
        rq.until("test", msg_id)
    finished = f"{base}messages_finished_total.test.done 3 "
    graphite.until(lambda lines: any(line.startswith(finished) for line in lines))
    ended = 0
    while ended < 3:
        for line in udp.recv(65536).decode().splitlines():
            name, _, rest = line.partition(":")
            if name == "rqcore.messages_finished_total" and "outcome:done" in rest:
                ended += int(rest.partition("|")[0])
    assert ended == 3
    before = told(lambda found: "textfile" in found)["textfile"]["at"]
    known = told(lambda found: found["textfile"]["at"] > before + 1)
    assert 'rqcore_messages_finished_total{outcome="done",queue="test"} 3.0' in prom.read_text()
    assert set(known) == {"graphite", "statsd", "textfile"}
    assert not any(one["error"] for one in known.values())
    assert graphite.connections == 1
    assert [check.level for check in checks(str(rq.directory))] == ["ok"] * 3
    shown = rq.rq("status").stdout
    assert "metrics" in shown
    rq.stop()
    assert not prom.exists()
    assert checks(str(rq.directory)) == []


def test_one_that_cannot_be_reached_harms_nobody_is_said_once_and_comes_back(
    rq: Counted, told: Until, listen: Callable[[int], Lines]
) -> None:
    port = free_port()
    prom = rq.directory / "rqcore.prom"
    configured(
        rq, graphite={"host": "127.0.0.1", "port": port, "interval": 1},
        textfile={"path": str(prom), "interval": 1},
    )  # fmt: skip
    rq.start()
    told(lambda found: found.get("graphite", {}).get("error"))
    told(lambda found: found["textfile"]["ok"])
    msg_id = rq.send("test")
    assert rq.until("test", msg_id)["state"] == "done"
    found = told(lambda found: found["graphite"]["waiting"] > 0 and found["graphite"]["since"])
    assert found["graphite"]["ok"] is None
    (bad, good) = checks(str(rq.directory))
    assert (bad.level, good.level) == ("warning", "ok")
    told_of = f"graphite at 127.0.0.1:{port} has got nothing: Connection refused"
    assert bad.text == told_of
    assert "plugins.metrics.graphite" in bad.remedy
    assert rq.value("rqcore_metrics_push_up", push="graphite") == 0
    assert rq.value("rqcore_metrics_push_up", push="textfile") == 1
    page, _ = rq.get("", Accept="text/html")
    assert "Metrics that do not arrive" in page
    assert f"graphite at 127.0.0.1:{port}" in page
    lines = listen(port)
    told(lambda found: found["graphite"]["ok"])
    times = [line.split()[2] for line in lines.until(bool) if ".up 1 " in line]
    assert len(times) >= 1
    assert rq.log_text().count(f"graphite to 127.0.0.1:{port} does not work") == 1
    assert rq.log_text().count(f"graphite to 127.0.0.1:{port} works again") == 1
    assert [check.level for check in checks(str(rq.directory))] == ["ok", "ok"]
    assert "Metrics that do not arrive" not in rq.get("", Accept="text/html")[0]


def test_options_that_are_written_count_at_once(rq: Counted, told: Until, graphite: Lines) -> None:
    prom = rq.directory / "rqcore.prom"
    configured(rq, textfile={"path": str(prom), "interval": 3600})
    rq.start()
    told(lambda found: found["textfile"]["ok"])
    configured(rq, graphite={"host": "127.0.0.1", "port": graphite.port, "interval": 3600})
    found = told(lambda found: found.get("graphite", {}).get("ok"))
    assert set(found) == {"graphite"}
    assert not prom.exists()
    assert "pushed by new options" in rq.log_text()


def test_options_that_are_wrong_leave_the_old_ones_in_force(
    rq: Counted, rq_hooks: Callable[..., Hooks], caplog: pytest.LogCaptureFixture
) -> None:
    prom = rq.directory / "rqcore.prom"
    configured(rq, textfile={"path": str(prom), "interval": 3600})
    info = InstanceInfo(str(rq.directory), "http://mq1:3333/", {})
    loop = Loop()
    pusher = Pusher(loop, ServiceContext(info, -1, lambda: None, rq_hooks()))
    pusher.reread()
    configured(rq, textfile={"path": "relative", "interval": 3600})
    pusher.reread()
    assert "pushed as before" in caplog.text
    assert "absolute path" in caplog.text
    assert pushes.read(str(rq.directory))["textfile"]["to"] == str(prom)
    configured(rq)
    pusher.reread()
    assert pushes.read(str(rq.directory)) == {}
    pusher.close()
    loop.close()


def test_without_options_there_is_no_service(counted: Counted) -> None:
    children = counted.manager.ask("describe")["children"]
    assert sorted(one["name"] for one in children if one["kind"] == "service") == ["web"]
    assert checks(str(counted.directory)) == []


def test_a_push_that_waits_for_a_restart_is_said(counted: Counted) -> None:
    config = counted.directory / "config" / "config.json"
    before = config.read_text()
    config.write_text(json.dumps({
        **json.loads(before), "plugins": {"metrics": {"graphite": {"host": "g"}}},
    }))  # fmt: skip
    (check,) = checks(str(counted.directory))
    config.write_text(before)
    assert check.level == "warning"
    assert "rq restart" in check.remedy


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"graphite": 7}', b'{"graphite": {"to": "x"}}', b"\xff"]
)
def test_a_file_of_pushes_that_makes_no_sense_says_nothing(tmp_path: Path, content: bytes) -> None:
    path = Path(pushes.path(str(tmp_path)))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert pushes.read(str(tmp_path)) == {}
