"""The options: what is right is taken, and all that is wrong is told at once."""

from __future__ import annotations

from typing import Any

import pytest
from rqcore_metrics.options import Graphite, Options, StatsD, Textfile, parse_options

from rqcore.schema import ConfigError


def test_without_options_nothing_is_pushed() -> None:
    assert parse_options({}, "config.json") == Options()
    assert not Options().pushes


def test_all_options() -> None:
    given = {
        "graphite": {"host": "g", "port": "2004", "interval": 30, "prefix": "a.{host}", "tags": True},
        "statsd": {"host": "127.0.0.1", "port": 9125, "interval": "5", "prefix": "b", "tags": "yes"},
        "textfile": {"path": "/var/lib/x/rqcore.prom", "interval": 15},
        "plugin_hooks": False,
    }  # fmt: skip
    options = parse_options(given, "config.json")
    assert options == Options(
        Graphite("g", 2004, 30, "a.{host}", tags=True),
        StatsD("127.0.0.1", 9125, 5, "b", tags=True),
        Textfile("/var/lib/x/rqcore.prom", 15),
        plugin_hooks=False,
    )
    assert options.pushes


def test_defaults() -> None:
    options = parse_options(
        {"graphite": {"host": "g"}, "statsd": {"host": "s"}, "textfile": {"path": "/x.prom"}}, "c"
    )
    assert options == Options(Graphite("g"), StatsD("s"), Textfile("/x.prom"))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"grafite": {}}, 'did you mean "graphite"'),
    ({"graphite": {}}, 'plugins.metrics.graphite.host" is missing'),
    ({"graphite": "g"}, "must be an object"),
    ({"graphite": {"host": "g", "prot": 1}}, 'did you mean "port"'),
    ({"graphite": {"host": "tcp://g"}}, "no host name"),
    ({"graphite": {"host": "g", "port": 0}}, "from 1 to 65535"),
    ({"graphite": {"host": "g", "interval": 0.2}}, "shorter than a second"),
    ({"graphite": {"host": "g", "prefix": "a..b"}}, "letters, digits"),
    ({"statsd": {"port": 8125}}, 'plugins.metrics.statsd.host" is missing'),
    ({"textfile": {}}, 'plugins.metrics.textfile.path" is missing'),
    ({"textfile": {"path": "rqcore.prom"}}, "absolute path"),
    ({"textfile": {"path": "/x/rqcore.txt"}}, "ends in .prom"),
    ({"plugin_hooks": []}, "must be true or false"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_what_is_wrong_is_told_with_its_place(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=r"plugins\.metrics") as caught:
        parse_options(given, "config.json")
    assert told in str(caught.value)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(
            {"graphite": {"port": 0}, "statsd": {}, "textfile": {"path": "x"}, "y": 1}, "c"
        )
    assert len(caught.value.problems) == 5
