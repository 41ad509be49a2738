"""How long the site takes to answer: few routes, each that there is, and times as they are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rqcore_web.plugin
from rqcore_web.app import make_app
from rqcore_web.durations import Durations, route_of
from rqcore_web.serve import make_site
from starlette.routing import BaseRoute, Mount, Route

from rqcore.hooks import Hooks
from rqcore.hookspecs import InstanceInfo, ServiceContext
from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Web

ID = "20260301.0800.00.000.1"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/q.txt", "/q.txt"),
        ("/q/test", "/q/{queue}"),
        ("/q/test.json", "/q/{queue}"),
        ("/q/test/config", "/q/{queue}/config"),
        ("/q/config/done.json", "/q/{queue}/done.json"),
        (f"/q/test/{ID}", "/q/{queue}/{id}"),
        (f"/q/test/{ID}.json", "/q/{queue}/{id}"),
        (f"/q/test/{ID}/attach/a b", "/q/{queue}/{id}/attach"),
        ("/-/relay/", "/-/{plugin}"),
        ("/-/static/v/x.css", "/-/static"),
        ("/api/v1", "/api/v1"),
        ("/api/v1/queues/messages", "/api/v1/queues/{queue}"),
        (
            f"/api/v1/queues/logs/messages/{ID}/logs/events/events",
            "/api/v1/queues/{queue}/messages/{id}/logs/{file}/events",
        ),
        ("/api/v2/queues", "/api"),
        ("/api/v1/secret/../x", "/api"),
        ("/wp-login.php", "other"),
        ("", "other"),
        ("nonsense", "other"),
        ("/q", "/q"),
    ],
)
def test_routes(path: str, route: str) -> None:
    assert route_of(path) == route


def paths(routes: list[BaseRoute], above: str = "") -> Iterator[str]:
    for route in routes:
        if isinstance(route, Mount):
            yield from paths(list(route.routes), above + route.path)
        else:
            assert isinstance(route, Route)
            yield above + route.path


def test_every_route_of_the_site_has_a_name(tmp_path: Path, rq_hooks: Callable[..., Hooks]) -> None:
    rq = RunningInstance(tmp_path / "rq")
    info = InstanceInfo(str(rq.directory), "http://localhost:3333/", {})
    hooks = rq_hooks(web=rqcore_web.plugin)
    app = make_app(make_site(ServiceContext(info, -1, lambda: None, hooks)))
    found = {}
    for path in paths(list(app.routes)):
        found[path] = route_of(re.sub(r"\{\w+(:\w+)?\}", "x", path))
        assert found[path] != "other", path
        if path.startswith("/api/v1"):
            assert re.sub(r"\{\w+\}", "X", found[path]) == re.sub(r"\{\w+\}", "X", path)
    assert len(set(found.values())) < 90


def test_few_series_whatever_is_asked_for() -> None:
    durations = Durations()
    for number in range(1000):
        durations.note(f"/{number}.php", f"X{number}", 404, 0.1)
        durations.note(f"/q/{number}/{number}/{number}", "GET", 404, 0.1)
        durations.note(f"/api/v1/queues/{number}/{number}", "GET", 404, 0.1)
    (family,) = durations.families()
    assert len(family.samples) == 3


def test_values() -> None:
    durations = Durations()
    assert durations.families() == []
    for seconds in (0.001, 0.002, 99):
        durations.note("/q/test", "GET", 200, seconds)
    ((labels, value),) = durations.families()[0].samples
    assert labels == {"route": "/q/{queue}", "method": "GET", "code": "200"}
    assert value.total == pytest.approx(99.003)
    assert value.buckets[:2] == [(0.001, 1), (0.005, 2)]
    assert value.buckets[-2:] == [(10, 2), (math.inf, 3)]


@pytest.fixture(scope="module")
def site(shared: Web) -> Web:
    shared.rq.use_plugins("cli", "web", "metrics")
    return shared.start()


def test_what_the_site_answers_is_counted(site: Web) -> None:
    for path in ("q.txt", "/q.txt", "nobody"):
        site.curl(path)
    text = site.curl("metrics").text
    name = "rqcore_http_request_duration_seconds_count"
    assert f'{name}{{code="200",method="GET",route="/q.txt"}} 2.0' in text
    assert f'{name}{{code="404",method="GET",route="other"}} 1.0' in text
