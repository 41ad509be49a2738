"""Which rule counts, what options say, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rqcore_cleaner import plugin
from rqcore_cleaner.options import Amount, DiskOptions, Options, parse_options, read_options
from rqcore_cleaner.rules import CLEANED, DAY, Rule, rule_for

from rqcore.errors import RqError
from rqcore.hookspecs import InstanceInfo
from rqcore.lifecycle import State

FILE = "/rq/config/config.json"


def options(**given: Any) -> Options:
    return parse_options(given, FILE)


def test_what_counts_where_nobody_says_anything() -> None:
    found = {state: rule_for({}, "test", state) for state in CLEANED}
    two_days = Rule(age=2 * DAY)
    assert found == {
        State.DONE: two_days, State.RELAYED: two_days, State.PREP: two_days, State.ERR: Rule(),
    }  # fmt: skip
    assert rule_for({}, "relay", State.RELAYED) == Rule(age=2 * DAY, number=60_000)
    assert rule_for({}, "relay", State.DONE) == two_days


RULES = options(retention={
    "*": {"done": {"age": "5d"}, "err": {"age": "4w"}},
    "images": {"done": {"age": "1w", "number": 10}, "prep": "keep"},
    "relay": {"relayed": {"bytes": "1GB"}},
}).retention  # fmt: skip


@pytest.mark.parametrize(
    ("queue", "state", "days", "named", "rule"),
    [
        ("other", State.DONE, None, False, Rule(age=5 * DAY)),
        ("other", State.ERR, None, False, Rule(age=28 * DAY)),
        ("other", State.PREP, None, False, Rule(age=2 * DAY)),
        ("other", State.DONE, 1.0, False, Rule(age=DAY)),
        ("other", State.PREP, 1.0, False, Rule(age=DAY)),
        ("images", State.DONE, None, False, Rule(age=7 * DAY, number=10)),
        ("images", State.DONE, 1.0, False, Rule(age=7 * DAY, number=10)),
        ("images", State.DONE, 1.0, True, Rule(age=DAY, number=10)),
        ("images", State.PREP, 1.0, False, Rule()),
        ("images", State.RELAYED, 0.5, False, Rule(age=DAY / 2)),
        ("images", State.ERR, 1.0, True, Rule(age=28 * DAY)),
        ("relay", State.RELAYED, None, False, Rule(size=1_000_000_000)),
    ],
)
def test_the_more_particular_rule_wins(
    queue: str, state: State, days: float | None, named: bool, rule: Rule
) -> None:
    assert rule_for(RULES, queue, state, days, named=named) == rule


def test_a_rule_says_in_words_what_it_keeps() -> None:
    assert (
        str(Rule(2 * DAY, 60_000, 20_000_000_000, 12.5))
        == "48 h, at most 60,000, at most 20 GB, 12.5 %"
    )
    assert str(Rule()) == "all"
    assert Rule().keeps_all
    assert not Rule(number=0).keeps_all


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(RqError) as caught:
        options(
            schedul="x", schedule="every day", deleted_queues="soon", logs={"keep": 0, "size": "big"},
            retention={
                "a/b": {}, "q": {"que": {"age": "1d"}, "done": {"days": 2}, "err": 5, "prep": {}},
            },
            disk={"warning": "1GB", "refuse": "2GB", "warning_inodes": "101%", "reserved": [1]},
        )  # fmt: skip
    lines = str(caught.value).splitlines()
    for place, reason in (
        ("plugins.cleaner.schedul", 'did you mean "schedule"?'),
        ("plugins.cleaner.schedule", "is no time"),
        ("plugins.cleaner.deleted_queues", "write it as 90s, 12h, 2d or 4w"),
        ("plugins.cleaner.logs.keep", "from 1 to 1000"),
        ("plugins.cleaner.logs.size", "'big' is no size"),
        ("plugins.cleaner.retention.a/b", "invalid characters"),
        ("plugins.cleaner.retention.q.que", "known are done, relayed, prep, err"),
        ("plugins.cleaner.retention.q.done.days", "known are age, number, bytes"),
        ("plugins.cleaner.retention.q.err", 'or "keep" for all'),
        ("plugins.cleaner.retention.q.prep", "must say what is kept"),
        ("plugins.cleaner.disk.warning", "is below refuse"),
        ("plugins.cleaner.disk.warning_inodes", "is no part of a disk"),
        ("plugins.cleaner.disk.reserved[0]", "must be text"),
    ):
        assert any(f'{FILE}: "{place}" ' in line and reason in line for line in lines), (
            place,
            lines,
        )
    assert len(lines) == 13


def test_levels_are_parts_of_a_disk_or_sizes() -> None:
    disk = options(disk={"warning": "10%", "refuse": "2 GB", "refuse_inodes": 7}).disk
    assert (disk.warning.of(1000), disk.refuse.of(1000), disk.refuse_inodes.of(9)) == (
        100, 2_000_000_000, 7,
    )  # fmt: skip
    default = DiskOptions()
    assert default.refuse == Amount(500_000_000, 5)
    assert default.refuse.of(1_000_000) == 50_000
    assert default.refuse.of(10**13) == 500_000_000


def test_the_script_reads_the_same_options_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    file = tmp_path / "config" / "config.json"
    file.write_text(json.dumps({"plugins": {"cleaner": {"deleted_queues": "1w"}}}))
    assert read_options(str(tmp_path)) == options(deleted_queues="1w")
    file.write_text(json.dumps({"plugins": {"cleaner": []}}))
    with pytest.raises(RqError, match="must be an object"):
        read_options(str(tmp_path))
    file.write_text("{}")
    assert read_options(str(tmp_path)) == Options()


def test_the_queue_that_the_plugin_brings_cleans_all_each_night() -> None:
    info = InstanceInfo("/rq", "http://a:1/", {})
    plugin.rq_configure({"schedule": "5 3 * * *"}, info)
    [queue] = plugin.rq_register_queues(info)
    assert queue["name"] == "cleaner"
    assert queue["schedule"] == [{"cron": "5 3 * * *", "param1": "ALLQUEUES"}]
    assert queue["script"].endswith("/rq-cleaner")
    plugin.rq_configure({}, info)
    with pytest.raises(RqError, match="is no option of the cleaner plugin"):
        plugin.rq_configure({"x": 1}, info)
    [queue] = plugin.rq_register_queues(info)
    assert queue["schedule"] == [{"cron": "17 4 * * *", "param1": "ALLQUEUES"}]
